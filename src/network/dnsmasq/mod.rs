//! The name server and DHCP server of one network: a dnsmasq of its own, that reads what it serves
//! from a folder and is never restarted for a change.
//!
//! ```text
//! <runtime>/net/<network>/
//!   dnsmasq.conf   what the network is; read once, as root
//!   hosts/         <uuid>.<nic>: the names of one NIC, seen by dnsmasq as soon as they are there
//!   dhcp/          <uuid>.<nic>: the addresses that NIC is given when it asks, by its MAC
//!   new/           where both are written before they are renamed into place
//!   leases         dnsmasq's own; foreign guests are in it too
//!   dnsmasq.log
//! ```
//!
//! A new file is served at once. One that changed or went away needs one SIGHUP for all of them.
//! Names come from these files alone: a guest cannot take one by DHCP.

mod config;
mod hosts;
mod leases;
mod release;
mod server;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod tests;

pub(super) use config::{reverse_zone6, reverse_zones};
pub use hosts::publish;
pub use leases::{Lease, leases};
pub use server::{command, start, start_noted, stop};
