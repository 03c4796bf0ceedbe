//! A VM's name on this host: `<vm>.<domain>`, with nothing that a person has to set up.
//!
//! ```text
//! systemd-resolved answers here ──► it asks the network's own server for the domain ([`announce`])
//! else                          ──► a block of lines in a hosts file ([`write_hosts`])
//! ```
//!
//! Several networks may have one domain: systemd-resolved asks all of their servers.

mod hosts_file;
mod resolved;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use uuid::Uuid;

use crate::error::Result;
use crate::spec::{Mac, Name, NetworkSpec};
pub use hosts_file::write_hosts;

/// One NIC of a VM, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub vm: Uuid,
    pub nic: u8,
    pub name: Name,
    pub mac: Mac,
    pub ip: Ipv4Addr,
    pub ip6: Option<Ipv6Addr>,
}

/// How this host learns the names of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// It asks the network's server each time: no change has to be told.
    Resolved,
    /// From this file, where each change is to be [written](write_hosts).
    HostsFile(PathBuf),
    /// There are none: this host serves nothing on the network.
    Nothing,
}

const HOSTS: &str = "/etc/hosts";

/// Makes this host find the names of a network that is up. Asked again after the network's
/// interface was made anew, which makes systemd-resolved forget it.
pub fn announce(spec: &NetworkSpec) -> Result<How> {
    let Some(host) = &spec.host else { return Ok(How::Nothing) };
    if resolved::is_used() {
        match resolved::announce(&spec.device(), host) {
            Ok(()) => return Ok(How::Resolved),
            Err(error) => {
                tracing::warn!(network = %spec.name, error = %error.chain().join(": "), "names go into a file instead");
            }
        }
    }
    Ok(How::HostsFile(HOSTS.into()))
}

/// How names become known, without telling anybody.
pub fn how(spec: &NetworkSpec) -> How {
    match &spec.host {
        None => How::Nothing,
        Some(_) if resolved::is_used() => How::Resolved,
        Some(_) => How::HostsFile(HOSTS.into()),
    }
}

/// Takes back what [`announce`] told systemd-resolved. Lines in a hosts file are [`write_hosts`]'s,
/// with none of them.
pub fn withdraw(spec: &NetworkSpec) -> Result<()> {
    match &spec.host {
        Some(_) if resolved::is_running() => resolved::withdraw(&spec.device()),
        _ => Ok(()),
    }
}
