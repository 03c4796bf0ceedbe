//! The hypervisor's own address translation: nothing to set up, but the port that is forwarded to
//! the guest must be free.

use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;

use super::ovs::Ovs;
use super::{Driver, Port};
use crate::error::{OrFailed, Result};
use crate::spec::{Link, Name};

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

/// The preferred address if a server can listen there, else one with a port that the kernel gives.
/// It is free now; who uses it must still expect that another was quicker.
pub fn free_port(preferred: SocketAddrV4) -> Result<SocketAddrV4> {
    let listen = |address: SocketAddrV4| TcpListener::bind(address)?.local_addr();
    let any = SocketAddrV4::new(*preferred.ip(), 0);
    let found =
        listen(preferred).or_else(|_| listen(any)).or_failed(|| format!("no free TCP port on `{}`", preferred.ip()))?;
    Ok(SocketAddrV4::new(*preferred.ip(), found.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_preferred_port_or_another_one() {
        let free = free_port(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert_ne!(free.port(), 0);
        assert_eq!(free_port(free).unwrap(), free, "a free port is kept");
        let listener = TcpListener::bind(free).unwrap();
        let other = free_port(free).unwrap();
        assert_ne!(other.port(), free.port(), "a port in use is not given");
        TcpListener::bind(other).unwrap();
        drop(listener);
    }

    #[test]
    fn an_address_of_another_host_has_no_port() {
        assert!(free_port(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 0)).is_err());
    }
}
