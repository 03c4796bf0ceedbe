//! Which content a file has, by its SHA-256, and a memo of it so that the same file is not read
//! again at each create. The memo may be lost or broken at any time: it is only made anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{OrFailed, Result};
use crate::host::{self, Cancel, Progress};

/// Of the memo while it is written.
pub(super) const MEMO_PREFIX: &str = ".index-";

/// A file and its state; while nothing writes to the file, all of it stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    fn file(&self) -> String {
        format!("{}:{}", self.device, self.inode)
    }

    /// A write within one tick of the file system's clock leaves no trace in the times.
    fn is_settled(&self, now: i64) -> bool {
        self.modified.0.max(self.changed.0) < now - 1
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    sha256: String,
}

/// One entry for each file that was hashed, by device and inode.
#[derive(Debug)]
pub(super) struct Memo {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

impl Memo {
    pub(super) fn open(cache: &Path) -> Self {
        let path = cache.join("index.json");
        let entries = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, entries }
    }

    pub(super) fn get(&self, stamp: &Stamp) -> Option<String> {
        let entry = self.entries.get(&stamp.file())?;
        let same = (entry.size, entry.modified, entry.changed) == (stamp.size, stamp.modified, stamp.changed);
        // It becomes a file's name.
        let plain = entry.sha256.len() == 64 && entry.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        (same && plain).then(|| entry.sha256.clone())
    }

    /// Two that write at once lose one of the entries, which costs one reading of that file.
    pub(super) fn put(&mut self, stamp: &Stamp, sha256: &str) -> io::Result<()> {
        if !stamp.is_settled(host::now().as_second()) {
            return Ok(());
        }
        let Stamp { size, modified, changed, .. } = *stamp;
        self.entries.insert(stamp.file(), Entry { size, modified, changed, sha256: sha256.to_owned() });
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(MEMO_PREFIX).tempfile_in(folder)?;
        serde_json::to_writer(&mut file, &self.entries)?;
        file.flush()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// The file's SHA-256 in hexadecimal digits.
pub(super) fn sha256(path: &Path, mut file: &File, cancel: &Cancel, progress: &dyn Progress) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        cancel.check()?;
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.or_failed(|| format!("cannot read the image `{}`", path.display()))?,
        };
        hasher.update(&buffer[..read]);
        progress.advance(read as u64);
    }
    Ok(hasher.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Quiet;

    #[test]
    fn known_digests() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let rows = [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ];
        for (content, digest) in rows {
            fs::write(&path, content).unwrap();
            let file = File::open(&path).unwrap();
            assert_eq!(sha256(&path, &file, &Cancel::default(), &Quiet).unwrap(), digest, "{content:?}");
        }
        let cancel = Cancel::default();
        cancel.set();
        assert!(sha256(&path, &File::open(&path).unwrap(), &cancel, &Quiet).is_err());
    }

    #[test]
    fn the_memo_knows_a_file_until_anything_about_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let digest = "ab".repeat(32);
        let stamp = Stamp { device: 1, inode: 2, size: 3, modified: (4, 5), changed: (6, 7) };
        Memo::open(dir.path()).put(&stamp, &digest).unwrap();
        let memo = Memo::open(dir.path());
        assert_eq!(memo.get(&stamp), Some(digest));
        let others = [
            Stamp { device: 9, ..stamp },
            Stamp { inode: 9, ..stamp },
            Stamp { size: 9, ..stamp },
            Stamp { modified: (4, 9), ..stamp },
            Stamp { changed: (6, 9), ..stamp },
        ];
        for other in others {
            assert_eq!(memo.get(&other), None, "{other:?}");
        }
    }

    #[test]
    fn a_fresh_file_and_a_broken_memo_are_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index.json");
        let now = host::now().as_second();
        let fresh = Stamp { device: 1, inode: 2, size: 3, modified: (now, 0), changed: (now, 0) };
        Memo::open(dir.path()).put(&fresh, &"ab".repeat(32)).unwrap();
        assert!(!index.exists(), "written less than a second ago");

        let old = Stamp { modified: (0, 0), changed: (0, 0), ..fresh };
        let evil = r#"{"1:2": {"size": 3, "modified": [0, 0], "changed": [0, 0], "sha256": "../../etc/passwd"}}"#;
        for broken in ["", "{", "[]", r#"{"1:2": 7}"#, evil] {
            fs::write(&index, broken).unwrap();
            assert_eq!(Memo::open(dir.path()).get(&old), None, "{broken}");
        }
        Memo::open(dir.path()).put(&old, &"cd".repeat(32)).unwrap();
        assert_eq!(Memo::open(dir.path()).get(&old), Some("cd".repeat(32)), "a broken memo is made anew");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
