//! A network device of the caller's network namespace, by its name: what kind it is, its MTU, up,
//! into a bridge. By ioctl, not through sysfs, which shows the namespace it was mounted in.
#![allow(unsafe_code)] // ioctls with `struct ifreq` have no safe wrapper in rustix.

use std::ffi::{CStr, c_char};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

// From <linux/sockios.h> and <linux/ethtool.h>; libc lacks some of them for some targets.
const SIOCETHTOOL: u32 = 0x8946;
const SIOCBRADDBR: u32 = 0x89a0;
const SIOCBRADDIF: u32 = 0x89a2;
const ETHTOOL_GDRVINFO: u32 = 3;

const UP: libc::c_short = libc::IFF_UP as libc::c_short;

#[derive(Debug)]
pub struct NetDevice {
    name: String,
    socket: OwnedFd,
}

/// The head and tail of `struct ethtool_drvinfo`; only the driver's name is read.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [c_char; 32],
    rest: [u8; 160],
}

impl NetDevice {
    /// `None`: there is no device of that name.
    pub fn find(name: &str) -> io::Result<Option<Self>> {
        let device = Self { name: name.to_owned(), socket: control_socket()? };
        match device.index() {
            Ok(_) => Ok(Some(device)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a Linux bridge, down, without spanning tree.
    pub fn create_bridge(name: &str) -> io::Result<Self> {
        let mut request = request(name)?;
        let socket = control_socket()?;
        // SAFETY: SIOCBRADDBR reads a device name, and `ifr_name` is the first field.
        if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCBRADDBR as _, &raw mut request.ifr_name) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { name: name.to_owned(), socket })
    }

    pub fn index(&self) -> io::Result<i32> {
        let request = self.ioctl(libc::SIOCGIFINDEX as u32, |_| {})?;
        // SAFETY: the kernel has filled in this member.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex })
    }

    /// The kernel's name of the driver: `bridge`, `tun`, `openvswitch`, `veth`, …
    pub fn driver(&self) -> io::Result<String> {
        let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
        let data = (&raw mut info).cast();
        self.ioctl(SIOCETHTOOL, |request| request.ifr_ifru.ifru_data = data)?;
        info.driver[31] = 0;
        // SAFETY: the array ends with a zero byte.
        let driver = unsafe { CStr::from_ptr(info.driver.as_ptr()) };
        Ok(driver.to_string_lossy().into_owned())
    }

    pub fn is_bridge(&self) -> io::Result<bool> {
        match self.driver() {
            Ok(driver) => Ok(driver == "bridge"),
            // A driver without ethtool is no bridge.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub fn mtu(&self) -> io::Result<i32> {
        let request = self.ioctl(libc::SIOCGIFMTU as u32, |_| {})?;
        // SAFETY: the kernel has filled in this member.
        Ok(unsafe { request.ifr_ifru.ifru_mtu })
    }

    pub fn set_mtu(&self, mtu: i32) -> io::Result<()> {
        self.ioctl(libc::SIOCSIFMTU as u32, |request| request.ifr_ifru.ifru_mtu = mtu).map(drop)
    }

    pub fn is_up(&self) -> io::Result<bool> {
        Ok(self.flags()? & UP != 0)
    }

    pub fn set_up(&self) -> io::Result<()> {
        let flags = self.flags()?;
        if flags & UP != 0 {
            return Ok(());
        }
        self.ioctl(libc::SIOCSIFFLAGS as u32, |request| request.ifr_ifru.ifru_flags = flags | UP).map(drop)
    }

    pub fn set_down(&self) -> io::Result<()> {
        let flags = self.flags()?;
        self.ioctl(libc::SIOCSIFFLAGS as u32, |request| request.ifr_ifru.ifru_flags = flags & !UP).map(drop)
    }

    fn flags(&self) -> io::Result<libc::c_short> {
        let now = self.ioctl(libc::SIOCGIFFLAGS as u32, |_| {})?;
        // SAFETY: the kernel has filled in this member.
        Ok(unsafe { now.ifr_ifru.ifru_flags })
    }

    /// Plugs `port` into this Linux bridge.
    pub fn add_port(&self, port: &NetDevice) -> io::Result<()> {
        let index = port.index()?;
        self.ioctl(SIOCBRADDIF, |request| request.ifr_ifru.ifru_ifindex = index).map(drop)
    }

    /// Keeps this host's own IPv6 off the device, so that the guest behind it sees no router
    /// solicitation and the host takes no address from what the guest announces.
    pub fn disable_ipv6(&self) -> io::Result<()> {
        // Not through a symlink or `..`: a device's name has no slash and is neither `.` nor `..`.
        match std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.name), "1") {
            // A kernel without IPv6 has nothing to switch off.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn ioctl(&self, command: u32, fill: impl FnOnce(&mut libc::ifreq)) -> io::Result<libc::ifreq> {
        let mut request = request(&self.name)?;
        fill(&mut request);
        // SAFETY: every command used here takes a `struct ifreq`; the pointer in it, if any, is to
        // a buffer that the caller keeps alive.
        if unsafe { libc::ioctl(self.socket.as_raw_fd(), command as _, &raw mut request) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(request)
    }
}

/// A request about the device of that name; one that no device can have is refused, never cut.
pub(super) fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all zeros are a valid `struct ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let fits = !name.is_empty() && name.len() < request.ifr_name.len();
    let bad = |c: u8| c == b'/' || c == 0 || c == b':' || c.is_ascii_whitespace();
    if !fits || matches!(name, "." | "..") || name.bytes().any(bad) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} cannot name a network device")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    Ok(request)
}

fn control_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_found_and_is_no_bridge() {
        let lo = NetDevice::find("lo").unwrap().expect("every namespace has a loopback");
        assert!(lo.mtu().unwrap() > 1000);
        assert!(!lo.is_bridge().unwrap());
        assert!(NetDevice::find("no-such-device").unwrap().is_none());
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused_not_cut() {
        for name in ["", ".", "..", "a/b", "a b", "a:1", "sixteen-bytes-xx", "a\0b"] {
            assert_eq!(NetDevice::find(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        assert!(NetDevice::find("fifteen-bytes-x").unwrap().is_none());
    }
}
