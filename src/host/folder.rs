//! Folders and files that pass from one user to another, without a name being taken for another
//! file on the way: opened first and without following links, then looked at, then changed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, openat};

use super::Runner;
use crate::error::{Error, OrFailed, Result};

/// Makes a folder that only its owner can enter, and what is above it.
pub fn make_private(dir: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).or_failed(|| format!("cannot make `{}`", dir.display()))
}

fn open_folder(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(dir)
}

/// Lets other users pass through one of our folders; they still cannot list it.
pub fn let_through(dir: &Path) -> Result<()> {
    let open = || -> io::Result<()> {
        let folder = open_folder(dir)?;
        let meta = folder.metadata()?;
        let wanted = (meta.mode() & 0o7777) | 0o011;
        let ours = meta.uid() == rustix::process::geteuid().as_raw();
        if wanted != meta.mode() & 0o7777 && ours {
            folder.set_permissions(PermissionsExt::from_mode(wanted))?;
        }
        Ok(())
    };
    open().or_failed(|| format!("cannot let others pass through `{}`", dir.display()))
}

/// Keeps others out of one of our folders; one that is not there keeps everybody out.
pub fn shut_out(dir: &Path) -> Result<()> {
    let shut = || match open_folder(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(folder) => folder.set_permissions(PermissionsExt::from_mode(0o700)),
    };
    shut().or_failed(|| format!("cannot keep others out of `{}`", dir.display()))
}

/// Makes a folder for `runner` alone.
pub fn give_folder(dir: &Path, runner: Option<&Runner>) -> Result<()> {
    make_private(dir)?;
    let Some(runner) = runner else { return Ok(()) };
    let give = || Ok::<_, io::Error>(fchown(open_folder(dir)?, Some(uid(runner)), Some(gid(runner)))?);
    give().or_failed(|| format!("cannot give `{}` to `{}`", dir.display(), runner.name))
}

/// Hands the named files of `dir` over to whom the hypervisor runs as: mode 0600, its own. Each is
/// a plain file, and one that is handed over has no second name: else it would be a way to another
/// user's file. Without a runner they are only looked at.
pub fn hand_over(dir: &Path, files: &[String], runner: Option<&Runner>) -> Result<()> {
    let folder = open_folder(dir).or_failed(|| format!("cannot open `{}`", dir.display()))?;
    let meta = folder.metadata().or_failed(|| format!("cannot look at `{}`", dir.display()))?;
    let trusted = meta.mode() & 0o022 == 0 && meta.uid() == rustix::process::geteuid().as_raw();
    if runner.is_some() && !trusted {
        return Err(Error::failed(format!("others may write in `{}`, so its files cannot be trusted", dir.display()))
            .hint(format!("look at what is in it, then take it back: `chown 0 {0}; chmod 0711 {0}`", dir.display())));
    }
    files.iter().try_for_each(|name| {
        let shown = dir.join(name);
        let shown = shown.display();
        // Without NONBLOCK a named pipe would wait for its writer for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&folder, name.as_str(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::LOOP) => return Err(not_plain(&shown, "a link")),
            // A hypervisor that is to open it says so; a socket cannot be opened at all.
            Err(error) => return Err(Error::failed(format!("cannot open `{shown}`")).source(io::Error::from(error))),
        };
        let meta = file.metadata().or_failed(|| format!("cannot look at `{shown}`"))?;
        let kind = meta.file_type();
        if !kind.is_file() {
            let what = if kind.is_dir() {
                "a directory"
            } else if kind.is_fifo() {
                "a named pipe"
            } else {
                "a device"
            };
            return Err(not_plain(&shown, what));
        }
        let Some(runner) = runner else { return Ok(()) };
        if meta.nlink() > 1 {
            return Err(Error::failed(format!(
                "`{shown}` has {} names, and belongs to a VM by one only",
                meta.nlink()
            ))
            .hint("another name may be another user's file: copy it to a new file, and put that in its place"));
        }
        let failed = || format!("cannot give `{shown}` to `{}`", runner.name);
        if (meta.uid(), meta.gid()) != (runner.uid, runner.gid) {
            fchown(&file, Some(uid(runner)), Some(gid(runner))).map_err(io::Error::from).or_failed(failed)?;
        }
        if meta.mode() & 0o7777 != 0o600 {
            file.set_permissions(PermissionsExt::from_mode(0o600)).or_failed(failed)?;
        }
        Ok(())
    })
}

fn not_plain(shown: &impl std::fmt::Display, what: &str) -> Error {
    Error::failed(format!("`{shown}` is {what}, not a plain file"))
        .hint("somebody has put it in the place of a VM's own file; put that back, or delete the VM")
}

fn uid(runner: &Runner) -> Uid {
    Uid::from_raw(runner.uid)
}

fn gid(runner: &Runner) -> Gid {
    Gid::from_raw(runner.gid)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    /// This process's own user: what root alone may do is tested with whole programs.
    fn me() -> Runner {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Runner { name: "me".to_owned(), uid, gid, groups: Vec::new() }
    }

    #[test]
    fn only_plain_files_with_one_name_are_handed_over() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let secret = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(secret.path(), PermissionsExt::from_mode(0o640)).unwrap();
        fs::write(at("os.raw"), "x").unwrap();
        fs::write(at("twice.raw"), "x").unwrap();
        fs::hard_link(at("twice.raw"), at("again.raw")).unwrap();
        symlink(secret.path(), at("link.raw")).unwrap();
        symlink("no such file", at("dangling.raw")).unwrap();
        fs::create_dir(at("dir.raw")).unwrap();
        mknodat(CWD, at("pipe.raw"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let over = |name: &str, runner: Option<&Runner>| hand_over(dir.path(), &[name.to_owned()], runner);
        let me = me();

        over("os.raw", Some(&me)).unwrap();
        assert_eq!(fs::metadata(at("os.raw")).unwrap().mode() & 0o7777, 0o600);
        let rows = [
            ("link.raw", "a link"),
            ("dangling.raw", "a link"),
            ("dir.raw", "a directory"),
            ("pipe.raw", "a named pipe"),
            ("missing.raw", "cannot open"),
        ];
        for (name, words) in rows {
            for runner in [None, Some(&me)] {
                let error = over(name, runner).unwrap_err();
                assert!(error.message().contains(words), "{name}: {error}");
            }
        }
        assert!(over("twice.raw", Some(&me)).unwrap_err().message().contains("2 names"));
        over("twice.raw", None).unwrap();
        assert_eq!(fs::metadata(secret.path()).unwrap().mode() & 0o7777, 0o640, "what a link names is untouched");

        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let error = over("os.raw", Some(&me)).unwrap_err();
        assert!(error.message().contains("others may write"), "{error}");
        over("os.raw", None).unwrap();
        symlink(dir.path(), secret.path().with_extension("link")).unwrap();
        let linked = hand_over(&secret.path().with_extension("link"), &[], None);
        fs::remove_file(secret.path().with_extension("link")).unwrap();
        assert!(linked.is_err(), "nor is the folder's own name followed");
    }

    #[test]
    fn a_folder_is_passed_through_but_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let mode = || fs::metadata(dir.path()).unwrap().mode() & 0o7777;
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let_through(dir.path()).unwrap();
        assert_eq!(mode(), 0o711);
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let_through(dir.path()).unwrap();
        assert_eq!(mode(), 0o755, "what is open already stays as it is");
        shut_out(dir.path()).unwrap();
        assert_eq!(mode(), 0o700);
        shut_out(&dir.path().join("missing")).unwrap();
    }
}
