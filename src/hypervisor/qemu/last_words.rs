//! What QEMU wrote on its standard error during one launch: the end of a log that is appended to.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, OrFailed, Result};

#[derive(Debug)]
pub(super) struct LaunchLog {
    path: PathBuf,
    /// Where this launch's words begin.
    start: u64,
}

impl LaunchLog {
    /// The log, and the file that is given to the process.
    pub(super) fn open(path: &Path) -> Result<(Self, File)> {
        let open = || -> io::Result<(u64, File)> {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            Ok((file.metadata()?.len(), file))
        };
        let (start, file) = open().or_failed(|| format!("cannot write the log `{}`", path.display()))?;
        Ok((Self { path: path.to_owned(), start }, file))
    }

    /// The last lines of this launch; nothing when it was silent or the log is gone.
    pub(super) fn last_words(&self) -> String {
        const MOST: u64 = 4096;
        const LINES: usize = 8;
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.start.max(end.saturating_sub(MOST))))?;
            let mut bytes = Vec::new();
            file.take(MOST).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// The failure, with the last words as its cause (unless it has one of its own) and what a
    /// person can do about them.
    pub(super) fn explain(&self, error: Error) -> Error {
        let words = self.last_words();
        let error = match (error.hint_text(), remedy(&words)) {
            (Some(_), _) => error,
            (None, Some(remedy)) => error.hint(remedy),
            (None, None) => error.hint(format!("QEMU's own log is `{}`", self.path.display())),
        };
        let has_cause = std::error::Error::source(&error).is_some();
        if words.is_empty() || has_cause { error } else { error.source(words) }
    }
}

/// What to do about the failures that are met most.
fn remedy(words: &str) -> Option<&'static str> {
    const REMEDIES: [(&str, &str); 8] = [
        ("Could not access KVM kernel module", "set `accel = \"tcg\"`, or give this user access to `/dev/kvm`"),
        ("failed to initialize kvm", "set `accel = \"tcg\"`, or give this user access to `/dev/kvm`"),
        ("Failed to get \"write\" lock", "another process has the disk open; stop it first"),
        ("Failed to get shared \"write\" lock", "another process has the disk open; stop it first"),
        ("Could not set up host forwarding rule", "a forwarded port is taken by another program"),
        ("Cannot allocate memory", "the host has too little free memory for this VM; give it less `vram`"),
        ("cannot set up guest memory", "the host has too little free memory for this VM; give it less `vram`"),
        ("seccomp support is disabled", "install a QEMU that is built with seccomp"),
    ];
    REMEDIES.iter().find(|(symptom, _)| words.contains(symptom)).map(|(_, remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_this_launch_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("launch.log");
        std::fs::write(&path, "an older launch\n").unwrap();
        let (log, mut file) = LaunchLog::open(&path).unwrap();
        assert_eq!(log.last_words(), "");
        writeln!(file, "first\n\nqemu: failed to initialize kvm: Permission denied").unwrap();
        assert_eq!(log.last_words(), "first\nqemu: failed to initialize kvm: Permission denied");
        let error = log.explain(Error::failed("cannot launch"));
        assert_eq!(error.chain()[1], log.last_words());
        assert!(error.hint_text().unwrap().contains("accel"), "{error:?}");
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("an older launch\nfirst"));
    }

    #[test]
    fn a_long_log_gives_its_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let (log, mut file) = LaunchLog::open(&dir.path().join("launch.log")).unwrap();
        for number in 0..10_000 {
            writeln!(file, "line {number}").unwrap();
        }
        let words = log.last_words();
        assert_eq!(words.lines().count(), 8);
        assert!(words.ends_with("line 9999"), "{words}");
        let error = log.explain(Error::failed("cannot launch").hint("own hint"));
        assert_eq!(error.hint_text(), Some("own hint"));
    }
}
