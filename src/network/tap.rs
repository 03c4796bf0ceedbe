//! A tap: a network device on a bridge, whose other end goes to the hypervisor as a descriptor.
//!
//! ```text
//! prepare: old row gone ─► tap made ─► MTU of the bridge, no IPv6 of the host's, up ─► on the bridge
//! ```
//!
//! The device is not persistent: it ends with the last copy of the descriptor. On a Linux bridge
//! nothing is then left; on Open vSwitch the port's row is, until `release`.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::ovs::{Datapath, Ovs};
use super::{Driver, Port, bridge};
use crate::error::{Error, OrFailed, Result};
use crate::host::{NetDevice, TapError, open_tap};
use crate::spec::{Link, Name, Switch};

#[derive(Debug)]
pub(super) struct TapPort;

impl Driver for TapPort {
    fn check(&self, _: &Name, link: &Link, ovs: &Ovs) -> Result<()> {
        let (bridge, switch, create) = link_of(link)?;
        let there = match switch {
            Switch::Ovs => ovs.bridge(bridge)?.is_some(),
            Switch::Bridge => NetDevice::find(bridge).is_ok_and(|device| device.is_some()),
        };
        match switch {
            _ if create && !there => Ok(()),
            Switch::Ovs => bridge::ovs(ovs, bridge, false, &ovs.tap_datapath()).map(drop),
            Switch::Bridge => bridge::linux(bridge, false).map(drop),
        }
    }

    fn prepare(&self, port: &Port<'_>) -> Result<Option<OwnedFd>> {
        let (bridge, switch, create) = link_of(&port.nic.link)?;
        let name = port.name();
        match switch {
            Switch::Ovs => port.ovs.clear_port(&name, port.vm)?,
            // The bridge that was made for the VM has ended with the host's last life; one of a
            // network that we keep is there by now.
            Switch::Bridge => bridge::linux(bridge, create && port.nic.guard.is_none()).map(drop)?,
        }
        let fd = open_tap(&name).map_err(|error| explain(&name, error))?;
        let device = bring_up(&name, bridge, port.nic.mtu)?;
        match switch {
            Switch::Ovs => add_to_ovs(port, bridge, create)?,
            Switch::Bridge => bridge::plug(bridge, &device, &name)?,
        }
        Ok(Some(fd))
    }

    fn connect(&self, _: &Port<'_>, _: &Path) -> Result<()> {
        Ok(())
    }

    /// The device itself is there as long as the hypervisor is: only its place on the bridge is lost.
    fn restore(&self, port: &Port<'_>, _: &Path) -> Result<bool> {
        let (bridge, switch, create) = link_of(&port.nic.link)?;
        let name = port.name();
        match switch {
            Switch::Ovs => {
                match (port.is_on_switch()?, &port.nic.guard) {
                    (true, None) => return Ok(false),
                    // The switch may have forgotten it.
                    (true, Some(_)) => return again_guarded(port, bridge).map(|()| false),
                    (false, None) => drop(bridge::ovs(port.ovs, bridge, create, &port.ovs.tap_datapath())?),
                    (false, Some(_)) => {}
                }
                bring_up(&name, bridge, port.nic.mtu)?;
                add_to_ovs(port, bridge, create)?;
                Ok(true)
            }
            Switch::Bridge => {
                bridge::linux(bridge, create && port.nic.guard.is_none())?;
                let device = bring_up(&name, bridge, port.nic.mtu)?;
                bridge::plug_again(bridge, &device, &name)
            }
        }
    }

    /// A kernel bridge finishes what the guest left undone. The userspace datapath passes it on
    /// as it is, and the receiver drops it for its wrong checksum.
    fn offload(&self, port: &Port<'_>) -> Result<bool> {
        match link_of(&port.nic.link)? {
            (name, Switch::Ovs, _) => {
                Ok(port.ovs.bridge(name)?.is_some_and(|bridge| bridge.datapath == Datapath::System))
            }
            (_, Switch::Bridge, _) => Ok(true),
        }
    }

    fn rename(&self, port: &Port<'_>) -> Result<()> {
        match link_of(&port.nic.link)? {
            (_, Switch::Ovs, _) => port.ovs.name_port(&port.name(), port.vm, port.vm_name).map(drop),
            (_, Switch::Bridge, _) => Ok(()),
        }
    }

    fn release(&self, port: &Port<'_>) -> Result<()> {
        match link_of(&port.nic.link)? {
            (_, Switch::Ovs, _) => port.ovs.release_port(&port.name(), port.vm).map(drop),
            (_, Switch::Bridge, _) => Ok(()),
        }
    }
}

fn link_of(link: &Link) -> Result<(&str, Switch, bool)> {
    match link {
        Link::Tap { bridge, switch, create } => Ok((bridge, *switch, *create)),
        _ => Err(Error::failed("the NIC is not of type `tap`")),
    }
}

fn add_to_ovs(port: &Port<'_>, bridge: &str, create: bool) -> Result<()> {
    bridge::add_to_ovs(port, bridge, create, &port.ovs.tap_datapath(), |line| {
        port.ovs.add_tap_port(bridge, &port.name(), &port.tag(), line)
    })
}

/// For a port that is there. One that has got another number meanwhile is plugged in anew.
fn again_guarded(port: &Port<'_>, bridge: &str) -> Result<()> {
    let name = port.name();
    let number = port.ovs.guard(bridge, &name, port.vm, port.vm_number, port.nic)?;
    if port.ovs.port_state(&name)?.is_some_and(|state| state.number == number && state.failure().is_none()) {
        return Ok(());
    }
    port.ovs.add_tap_port(bridge, &name, &port.tag(), port.line(number))
}

fn bring_up(name: &str, bridge: &str, mtu: Option<u16>) -> Result<NetDevice> {
    let device = NetDevice::find(name)
        .or_failed(|| format!("cannot see the tap `{name}`"))?
        .ok_or_else(|| Error::failed(format!("the tap `{name}` vanished")))?;
    // The guest is told the tap's MTU, so it must be what the bridge carries. An Open vSwitch
    // bridge of the system-wide instance has a device of its name too; one elsewhere has not.
    let mtu = match (mtu, NetDevice::find(bridge)) {
        (Some(mtu), _) => Some(i32::from(mtu)),
        (None, Ok(Some(bridge))) => Some(bridge.mtu().or_failed(|| "cannot read the bridge's MTU".to_owned())?),
        (None, _) => None,
    };
    if let Some(mtu) = mtu.filter(|mtu| device.mtu().ok() != Some(*mtu)) {
        device.set_mtu(mtu).or_failed(|| format!("cannot give the tap `{name}` the MTU {mtu}"))?;
    }
    if let Err(error) = device.disable_ipv6() {
        tracing::warn!(device = name, %error, "cannot keep this host's IPv6 off the tap");
    }
    device.set_up().or_failed(|| format!("cannot bring up the tap `{name}`"))?;
    Ok(device)
}

fn explain(name: &str, error: TapError) -> Error {
    let hint = match &error {
        TapError::NoDriver(_) => "load it: `modprobe tun`; or use a network of type `user`".to_owned(),
        TapError::NotPermitted(_) => "run as root, or use a network of type `user`".to_owned(),
        TapError::NameTaken => format!("see whose it is: `ip -details link show {name}`"),
        TapError::Io(_) => return Error::failed(format!("cannot make the tap `{name}`")).source(error),
    };
    let kind = if matches!(error, TapError::NameTaken) { Error::refused } else { Error::failed };
    kind(format!("cannot make the tap `{name}`")).source(error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn each_failure_names_the_next_thing_to_do() {
        let io = || io::Error::from_raw_os_error(libc::EPERM);
        let rows = [
            (TapError::NoDriver(io()), Some("modprobe tun")),
            (TapError::NotPermitted(io()), Some("root")),
            (TapError::NameTaken, Some("link show v1n0")),
            (TapError::Io(io()), None),
        ];
        for (error, hint) in rows {
            let what = error.to_string();
            let error = explain("v1n0", error);
            assert_eq!(error.hint_text().is_some(), hint.is_some(), "{what}");
            assert!(error.hint_text().unwrap_or_default().contains(hint.unwrap_or_default()), "{what}");
            assert_eq!(error.chain()[1], what);
        }
    }
}
