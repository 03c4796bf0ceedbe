//! A vhost-user port: the hypervisor listens on a socket and Open vSwitch connects to it, so that
//! the switch may restart and finds the guest again.
//!
//! The port is added only when the socket listens: Open vSwitch tries at once, and then once a
//! second. What an earlier life left is removed before the hypervisor starts, because the old port
//! would connect to the new socket and be cut off again by the new one.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::ovs::{Datapath, Ovs};
use super::{Driver, Port, bridge};
use crate::error::{Error, Result};
use crate::spec::{Link, Name};

#[derive(Debug)]
pub(super) struct Vhost;

impl Driver for Vhost {
    fn check(&self, network: &Name, link: &Link, ovs: &Ovs) -> Result<()> {
        let (name, create) = bridge_of(link)?;
        if let Some(hint) = ovs.dpdk()?.hint(ovs) {
            let message = format!("the network `{network}` needs Open vSwitch with DPDK, which is off");
            return Err(Error::failed(message).hint(hint));
        }
        if create && ovs.bridge(name)?.is_none() {
            return Ok(());
        }
        let found = bridge::ovs(ovs, name, false, &Datapath::Netdev)?;
        if found.datapath != Datapath::Netdev {
            return Err(Error::failed(format!(
                "the bridge `{name}` has the datapath `{}`, and a vhost port needs `netdev`",
                found.datapath.as_str()
            ))
            .hint(format!(
                "set it: `{} set Bridge {name} datapath_type=netdev`; or give the template's net the type `tap`",
                ovs.command()
            )));
        }
        Ok(())
    }

    fn prepare(&self, port: &Port<'_>) -> Result<Option<OwnedFd>> {
        port.ovs.clear_port(&port.name(), port.vm)?;
        Ok(None)
    }

    fn connect(&self, port: &Port<'_>, socket: &Path) -> Result<()> {
        let (bridge, create) = bridge_of(&port.nic.link)?;
        bridge::add_to_ovs(port, bridge, create, &Datapath::Netdev, |line| {
            port.ovs.add_vhost_port(bridge, &port.name(), socket, &port.tag(), line)
        })
    }

    fn restore(&self, port: &Port<'_>, socket: &Path) -> Result<bool> {
        let there = port.is_on_switch()?;
        if there && port.nic.guard.is_none() {
            return Ok(false);
        }
        let (bridge, create) = bridge_of(&port.nic.link)?;
        if port.nic.guard.is_none() {
            bridge::ovs(port.ovs, bridge, create, &Datapath::Netdev)?;
        }
        // One that is there gets its guard again, which the switch may have forgotten.
        self.connect(port, socket).map(|()| !there)
    }

    /// Each side of a vhost-user socket is told what the other one can do.
    fn offload(&self, _: &Port<'_>) -> Result<bool> {
        Ok(true)
    }

    fn rename(&self, port: &Port<'_>) -> Result<()> {
        port.ovs.name_port(&port.name(), port.vm, port.vm_name).map(drop)
    }

    fn release(&self, port: &Port<'_>) -> Result<()> {
        port.ovs.release_port(&port.name(), port.vm).map(drop)
    }
}

fn bridge_of(link: &Link) -> Result<(&str, bool)> {
    match link {
        Link::Vhost { bridge, create } => Ok((bridge, *create)),
        _ => Err(Error::failed("the NIC is not of type `vhost`")),
    }
}
