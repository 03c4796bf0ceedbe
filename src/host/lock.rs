//! A file lock that the kernel drops with its holder, and that can be looked at without taking it.
//!
//! Open-file-description locks: unlike `flock` they can be probed (`F_OFD_GETLK`), so that `ls`
//! never makes a concurrent `start` believe that the VM is taken.
#![allow(unsafe_code)] // fcntl's OFD commands have no safe wrapper in rustix.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

#[derive(Debug)]
pub struct Lock {
    file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another process holds it")]
    Held,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock at once, or says that another holds it. Dropping the value, or the end of
    /// the process, gives it back; a child does not inherit it.
    pub fn try_take(path: &Path) -> Result<Self, LockError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let mut lock = whole_file();
        // SAFETY: the descriptor is open for the call and `lock` is a valid `struct flock`.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
        if done == 0 {
            return Ok(Self { file });
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => Err(LockError::Held),
            _ => Err(error.into()),
        }
    }

    /// Writes this process's number into the file, for whoever finds the lock held.
    pub fn sign(&self) -> io::Result<()> {
        let number = std::process::id().to_string();
        self.file.write_all_at(number.as_bytes(), 0)?;
        self.file.set_len(number.len() as u64)
    }

    /// The number that the holder signed with.
    pub fn signature(path: &Path) -> Option<u32> {
        std::fs::read_to_string(path).ok()?.parse().ok()
    }

    /// A lock that this process held when it was another program, which passed it on under `number`.
    /// `None` when what is there is not that lock's file.
    pub fn inherited(number: i32, path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        // SAFETY: F_GETFD only looks; a number that is no descriptor is answered with an error.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
            return None;
        }
        // SAFETY: it is open, and nothing else in this process owns it: it was opened before we began.
        let file = unsafe { <File as std::os::fd::FromRawFd>::from_raw_fd(number) };
        let same = matches!((file.metadata(), std::fs::metadata(path)),
            (Ok(ours), Ok(theirs)) if (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()));
        if !same {
            // Something else of the caller's: left open as it was.
            let _ = std::os::fd::IntoRawFd::into_raw_fd(file);
            return None;
        }
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::CLOEXEC).ok()?;
        let mut lock = whole_file();
        // SAFETY: as above. A lock that this description holds already is granted again.
        (unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) } == 0).then_some(Self { file })
    }

    /// Lets the program that this process becomes have the lock; the number is what it is told.
    pub fn pass_on(&self) -> io::Result<i32> {
        rustix::io::fcntl_setfd(&self.file, rustix::io::FdFlags::empty())?;
        Ok(self.file.as_raw_fd())
    }

    /// Takes [`Lock::pass_on`] back, when this process stays what it is.
    pub fn keep(&self) -> io::Result<()> {
        Ok(rustix::io::fcntl_setfd(&self.file, rustix::io::FdFlags::CLOEXEC)?)
    }

    /// Takes one of `count` places in the file, of which any number of processes hold one each;
    /// `Held` when all are taken.
    pub fn try_take_one_of(path: &Path, count: u16) -> Result<Self, LockError> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
        for place in 0..count {
            let mut lock = libc::flock { l_start: place.into(), l_len: 1, ..whole_file() };
            // SAFETY: as in `try_take`.
            if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) } == 0 {
                return Ok(Self { file });
            }
            let error = io::Error::last_os_error();
            if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) {
                return Err(error.into());
            }
        }
        Err(LockError::Held)
    }

    /// Whether somebody holds the lock. A file that is not there is held by nobody.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut lock = whole_file();
        // SAFETY: as above; the kernel writes the conflicting lock, or F_UNLCK, into `lock`.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_seen_by_a_probe_that_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!Lock::is_held(&path).unwrap());
        let lock = Lock::try_take(&path).unwrap();
        assert!(Lock::is_held(&path).unwrap());
        assert!(matches!(Lock::try_take(&path), Err(LockError::Held)));
        assert_eq!(Lock::signature(&path), None);
        std::fs::write(&path, "99999999999").unwrap();
        lock.sign().unwrap();
        assert_eq!(Lock::signature(&path), Some(std::process::id()));
        drop(lock);
        assert!(!Lock::is_held(&path).unwrap());
        Lock::try_take(&path).unwrap();
    }

    #[test]
    fn a_lock_that_was_passed_on_is_never_free_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = Lock::try_take(&path).unwrap();
        let number = lock.pass_on().unwrap();
        assert!(Lock::inherited(number, dir.path()).is_none(), "another file's");
        // What an exec does: the value is forgotten, the descriptor stays.
        std::mem::forget(lock);
        let again = Lock::inherited(number, &path).unwrap();
        assert!(Lock::is_held(&path).unwrap());
        drop(again);
        assert!(!Lock::is_held(&path).unwrap());
        assert!(Lock::inherited(-1, &path).is_none());
    }

    #[test]
    fn places_are_taken_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("places");
        let mut held: Vec<Lock> = (0..3).map(|_| Lock::try_take_one_of(&path, 3).unwrap()).collect();
        assert!(matches!(Lock::try_take_one_of(&path, 3), Err(LockError::Held)));
        held.remove(1);
        held.push(Lock::try_take_one_of(&path, 3).unwrap());
        assert!(matches!(Lock::try_take_one_of(&path, 3), Err(LockError::Held)));
    }
}
