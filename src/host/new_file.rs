//! A file that appears under its name only when it is whole.
//!
//! It is written as `<name>.partial` beside its place, synced, renamed, and the folder is synced.
//! Dropped before that, it leaves nothing. The caller makes sure that no two processes write the
//! same name at once (a VM's lock, the cache's lock): a `.partial` that is there belongs to a
//! process that was killed, and is removed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

#[derive(Debug)]
pub struct NewFile {
    file: File,
    partial: PathBuf,
    target: PathBuf,
    kept: bool,
    replaces: bool,
}

impl NewFile {
    /// Fails with `AlreadyExists` when `target` is there.
    pub fn create(target: &Path, mode: u32) -> io::Result<Self> {
        if target.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Self::begin(target, mode, false)
    }

    /// For a file that takes the place of `target`: who has that open keeps what was there.
    pub fn replacing(target: &Path, mode: u32) -> io::Result<Self> {
        Self::begin(target, mode, true)
    }

    fn begin(target: &Path, mode: u32, replaces: bool) -> io::Result<Self> {
        let mut partial = OsString::from(target);
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&partial)?;
        Ok(Self { file, partial, target: target.to_owned(), kept: false, replaces })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it lies until it is whole.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Makes it durable and gives it its name, unless another file has taken that meanwhile.
    pub fn keep(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.replaces {
            fs::rename(&self.partial, &self.target)?;
            self.kept = true;
            return self.sync_folder();
        }
        match renameat_with(CWD, &self.partial, CWD, &self.target, RenameFlags::NOREPLACE) {
            // A file system without this flag: the caller's lock is what keeps others away.
            Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&self.partial, &self.target)?,
            renamed => renamed?,
        }
        self.kept = true;
        let synced = self.sync_folder();
        if synced.is_err() {
            let _ = fs::remove_file(&self.target);
        }
        synced
    }

    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn appears_when_kept_and_leaves_nothing_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("os.raw");
        fs::write(dir.path().join("os.raw.partial"), "left by a killed process").unwrap();
        let new = NewFile::create(&target, 0o600).unwrap();
        new.file().write_all(b"new").unwrap();
        assert_eq!(names(dir.path()), ["os.raw.partial"]);
        drop(new);
        assert_eq!(names(dir.path()), [""; 0]);

        let new = NewFile::create(&target, 0o600).unwrap();
        new.file().write_all(b"new").unwrap();
        new.keep().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["os.raw"]);
        assert_eq!(NewFile::create(&target, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn one_that_replaces_leaves_the_old_file_to_who_has_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("seed.img");
        fs::write(&target, "old").unwrap();
        let mut open = File::open(&target).unwrap();
        drop(NewFile::replacing(&target, 0o600).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"old", "given up");
        let new = NewFile::replacing(&target, 0o600).unwrap();
        new.file().write_all(b"new").unwrap();
        new.keep().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        let mut held = String::new();
        std::io::Read::read_to_string(&mut open, &mut held).unwrap();
        assert_eq!(held, "old");
        assert_eq!(names(dir.path()), ["seed.img"]);
    }

    #[test]
    fn a_name_taken_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("os.raw");
        let new = NewFile::create(&target, 0o600).unwrap();
        fs::write(&target, "another's").unwrap();
        assert_eq!(new.keep().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).unwrap(), b"another's");
        assert_eq!(names(dir.path()), ["os.raw"]);
    }
}
