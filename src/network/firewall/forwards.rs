//! Whether the host's ports that are to lead to a guest are free: the hypervisor could not listen
//! there, and a forward of the firewall takes what comes in before a server of the host sees it.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::host;
use crate::network::user::for_root_alone;
use crate::spec::{Forward, Protocol};

/// Refuses the first that is taken, with who listens there.
pub fn check_free(forwards: &[Forward]) -> Result<()> {
    forwards.iter().try_for_each(check)
}

fn check(forward: &Forward) -> Result<()> {
    let port = forward.host_port;
    let addresses: Vec<SocketAddr> = match forward.host {
        Some(host) => vec![(host, port).into()],
        None => vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()],
    };
    for address in addresses {
        match listen_at_last(forward.protocol, address) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(in_use(forward)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(for_root_alone(forward)),
            // A host without IPv6.
            Err(_) if address.is_ipv6() => {}
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                return Err(Error::refused(format!(
                    "the forward `{forward}` is at `{}`, which is no address of this host",
                    address.ip()
                ))
                .hint("`ip address` shows those it has; without one in the forward it is at all of them"));
            }
            Err(error) => {
                return Err(Error::failed(format!("cannot see whether the port of the forward `{forward}` is free"))
                    .source(error));
            }
        }
    }
    Ok(())
}

/// A program that is just being started holds a copy of a socket that is closed already: a port
/// counts as taken when it stays so.
fn listen_at_last(protocol: Protocol, address: SocketAddr) -> io::Result<()> {
    for _ in 0..3 {
        match listen(protocol, address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => host::pause(Duration::from_millis(50)),
            done => return done,
        }
    }
    listen(protocol, address)
}

fn listen(protocol: Protocol, address: SocketAddr) -> io::Result<()> {
    match protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
    }
}

fn in_use(forward: &Forward) -> Error {
    let who = match host::listener(forward.protocol == Protocol::Udp, forward.host_port) {
        Some((pid, program)) => format!("`{program}` (pid {pid})"),
        None => "somebody".to_owned(),
    };
    let Forward { protocol, host_port, .. } = forward;
    Error::refused(format!(
        "the forward `{forward}` cannot be: {who} listens at port {host_port}/{protocol} of this host"
    ))
    .hint("stop it, or give the forward another port of the host in `ports`")
}
