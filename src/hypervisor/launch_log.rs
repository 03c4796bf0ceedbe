use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{OrFailed, Result};

/// Enough to hold what a process says at its end.
const TAIL: u64 = 64 << 10;
/// As many of its last lines as a person wants to read.
const LINES: usize = 6;
/// What one process writes on its standard error. Each has a file of its own; the one of the
/// process before it is kept beside it (`<name>.1`).
#[derive(Debug)]
pub(crate) struct LaunchLog {
    path: PathBuf,
}

impl LaunchLog {
    /// A new log, and the file for a new process to write to.
    pub(crate) fn open(path: &Path) -> Result<(Self, File)> {
        let open = || -> io::Result<File> {
            let mut old = path.as_os_str().to_owned();
            old.push(".1");
            match fs::rename(path, old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            OpenOptions::new().create_new(true).append(true).mode(0o600).open(path)
        };
        let file = open().or_failed(|| format!("cannot write the log `{}`", path.display()))?;
        Ok((Self::of_running(path), file))
    }

    /// The log of a process that runs already.
    pub(crate) fn of_running(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The process's last lines, if it said anything.
    pub(crate) fn last_words(&self) -> Option<String> {
        let text = self.tail();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        (!last.is_empty()).then(|| last.join("\n"))
    }

    /// The end of what it said; nothing when the log is gone.
    pub(crate) fn tail(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(end.saturating_sub(TAIL)))?;
            let mut bytes = Vec::new();
            file.take(TAIL).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_the_new_process_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("launch.log");
        fs::write(&path, "an older one\n").unwrap();
        let (log, mut file) = LaunchLog::open(&path).unwrap();
        assert_eq!(log.last_words(), None);
        assert_eq!(fs::read_to_string(dir.path().join("launch.log.1")).unwrap(), "an older one\n");
        for number in 1..=8 {
            writeln!(file, "  line {number}\n").unwrap();
        }
        let last = "line 3\nline 4\nline 5\nline 6\nline 7\nline 8";
        assert_eq!(log.last_words().unwrap(), last);
        assert_eq!(LaunchLog::of_running(&path).last_words().unwrap(), last);
        file.write_all(&vec![b'x'; 100_000]).unwrap();
        assert_eq!(log.last_words().unwrap().len() as u64, TAIL);
        fs::remove_file(path).unwrap();
        assert_eq!(log.last_words(), None, "a log that is gone has no words");
    }
}
