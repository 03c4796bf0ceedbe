use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Error, OrFailed, Result};

/// Opens a disk image for reading: a plain file with something in it.
pub fn open_image(path: &Path) -> Result<File> {
    let shown = path.display();
    // Without NONBLOCK a named pipe would wait for its writer for ever.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|error| {
        let cannot = Error::failed(format!("cannot open the image `{shown}`"));
        match error.kind() {
            io::ErrorKind::NotFound => {
                cannot.hint("check the disk's `path` in the template, or fetch the image to that place")
            }
            io::ErrorKind::PermissionDenied => cannot.hint("make it readable for this user with `chmod`"),
            _ => cannot,
        }
        .source(error)
    })?;
    let meta = file.metadata().or_failed(|| format!("cannot read `{shown}`"))?;
    let kind = meta.file_type();
    if kind.is_dir() {
        return Err(Error::failed(format!("the image `{shown}` is a directory")).hint("name the file in it"));
    }
    if kind.is_block_device() {
        return Err(Error::failed(format!("the image `{shown}` is a block device, not a file"))
            .hint("copy it to a file first: `dd if=DEVICE of=image.raw bs=1M conv=sparse`"));
    }
    if !kind.is_file() {
        return Err(Error::failed(format!("the image `{shown}` is not a plain file")));
    }
    if meta.len() == 0 {
        return Err(Error::failed(format!("the image `{shown}` is empty")).hint("fetch or build it again"));
    }
    Ok(file)
}

/// What can still be written to the file system of `dir`.
pub fn free_space(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
