//! What a process that was killed may have left in the cache, and its removal.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use super::content::MEMO_PREFIX;
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Lock, LockError};

/// Writing the memo takes milliseconds; it has no lock, and is only made anew when it is lost.
const MEMO_AGE: i64 = 60;

/// The files in the cache that nobody is making any more.
pub fn leftovers(cache: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot read the cache `{}`", cache.display());
    let entries = match fs::read_dir(cache) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.or_failed(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.or_failed(failed)?;
        if is_leftover(&entry).or_failed(failed)? {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Removes one of them. `false`: somebody has begun with it again, or it is gone.
pub fn remove_leftover(path: &Path) -> Result<bool> {
    // Held until the file is gone: who waits for it makes the file anew.
    let _lock = match lock_of(path).map(|lock| Lock::try_take(&lock)) {
        Some(Err(LockError::Held)) => return Ok(false),
        Some(Err(LockError::Io(error))) => {
            return Err(Error::failed(format!("cannot lock `{}`", path.display())).source(error));
        }
        Some(Ok(lock)) => Some(lock),
        None => None,
    };
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::failed(format!("cannot remove `{}`", path.display())).source(error)),
    }
}

fn is_leftover(entry: &DirEntry) -> io::Result<bool> {
    if !entry.file_type()?.is_file() {
        return Ok(false);
    }
    if let Some(lock) = lock_of(&entry.path()) {
        return Ok(!Lock::is_held(&lock)?);
    }
    if !entry.file_name().to_string_lossy().starts_with(MEMO_PREFIX) {
        return Ok(false);
    }
    match entry.metadata().and_then(|meta| meta.modified()) {
        Ok(at) => Ok(host::Timestamp::try_from(at).is_ok_and(|at| at.as_second() < host::now().as_second() - MEMO_AGE)),
        // Written out and renamed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The lock that whoever makes a half-made image holds: of `<sha256>.raw.partial` it is
/// `<sha256>.lock`.
fn lock_of(path: &Path) -> Option<PathBuf> {
    let digest = path.file_name()?.to_str()?.strip_suffix(".raw.partial")?;
    let plain = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| path.with_file_name(format!("{digest}.lock")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_nobody_makes_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(leftovers(&at("no-such-folder")).unwrap().is_empty());
        let [dead, alive] = ["ab", "cd"].map(|byte| byte.repeat(32));
        let names = [
            format!("{dead}.raw.partial"),
            format!("{alive}.raw.partial"),
            format!("{alive}.raw"),
            ".index-old".into(),
            ".index-new".into(),
            "index.json".into(),
            "mine.raw.partial".into(),
        ];
        for name in &names {
            fs::write(at(name), "").unwrap();
        }
        let old = fs::File::options().write(true).open(at(".index-old")).unwrap();
        old.set_modified(old.metadata().unwrap().modified().unwrap() - Duration::from_secs(3600)).unwrap();
        let target = at(&format!("{}.raw.partial", "ef".repeat(32)));
        std::os::unix::fs::symlink(at("index.json"), &target).unwrap();
        let held = Lock::try_take(&at(&format!("{alive}.lock"))).unwrap();

        let expected = [at(".index-old"), at(&names[0])];
        assert_eq!(leftovers(dir.path()).unwrap(), expected);
        assert!(!remove_leftover(&at(&names[1])).unwrap(), "its maker lives");
        for path in &expected {
            assert!(remove_leftover(path).unwrap());
            assert!(!remove_leftover(path).unwrap(), "gone");
        }
        drop(held);
        assert_eq!(leftovers(dir.path()).unwrap(), [at(&names[1])], "its maker has ended");
        for name in &names[1..3] {
            assert!(at(name).exists(), "{name}");
        }
    }
}
