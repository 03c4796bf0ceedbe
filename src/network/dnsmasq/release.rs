//! Gives back an address that an earlier guest still has: dnsmasq keeps it for the guest until the
//! lease ends, and would give its new owner none. What a guest says when it leaves is said for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::path::Path;

use super::leases::{Client6, Noted, noted};
use crate::error::Result;
use crate::host::NetDevice;
use crate::network::names::Host;
use crate::spec::{HostSide, Mac, NetworkSpec};

/// Where all DHCPv6 servers of a link listen.
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Ends the leases of addresses that are `hosts`' by now, and were given to others.
pub(super) fn conflicting(spec: &NetworkSpec, host: &HostSide, dir: &Path, hosts: &[Host]) -> Result<()> {
    let Noted { leases, server } = noted(dir)?;
    for lease in leases {
        let owner =
            hosts.iter().find(|host| IpAddr::V4(host.ip) == lease.ip || host.ip6.map(IpAddr::V6) == Some(lease.ip));
        let Some(owner) = owner else { continue };
        let released = match (lease.ip, lease.mac, &lease.client6, &server) {
            (IpAddr::V4(ip), Some(mac), _, _) if owner.mac != mac => release(host.address.addr(), ip, mac),
            // A guest's own id says nothing about its MAC; its name is the one that it was known by.
            (IpAddr::V6(ip), _, Some(client), Some(server)) if lease.name.as_deref() != Some(owner.name.as_str()) => {
                release6(&spec.device(), server, ip, client)
            }
            _ => continue,
        };
        if let Err(error) = released {
            tracing::warn!(ip = %lease.ip, %error, "cannot give back an address that an earlier guest had");
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

/// A RELEASE. A link's servers are only reached together, so it goes out to the guests too: to them
/// it is no message.
fn release6(device: &str, server: &[u8], ip: Ipv6Addr, client: &Client6) -> io::Result<()> {
    let option = |code: u8, value: &[u8]| -> io::Result<Vec<u8>> {
        let length = u16::try_from(value.len()).map_err(io::Error::other)?;
        Ok([&[0, code][..], &length.to_be_bytes(), value].concat())
    };
    let number = NetDevice::find(device)?.ok_or(io::ErrorKind::NotFound)?.index()?;
    let number = u32::try_from(number).map_err(io::Error::other)?;
    // For how long it is good, which is not said when it is given back.
    let address = option(5, &[&ip.octets()[..], &[0; 8]].concat())?;
    let association = option(3, &[&client.iaid.to_be_bytes()[..], &[0; 8], &address].concat())?;
    let message = [&[8, 0, 0, 1][..], &option(1, &client.duid)?, &option(2, server)?, &association].concat();
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    socket.send_to(&message, SocketAddrV6::new(SERVERS, 547, 0, number)).map(drop)
}
