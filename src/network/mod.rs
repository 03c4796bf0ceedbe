//! 5 · What a VM is plugged into. Drivers ([`Driver`]) stand side by side, one per kind of link:
//!
//! ```text
//!          check (at create)     prepare            connect (once its socket is there)      release
//! vhost    DPDK, netdev bridge   leftover removed   add-port dpdkvhostuserclient            del-port
//! tap      bridge is there       tap + port         –                                       del-port, tap ends with its fd
//! user     –                     –                  –                                       –
//! ```
//!
//! A bridge that is to be made when it is missing is made at each of them: one of Linux ends with the
//! host. Between `connect` and `release`, [`Driver::restore`] puts back what somebody took away.
//!
//! On a bridge of Open vSwitch that Virshle keeps ([`Ovs::make_network`]) a port has a guard
//! ([`Ovs::guard`]), which is in the switch before the port is. `restore` puts back a guard too.
//!
//! Beside the drivers stands what this host is on a network that Virshle keeps; `vm::networks` puts it
//! in order, from what is recorded:
//!
//! ```text
//! keep       the bridge, the host's addresses on it, its uplink, settings of the kernel
//! firewall   NAT, forwards, who reaches whom; guards of ports on Linux bridges
//! dnsmasq    addresses and names for the guests of one network
//! names      the same names for this host
//! ```
//!
//! Ports are named `v<number>n<index>` and carry their VM in `external_ids`, so that one left
//! behind is found. Every call is idempotent: `prepare` takes over a port of the same VM that an
//! earlier life left, and refuses one that is somebody else's; `connect` leaves a working port of
//! the same VM and socket as it is; `release` of what is gone is done, and of what is somebody
//! else's does nothing.

mod bridge;
pub mod dnsmasq;
pub mod firewall;
pub mod keep;
pub mod names;
pub mod ovs;
pub mod passt;
mod routes;
mod tap;
mod user;
mod vhost;

use std::os::fd::OwnedFd;
use std::path::Path;

use uuid::Uuid;

use crate::error::Result;
use crate::spec::{Link, Name, Nic};
use ovs::{Ovs, Tag};
pub use routes::check_routes;
pub use user::{FreePort, check_privilege, free_port};

/// One NIC of one VM, and where its switch is.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    pub vm: Uuid,
    pub vm_number: u32,
    /// For `external_ids`, so that a person reading the switch knows whose port it is.
    pub vm_name: &'a str,
    pub nic: &'a Nic,
    pub ovs: &'a Ovs,
}

impl Port<'_> {
    pub fn name(&self) -> String {
        self.nic.port(self.vm_number)
    }

    /// Whether the switch has this VM's own port.
    fn is_on_switch(&self) -> Result<bool> {
        Ok(self.ovs.port_owner(&self.name())?.is_some_and(|owner| owner.vm == Some(self.vm)))
    }

    /// What its port does with frames; `number` is from [`Ovs::guard`].
    fn line(&self, number: Option<u16>) -> ovs::Line {
        ovs::Line { mtu: self.nic.mtu, vlan: self.nic.vlan, number }
    }

    fn tag(&self) -> Tag<'_> {
        Tag { vm: self.vm, vm_name: self.vm_name, mac: self.nic.mac }
    }
}

pub trait Driver: std::fmt::Debug {
    /// Whether the bridge is there and of the right kind, before anything is made. One that Virshle
    /// makes need not be there yet.
    fn check(&self, network: &Name, link: &Link, ovs: &Ovs) -> Result<()>;
    /// Before the hypervisor starts. A tap comes back as a descriptor.
    fn prepare(&self, port: &Port<'_>) -> Result<Option<OwnedFd>>;
    /// While the hypervisor waits: `socket` is bound and listening.
    fn connect(&self, port: &Port<'_>, socket: &Path) -> Result<()>;
    /// While the guest runs: puts back a port that is gone from its bridge, and makes the bridge
    /// again when the config says `create = true`. `false`: there was nothing to put back.
    fn restore(&self, port: &Port<'_>, socket: &Path) -> Result<bool>;
    /// Whether the guest's NIC may leave checksums and segmentation to the host. When not, the
    /// hypervisor must not offer it to the guest.
    fn offload(&self, port: &Port<'_>) -> Result<bool>;
    /// Writes the VM's name, which is another one now, into a port that is there. The guest
    /// notices nothing.
    fn rename(&self, port: &Port<'_>) -> Result<()>;
    /// After the hypervisor has ended.
    fn release(&self, port: &Port<'_>) -> Result<()>;
}

/// The driver of a link.
pub fn driver(link: &Link) -> &'static dyn Driver {
    match link {
        Link::Vhost { .. } => &vhost::Vhost,
        Link::Tap { .. } => &tap::TapPort,
        Link::User => &user::User,
    }
}

#[cfg(test)]
#[path = "../../tests/fixtures/netns.rs"]
mod netns;
#[cfg(test)]
#[path = "../../tests/fixtures/ovs.rs"]
mod private_ovs;
#[cfg(test)]
mod guard_tests;
#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod tests;
