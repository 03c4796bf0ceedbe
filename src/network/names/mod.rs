//! A VM's name on this host: `<vm>.<domain>`, with nothing that a person has to set up.

use std::net::{Ipv4Addr, Ipv6Addr};

use uuid::Uuid;

use crate::spec::{Mac, Name};

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
