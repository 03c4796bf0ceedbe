//! The host's interface that is put into a bridge. One with addresses of its own is refused: in a
//! bridge they are dead, and whoever is logged in through them is out.

use super::super::bridge::explain;
use super::ip::{self, Device, ip};
use crate::error::{Error, OrFailed, Result};
use crate::host::NetDevice;
use crate::spec::{NetworkSpec, Switch};

/// Refuses an uplink that cannot be put into the bridge.
pub fn check_uplink(spec: &NetworkSpec) -> Result<()> {
    let Some(uplink) = &spec.uplink else { return Ok(()) };
    let failed = format!("cannot put `{uplink}` into the bridge `{}`", spec.bridge);
    let Some(device) = ip::device(uplink)? else {
        return Err(Error::refused(failed)
            .source(Error::failed(format!("there is no interface `{uplink}`")))
            .hint("`ip link` lists them; name one as the network's `uplink`"));
    };
    match obstacle(&device, &spec.bridge) {
        None => Ok(()),
        Some((why, hint)) => Err(Error::refused(failed).source(Error::failed(why)).hint(hint)),
    }
}

/// Why not, and what to do about it.
fn obstacle(device: &Device, bridge: &str) -> Option<(String, String)> {
    let name = &device.ifname;
    match &device.master {
        // An interface on a bridge of Open vSwitch has its own system device for a master.
        Some(master) if master != bridge && master != "ovs-system" => {
            let why = format!("it is in `{master}`");
            return Some((why, format!("take it out with `ip link set {name} nomaster`, or name another `uplink`")));
        }
        _ => {}
    }
    let addresses: Vec<String> = device.addresses().map(|address| address.to_string()).collect();
    if addresses.is_empty() {
        return None;
    }
    let why = format!("it has addresses of its own ({}), which would be dead in a bridge", addresses.join(", "));
    let hint = format!(
        "let the host's own network set-up make a bridge with those addresses and `{name}` in it, and name it as `bridge` with `create = false`; or name an interface without addresses"
    );
    Some((why, hint))
}

/// Puts it into the bridge. Open vSwitch's own way is a part of `Ovs::make_network`.
pub fn join_uplink(spec: &NetworkSpec) -> Result<()> {
    let (Some(uplink), Switch::Bridge) = (&spec.uplink, spec.switch) else { return Ok(()) };
    let failed = || format!("cannot put `{uplink}` into the bridge `{}`", spec.bridge);
    let find = |name: &str| {
        let found = NetDevice::find(name).or_failed(failed)?;
        found.ok_or_else(|| Error::failed(failed()).source(Error::failed(format!("there is no `{name}`"))))
    };
    let (bridge, port) = (find(&spec.bridge)?, find(uplink)?);
    if ip::device(uplink)?.and_then(|device| device.master).as_ref() != Some(&spec.bridge) {
        bridge.add_port(&port).map_err(|error| explain(failed(), error))?;
    }
    port.set_up().map_err(|error| explain(format!("cannot bring up `{uplink}`"), error))
}

/// Whether the network's uplink is there, and down.
pub fn uplink_is_down(spec: &NetworkSpec) -> Result<bool> {
    let Some(uplink) = &spec.uplink else { return Ok(false) };
    let down = |device: NetDevice| device.is_up().map(|up| !up);
    NetDevice::find(uplink)
        .and_then(|found| found.map_or(Ok(false), down))
        .or_failed(|| format!("cannot look at `{uplink}`"))
}

/// Takes it out of the bridge again, and down where it was down before. Out of a bridge of Open
/// vSwitch it is taken by `Ovs::unmake_network`.
pub fn leave_uplink(spec: &NetworkSpec, was_down: bool) -> Result<()> {
    let Some(uplink) = &spec.uplink else { return Ok(()) };
    let Some(device) = ip::device(uplink)? else { return Ok(()) };
    if spec.switch == Switch::Bridge {
        match &device.master {
            Some(master) if *master == spec.bridge => ip(["link", "set", "dev", uplink, "nomaster"]).map(drop)?,
            // Killed between this and what follows, or somebody else's by now.
            Some(_) => return Ok(()),
            None => {}
        }
    }
    match NetDevice::find(uplink).or_failed(|| format!("cannot look at `{uplink}`"))? {
        Some(device) if was_down => {
            device.set_down().map_err(|error| explain(format!("cannot take down `{uplink}`"), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(text: &str) -> Device {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_in_the_way_of_an_uplink() {
        let free = device(r#"{"ifname":"eth1","addr_info":[{"local":"fe80::1","prefixlen":64,"scope":"link"}]}"#);
        assert_eq!(obstacle(&free, "br0"), None);
        let ours = device(r#"{"ifname":"eth1","master":"br0"}"#);
        assert_eq!(obstacle(&ours, "br0"), None);
        let (why, hint) = obstacle(&device(r#"{"ifname":"eth1","master":"br9"}"#), "br0").unwrap();
        assert!(why.contains("`br9`") && hint.contains("nomaster"), "{why} {hint}");
        let used = r#"{"ifname":"eth0","addr_info":[{"local":"192.0.2.7","prefixlen":24,"scope":"global"}]}"#;
        let (why, hint) = obstacle(&device(used), "br0").unwrap();
        assert!(why.contains("192.0.2.7/24") && hint.contains("create = false"), "{why} {hint}");
    }
}
