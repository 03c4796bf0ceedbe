use std::fs::File;
use std::path::Path;

use crate::error::{OrFailed, Result};
use crate::spec::Size;

/// Makes a disk that nobody has open larger; one that is as large or larger stays as it is.
pub fn grow(path: &Path, size: Size) -> Result<()> {
    let failed = || format!("cannot grow `{}` to {size}", path.display());
    let file = File::options().write(true).open(path).or_failed(failed)?;
    if file.metadata().or_failed(failed)?.len() >= size.bytes() {
        return Ok(());
    }
    file.set_len(size.bytes()).or_failed(failed)?;
    file.sync_all().or_failed(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_only_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("os.raw");
        std::fs::write(&path, [7; 4096]).unwrap();
        for (size, expected) in [(8192, 8192), (512, 8192), (8192, 8192)] {
            grow(&path, Size::from_bytes(size)).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(bytes.len(), expected);
            assert!(bytes[..4096].iter().all(|byte| *byte == 7) && bytes[4096..].iter().all(|byte| *byte == 0));
        }
        let error = grow(&dir.path().join("gone.raw"), Size::gib(1)).unwrap_err();
        assert!(error.message().contains("gone.raw` to 1GiB"), "{error}");
    }
}
