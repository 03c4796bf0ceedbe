//! What only one NIC can have.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;

use super::change::{Alter, Change, Class, Field, Item, NicField, Work};
use super::look::Situation;
use crate::config::{Running, Template};
use crate::spec::{Forward, Mac, Name, Protocol, VmSpec};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Thing<'a> {
    Address(&'a Name, Ipv4Addr),
    Mac(Mac),
    /// Of this host, or of one address of it: only one that runs has it.
    Port(Protocol, u16, Option<Ipv4Addr>),
}

impl Thing<'_> {
    pub(super) fn is_port(self) -> bool {
        matches!(self, Thing::Port(..))
    }

    /// What all have in common that could be in each other's way.
    fn anywhere(self) -> Self {
        match self {
            Thing::Port(protocol, port, _) => Thing::Port(protocol, port, None),
            other => other,
        }
    }

    /// Whether nobody can have the one beside the other.
    fn clashes(self, other: Self) -> bool {
        match (self, other) {
            (Thing::Port(.., Some(one)), Thing::Port(.., Some(two))) if one != two => false,
            _ => self.anywhere() == other.anywhere(),
        }
    }
}

/// Which items have, or are to have, what.
pub(super) struct Book<'a>(HashMap<Thing<'a>, Vec<(Thing<'a>, usize)>>);

impl<'a> Book<'a> {
    pub(super) fn of<T: IntoIterator<Item = Thing<'a>>>(items: impl Iterator<Item = T>) -> Self {
        let mut book: HashMap<_, Vec<_>> = HashMap::new();
        for (at, things) in items.enumerate() {
            things.into_iter().for_each(|thing| book.entry(thing.anywhere()).or_default().push((thing, at)));
        }
        Self(book)
    }

    /// Those that have what nobody can have beside this.
    pub(super) fn of_one(&self, thing: Thing<'a>) -> impl Iterator<Item = usize> {
        let near = self.0.get(&thing.anywhere()).into_iter().flatten();
        near.filter(move |(other, _)| other.clashes(thing)).map(|(_, at)| *at)
    }
}

impl fmt::Display for Thing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Address(network, ip) => write!(f, "the address `{ip}` of network `{network}`"),
            Thing::Mac(mac) => write!(f, "the MAC `{mac}`"),
            Thing::Port(protocol, port, None) => write!(f, "the port `{port}/{protocol}` of this host"),
            Thing::Port(protocol, port, Some(ip)) => write!(f, "the port `{ip}:{port}/{protocol}` of this host"),
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
    Thing::Port(forward.protocol, forward.host_port, forward.host)
}

/// What the item's VM is to get now of what only one can have.
pub(super) fn gains(item: &Item) -> Vec<Thing<'_>> {
    match &item.work {
        Work::Create(entry) | Work::Replace(_, entry) if item.is_due() => {
            let runs = match &item.work {
                Work::Replace(..) => entry.running != Running::No,
                _ => item.changes.iter().any(|change| change.class == Class::Start),
            };
            named(&entry.template).filter(|thing| runs || !thing.is_port()).collect()
        }
        Work::Alter(work) => {
            let has: Vec<Thing<'_>> = of(&work.spec).collect();
            let (anew, opens) = (is_plugged_anew(item, work), work.runs && changes_ports(item, |_| true));
            let is_gain = |thing: &Thing<'_>| match thing {
                // At rest it has none of those that are recorded.
                Thing::Port(..) if work.run == Some(true) => true,
                Thing::Port(..) => opens && !has.contains(thing),
                _ => anew && !has.contains(thing),
            };
            named(&work.entry.template).filter(is_gain).collect()
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
            // One that changes while its VM runs is free before any turn comes.
            let ports = work.runs && changes_ports(item, |class| class == Class::Restart);
            old.filter(|thing| ports || !thing.is_port()).collect()
        }
        Work::Replace(vm, _) if item.is_due() => {
            let mut seen = situation.seen.iter().map(|seen| &seen.record.spec);
            let spec = seen.find(|spec| spec.uuid == *vm);
            spec.into_iter().flat_map(of).filter(|thing| !thing.is_port()).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether its NICs become others now: none of one that runs does without a restart.
fn is_plugged_anew(item: &Item, work: &Alter) -> bool {
    let anew = |change: &Change| is_nic(&change.field) && (change.class == Class::Restart || !work.runs);
    item.changes.iter().any(|change| change.needs.is_none() && anew(change))
}

/// Whether it is given other ports of this host now.
fn changes_ports(item: &Item, which: impl Fn(Class) -> bool) -> bool {
    let mut due = item.changes.iter().filter(|change| change.needs.is_none() && which(change.class));
    due.any(|change| matches!(change.field, Field::Nic(_, NicField::Ports | NicField::Whole)))
}

pub(super) fn is_nic(field: &Field) -> bool {
    matches!(field, Field::Nic(..))
}
