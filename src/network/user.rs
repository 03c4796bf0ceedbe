//! The hypervisor's own address translation: nothing to set up, but the port that is forwarded to
//! the guest must be free.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;

use super::ovs::Ovs;
use super::{Driver, Port};
use crate::error::{Error, OrFailed, Result};
use crate::host::Claim;
use crate::spec::{Forward, Link, Name, Protocol};

#[derive(Debug)]
pub(super) struct User;

impl Driver for User {
    fn check(&self, _: &Name, _: &Link, _: &Ovs) -> Result<()> {
        Ok(())
    }

    fn prepare(&self, _: &Port<'_>) -> Result<Option<OwnedFd>> {
        Ok(None)
    }

    fn connect(&self, _: &Port<'_>, _: &Path) -> Result<()> {
        Ok(())
    }

    fn restore(&self, _: &Port<'_>, _: &Path) -> Result<bool> {
        Ok(false)
    }

    fn offload(&self, _: &Port<'_>) -> Result<bool> {
        Ok(true)
    }

    fn rename(&self, _: &Port<'_>) -> Result<()> {
        Ok(())
    }

    fn release(&self, _: &Port<'_>) -> Result<()> {
        Ok(())
    }
}

/// How many ports of the kernel's are tried.
const TRIES: usize = 16;

/// A port that is free. Other starts of VMs leave it alone as long as the value is kept: until whoever
/// it is for listens there.
#[derive(Debug)]
pub struct FreePort {
    pub address: SocketAddrV4,
    _claim: Claim,
}

/// The preferred address if a server can listen there, else one with a port that the kernel gives.
/// Who uses it must still expect that a stranger was quicker.
pub fn free_port(preferred: SocketAddrV4) -> Result<FreePort> {
    let ip = *preferred.ip();
    let free = |address: SocketAddrV4| -> io::Result<Option<FreePort>> {
        // Held until the claim is there, so that the kernel gives it to nobody else.
        let listener = TcpListener::bind(address)?;
        let address = SocketAddrV4::new(ip, listener.local_addr()?.port());
        let claim = Claim::take(&format!("virshle/port/{address}"))?;
        Ok(claim.map(|claim| FreePort { address, _claim: claim }))
    };
    if let Ok(Some(found)) = free(preferred) {
        return Ok(found);
    }
    for _ in 0..TRIES {
        if let Some(found) = free(SocketAddrV4::new(ip, 0)).or_failed(|| format!("no free TCP port on `{ip}`"))? {
            return Ok(found);
        }
    }
    Err(Error::failed(format!("every free TCP port on `{ip}` is about to be used")))
}

/// Refuses ports of this host that nobody could listen on. They may still be taken a moment later.
/// `unprivileged`: whoever will listen has fewer rights than this process.
pub fn check_ports(forwards: &[Forward], unprivileged: bool) -> Result<()> {
    let first = if unprivileged { first_unprivileged() } else { 0 };
    forwards.iter().try_for_each(|forward| {
        let listened = match forward.host_port < first {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => listen(forward),
        };
        listened.map_err(|source| explain(forward, source))
    })
}

fn listen(forward: &Forward) -> io::Result<()> {
    let at = SocketAddrV4::new(forward.host.unwrap_or(Ipv4Addr::UNSPECIFIED), forward.host_port);
    match forward.protocol {
        Protocol::Tcp => TcpListener::bind(at).map(drop),
        Protocol::Udp => UdpSocket::bind(at).map(drop),
    }
}

/// The first port that does not need root.
fn first_unprivileged() -> u16 {
    let setting = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    setting.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

fn explain(forward: &Forward, source: io::Error) -> Error {
    let Forward { host_port, protocol, .. } = forward;
    let error = Error::refused(format!("the forward `{forward}` cannot be served"));
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            error.source(Error::failed(format!("port {host_port}/{protocol} of this host is in use"))).hint(format!(
                "see who has it: `ss -{}lnp sport = {host_port}`; or forward another port",
                if *protocol == Protocol::Tcp { 't' } else { 'u' }
            ))
        }
        io::ErrorKind::PermissionDenied => error
            .source(Error::failed(format!("port {host_port} is for root alone, and the hypervisor is not root")))
            .hint("forward a port from 1024 on, or lower `net.ipv4.ip_unprivileged_port_start`"),
        io::ErrorKind::AddrNotAvailable => error.source(source).hint("name an address that this host has, or none"),
        _ => error.source(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn ports_that_cannot_be_served() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let forward = |text: String| text.parse::<Forward>().unwrap();
        let rows = [
            (forward(format!("127.0.0.1:{port}:80")), false, "is in use"),
            (forward(format!("{port}:80")), false, "is in use"),
            (forward("192.0.2.1:18080:80".to_owned()), false, "assign requested address"),
        ];
        for (forward, unprivileged, words) in rows {
            let error = check_ports(std::slice::from_ref(&forward), unprivileged).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{forward}");
            assert!(error.chain().join(": ").contains(words), "{forward}: {:?}", error.chain());
        }
        if first_unprivileged() > 1 {
            let error = check_ports(&[forward("1:80".to_owned())], true).unwrap_err();
            assert!(error.chain().join(": ").contains("root alone"), "{:?}", error.chain());
        }
        check_ports(&[forward(format!("127.0.0.1:{port}:53/udp"))], false).unwrap();
        drop(taken);
        check_ports(&[forward(format!("127.0.0.1:{port}:80"))], false).unwrap();
    }

    #[test]
    fn the_preferred_port_or_another_one() {
        let free = free_port(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.address;
        assert_ne!(address.port(), 0);
        assert_ne!(free_port(address).unwrap().address, address, "one that another start has is not given");
        drop(free);
        assert_eq!(free_port(address).unwrap().address, address, "a free port is kept");
        let listener = TcpListener::bind(address).unwrap();
        let other = free_port(address).unwrap().address;
        assert_ne!(other.port(), address.port(), "a port in use is not given");
        TcpListener::bind(other).unwrap();
        drop(listener);
    }

    #[test]
    fn an_address_of_another_host_has_no_port() {
        assert!(free_port(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 0)).is_err());
    }
}
