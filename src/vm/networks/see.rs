//! How networks stand, without waiting for anybody: the config, the records, and a look at devices.

use super::ensure::is_well;
use super::firewall::is_on;
use super::lock::hold;
use crate::config::{Config, Keeping, Network, NetworkKind};
use crate::error::Result;
use crate::host::{Lock, NetDevice};
use crate::network::keep;
use crate::spec::{Name, Nic, State, Switch};
use crate::store::{NetworkRecord, NetworkState, Record, Store};
use crate::vm::{Site, observe};

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    Up,
    Down,
    /// A command is at work on it.
    Busy,
    /// A command was killed while it was at work on it.
    CutShort,
    /// It is recorded as up, and something of it is missing.
    Damaged,
    /// A bridge of somebody else's, which is there.
    Foreign,
    /// A bridge of somebody else's, which is not there.
    Missing,
    /// Of type `user`: there is nothing to bring up.
    BuiltIn,
}

/// One network, of the config or of the records.
#[derive(Debug, Clone)]
pub struct View {
    pub name: Name,
    pub kind: NetworkKind,
    pub bridge: Option<String>,
    pub condition: Condition,
    pub config: Option<Network>,
    pub record: Option<NetworkRecord>,
}

/// Every network of the config, and then those that are recorded and not in it any more.
pub fn views(site: &Site, config: Option<&Config>, store: Option<&Store>) -> Result<Vec<View>> {
    let records = store.map_or_else(|| Ok(Vec::new()), Store::networks)?;
    let mut views = Vec::new();
    for network in config.iter().flat_map(|config| &config.networks) {
        let record = records.iter().find(|record| record.spec.name == network.name).cloned();
        views.push(View {
            name: network.name.clone(),
            kind: network.kind,
            bridge: network.kind.switch().map(|_| network.bridge().to_owned()),
            condition: match &record {
                Some(record) => of_record(site, record)?,
                None => of_config(network)?,
            },
            config: Some(network.clone()),
            record,
        });
    }
    for record in
        records.into_iter().filter(|record| config.is_none_or(|config| config.network(&record.spec.name).is_none()))
    {
        views.push(View {
            name: record.spec.name.clone(),
            kind: match record.spec.switch {
                Switch::Ovs => NetworkKind::Ovs,
                Switch::Bridge => NetworkKind::Bridge,
            },
            bridge: Some(record.spec.bridge.clone()),
            condition: of_record(site, &record)?,
            config: None,
            record: Some(record),
        });
    }
    Ok(views)
}

fn of_record(site: &Site, record: &NetworkRecord) -> Result<Condition> {
    Ok(match record.state {
        NetworkState::Up if is_well(record)? => Condition::Up,
        NetworkState::Up => Condition::Damaged,
        NetworkState::ComingUp | NetworkState::GoingDown => {
            let lock = site.dirs.state.join("networks.lock");
            if Lock::is_held(&lock).unwrap_or(false) { Condition::Busy } else { Condition::CutShort }
        }
    })
}

fn of_config(network: &Network) -> Result<Condition> {
    let Some(switch) = network.kind.switch() else { return Ok(Condition::BuiltIn) };
    // A bridge of Open vSwitch may be of a switch elsewhere, which is not asked here.
    let there = NetDevice::find(network.bridge()).is_ok_and(|device| device.is_some());
    Ok(match network.keeping() {
        Keeping::Theirs if there || switch == Switch::Ovs => Condition::Foreign,
        Keeping::Theirs => Condition::Missing,
        // Without a record it is not ours.
        Keeping::OursIfFree if there => Condition::Foreign,
        Keeping::Ours | Keeping::OursIfFree => Condition::Down,
    })
}

/// The VMs of a network, each with its NIC there and how it stands.
pub fn users(site: &Site, store: Option<&Store>, view: &View) -> Result<Vec<(Record, Nic, State)>> {
    let mut users = Vec::new();
    for record in store.map_or_else(|| Ok(Vec::new()), Store::list)? {
        let nics = record.spec.nics.iter();
        let on = |nic: &&Nic| match &view.record {
            Some(network) => is_on(nic, &network.spec),
            None => nic.network == view.name,
        };
        let nics: Vec<Nic> = nics.filter(on).cloned().collect();
        if nics.is_empty() {
            continue;
        }
        let observed = observe(site, record)?;
        users.extend(nics.into_iter().map(|nic| (observed.record.clone(), nic, observed.state)));
    }
    Ok(users)
}

/// Networks whose record says more, or less, than there is.
pub(in crate::vm) fn unwell(site: &Site, store: &Store) -> Result<Vec<(NetworkRecord, Condition)>> {
    let mut unwell = Vec::new();
    for record in store.networks()? {
        match of_record(site, &record)? {
            Condition::Up | Condition::Busy => {}
            condition => unwell.push((record, condition)),
        }
    }
    Ok(unwell)
}

/// Linux bridges with this store's mark that no network has.
pub(in crate::vm) fn strays(site: &Site, store: Option<&Store>) -> Result<Vec<String>> {
    let records = store.map_or_else(|| Ok(Vec::new()), Store::networks)?;
    let mut strays = keep::marked_bridges(&site.dirs.state)?;
    strays.retain(|bridge| records.iter().all(|record| record.spec.bridge != *bridge));
    Ok(strays)
}

/// Removes one of [`strays`]; `false`: it is none any more.
pub(in crate::vm) fn remove_stray(site: &Site, bridge: &str) -> Result<bool> {
    let _lock = hold(site)?;
    if !strays(site, Some(&site.store()?))?.iter().any(|stray| stray == bridge) {
        return Ok(false);
    }
    keep::remove_marked(bridge, &site.dirs.state)
}
