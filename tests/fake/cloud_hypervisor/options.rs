//! The values of the command line's options.

use std::fs::{self, File};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::exit;

pub(crate) fn usage(message: &str) -> ! {
    eprintln!("error: {message}\n\nFor more information, try '--help'.");
    exit(2)
}

pub(crate) fn api_socket(value: &str) -> UnixListener {
    if let Some(number) = value.strip_prefix("fd=") {
        return UnixListener::from(inherited(number));
    }
    let path = value.strip_prefix("path=").unwrap_or(value);
    if UnixStream::connect(path).is_ok() {
        let words = format!("API socket \"{path}\" is already in use by another running instance");
        eprintln!("Error: Cloud Hypervisor exited with the following chain of errors:");
        eprintln!("  0: Failed to start the VMM thread\n  1: {words}");
        exit(1);
    }
    let _ = fs::remove_file(path);
    UnixListener::bind(path).unwrap_or_else(|error| usage(&error.to_string()))
}

pub(crate) fn event_monitor(value: &str) -> File {
    match value.split_once('=') {
        Some(("fd", number)) => File::from(inherited(number)),
        Some(("path", path)) => File::create(path).unwrap_or_else(|error| usage(&error.to_string())),
        _ => usage("an event monitor needs path or fd"),
    }
}

#[allow(unsafe_code)] // A descriptor handed over by number has no safe way in.
fn inherited(number: &str) -> OwnedFd {
    let number: RawFd = number.parse().unwrap_or_else(|_| usage("fd is not a number"));
    // SAFETY: the caller of this program opened it for us, and nothing else here uses it.
    unsafe { OwnedFd::from_raw_fd(number) }
}
