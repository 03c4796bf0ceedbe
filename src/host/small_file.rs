use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Reads a file that a person names, and that is small: a plain file, or a pipe as shells make them
/// (`<(…)`). Nothing is waited for that no writer holds open, and nothing without an end is read.
pub fn read_small(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    let refused = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}")));
    if kind.is_fifo() {
        let flags = fcntl_getfl(&file)?;
        fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    } else if kind.is_dir() {
        return refused("a directory");
    } else if !kind.is_file() {
        return refused("a device, not a plain file");
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return refused(&format!("larger than {} MiB", most >> 20));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn files_and_pipes_but_nothing_without_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("plain"), "12345").unwrap();
        assert_eq!(read_small(&at("plain"), 5).unwrap(), b"12345");
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read_small(&at("fifo"), 5).unwrap(), b"", "nobody writes to it, and nobody is waited for");
        let rows =
            [(at("plain"), 4, "larger"), (dir.path().to_owned(), 5, "directory"), ("/dev/zero".into(), 5, "device")];
        for (path, most, words) in rows {
            let error = read_small(&path, most).unwrap_err();
            assert!(error.to_string().contains(words), "{}: {error}", path.display());
        }
        assert_eq!(read_small(&at("missing"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);

        // What a shell passes: the writer is there, and slow.
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            File::from(write).write_all(b"slow").unwrap();
        });
        assert_eq!(read_small(format!("/proc/self/fd/{}", read.as_raw_fd()).as_ref(), 5).unwrap(), b"slow");
        writer.join().unwrap();
    }
}
