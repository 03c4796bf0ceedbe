//! A tap: a network device whose other end is a descriptor. It is not persistent, so the kernel
//! removes the device when the last copy of the descriptor is closed, however its holder ended.
#![allow(unsafe_code)] // TUNSETIFF and its like have no safe wrapper in rustix.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::link::request;

const CLONE_DEVICE: &str = "/dev/net/tun";
/// `struct virtio_net_hdr_mrg_rxbuf`: what cloud-hypervisor and QEMU put before every frame.
static VNET_HEADER: libc::c_int = 12;

#[derive(Debug, thiserror::Error)]
pub enum TapError {
    #[error("this kernel has no tap devices (`{CLONE_DEVICE}` is not there)")]
    NoDriver(#[source] io::Error),
    #[error("making a network device is not permitted")]
    NotPermitted(#[source] io::Error),
    #[error("a network device of that name is already there")]
    NameTaken,
    #[error("the kernel refused a tap device")]
    Io(#[from] io::Error),
}

/// Makes the tap `name`: one queue, frames with a virtio-net header and nothing before it. The
/// descriptor does not block and is not inherited by children.
pub fn open_tap(name: &str) -> Result<OwnedFd, TapError> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(CLONE_DEVICE).map_err(
        |error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoDriver(error),
            Some(libc::EACCES | libc::EPERM) => TapError::NotPermitted(error),
            _ => TapError::Io(error),
        },
    )?;
    let mut request = request(name)?;
    // IFF_TUN_EXCL: without it the kernel would hand out an existing tap of that name.
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    request.ifr_ifru.ifru_flags = flags as u16 as libc::c_short;
    // SAFETY: TUNSETIFF takes a `struct ifreq`.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) }).map_err(
        |error| match error.raw_os_error() {
            Some(libc::EPERM) => TapError::NotPermitted(error),
            // EINVAL: the name belongs to a device that is no tap.
            Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) => TapError::NameTaken,
            _ => TapError::Io(error),
        },
    )?;
    // SAFETY: TUNSETVNETHDRSZ reads an int.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const VNET_HEADER) })?;
    Ok(file.into())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_is_told_so() {
        if rustix::process::geteuid().is_root() {
            eprintln!("skipped: root may make a tap");
            return;
        }
        let error = open_tap("v0n0").unwrap_err();
        assert!(matches!(error, TapError::NotPermitted(_) | TapError::NoDriver(_)), "{error:?}");
    }
}
