use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::host::open_log;

/// A log that a guest cannot fill the disk with: past `limit` it becomes `<name>.1`, replacing the
/// one before, and a new one begins.
#[derive(Debug)]
pub(super) struct RotatingLog {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl RotatingLog {
    pub(super) fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = open_log(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, limit })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size + bytes.len() as u64 > self.limit && self.size > 0 {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            *self = Self::open(&self.path, self.limit)?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// The last `most` bytes of the present file.
    pub(super) fn tail(&self, most: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        let start = file.metadata()?.len().saturating_sub(most);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rotates_and_keeps_one_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut log = RotatingLog::open(&path, 10).unwrap();
        for text in ["aaaa", "bbbb", "cccc", "dddd", "eeee"] {
            log.write(text.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "eeee");
        assert_eq!(fs::read_to_string(dir.path().join("console.log.1")).unwrap(), "ccccdddd");
        assert_eq!(log.tail(2).unwrap(), b"ee");
        drop(log);
        RotatingLog::open(&path, 10).unwrap().write(b"f").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "eeeef");
    }
}
