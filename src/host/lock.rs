//! A file lock that the kernel drops with its holder, and that can be looked at without taking it.
//!
//! Open-file-description locks: unlike `flock` they can be probed (`F_OFD_GETLK`), so that `ls`
//! never makes a concurrent `start` believe that the VM is taken.
#![allow(unsafe_code)] // fcntl's OFD commands have no safe wrapper in rustix.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

#[derive(Debug)]
pub struct Lock {
    _file: File,
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
            return Ok(Self { _file: file });
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => Err(LockError::Held),
            _ => Err(error.into()),
        }
    }

    /// Takes one of `count` places in the file, of which any number of processes hold one each;
    /// `Held` when all are taken.
    pub fn try_take_one_of(path: &Path, count: u16) -> Result<Self, LockError> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
        for place in 0..count {
            let mut lock = libc::flock { l_start: place.into(), l_len: 1, ..whole_file() };
            // SAFETY: as in `try_take`.
            if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) } == 0 {
                return Ok(Self { _file: file });
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
        drop(lock);
        assert!(!Lock::is_held(&path).unwrap());
        Lock::try_take(&path).unwrap();
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
