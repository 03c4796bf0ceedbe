//! A network that Virshle keeps, on a bridge of Open vSwitch: what is made for it, and what of that
//! is taken away again.
//!
//! ```text
//! uplink ──┐                       marks, in external_ids of the bridge and of each port:
//! v1n0 ────┤ bridge ── host        virshle-state    the state folder whose store made it
//! v2n0 ────┘  └── bridge.20 (tag)  virshle-network  the networks it is for, `a` or `a,b`
//! ```
//!
//! Networks with different VLANs share a bridge. One without our mark is somebody else's: nothing of
//! it is changed. Ours is `fail_mode=secure`: a switch that has lost its flows moves nothing, so that
//! no guest is ever without its guard; [`Ovs::make_network`] puts the common flows back.

use super::answer::{self, Layout, Marks};
use super::vsctl::{Failure, checked, equals};
use super::{Datapath, NETWORK_KEY, Ovs, STATE_KEY};
use crate::error::{Error, Result};
use crate::host::NetDevice;
use crate::spec::{self, NetworkSpec};

/// What `external_ids` says of the networks, without one of them.
fn without(networks: &[String], name: &str) -> Vec<String> {
    networks.iter().filter(|network| *network != name).cloned().collect()
}

fn with(networks: &[String], name: &str) -> String {
    let mut all = without(networks, name);
    all.push(name.to_owned());
    all.sort();
    all.join(",")
}

impl From<spec::Datapath> for Datapath {
    fn from(datapath: spec::Datapath) -> Self {
        match datapath {
            spec::Datapath::Netdev => Datapath::Netdev,
            spec::Datapath::System => Datapath::System,
        }
    }
}

impl Ovs {
    /// Whether our store made the bridge; `None`: there is none.
    pub fn bridge_is_ours(&self, bridge: &str) -> Result<Option<bool>> {
        Ok(self.layout()?.bridge(checked("bridge", bridge)?).map(|bridge| self.made(&bridge.marks)))
    }

    /// What a new bridge moves frames by, where nothing says it: the switch's own process when it
    /// has DPDK, or when this kernel has nothing better.
    pub fn choose_datapath(&self, setting: Option<spec::Datapath>) -> Result<spec::Datapath> {
        Ok(match setting {
            Some(setting) => setting,
            None if !self.can_system_datapath() || self.dpdk()?.initialized => spec::Datapath::Netdev,
            None => spec::Datapath::System,
        })
    }

    /// Makes what the network needs and is not there yet. `true`: the bridge is new.
    pub fn make_network(&self, spec: &NetworkSpec) -> Result<bool> {
        let (bridge, network) = (checked("bridge", &spec.bridge)?, spec.name.as_str());
        let state = self.state()?;
        let layout = self.layout()?;
        let found = layout.bridge(bridge);
        if let Some(found) = found {
            if !self.made(&found.marks) {
                return Err(self.somebody_elses(bridge));
            }
            let wanted = spec.datapath.map(Datapath::from);
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found.datapath) {
                let (has, wants) = (found.datapath.as_str(), wanted.as_str());
                return Err(Error::failed(format!(
                    "the bridge `{bridge}` has the datapath `{has}`, and the network `{network}` wants `{wants}`"
                ))
                .hint(format!(
                    "take down what is on it: `v network down`; or set `datapath = \"{has}\"` in the network"
                )));
            }
        } else if super::super::bridge::is_linux_bridge(bridge) {
            return Err(Error::refused(format!("`{bridge}` is a Linux bridge, not one of Open vSwitch"))
                .hint("set `type = \"bridge\"` in its network, or name another `bridge`"));
        }
        let mine = |networks: &[String]| {
            [
                equals(&format!("external_ids:{STATE_KEY}"), state),
                equals(&format!("external_ids:{NETWORK_KEY}"), &with(networks, network)),
            ]
        };
        let mut args = Args::default();
        args.add(["--may-exist", "add-br", bridge]);
        args.add(["--", "set", "Bridge", bridge, "fail_mode=secure"]);
        args.extend(mine(found.map(|found| found.marks.networks.as_slice()).unwrap_or_default()));
        if let (None, Some(datapath)) = (found, spec.datapath) {
            args.add([equals("datapath_type", Datapath::from(datapath).as_str())]);
        }
        let device = spec.device();
        let device = checked("device", &device)?;
        let mut new = Vec::new();
        if let Some(vlan) = spec.vlan.filter(|_| spec.host.is_some()) {
            if self.needs_port(&layout, bridge, device, false)? {
                new.push(device.to_owned());
            }
            let networks = layout.port(device).map(|(_, port)| port.marks.networks.as_slice()).unwrap_or_default();
            args.add(["--", "--may-exist", "add-port", bridge, device]);
            args.add(["--", "set", "Port", device]);
            args.add([format!("tag={vlan}")]);
            args.extend(mine(networks));
            args.add(["--", "set", "Interface", device, "type=internal"]);
        }
        if let Some(mtu) = spec.mtu.filter(|_| spec.host.is_some() || spec.vlan.is_none()) {
            args.add(["--", "set", "Interface", device]);
            args.add([format!("mtu_request={mtu}")]);
        }
        if let Some(uplink) = &spec.uplink {
            let uplink = checked("uplink", uplink)?;
            let here = layout.port(uplink).filter(|(on, _)| *on == bridge);
            if self.needs_port(&layout, bridge, uplink, true)? {
                new.push(uplink.to_owned());
            }
            // One that somebody put there by hand stays theirs.
            if here.is_none_or(|(_, port)| self.made(&port.marks)) {
                args.add(["--", "--may-exist", "add-port", bridge, uplink]);
                args.add(["--", "set", "Port", uplink]);
                args.extend(mine(here.map(|(_, port)| port.marks.networks.as_slice()).unwrap_or_default()));
            }
        }
        if found.is_none() {
            new.push(bridge.to_owned());
        }
        self.make(&args, bridge, &new)?;
        self.common_flows(bridge)?;
        for name in [Some(bridge), Some(device), spec.uplink.as_deref()].into_iter().flatten() {
            let up = NetDevice::find(name).and_then(|device| device.map_or(Ok(()), |device| device.set_up()));
            if let Err(error) = up {
                tracing::warn!(device = name, %error, "cannot bring up a device of the network");
            }
        }
        Ok(found.is_none())
    }

    /// Takes away what is marked as this network's alone. The bridge goes with the last network that
    /// is on it, unless somebody else has plugged in a port.
    pub fn unmake_network(&self, spec: &NetworkSpec) -> Result<()> {
        let (bridge, network) = (checked("bridge", &spec.bridge)?, spec.name.as_str());
        let layout = self.layout()?;
        let Some(found) = layout.bridge(bridge) else { return Ok(()) };
        let mut args = Args::default();
        let mut stays = false;
        for port in layout.ports_of(found).filter(|port| port.name != bridge) {
            if !self.made(&port.marks) || !port.marks.networks.iter().any(|name| name == network) {
                stays = true;
                continue;
            }
            let rest = without(&port.marks.networks, network);
            if rest.is_empty() {
                args.add(["--", "--if-exists", "del-port", bridge, port.name.as_str()]);
            } else {
                args.add(["--", "set", "Port", port.name.as_str()]);
                args.add([equals(&format!("external_ids:{NETWORK_KEY}"), &rest.join(","))]);
                stays = true;
            }
        }
        if self.made(&found.marks) {
            let rest = without(&found.marks.networks, network);
            if !rest.is_empty() {
                args.add(["--", "set", "Bridge", bridge]);
                args.add([equals(&format!("external_ids:{NETWORK_KEY}"), &rest.join(","))]);
            } else if stays {
                // Somebody else's ports go on without us, also when the switch starts anew.
                args.add(["--", "remove", "Bridge", bridge, "external_ids", NETWORK_KEY]);
                args.add(["--", "clear", "Bridge", bridge, "fail_mode"]);
            } else {
                args.add(["--", "--if-exists", "del-br", bridge]);
            }
        }
        if args.0.is_empty() {
            return Ok(());
        }
        match self.run(&args.strings()) {
            Ok(_) => Ok(()),
            // The rows are gone; `ovs-vswitchd` does the rest when it is back.
            Err(Failure::Timeout) => Ok(()),
            Err(failure) => Err(self.error(failure).context(format!("cannot take down the network `{network}`"))),
        }
    }

    pub(super) fn layout(&self) -> Result<Layout> {
        let bridges = ["--columns=name,datapath_type,external_ids,ports", "list", "Bridge"];
        let ports = ["--", "--columns=_uuid,name,external_ids", "list", "Port"];
        self.read(&[bridges.as_slice(), &ports].concat(), answer::parse_layout)
    }

    pub(super) fn made(&self, marks: &Marks) -> bool {
        marks.state.is_some() && marks.state == self.state
    }

    fn state(&self) -> Result<&str> {
        self.state.as_deref().ok_or_else(|| Error::failed("a network is made for a state folder, and there is none"))
    }

    /// Whether the port is to be made; refuses one that is somebody else's.
    fn needs_port(&self, layout: &Layout, bridge: &str, port: &str, may_be_theirs: bool) -> Result<bool> {
        let Some((on, found)) = layout.port(port) else { return Ok(true) };
        if on != bridge {
            return Err(Error::refused(format!("`{port}` is already on the bridge `{on}`, not on `{bridge}`"))
                .hint(format!("if nothing needs it there, take it out: `{} del-port {on} {port}`", self.command())));
        }
        if !may_be_theirs && !self.made(&found.marks) {
            return Err(Error::refused(format!("the port `{port}` on `{bridge}` was not made by virshle"))
                .hint(format!("if nothing uses it, remove it: `{} del-port {port}`", self.command())));
        }
        Ok(false)
    }

    pub(super) fn somebody_elses(&self, bridge: &str) -> Error {
        Error::refused(format!("the bridge `{bridge}` belongs to somebody else"))
            .hint("name another `bridge` in its network, or set `create = false` to use it as it is")
    }

    /// One transaction; what is new and does not come up is taken out again.
    fn make(&self, args: &Args, bridge: &str, new: &[String]) -> Result<()> {
        let undo = |error: Error| {
            new.iter().fold(error, |error, name| {
                self.withdraw(if name == bridge { "del-br" } else { "del-port" }, name, error)
            })
        };
        match self.run(&args.strings()) {
            Ok(_) => {}
            Err(Failure::Timeout) => return Err(undo(self.not_acted_on("bridge", bridge))),
            Err(failure) => {
                return Err(self.error(failure).context(format!("cannot make the bridge `{bridge}`")));
            }
        }
        for name in new {
            if let Some(reason) = self.port_error(name)? {
                let what = if name == bridge { "make the bridge" } else { "open the port" };
                let error = Error::failed(format!("Open vSwitch could not {what} `{name}`")).source(reason);
                return Err(undo(error));
            }
        }
        Ok(())
    }
}

/// The words of one transaction.
#[derive(Debug, Default)]
struct Args(Vec<String>);

impl Args {
    fn add<const N: usize>(&mut self, words: [impl Into<String>; N]) {
        self.extend(words.map(Into::into));
    }

    fn extend(&mut self, words: impl IntoIterator<Item = String>) {
        self.0.extend(words);
    }

    /// Without the separator that a list which began with an optional part has in front.
    fn strings(&self) -> Vec<&str> {
        let skip = usize::from(self.0.first().is_some_and(|word| word == "--"));
        self.0.iter().skip(skip).map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_a_bridge() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(with(&[], "lan"), "lan");
        assert_eq!(with(&list(&["lan"]), "lan"), "lan");
        assert_eq!(with(&list(&["lan", "web"]), "dmz"), "dmz,lan,web");
        assert_eq!(without(&list(&["dmz", "lan"]), "lan"), ["dmz"]);
    }
}
