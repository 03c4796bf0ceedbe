#![allow(unsafe_code)] // sync_file_range has no wrapper in rustix.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Asks the kernel to begin writing these bytes to the disk, so that a later fsync finds most of
/// its work done. A hint: where it is not supported nothing is lost.
pub fn start_writeback(file: &File, offset: u64, bytes: u64) {
    // SAFETY: the descriptor is open for the call, which touches no memory of this process.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset.cast_signed(), bytes.cast_signed(), libc::SYNC_FILE_RANGE_WRITE);
    }
}
