//! The firewall, always rewritten whole: from the recorded networks and the VMs that live.

use super::lock::hold;
use super::work::Work;
use crate::error::Result;
use crate::host::find_program;
use crate::network::firewall::{self, Port};
use crate::spec::{Link, NetworkSpec, Nic, Switch, VmSpec};
use crate::store::{NetworkState, Record, Store};
use crate::vm::{Site, observe};

/// Makes the firewall what the records say.
pub fn settle(site: &Site) -> Result<()> {
    let _lock = hold(site)?;
    rewrite(&Work::new(site, None)?)
}

/// The same as if one VM were recorded so, for a holder of the lock.
pub(in crate::vm) fn settle_as(site: &Site, spec: &VmSpec) -> Result<()> {
    rewrite_as(&Work::new(site, None)?, Some(spec))
}

/// Whether the firewall has something of the NIC.
pub(super) fn is_kept(nic: &Nic) -> bool {
    nic.guard.is_some()
}

/// After a VM's end: the firewall forgets it. What cannot be done is done by whoever comes next.
pub fn settle_after(site: &Site, spec: &VmSpec) {
    if spec.nics.iter().any(is_kept)
        && let Err(error) = settle(site)
    {
        tracing::warn!(vm = %spec.name, error = %error.chain().join(": "), "the firewall still knows it");
    }
}

pub(super) fn rewrite(work: &Work<'_>) -> Result<()> {
    rewrite_as(work, None)
}

fn rewrite_as(work: &Work<'_>, other: Option<&VmSpec>) -> Result<()> {
    let records = work.store.networks()?;
    let networks: Vec<NetworkSpec> = records
        .into_iter()
        .filter(|record| record.state != NetworkState::GoingDown)
        .map(|record| record.spec)
        .filter(has_rules)
        .collect();
    let live = live(work.site, &work.store)?;
    let specs = live.iter().map(|record| other.filter(|other| other.uuid == record.spec.uuid).unwrap_or(&record.spec));
    let ports: Vec<Port> = specs.flat_map(|spec| ports(spec, &networks)).collect();
    if networks.is_empty() && ports.is_empty() && find_program("nft").is_none() {
        return Ok(());
    }
    firewall::apply(&work.site.firewall_table(), &networks, &ports)
}

/// Whether anything of it is for nftables: a bridge of Open vSwitch keeps its guests apart itself.
pub(super) fn has_rules(spec: &NetworkSpec) -> bool {
    spec.host.is_some() || spec.switch == Switch::Bridge
}

/// The VMs that run, or are about to.
pub(super) fn live(site: &Site, store: &Store) -> Result<Vec<Record>> {
    let mut live = Vec::new();
    for record in store.list()?.into_iter().filter(|record| record.state.is_live()) {
        let observed = observe(site, record)?;
        if observed.state.is_live() {
            live.push(observed.record);
        }
    }
    Ok(live)
}

/// Whether the NIC is on this network, as it was made.
pub(super) fn is_on(nic: &Nic, network: &NetworkSpec) -> bool {
    nic.network == network.name && bridge_of(nic).is_some_and(|bridge| bridge == network.bridge)
}

fn bridge_of(nic: &Nic) -> Option<&str> {
    match &nic.link {
        Link::Vhost { bridge, .. } | Link::Tap { bridge, .. } => Some(bridge),
        Link::User => None,
    }
}

fn ports(spec: &VmSpec, networks: &[NetworkSpec]) -> Vec<Port> {
    let kept = spec.nics.iter().filter_map(|nic| Some((nic, networks.iter().find(|network| is_on(nic, network))?)));
    kept.map(|(nic, network)| Port {
        port: nic.port(spec.number),
        network: network.name.clone(),
        switch: network.switch,
        mac: nic.mac,
        address: nic.address.clone(),
        guard: nic.guard.clone(),
        forwards: nic.forwards.clone(),
    })
    .collect()
}
