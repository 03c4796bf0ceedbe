//! Frames as they are: what no honest guest would send, and what arrives.
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket, sockopt};
use virshle::spec::Mac;

const PATIENCE: Duration = Duration::from_secs(10);

/// Every frame of one device of the caller's namespace.
pub struct Line {
    socket: OwnedFd,
}

impl Line {
    pub fn open(device: &str) -> Self {
        // ETH_P_ALL as it stands in a frame.
        let every = rustix::net::Protocol::from_raw(0x0300.try_into().expect("a number"));
        let socket = socket(AddressFamily::PACKET, SocketType::RAW, Some(every)).expect("root");
        let index = rustix::net::netdevice::name_to_index(&socket, device).expect("a device");
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0x0300,
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is whole, and its length is given.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_millis(100))).expect("a time");
        Self { socket }
    }

    pub fn send(&self, frame: &[u8]) {
        assert_eq!(send(&self.socket, frame, SendFlags::empty()).expect("a frame is sent"), frame.len());
    }

    /// Reads until the frame with `last` in it: whether one with `wanted` in it came before.
    pub fn came_before(&self, wanted: &[u8], last: &[u8]) -> bool {
        let started = Instant::now();
        let mut came = false;
        let mut frame = vec![0; 65536];
        while started.elapsed() < PATIENCE {
            let Ok((length, _)) = recv(&self.socket, &mut frame[..], RecvFlags::empty()) else { continue };
            let has = |part: &[u8]| frame[..length].windows(part.len()).any(|window| window == part);
            came |= has(wanted);
            if has(last) {
                return came;
            }
        }
        panic!("the last frame did not come");
    }
}

pub const BROADCAST: [u8; 6] = [0xff; 6];

pub fn bytes(mac: Mac) -> [u8; 6] {
    let text = mac.to_string();
    let mut bytes = [0; 6];
    for (byte, part) in bytes.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(part, 16).expect("a MAC");
    }
    bytes
}

pub fn ether(to: [u8; 6], from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &bytes(from), &kind.to_be_bytes(), payload].concat()
}

/// In a tag of VLAN `id`.
pub fn tagged(id: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00], &id.to_be_bytes(), &frame[12..]].concat()
}

/// A question or an answer; what is in `mark` follows it.
pub fn arp(operation: u8, from: (Mac, Ipv4Addr), to: (Mac, Ipv4Addr), mark: &[u8]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &bytes(from.0), &from.1.octets(), &bytes(to.0), &to.1.octets(), mark].concat()
}

pub fn ip4(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("short");
    let mut head = vec![0x45, 0];
    head.extend(length.to_be_bytes());
    head.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    head.extend(from.octets());
    head.extend(to.octets());
    let sum: u32 = head.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("16 bits");
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    [head, payload.to_vec()].concat()
}

pub fn ip6(next: u8, from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
    [&[0x60, 0, 0, 0][..], &length, &[next, 255], &from.octets(), &to.octets(), payload].concat()
}

pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("short");
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

pub fn tcp(from: u16, to: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let head = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &head, payload].concat()
}

/// A message of neighbour discovery (or any of ICMPv6) about a target.
pub fn about(kind: u8, target: Ipv6Addr, mark: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets(), mark].concat()
}
