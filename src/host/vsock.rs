//! `AF_VSOCK`: a socket to a guest that needs no network.
#![allow(unsafe_code)] // The address family has no safe wrapper.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_error;

/// The kernel's own vsock for guests; an error where it has none, or it is not for this user.
pub fn open_vhost_vsock() -> io::Result<OwnedFd> {
    let file: File = OpenOptions::new().read(true).write(true).open("/dev/vhost-vsock")?;
    Ok(file.into())
}

/// Connects to a port of the guest with this number. The socket blocks.
pub fn connect_vsock(cid: u32, port: u32, patience: Duration) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain numbers.
    let number = unsafe { libc::socket(libc::AF_VSOCK, flags, 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: all zeroes are a valid address of this plain structure.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    let length = std::mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer and the length are those of one structure, which is only read.
    let connected = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if connected != 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINPROGRESS) {
            return Err(error);
        }
        let timeout = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
        if poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&timeout))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket_error(&socket)??;
    }
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_is_not_there_is_told_at_once() {
        let patience = Duration::from_secs(60);
        let started = std::time::Instant::now();
        assert!(connect_vsock(0x7fff_fff0, 22, patience).is_err());
        assert!(started.elapsed() < patience);
    }
}
