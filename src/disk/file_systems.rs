//! Clones on real file systems: those that share blocks, one that is full, one that is read-only.
//! They are made in files and mounted, which needs root and loop devices; else the tests say that
//! they are skipped.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Method, Quiet, blank, bytes_needed, clone, free_space};
use crate::error::Result;
use crate::host::{Cancel, Program, find_program};
use crate::spec::Size;

const MIB: u64 = 1 << 20;

struct Mounted {
    // Unmounted before the folder goes.
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mounted {
    /// `None`, and a line that says why, where it cannot be made.
    fn made_by(mkfs: &str, args: &[&str]) -> Option<Self> {
        let Some(mkfs) = find_program(mkfs) else {
            eprintln!("skipped: {mkfs} is not installed");
            return None;
        };
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("skipped: needs root and loop devices");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("fs.img");
        File::create(&image).unwrap().set_len(512 * MIB).unwrap();
        Program::new(mkfs).args(args).arg(&image).deadline(Duration::from_secs(60)).run().unwrap();
        let path = dir.path().join("mnt");
        fs::create_dir(&path).unwrap();
        Self::mount(Program::new("mount").args(["-o", "loop"]).arg(&image).arg(&path), dir, path)
    }

    fn tmpfs(options: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mnt");
        fs::create_dir(&path).unwrap();
        Self::mount(Program::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path), dir, path)
    }

    fn mount(program: Program, dir: tempfile::TempDir, path: PathBuf) -> Option<Self> {
        match program.deadline(Duration::from_secs(30)).run() {
            Ok(_) => Some(Self { path, _dir: dir }),
            Err(error) => {
                eprintln!("skipped: cannot mount: {error}");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Program::new("umount").arg(&self.path).deadline(Duration::from_secs(30)).run();
        if let Err(error) = unmounted {
            eprintln!("cannot unmount {}: {error}", self.path.display());
        }
    }
}

fn image(dir: &Path) -> PathBuf {
    let path = dir.join("image.raw");
    let file = File::create(&path).unwrap();
    file.set_len(200 * MIB).unwrap();
    for start in [0, 70 * MIB, 150 * MIB] {
        // Not zeros and not compressible to nothing.
        let bytes: Vec<u8> = (0..20 * MIB).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        file.write_all_at(&bytes, start).unwrap();
    }
    file.sync_all().unwrap();
    path
}

fn clone_to(source: &Path, target: &Path) -> Result<super::Cloned> {
    clone(source, target, Some(Size::mib(300)), &Cancel::default(), &Quiet)
}

fn shares_blocks(mounted: &Mounted) {
    let source = image(&mounted.path);
    assert_eq!(bytes_needed(&source, &mounted.path).unwrap(), 0);
    rustix::fs::syncfs(File::open(&mounted.path).unwrap()).unwrap();
    let free = free_space(&mounted.path).unwrap();
    let started = Instant::now();
    let cloned = clone_to(&source, &mounted.path.join("os.raw")).unwrap();
    eprintln!("a clone of 60 MiB data took {:?}", started.elapsed());
    assert_eq!((cloned.method, cloned.bytes, cloned.size), (Method::Reflink, 0, 300 * MIB));
    rustix::fs::syncfs(File::open(&mounted.path).unwrap()).unwrap();
    let taken = free.saturating_sub(free_space(&mounted.path).unwrap());
    assert!(taken < 4 * MIB, "60 MiB of data are shared, yet {taken} bytes were taken");
    let content = fs::read(mounted.path.join("os.raw")).unwrap();
    assert!(content[..200 * MIB as usize] == fs::read(&source).unwrap());
    // What is written to the clone is not seen in the source.
    File::options().write(true).open(mounted.path.join("os.raw")).unwrap().write_all_at(b"own", 0).unwrap();
    assert!(fs::read(&source).unwrap()[..3] != *b"own");
}

#[test]
fn xfs_shares_blocks() {
    if let Some(mounted) = Mounted::made_by("mkfs.xfs", &["-q", "-m", "reflink=1"]) {
        shares_blocks(&mounted);
    }
}

#[test]
fn btrfs_shares_blocks() {
    if let Some(mounted) = Mounted::made_by("mkfs.btrfs", &["-q"]) {
        shares_blocks(&mounted);
    }
}

#[test]
fn between_file_systems_the_data_is_copied() {
    let Some(mounted) = Mounted::made_by("mkfs.xfs", &["-q", "-m", "reflink=1"]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let source = image(dir.path());
    assert_eq!(bytes_needed(&source, &mounted.path).unwrap(), 60 * MIB);
    let cloned = clone_to(&source, &mounted.path.join("os.raw")).unwrap();
    assert_eq!((cloned.method, cloned.bytes), (Method::Copy, 60 * MIB));
    let blocks = mounted.path.join("os.raw").metadata().unwrap().blocks();
    assert!(blocks * 512 < 64 * MIB, "{blocks} blocks");
    assert!(fs::read(mounted.path.join("os.raw")).unwrap()[..200 * MIB as usize] == fs::read(&source).unwrap());
}

#[test]
fn a_full_file_system_is_left_as_it_was() {
    let Some(mounted) = Mounted::tmpfs("size=1m") else { return };
    let dir = tempfile::tempdir().unwrap();
    let source = image(dir.path());
    assert!(bytes_needed(&source, &mounted.path).unwrap() > free_space(&mounted.path).unwrap());
    let error = clone_to(&source, &mounted.path.join("os.raw")).unwrap_err();
    assert!(error.chain().last().unwrap().contains("No space left"), "{:?}", error.chain());
    assert!(error.hint_text().unwrap().contains("room"), "{:?}", error.hint_text());
    assert_eq!(fs::read_dir(&mounted.path).unwrap().count(), 0);
    assert_eq!(free_space(&mounted.path).unwrap(), MIB);
}

#[test]
fn a_read_only_source_is_enough_and_a_read_only_target_is_refused() {
    let Some(mounted) = Mounted::tmpfs("size=300m") else { return };
    let source = image(&mounted.path);
    Program::new("mount").args(["-o", "remount,ro"]).arg(&mounted.path).run().unwrap();
    let dir = tempfile::tempdir().unwrap();
    clone_to(&source, &dir.path().join("os.raw")).unwrap();
    assert!(fs::read(dir.path().join("os.raw")).unwrap()[..200 * MIB as usize] == fs::read(&source).unwrap());
    assert!(clone_to(&source, &mounted.path.join("os.raw")).is_err());
    assert!(blank(&mounted.path.join("data.raw"), Size::mib(1)).is_err());
    assert!(bytes_needed(&source, &mounted.path).is_err());
}
