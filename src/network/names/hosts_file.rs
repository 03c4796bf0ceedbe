//! A block of lines in a file that is somebody else's, such as `/etc/hosts`.
//!
//! ```text
//! 127.0.0.1 localhost
//! # BEGIN virshle /var/lib/virshle
//! 10.44.0.5 web.vm
//! # END virshle /var/lib/virshle
//! ```
//!
//! A file is taken as lines between newlines, the last of which most often is empty. Lines are put
//! in and taken out; so the others, and whether the file ends with a newline, stay as they are.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Gid, Uid, fchown};

use crate::error::{Error, OrFailed, Result};
use crate::host::{self, NewFile};

/// Makes `lines` the block of `owner` in the file; with none the block is taken out. Each owner has
/// a block of its own. A link is followed.
pub fn write_hosts(file: &Path, owner: &Path, lines: &[(IpAddr, String)]) -> Result<()> {
    let failed = || format!("cannot write the names of VMs into `{}`", file.display());
    let real = match file.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !file.is_symlink() => file.to_owned(),
        Err(error) => return Err(Error::failed(failed()).source(error)),
    };
    let folder = real.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The rename changes the file, so it is the folder that is locked.
    let _lock = host::lock_folder(folder, Duration::from_secs(10)).or_failed(failed)?;
    let old = match fs::read(&real) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::failed(failed()).source(error)),
    };
    let block: Vec<String> = lines.iter().map(|(ip, name)| format!("{ip} {name}")).collect();
    let new = with_block(&old, &owner.to_string_lossy(), &block).map_err(|line| {
        Error::failed(failed())
            .source(Error::failed(format!("the block that line {line} begins has no end")))
            .hint(format!("take what is left of it out of `{}`, or write its end: `# END virshle …`", file.display()))
    })?;
    if new == old {
        return Ok(());
    }
    replace(&real, &new).map_err(|error| explain(file, &real, error).context(failed()))
}

fn explain(file: &Path, real: &Path, error: io::Error) -> Error {
    let made_by_nix = real.starts_with("/nix/store");
    if !made_by_nix && error.kind() != io::ErrorKind::ReadOnlyFilesystem {
        return Error::failed(format!("cannot replace `{}`", real.display())).source(error);
    }
    let what = match file == real {
        true => format!("`{}` cannot be written to", real.display()),
        false => format!("`{}` leads to `{}`, which cannot be written to", file.display(), real.display()),
    };
    let nix = if made_by_nix { " (NixOS: `services.resolved.enable = true`)" } else { "" };
    Error::failed(what).source(error).hint(format!(
        "let systemd-resolved run, which needs no file{nix}, or name another file: `[node] hosts-file = \"PATH\"`"
    ))
}

/// By a rename, so that every reader sees the old or the new one; in place where it is a mount.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    if path.starts_with("/nix/store") {
        return Err(io::ErrorKind::ReadOnlyFilesystem.into());
    }
    let before = match path.metadata() {
        Ok(meta) => Some(meta),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let in_place = || {
        let mut file = File::options().write(true).truncate(true).open(path)?;
        file.write_all(text)?;
        file.sync_all()
    };
    let new = match NewFile::replacing(path, 0o600) {
        // The folder is not for writing, and the file in it may be another mount's.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem && before.is_some() => return in_place(),
        new => new?,
    };
    new.file().write_all(text)?;
    let Some(meta) = before else {
        new.file().set_permissions(PermissionsExt::from_mode(0o644))?;
        return new.keep();
    };
    fchown(new.file(), Some(Uid::from_raw(meta.uid())), Some(Gid::from_raw(meta.gid())))?;
    new.file().set_permissions(meta.permissions())?;
    keep_label(path, new.file());
    match new.keep() {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => in_place(),
        kept => kept,
    }
}

/// SELinux knows `/etc/hosts` by a label of its own.
fn keep_label(path: &Path, new: &File) {
    const LABEL: &str = "security.selinux";
    let mut label = [0_u8; 1024];
    if let Ok(length) = rustix::fs::getxattr(path, LABEL, &mut label[..])
        && let Err(error) = rustix::fs::fsetxattr(new, LABEL, &label[..length], rustix::fs::XattrFlags::empty())
    {
        tracing::warn!(path = %path.display(), %error, "cannot give the new file the old one's label");
    }
}

/// The file with this block of the owner's: where its old one was, else at the end. The error is
/// the number of a line that begins one and is followed by no end.
fn with_block(old: &[u8], owner: &str, block: &[String]) -> Result<Vec<u8>, usize> {
    let owner = owner.escape_debug().to_string();
    let (begin, end) = (format!("# BEGIN virshle {owner}"), format!("# END virshle {owner}"));
    // Another's newlines may have been changed since.
    let is = |line: &[u8], marker: &str| line.strip_suffix(b"\r").unwrap_or(line) == marker.as_bytes();
    let mut lines: Vec<&[u8]> = old.split(|byte| *byte == b'\n').collect();
    let mut at = None;
    while let Some(first) = lines.iter().position(|line| is(line, &begin)) {
        let behind = lines[first..].iter().position(|line| is(line, &end)).ok_or(first + 1)?;
        if lines[first + 1..first + behind].iter().any(|line| line.starts_with(b"# BEGIN virshle ")) {
            return Err(first + 1);
        }
        lines.drain(first..=first + behind);
        at.get_or_insert(first);
    }
    if !block.is_empty() {
        let last = lines.len() - usize::from(lines.last().is_some_and(|line| line.is_empty()));
        let at = at.unwrap_or(last);
        let marked = std::iter::once(&begin).chain(block).chain(std::iter::once(&end)).map(String::as_bytes);
        lines.splice(at..at, marked);
    }
    Ok(lines.join(&b'\n'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn block(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("10.44.0.5 {name}")).collect()
    }

    fn text(old: &str, owner: &str, names: &[&str]) -> String {
        String::from_utf8(with_block(old.as_bytes(), owner, &block(names)).unwrap()).unwrap()
    }

    #[test]
    fn blocks_side_by_side() {
        let (a, b) = ("/var/lib/virshle", "/srv/a\nb");
        let old = "127.0.0.1 localhost\r\n# mine";
        let one = text(old, a, &["web.vm"]);
        let expected = "127.0.0.1 localhost\r\n# mine\n# BEGIN virshle /var/lib/virshle\n10.44.0.5 web.vm\n\
                        # END virshle /var/lib/virshle";
        assert_eq!(one, expected);
        let two = text(&one, b, &["db.vm"]);
        assert!(two.ends_with("\n# BEGIN virshle /srv/a\\nb\n10.44.0.5 db.vm\n# END virshle /srv/a\\nb"), "{two:?}");
        // In its place, and only its own.
        assert_eq!(text(&two, a, &["shop.vm"]), two.replace("web.vm", "shop.vm"));
        assert_eq!(text(&text(&two, a, &[]), b, &[]), old);
        assert_eq!(text("", a, &["web.vm"]).lines().count(), 3);
        let crlf = text("", a, &["web.vm"]).replace('\n', "\r\n");
        assert_eq!(text(&crlf, a, &[]), "");
    }

    #[test]
    fn a_block_without_an_end_is_left_alone() {
        let rows = [
            ("x\n# BEGIN virshle /a\n10.0.0.1 x\n", 2),
            ("# BEGIN virshle /a\n# BEGIN virshle /b\n# END virshle /b\n# END virshle /a\n", 1),
            ("# BEGIN virshle /a\n# END virshle /a10.0.0.1 x\n", 1),
        ];
        for (old, line) in rows {
            assert_eq!(with_block(old.as_bytes(), "/a", &block(&["web.vm"])), Err(line), "{old:?}");
            assert_eq!(with_block(old.as_bytes(), "/a", &[]), Err(line), "{old:?}");
        }
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            Just(b"127.0.0.1 localhost".to_vec()),
            Just(b"# END virshle /a\r".to_vec()),
            Just(b"# BEGIN virshle /c".to_vec()),
            Just(b"\r".to_vec()),
            Just(Vec::new()),
        ];
        prop::collection::vec(line, 0..8).prop_map(|lines| lines.join(&b'\n'))
    }

    proptest! {
        #[test]
        fn whatever_was_there_is_there_again(old in content(), turns in prop::collection::vec((0..2_usize, 0..4_usize), 0..8)) {
            let owners = ["/a", "/b"];
            let mut text = old.clone();
            let mut last = [0; 2];
            for (owner, count) in turns {
                let lines: Vec<String> = (0..count).map(|number| format!("10.44.0.{number} vm{number}.vm")).collect();
                text = with_block(&text, owners[owner], &lines).unwrap();
                last[owner] = count;
                let begun = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(format!("# BEGIN virshle {}", owners[owner]).as_bytes())).count();
                prop_assert_eq!(begun, usize::from(count > 0));
            }
            for owner in [1, 0] {
                text = with_block(&text, owners[owner], &[]).unwrap();
            }
            prop_assert_eq!(text, old);
        }
    }

    #[test]
    fn files_links_and_modes() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real/hosts"), dir.path().join("hosts"));
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink("real/hosts", &link).unwrap();
        let owner = Path::new("/var/lib/virshle");
        let lines =
            [("10.44.0.5".parse().unwrap(), "web.vm".to_owned()), ("fd00::5".parse().unwrap(), "web.vm".to_owned())];
        assert!(write_hosts(&link, owner, &lines).is_err(), "a link to nothing");
        fs::write(&file, "127.0.0.1 localhost\n").unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        write_hosts(&link, owner, &lines).unwrap();
        assert!(link.is_symlink());
        let (text, meta) = (fs::read_to_string(&file).unwrap(), file.metadata().unwrap());
        assert!(text.contains("\n10.44.0.5 web.vm\nfd00::5 web.vm\n"), "{text}");
        assert_eq!(meta.mode() & 0o777, 0o640);
        write_hosts(&link, owner, &lines).unwrap();
        assert_eq!(file.metadata().unwrap().ino(), meta.ino(), "nothing was to be written");
        write_hosts(&link, owner, &[]).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "127.0.0.1 localhost\n");
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        let new = dir.path().join("new");
        write_hosts(&new, owner, &lines).unwrap();
        assert_eq!(new.metadata().unwrap().mode() & 0o777, 0o644);
    }

    /// Mounts of its own, which end with the thread; the error is the reason to skip.
    #[allow(unsafe_code)]
    fn with_own_mounts(test: impl FnOnce() + Send) -> Result<(), String> {
        use crate::host::Program;
        use rustix::thread::{UnshareFlags, unshare_unsafe};
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: descriptors stay shared; no other thread sees this one's mounts or folder.
                unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(|error| error.to_string())?;
                let private = Program::new("mount").args(["--make-rprivate", "/"]).run();
                private.map_err(|error| error.to_string())?;
                test();
                Ok(())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    #[test]
    fn a_file_that_is_a_mount_and_one_that_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (dir.path().join("hosts"), dir.path().join("read-only"));
        fs::write(&file, "127.0.0.1 localhost\n").unwrap();
        fs::create_dir(&folder).unwrap();
        let owner = Path::new("/var/lib/virshle");
        let lines = [("10.44.0.5".parse().unwrap(), "web.vm".to_owned())];
        let done = with_own_mounts(|| {
            let mount = |args: &[&str], at: &Path| {
                crate::host::Program::new("mount").args(args).arg(at).run().unwrap();
            };
            mount(&["--bind", file.to_str().unwrap()], &file);
            write_hosts(&file, owner, &lines).unwrap();
            assert!(fs::read_to_string(&file).unwrap().contains("\n10.44.0.5 web.vm\n"));
            write_hosts(&file, owner, &[]).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), "127.0.0.1 localhost\n");

            mount(&["-t", "tmpfs", "tmpfs"], &folder);
            fs::write(folder.join("hosts"), "127.0.0.1 localhost\n").unwrap();
            mount(&["-o", "remount,ro"], &folder);
            symlink("read-only/hosts", dir.path().join("link")).unwrap();
            let error = write_hosts(&dir.path().join("link"), owner, &lines).unwrap_err();
            let chain = error.chain().join(": ");
            assert!(chain.contains("link` leads to `") && chain.contains("cannot be written to"), "{chain}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("hosts-file")), "{error:?}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is left beside them");
        });
        if let Err(reason) = done {
            eprintln!("skipped: mounts of its own need root ({reason})");
        }
    }

    #[test]
    fn many_owners_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        fs::write(&file, "127.0.0.1 localhost\n").unwrap();
        std::thread::scope(|scope| {
            for owner in 0..4 {
                let file = &file;
                scope.spawn(move || {
                    for number in 0..10 {
                        let line = [("10.44.0.5".parse().unwrap(), format!("vm{owner}-{number}.vm"))];
                        write_hosts(file, Path::new(&format!("/{owner}")), &line).unwrap();
                    }
                });
            }
        });
        let text = fs::read_to_string(&file).unwrap();
        for owner in 0..4 {
            assert!(text.contains(&format!("10.44.0.5 vm{owner}-9.vm\n")), "{text}");
        }
        assert_eq!(text.lines().count(), 13);
    }
}
