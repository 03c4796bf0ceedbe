//! 5 · What a VM is plugged into. Drivers ([`Driver`]) stand side by side, one per kind of link:
//!
//! ```text
//!          check (at create)     prepare            connect (once its socket is there)      release
//! vhost    bridge is netdev      –                  add-port dpdkvhostuserclient            del-port
//! tap      bridge is there       tap + port         –                                       del-port, tap ends with its fd
//! user     –                     –                  –                                       –
//! ```
//!
//! Ports are named `v<number>n<index>` and carry their VM in `external_ids`, so that one left
//! behind is found. Every call is idempotent: `prepare` takes over a port of the same VM that an
//! earlier life left, and refuses one that is somebody else's; `release` of what is gone is done.

mod bridge;
pub mod ovs;
mod tap;
mod user;
mod vhost;

use std::os::fd::OwnedFd;
use std::path::Path;

use uuid::Uuid;

use crate::error::Result;
use crate::spec::{Link, Nic};
use ovs::Ovs;

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

pub trait Driver: std::fmt::Debug {
    /// Whether the bridge is there and of the right kind, before anything is made; makes it when
    /// the config says `create = true`.
    fn check(&self, port: &Port<'_>) -> Result<()>;
    /// Before the hypervisor starts. A tap comes back as a descriptor.
    fn prepare(&self, port: &Port<'_>) -> Result<Option<OwnedFd>>;
    /// While the hypervisor waits: `socket` is bound and listening.
    fn connect(&self, port: &Port<'_>, socket: &Path) -> Result<()>;
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
