//! Real images of every format, made by `qemu-img`, converted back, and damaged in many ways.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Format, RawImage, inspect, raw_image};
use crate::error::Result;
use crate::host::{Cancel, Program, Progress, Quiet, find_program};

const MIB: usize = 1 << 20;
const FORMATS: [(&str, Format, &[&str]); 8] = [
    ("qcow2", Format::Qcow2, &[]),
    ("qcow2", Format::Qcow2, &["-o", "compat=0.10"]),
    ("qcow2", Format::Qcow2, &["-o", "extended_l2=on"]),
    ("qcow2", Format::Qcow2, &["-c"]),
    ("vmdk", Format::Vmdk, &[]),
    ("vmdk", Format::Vmdk, &["-o", "subformat=streamOptimized"]),
    ("vdi", Format::Vdi, &[]),
    ("vhdx", Format::Vhdx, &[]),
];

/// A folder with the raw disk that all images are made of, or a line that says what is missing.
fn folder() -> Option<tempfile::TempDir> {
    if find_program("qemu-img").is_none() {
        eprintln!("skipped: qemu-img is not installed");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("disk.raw")).unwrap();
    file.set_len(20 * MIB as u64).unwrap();
    let mut state = 7_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(2 * MIB)
    .collect();
    for start in [0, 3 * MIB + 512, 18 * MIB] {
        file.write_all_at(&noise, start as u64).unwrap();
    }
    Some(dir)
}

fn made(dir: &Path, format: &str, options: &[&str]) -> PathBuf {
    let path = dir.join(format!("image.{format}"));
    let convert = Program::new("qemu-img").args(["convert", "-f", "raw", "-O", format]).args(options);
    convert.arg(dir.join("disk.raw")).arg(&path).deadline(Duration::from_secs(60)).run().unwrap();
    path
}

fn raw(image: &Path) -> Result<RawImage> {
    raw_image(image, &image.with_file_name("cache"), &Cancel::default(), &Quiet)
}

/// What a failed conversion may leave: the lock, which is empty, and the memo.
fn assert_nothing_made(image: &Path, what: &str) {
    let Ok(cache) = fs::read_dir(image.with_file_name("cache")) else { return };
    for entry in cache {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.ends_with(".lock") || name == "index.json", "{what} left {name}");
    }
}

#[derive(Default)]
struct Told(RefCell<Vec<u64>>);

impl Progress for Told {
    fn start(&self, bytes: u64) {
        self.0.borrow_mut().push(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.0.borrow_mut().push(bytes);
    }
}

#[test]
fn every_format_is_converted_once_and_equal() {
    let Some(dir) = folder() else { return };
    let disk = fs::read(dir.path().join("disk.raw")).unwrap();
    for (name, format, options) in FORMATS {
        let image = made(dir.path(), name, options);
        fs::set_permissions(&image, fs::Permissions::from_mode(0o444)).unwrap();
        let (before, content) = (image.metadata().unwrap(), fs::read(&image).unwrap());
        let info = inspect(&image).unwrap();
        assert_eq!((info.format, info.virtual_size, info.backing), (format, disk.len() as u64, None), "{name}");

        let told = Told::default();
        let cache = dir.path().join("cache");
        let first = raw_image(&image, &cache, &Cancel::default(), &told).unwrap();
        assert!(first.converted, "{name} {options:?}");
        assert_eq!(first.virtual_size, disk.len() as u64);
        assert!(fs::read(&first.path).unwrap() == disk, "{name} {options:?}");
        let made = first.path.metadata().unwrap();
        assert_eq!(made.mode() & 0o7777, 0o444, "{name}");
        assert!(made.blocks() * 512 < 8 * MIB as u64, "{name}: holes are holes, {} blocks", made.blocks());
        let told = told.0.take();
        assert_eq!(told[0], 2 * content.len() as u64, "{name}");
        assert_eq!(told[1..].iter().sum::<u64>(), told[0], "{name}");

        let again = raw(&image).unwrap();
        assert_eq!(again, RawImage { converted: false, ..first.clone() }, "{name}");
        let kept = first.path.metadata().unwrap();
        assert_eq!((kept.ino(), kept.ctime_nsec()), (made.ino(), made.ctime_nsec()), "{name} was made again");

        let after = image.metadata().unwrap();
        assert_eq!((before.mtime_nsec(), before.ctime_nsec()), (after.mtime_nsec(), after.ctime_nsec()), "{name}");
        assert!(fs::read(&image).unwrap() == content, "{name}: the source was written to");
        fs::remove_file(&image).unwrap();
    }
    let names: Vec<_> = fs::read_dir(dir.path().join("cache")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("partial")), "{names:?}");
}

#[test]
fn a_raw_image_is_itself_and_needs_no_program() {
    let Some(dir) = folder() else { return };
    let disk = dir.path().join("disk.raw");
    let itself = RawImage { path: disk.clone(), converted: false, virtual_size: 20 * MIB as u64 };
    assert_eq!(raw(&disk).unwrap(), itself);
    assert!(!dir.path().join("cache").exists());
}

#[test]
fn a_copy_elsewhere_is_the_same_content_and_a_cut_cache_file_is_made_again() {
    let Some(dir) = folder() else { return };
    let image = made(dir.path(), "qcow2", &[]);
    // A name that qemu-img would take for something else.
    let copy = dir.path().join("nbd:unix:json:{x},file=y,#.img");
    fs::copy(&image, &copy).unwrap();
    let first = raw(&image).unwrap();
    assert_eq!(raw(&copy).unwrap(), RawImage { converted: false, ..first.clone() });

    fs::remove_file(&first.path).unwrap();
    fs::write(&first.path, "cut").unwrap();
    assert_eq!(raw(&copy).unwrap(), first);
    assert!(fs::read(&first.path).unwrap() == fs::read(dir.path().join("disk.raw")).unwrap());
}

#[test]
fn what_was_cut_off_is_refused() {
    let Some(dir) = folder() else { return };
    let disk = fs::read(dir.path().join("disk.raw")).unwrap();
    for (name, _, options) in FORMATS {
        let image = made(dir.path(), name, options);
        let whole = image.metadata().unwrap().len();
        for left in [whole - 70_000, whole * 3 / 4, whole / 2, 70_000, 1_000, 100, 5] {
            File::options().write(true).open(&image).unwrap().set_len(left).unwrap();
            // Too short to be known at all, vdi is a raw disk: its magic is at 64.
            if left <= 64 && matches!(name, "vdi" | "vhdx") {
                continue;
            }
            let what = format!("{name} {options:?} of {whole} cut to {left}");
            match raw(&image) {
                Err(error) => assert!(error.hint_text().is_some(), "{what}: {:?}", error.chain()),
                // The last block of a vhdx reaches beyond the disk's end; that much nobody misses.
                Ok(made) => {
                    assert!(name == "vhdx" && left == whole - 70_000, "{what}");
                    assert!(fs::read(&made.path).unwrap() == disk, "{what}");
                    fs::remove_file(&made.path).unwrap();
                }
            }
            assert_nothing_made(&image, &what);
        }
    }
}

#[test]
fn a_header_that_lies_is_refused() {
    let Some(dir) = folder() else { return };
    let be = |value: u64| value.to_be_bytes().to_vec();
    let le = |value: u64| value.to_le_bytes().to_vec();
    let rows: [(&str, u64, Vec<u8>, &str); 17] = [
        ("qcow2", 4, 1_u32.to_be_bytes().to_vec(), "version 1"),
        ("qcow2", 4, 9_u32.to_be_bytes().to_vec(), "version 9"),
        ("qcow2", 20, 40_u32.to_be_bytes().to_vec(), "2^40"),
        ("qcow2", 24, be(1 << 60), "TiB"),
        ("qcow2", 24, be(1 << 40), "too small for its size"),
        ("qcow2", 24, be(0), "no bytes"),
        ("qcow2", 32, 1_u32.to_be_bytes().to_vec(), "encrypted"),
        ("qcow2", 40, be(1 << 40), "first table lies outside"),
        ("qcow2", 40, be(u64::MAX - 65_535), "first table lies outside"),
        ("qcow2", 48, be(1 << 50), "reference counts"),
        ("qcow2", 72, be(1 << 1), "corrupt"),
        ("qcow2", 72, be(1 << 2), "another file"),
        ("qcow2", 72, be(1 << 9), "not known"),
        ("qcow2", 100, u32::MAX.to_be_bytes().to_vec(), "header has"),
        ("vmdk", 12, le(0), "no bytes"),
        ("vmdk", 28, le(1 << 40), "descriptor lies outside"),
        ("vdi", 0x170, le(1 << 60), "TiB"),
    ];
    for (format, offset, bytes, words) in rows {
        let image = made(dir.path(), format, &[]);
        File::options().write(true).open(&image).unwrap().write_all_at(&bytes, offset).unwrap();
        let error = raw(&image).unwrap_err();
        assert!(error.message().contains(words), "{format} {offset}: {:?}", error.chain());
        assert_nothing_made(&image, words);
    }
    // A vhdx keeps its size behind two tables: 4096 bytes of noise over each.
    for offset in [192 << 10, 3 << 20] {
        let image = made(dir.path(), "vhdx", &[]);
        File::options().write(true).open(&image).unwrap().write_all_at(&[7; 4096], offset).unwrap();
        assert!(raw(&image).unwrap_err().message().contains("damaged"), "{offset}");
    }
}

#[test]
fn an_image_that_names_another_file_is_refused() {
    let Some(dir) = folder() else { return };
    let secret = dir.path().join("disk.raw");
    let create = |args: &[&str], image: &Path, size: &[&str]| {
        Program::new("qemu-img").arg("create").args(args).arg(image).args(size).run().unwrap();
    };
    let image = dir.path().join("overlay.qcow2");
    create(&["-f", "qcow2", "-F", "raw", "-b", secret.to_str().unwrap()], &image, &[]);
    assert_eq!(inspect(&image).unwrap().backing.as_deref(), secret.to_str());
    let error = raw(&image).unwrap_err();
    assert!(error.message().contains("builds upon another file") && error.message().contains("disk.raw"), "{error}");
    assert!(error.hint_text().unwrap().contains("qemu-img convert"));

    let image = dir.path().join("external.qcow2");
    let data = format!("data_file={}", dir.path().join("data").display());
    create(&["-f", "qcow2", "-o", &data], &image, &["1M"]);
    let error = raw(&image).unwrap_err();
    assert!(error.message().contains("keeps its data in another file"), "{error}");

    for kind in ["monolithicFlat", "twoGbMaxExtentSparse"] {
        let image = dir.path().join(format!("{kind}.vmdk"));
        create(&["-f", "vmdk", "-o", &format!("subformat={kind}")], &image, &["1M"]);
        let error = raw(&image).unwrap_err();
        assert!(error.message().contains("other files"), "{error}");
    }
    // A sparse vmdk that says it has a parent.
    let image = made(dir.path(), "vmdk", &[]);
    let bytes = fs::read(&image).unwrap();
    let place = bytes.windows(9).position(|window| window == b"version=1").unwrap();
    let hint = format!("parentFileNameHint=\"{}\"\n#", secret.display());
    File::options().write(true).open(&image).unwrap().write_all_at(hint.as_bytes(), place as u64).unwrap();
    assert!(raw(&image).unwrap_err().message().contains("builds upon another file"));
    assert!(!dir.path().join("cache").exists());
}

#[test]
fn a_cache_without_room_is_told_before_anything_is_made() {
    let Some(dir) = folder() else { return };
    let cache = dir.path().join("cache");
    fs::create_dir(&cache).unwrap();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let mount = Program::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&cache).run();
    if let Err(error) = mount {
        eprintln!("skipped: cannot mount: {error}");
        return;
    }
    let image = made(dir.path(), "qcow2", &["-c"]);
    let refused = raw(&image);
    let left: Vec<_> = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    Program::new("umount").arg(&cache).run().unwrap();
    let error = refused.unwrap_err();
    assert!(error.message().contains("has room for 1MiB"), "{error}");
    // On a slow machine the image is old enough to have its checksum remembered.
    assert!(left.iter().all(|name| name == "index.json" || name.to_string_lossy().ends_with(".lock")), "{left:?}");
}

struct Cancels(Cancel);

impl Progress for Cancels {
    fn start(&self, _: u64) {}

    fn advance(&self, _: u64) {
        self.0.set();
    }
}

#[test]
fn a_cancelled_conversion_leaves_nothing() {
    let Some(dir) = folder() else { return };
    let image = made(dir.path(), "qcow2", &[]);
    let cancel = Cancel::default();
    let error = raw_image(&image, &dir.path().join("cache"), &cancel, &Cancels(cancel.clone())).unwrap_err();
    assert_eq!(error.chain().last().unwrap(), "interrupted");
    assert_nothing_made(&image, "a cancelled conversion");
}

#[test]
fn two_that_need_the_same_image_convert_it_once() {
    let Some(dir) = folder() else { return };
    let image = made(dir.path(), "qcow2", &[]);
    let made: Vec<RawImage> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| raw(&image).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|image| image.converted).count(), 1, "{made:?}");
    assert!(made.iter().all(|image| image.path == made[0].path));
}
