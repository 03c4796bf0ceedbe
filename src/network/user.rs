//! The hypervisor's own address translation: nothing to set up, but the ports that are forwarded to
//! the guest must be such as the hypervisor may have.

use std::io;
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;

use super::ovs::Ovs;
use super::{Driver, Port};
use crate::error::{Error, OrFailed, Result};
use crate::host::Claim;
use crate::spec::{Forward, Link, Name};

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

/// Refuses ports of this host that only root can listen on, where whoever will listen is not.
pub fn check_privilege(forwards: &[Forward]) -> Result<()> {
    let first = first_unprivileged();
    forwards.iter().find(|forward| forward.host_port < first).map_or(Ok(()), |forward| Err(for_root_alone(forward)))
}

pub(super) fn for_root_alone(forward: &Forward) -> Error {
    Error::refused(format!("the forward `{forward}` cannot be served"))
        .source(Error::failed(format!("port {} is for root alone, and the hypervisor is not root", forward.host_port)))
        .hint("forward a port from 1024 on, or lower `net.ipv4.ip_unprivileged_port_start`")
}

/// The first port that does not need root.
fn first_unprivileged() -> u16 {
    let setting = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    setting.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn ports_of_root_alone() {
        let forward = |text: &str| text.parse::<Forward>().unwrap();
        let first = first_unprivileged();
        check_privilege(&[forward(&format!("{}:80", first.max(1))), forward("65535:53/udp")]).unwrap();
        if first > 1 {
            let error = check_privilege(&[forward("65535:80"), forward("1:80")]).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused);
            assert!(error.chain().join(": ").contains("root alone"), "{:?}", error.chain());
        }
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
