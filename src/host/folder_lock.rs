use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// Takes the lock on a folder, for changes by rename of what is in it and belongs to several: it
/// is among Virshle's own processes only, and ends with the value.
pub fn lock_folder(dir: &Path, patience: Duration) -> io::Result<File> {
    let folder = File::open(dir)?;
    let deadline = Instant::now() + patience;
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(folder),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                super::pause(Duration::from_millis(10));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let text = format!("another process has held `{}` for {} s", dir.display(), patience.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
