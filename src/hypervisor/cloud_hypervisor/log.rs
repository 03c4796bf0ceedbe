//! What one process wrote to the log that it shares with those before it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Enough to hold what a process says at its end.
const TAIL: u64 = 64 << 10;
/// As many of its last lines as a person wants to read.
const LINES: usize = 6;
/// What is written when a vCPU cannot go on. The events and the exit code are those of a power-off.
const CRASHES: [&str; 2] = ["VCPU generated error", "vCPU thread panicked"];

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    /// Where this process's own lines begin.
    start: u64,
}

impl Log {
    /// Opens the log for a new process to append to.
    pub(super) fn open(path: &Path) -> io::Result<(Self, File)> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let start = file.metadata()?.len();
        Ok((Self { path: path.to_owned(), start }, file))
    }

    /// The last lines, if there are any.
    pub(super) fn last_lines(&self) -> Option<String> {
        let text = self.tail().unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        (!last.is_empty()).then(|| last.join("\n"))
    }

    /// Whether a vCPU failed.
    pub(super) fn tells_of_a_crash(&self) -> bool {
        let text = self.tail().unwrap_or_default();
        CRASHES.iter().any(|words| text.contains(words))
    }

    fn tail(&self) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(self.start.max(end.saturating_sub(TAIL))))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
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
        std::fs::write(&path, "VCPU generated error: an old one\n").unwrap();
        let (log, mut file) = Log::open(&path).unwrap();
        assert_eq!(log.last_lines(), None);
        assert!(!log.tells_of_a_crash());
        for number in 1..=8 {
            writeln!(file, "  line {number}\n").unwrap();
        }
        assert_eq!(log.last_lines().unwrap(), "line 3\nline 4\nline 5\nline 6\nline 7\nline 8");
        writeln!(file, "<vcpu0> ERROR -- VCPU generated error: VcpuRun(Failed to run vcpu").unwrap();
        assert!(log.tells_of_a_crash());
        file.write_all(&vec![b'x'; 100_000]).unwrap();
        assert_eq!(log.last_lines().unwrap().len() as u64, TAIL);
    }

    #[test]
    fn a_log_that_is_gone_has_no_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("launch.log");
        let (log, _) = Log::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(log.last_lines(), None);
    }
}
