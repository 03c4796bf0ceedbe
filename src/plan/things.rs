//! What only one NIC can have.

use std::fmt;
use std::net::Ipv4Addr;

use super::change::{Alter, Change, Class, Field, Item, NicField, Work};
use super::look::Situation;
use crate::config::Template;
use crate::spec::{Forward, Mac, Name, Protocol, VmSpec};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Thing<'a> {
    Address(&'a Name, Ipv4Addr),
    Mac(Mac),
    /// Of this host: only one that runs has it.
    Port(Protocol, u16),
}

impl fmt::Display for Thing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Address(network, ip) => write!(f, "the address `{ip}` of network `{network}`"),
            Thing::Mac(mac) => write!(f, "the MAC `{mac}`"),
            Thing::Port(protocol, port) => write!(f, "the port `{port}/{protocol}` of this host"),
        }
    }
}

/// What the config names for one VM.
pub(super) fn named(template: &Template) -> impl Iterator<Item = Thing<'_>> {
    template.nets.iter().flat_map(|net| {
        let address = net.address.map(|ip| Thing::Address(&net.name, ip));
        address.into_iter().chain(net.mac.map(Thing::Mac)).chain(net.ports.iter().map(port))
    })
}

/// What a VM has.
pub(super) fn of(spec: &VmSpec) -> impl Iterator<Item = Thing<'_>> {
    spec.nics.iter().flat_map(|nic| {
        let address = nic.address.as_ref().map(|address| Thing::Address(&nic.network, address.ip.addr()));
        address.into_iter().chain([Thing::Mac(nic.mac)]).chain(nic.forwards.iter().map(port))
    })
}

fn port(forward: &Forward) -> Thing<'_> {
    Thing::Port(forward.protocol, forward.host_port)
}

/// What the item's VM is to get now of what only one can have.
pub(super) fn gains(item: &Item) -> Vec<Thing<'_>> {
    match &item.work {
        Work::Create(entry) | Work::Replace(_, entry) if item.is_due() => named(&entry.template).collect(),
        Work::Alter(work) if is_plugged_anew(item, work) => {
            let has: Vec<Thing<'_>> = of(&work.spec).collect();
            let new = named(&work.entry.template).filter(|thing| !has.contains(thing));
            new.filter(|thing| concerns(thing, item, work)).collect()
        }
        _ => Vec::new(),
    }
}

/// What it gives up now, and keeps until its turn comes.
pub(super) fn gives<'a>(situation: &'a Situation, item: &'a Item) -> Vec<Thing<'a>> {
    match &item.work {
        Work::Alter(work) => {
            let keeps: Vec<Thing<'_>> = of(&work.target).collect();
            let old = of(&work.spec).filter(|thing| !keeps.contains(thing));
            old.filter(|thing| concerns(thing, item, work)).collect()
        }
        Work::Replace(vm, _) if item.is_due() => {
            let mut seen = situation.seen.iter().map(|seen| &seen.record.spec);
            let spec = seen.find(|spec| spec.uuid == *vm);
            spec.into_iter().flat_map(of).filter(|thing| !matches!(thing, Thing::Port(..))).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether its NICs become others now: none of one that runs does without a restart.
fn is_plugged_anew(item: &Item, work: &Alter) -> bool {
    let anew = |change: &Change| is_nic(&change.field) && (change.class == Class::Restart || !work.runs);
    item.changes.iter().any(|change| change.needs.is_none() && anew(change))
}

/// A port that changes while its VM runs is free before any turn comes, and one at rest has none.
fn concerns(thing: &Thing<'_>, item: &Item, work: &Alter) -> bool {
    let restarts = |field: &Field| matches!(field, Field::Nic(_, NicField::Ports | NicField::Whole));
    let mut due = item.changes.iter().filter(|change| change.class == Class::Restart && change.needs.is_none());
    !matches!(thing, Thing::Port(..)) || work.runs && due.any(|change| restarts(&change.field))
}

pub(super) fn is_nic(field: &Field) -> bool {
    matches!(field, Field::Nic(..))
}
