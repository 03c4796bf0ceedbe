//! Gives back an address that an earlier guest still has: dnsmasq keeps it for the guest until the
//! lease ends, and would give its new owner none. What a guest says when it leaves is said for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

use super::leases::{Noted, noted};
use crate::error::Result;
use crate::network::names::Host;
use crate::spec::{HostSide, Mac};

/// Ends the leases of addresses that are `hosts`' by now, and were given to others.
pub(super) fn conflicting(host: &HostSide, dir: &Path, hosts: &[Host]) -> Result<()> {
    let Noted { leases, .. } = noted(dir)?;
    for lease in leases {
        let (IpAddr::V4(ip), Some(mac)) = (lease.ip, lease.mac) else { continue };
        let moved = hosts.iter().any(|new| new.ip == ip && new.mac != mac);
        if moved && let Err(error) = release(host.address.addr(), ip, mac) {
            tracing::warn!(%ip, %mac, %error, "cannot give back an address that an earlier guest had");
        }
    }
    Ok(())
}

/// A DHCPRELEASE. Sent on this host, it comes in where the server listens.
fn release(server: Ipv4Addr, ip: Ipv4Addr, mac: Mac) -> io::Result<()> {
    let mac: Vec<u8> = mac.to_string().split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let mut message = vec![0; 240];
    // A request, over Ethernet, with addresses of 6 bytes.
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[12..16].copy_from_slice(&ip.octets());
    message[28..28 + mac.len()].copy_from_slice(&mac);
    message[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    // The kind of message, then which server is meant.
    message.extend([53, 1, 7, 54, 4]);
    message.extend(server.octets());
    message.push(255);
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.send_to(&message, (server, 67)).map(drop)
}
