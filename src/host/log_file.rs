use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a log of ours to append to it, and makes it (mode 0600) when it is not there. What
/// somebody put in its place is not written to: a link, a pipe, a device.
pub fn open_log(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_a_plain_file_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for text in ["a", "b"] {
            open_log(&at("log")).unwrap().write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(at("log")).unwrap(), "ab");
        assert_eq!(std::fs::metadata(at("log")).unwrap().permissions().mode() & 0o777, 0o600);
        symlink(at("log"), at("link")).unwrap();
        symlink(at("new"), at("dangling")).unwrap();
        symlink("/dev/null", at("device")).unwrap();
        for name in ["link", "dangling", "device", "."] {
            assert!(open_log(&at(name)).is_err(), "{name}");
        }
        assert!(open_log("/dev/null".as_ref()).is_err());
        assert!(!at("new").exists(), "nothing is made where a link leads");
    }
}
