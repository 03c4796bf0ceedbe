//! Whether another user may open a file: by the permission bits, before anything is started.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Runner;

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    ReadWrite,
    Execute,
}

impl Access {
    fn bits(self) -> u32 {
        match self {
            Access::Read => 0o4,
            Access::ReadWrite => 0o6,
            Access::Execute => 0o1,
        }
    }
}

/// Where the way to a file ends for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The file itself, or a folder on the way to it.
    pub at: PathBuf,
    pub mode: u32,
}

/// Looks with this process's rights at what `runner` may do. A file that is not there is the
/// opener's error to tell, and counts as allowed; so does one with an access list, which says more
/// than its bits.
pub fn may_access(runner: &Runner, path: &Path, access: Access) -> io::Result<Result<(), Denied>> {
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(())),
        Err(error) => return Err(error),
    };
    // The way as it is written may lead over links, the folders of which must be passed too.
    let ways = [path, &real].into_iter().flat_map(|path| path.ancestors().skip(1));
    let mut steps: Vec<(&Path, u32)> =
        ways.filter(|dir| !dir.as_os_str().is_empty()).map(|dir| (dir, Access::Execute.bits())).collect();
    steps.sort_by_key(|(dir, _)| dir.components().count());
    steps.push((&real, access.bits()));
    for (at, bits) in steps {
        let meta = at.metadata()?;
        if !allows(&Owned::of(&meta), runner, bits) && !has_access_list(at) {
            return Ok(Err(Denied { at: at.to_owned(), mode: meta.mode() & 0o7777 }));
        }
    }
    Ok(Ok(()))
}

#[derive(Debug, Clone, Copy)]
struct Owned {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Owned {
    fn of(meta: &Metadata) -> Self {
        Self { uid: meta.uid(), gid: meta.gid(), mode: meta.mode() }
    }
}

/// The kernel's rule for a user without capabilities: the first class that fits decides alone.
fn allows(file: &Owned, runner: &Runner, bits: u32) -> bool {
    let class = if file.uid == runner.uid {
        file.mode >> 6
    } else if file.gid == runner.gid || runner.groups.contains(&file.gid) {
        file.mode >> 3
    } else {
        file.mode
    };
    runner.uid == 0 || class & bits == bits
}

fn has_access_list(path: &Path) -> bool {
    let mut list = [0_u8; 0];
    matches!(rustix::fs::getxattr(path, "system.posix_acl_access", &mut list[..]), Ok(1..))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn runner(uid: u32, gid: u32, groups: &[u32]) -> Runner {
        Runner { name: "vm".to_owned(), uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let vm = runner(900, 900, &[36]);
        let rows = [
            ((0, 0, 0o644), 0o4, true, "everybody reads"),
            ((0, 0, 0o640), 0o4, false, "root's alone"),
            ((0, 36, 0o660), 0o6, true, "by a group beside the main one"),
            ((0, 36, 0o640), 0o6, false, "the group only reads"),
            ((0, 36, 0o606), 0o4, false, "the group is kept out, though all others may"),
            ((900, 0, 0o600), 0o6, true, "its own"),
            ((900, 0, 0o066), 0o6, false, "its own, and it has forbidden itself"),
            ((0, 900, 0o710), 0o1, true, "its main group passes"),
            ((0, 0, 0o700), 0o1, false, "nobody passes"),
        ];
        for ((uid, gid, mode), bits, allowed, why) in rows {
            assert_eq!(allows(&Owned { uid, gid, mode }, &vm, bits), allowed, "{why}");
        }
        assert!(allows(&Owned { uid: 5, gid: 5, mode: 0 }, &runner(0, 0, &[]), 0o6), "root may all");
    }

    #[test]
    fn the_way_there_counts_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (home, linked) = (dir.join("home"), dir.join("linked"));
        fs::create_dir(&home).unwrap();
        let (file, link) = (home.join("kernel"), linked.join("kernel"));
        fs::write(&file, "").unwrap();
        fs::create_dir(&linked).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let stranger = runner(4_000_000, 4_000_000, &[]);
        let at = |path: &Path| {
            may_access(&stranger, path, Access::Read).unwrap().err().map(|denied| (denied.at, denied.mode))
        };
        for path in [&dir, &home, &linked] {
            mode(path, 0o711);
        }
        mode(&file, 0o644);
        assert_eq!((at(&file), at(&link)), (None, None));
        mode(&file, 0o640);
        assert_eq!(at(&link), Some((file.clone(), 0o640)));
        mode(&home, 0o700);
        assert_eq!(at(&link), Some((home.clone(), 0o700)), "the first obstacle is named");
        mode(&home, 0o711);
        mode(&file, 0o644);
        mode(&linked, 0o700);
        assert_eq!((at(&file), at(&link)), (None, Some((linked.clone(), 0o700))), "a link's folder is on the way");
        assert_eq!(at(&home.join("no such file")), None, "whoever opens it says so");
    }
}
