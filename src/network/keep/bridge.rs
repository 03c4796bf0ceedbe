//! The bridge, and whose it is.

use std::path::Path;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::super::bridge::explain;
use super::super::ovs::Ovs;
use super::ip::{self, ip};
use crate::error::{Error, OrFailed, Result};
use crate::host::NetDevice;
use crate::spec::{Mac, NetworkSpec, Switch};

/// Who made the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// There is none.
    Nobody,
    /// This store's, by its mark.
    Ours,
    Other,
}

/// What stands in the alias of a bridge that is ours.
fn mark(state: &Path) -> String {
    format!("virshle {}", state.display())
}

/// Who made the bridge `name`. A device of that name that is no bridge is somebody else's.
pub fn whose(name: &str, switch: Switch, state: &Path, ovs: &Ovs) -> Result<Whose> {
    if switch == Switch::Ovs
        && let Some(ours) = ovs.bridge_is_ours(name)?
    {
        return Ok(if ours { Whose::Ours } else { Whose::Other });
    }
    match NetDevice::find(name).or_failed(|| format!("cannot look for the bridge `{name}`"))? {
        None => Ok(Whose::Nobody),
        // One of Open vSwitch was found by its database, above.
        Some(_) if switch == Switch::Ovs => Ok(Whose::Other),
        Some(_) => {
            let marked = ip::alias(name)? == Some(mark(state));
            Ok(if marked { Whose::Ours } else { Whose::Other })
        }
    }
}

/// Linux bridges with the mark of this store.
pub fn marked_bridges(state: &Path) -> Result<Vec<String>> {
    let mark = mark(state);
    let ours = ip::bridges()?.into_iter().filter(|bridge| bridge.ifalias.as_ref() == Some(&mark));
    Ok(ours.map(|bridge| bridge.ifname).collect())
}

/// Makes the bridge, with its MTU, and brings it up. Whose a bridge is that is there already, the
/// caller has looked at; one of Linux without a mark, of a process that was killed here, gets it.
pub fn make_bridge(spec: &NetworkSpec, state: &Path, ovs: &Ovs) -> Result<()> {
    let name = &spec.bridge;
    match spec.switch {
        Switch::Ovs => {
            ovs.make_network(spec)?;
        }
        Switch::Bridge => {
            match NetDevice::create_bridge(name) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                Err(error) => return Err(explain(format!("cannot make the bridge `{name}`"), error)),
            }
            ip(["link", "set", "dev", name, "alias", &mark(state)])?;
            // One without a MAC of its own takes on the lowest of its ports', and changes it with them.
            if spec.uplink.is_none() {
                ip(["link", "set", "dev", name, "address", &mac(spec, state).to_string()])?;
            }
        }
    }
    let device = spec.device();
    match NetDevice::find(&device).or_failed(|| format!("cannot look for `{device}`"))? {
        Some(found) => {
            if let Some(mtu) = spec.mtu.filter(|mtu| found.mtu().ok() != Some(i32::from(*mtu))) {
                let failed = || format!("cannot give `{device}` the MTU {mtu}");
                found.set_mtu(i32::from(mtu)).or_failed(failed)?;
            }
            found.set_up().map_err(|error| explain(format!("cannot bring up `{device}`"), error))
        }
        // A switch that runs elsewhere: nothing of this host is on it.
        None if spec.host.is_none() => Ok(()),
        None => Err(Error::failed(format!("the bridge `{name}` has no device of its own on this host"))
            .hint("Open vSwitch must run in this host's network namespace for a network with a `subnet`")),
    }
}

/// Whether this host has the network's device; one of a switch that runs elsewhere cannot be seen.
pub fn is_there(spec: &NetworkSpec) -> Result<bool> {
    if spec.switch == Switch::Ovs && spec.host.is_none() {
        return Ok(true);
    }
    let device = spec.device();
    Ok(NetDevice::find(&device).or_failed(|| format!("cannot look for `{device}`"))?.is_some())
}

/// Whether the bridge is as it is made: down, without addresses and without ports. Between that and
/// its mark a process can be killed.
pub fn is_bare(spec: &NetworkSpec) -> Result<bool> {
    if spec.switch != Switch::Bridge {
        return Ok(false);
    }
    match ip::device(&spec.bridge)? {
        Some(device) => Ok(device.is_bare() && ip::alias(&spec.bridge)?.is_none() && !ip::has_ports(&spec.bridge)?),
        None => Ok(false),
    }
}

/// The same at each making, so that guests and neighbours keep what they know.
fn mac(spec: &NetworkSpec, state: &Path) -> Mac {
    let digest = Sha256::digest(format!("{} {}", mark(state), spec.name));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Mac::of(Uuid::from_bytes(bytes), 0)
}

/// Removes the bridge, if it is ours: by its mark, or because the record says that it was being
/// made (`unmarked`).
pub fn remove_bridge(spec: &NetworkSpec, state: &Path, ovs: &Ovs, unmarked: bool) -> Result<()> {
    match spec.switch {
        Switch::Ovs => ovs.unmake_network(spec),
        Switch::Bridge => match whose(&spec.bridge, spec.switch, state, ovs)? {
            Whose::Nobody => Ok(()),
            Whose::Other if !unmarked => {
                tracing::warn!(bridge = spec.bridge, "left alone: it is somebody else's by now");
                Ok(())
            }
            Whose::Ours | Whose::Other => remove(&spec.bridge),
        },
    }
}

/// Removes a Linux bridge that has our mark; `false`: there is none.
pub fn remove_marked(name: &str, state: &Path) -> Result<bool> {
    let ours = ip::alias(name)? == Some(mark(state));
    if ours {
        remove(name)?;
    }
    Ok(ours)
}

fn remove(name: &str) -> Result<()> {
    ip(["link", "delete", "dev", name, "type", "bridge"]).map(drop)
}
