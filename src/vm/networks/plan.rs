//! What a `[[network]]` comes to on this host: who keeps it, and as what.

use crate::config::{DatapathSetting, Keeping, Network};
use crate::error::{Error, Result};
use crate::network::keep::{self, Whose};
use crate::network::ovs::Ovs;
use crate::spec::{Datapath, Name, NetworkSpec, Switch};
use crate::store::Store;
use crate::vm::Site;

/// Whether Virshle keeps the network, settled by looking where the config leaves it open. A bridge
/// of somebody else's where it must be ours is refused.
pub fn kept(site: &Site, store: &Store, network: &Network, ovs: &Ovs) -> Result<bool> {
    let (Some(switch), keeping) = (network.kind.switch(), network.keeping()) else { return Ok(false) };
    if keeping == Keeping::Theirs {
        return Ok(false);
    }
    // Recorded as ours, or about to be made so.
    if store.network(&network.name)?.is_some_and(|record| record.spec.bridge == network.bridge()) {
        return Ok(true);
    }
    match keep::whose(network.bridge(), switch, &site.dirs.state, ovs)? {
        Whose::Nobody | Whose::Ours => Ok(true),
        Whose::Other if keeping == Keeping::OursIfFree => Ok(false),
        Whose::Other => Err(foreign(&network.name, network.bridge())),
    }
}

pub(super) fn foreign(name: &Name, bridge: &str) -> Error {
    Error::refused(format!("network `{name}` cannot have the bridge `{bridge}`"))
        .source(Error::failed(format!("the bridge `{bridge}` belongs to somebody else")))
        .hint("name another `bridge` in its network; with `create = false` it is used as it is, and nothing of it is changed")
}

/// Everything decided about a network that is to come up.
pub(super) fn plan(store: &mut Store, network: &Network, ovs: &Ovs) -> Result<NetworkSpec> {
    let datapath = match network.kind.switch() {
        Some(Switch::Ovs) => {
            let wanted = match network.datapath.unwrap_or_default() {
                DatapathSetting::Auto => None,
                DatapathSetting::Netdev => Some(Datapath::Netdev),
                DatapathSetting::System => Some(Datapath::System),
            };
            Some(ovs.choose_datapath(wanted)?)
        }
        _ => None,
    };
    let has_ipv6 = network.is_served() && keep::has_ipv6()?;
    let net6 = match has_ipv6 && network.needs_prefix6() {
        true => Some(store.prefix6(&network.name)?),
        false => None,
    };
    let mut spec = network.spec(datapath, net6);
    if let Some(host) = spec.host.as_mut().filter(|_| !has_ipv6) {
        host.address6 = None;
    }
    Ok(spec)
}
