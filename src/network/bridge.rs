//! The bridge that ports are plugged into: found, or made when the network says `create = true`.
//! A bridge is never changed into another kind, and never removed.

use std::io;

use super::Port;
use super::ovs::{Bridge, Datapath, Line, Ovs};
use crate::error::{Error, Kind, OrFailed, Result};
use crate::host::NetDevice;
use crate::spec::{self, NetworkSpec, Switch};

/// An Open vSwitch bridge; `datapath` is what a new one gets.
pub(super) fn ovs(ovs: &Ovs, name: &str, create: bool, datapath: &Datapath) -> Result<Bridge> {
    if let Some(found) = ovs.bridge(name)? {
        return Ok(found);
    }
    if is_linux_bridge(name) {
        return Err(Error::failed(format!("`{name}` is a Linux bridge, not one of Open vSwitch"))
            .hint("set `type = \"bridge\"` in its network (a tap's; a vhost port needs Open vSwitch)"));
    }
    if !create {
        return Err(ovs.no_bridge(name, datapath));
    }
    ovs.add_bridge(name, datapath)?;
    // Its own device is this host's way in; ports reach each other without it.
    let up = NetDevice::find(name).and_then(|device| device.map_or(Ok(()), |device| device.set_up()));
    if let Err(error) = up {
        tracing::warn!(bridge = name, %error, "cannot bring up the bridge's own device");
    }
    Ok(Bridge { name: name.to_owned(), datapath: datapath.clone() })
}

/// Adds a port to an Open vSwitch bridge that is most often there, so that nothing asks first; its
/// guard is there before it. A bridge that is gone since the VM was created (a switch with a new
/// database) is made again, one of a network that we keep as far as its guests see it.
pub(super) fn add_to_ovs(
    port: &Port<'_>,
    bridge: &str,
    create: bool,
    datapath: &Datapath,
    add: impl Fn(Line) -> Result<()>,
) -> Result<()> {
    let add = || {
        let number = port.ovs.guard(bridge, &port.name(), port.vm, port.vm_number, port.nic)?;
        add(port.line(number))
    };
    match add() {
        Err(error) if error.kind() == Kind::NotFound && port.nic.guard.is_some() => {
            port.ovs.make_network(&guests_side(port, bridge, datapath))?;
            add()
        }
        Err(error) if create && error.kind() == Kind::NotFound => {
            ovs(port.ovs, bridge, create, datapath)?;
            add()
        }
        done => done,
    }
}

/// What is known of a NIC's network without its record.
fn guests_side(port: &Port<'_>, bridge: &str, datapath: &Datapath) -> NetworkSpec {
    NetworkSpec {
        name: port.nic.network.clone(),
        switch: Switch::Ovs,
        bridge: bridge.to_owned(),
        datapath: match datapath {
            Datapath::System => Some(spec::Datapath::System),
            Datapath::Netdev => Some(spec::Datapath::Netdev),
            Datapath::Other(_) => None,
        },
        vlan: port.nic.vlan,
        mtu: port.nic.mtu,
        uplink: None,
        host: None,
    }
}

/// A Linux bridge.
pub(super) fn linux(name: &str, create: bool) -> Result<NetDevice> {
    let look = || NetDevice::find(name).or_failed(|| format!("cannot look for the bridge `{name}`"));
    let bridge = match look()? {
        Some(found) => found,
        None if !create => {
            return Err(Error::not_found(format!("there is no bridge `{name}`")).hint(format!(
                "set `create = true` in its network, or add it: `ip link add {name} type bridge && ip link set {name} up`"
            )));
        }
        None => match NetDevice::create_bridge(name) {
            Ok(made) => made,
            // Another process was quicker.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                look()?.ok_or_else(|| Error::failed(format!("the bridge `{name}` vanished")))?
            }
            Err(error) => return Err(explain(format!("cannot make the bridge `{name}`"), error)),
        },
    };
    if !bridge.is_bridge().or_failed(|| format!("cannot see what `{name}` is"))? {
        return Err(Error::failed(format!("`{name}` is a network device, but not a bridge"))
            .hint("name another bridge in its network; for one of Open vSwitch set `type = \"ovs\"`"));
    }
    if create {
        bridge.set_up().map_err(|error| explain(format!("cannot bring up the bridge `{name}`"), error))?;
    }
    Ok(bridge)
}

/// Plugs a device into a Linux bridge.
pub(super) fn plug(bridge: &str, device: &NetDevice, device_name: &str) -> Result<()> {
    linux(bridge, false)?
        .add_port(device)
        .map_err(|error| explain(format!("cannot plug `{device_name}` into the bridge `{bridge}`"), error))
}

/// The same for a device that should be in it already; `false`: it is in this or another bridge.
pub(super) fn plug_again(bridge: &str, device: &NetDevice, device_name: &str) -> Result<bool> {
    match linux(bridge, false)?.add_port(device) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
        Err(error) => Err(explain(format!("cannot plug `{device_name}` into the bridge `{bridge}`"), error)),
    }
}

pub(super) fn is_linux_bridge(name: &str) -> bool {
    NetDevice::find(name).ok().flatten().is_some_and(|device| device.is_bridge().unwrap_or(false))
}

pub(super) fn explain(what: String, error: io::Error) -> Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Some("run as root, or use a network of type `user`"),
        // ENOPKG: how the kernel says that it was built without bridges.
        Some(libc::ENOPKG) => Some("load it: `modprobe bridge`"),
        _ => None,
    };
    let error = Error::failed(what).source(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
