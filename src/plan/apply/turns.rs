use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::config::Template;
use crate::plan::{Item, Situation, Work};
use crate::spec::{Mac, Name, VmSpec};

/// What only one NIC can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Thing<'a> {
    Address(&'a Name, Ipv4Addr),
    Mac(Mac),
}

/// The items that change a VM or make one, changes first; but whoever gives up an address or a MAC
/// goes before the one that is to have it. Where that goes round in a circle nobody can be first.
pub(super) fn turns(situation: &Situation, items: &[Item]) -> Vec<usize> {
    let holders: HashMap<Thing<'_>, usize> =
        items.iter().enumerate().flat_map(|(at, item)| has(situation, item).map(move |thing| (thing, at))).collect();
    let makes = |at: &usize| !matches!(items[*at].work, Work::Alter(_));
    let mut order: Vec<usize> = (0..items.len()).filter(|at| wants(&items[*at]).is_some()).collect();
    order.sort_by_key(makes);
    let mut turns = Turns { items, holders, seen: vec![false; items.len()], done: Vec::new() };
    order.into_iter().for_each(|at| turns.visit(at));
    turns.done
}

struct Turns<'a> {
    items: &'a [Item],
    holders: HashMap<Thing<'a>, usize>,
    seen: Vec<bool>,
    done: Vec<usize>,
}

impl Turns<'_> {
    fn visit(&mut self, at: usize) {
        if std::mem::replace(&mut self.seen[at], true) {
            return;
        }
        let before: Vec<usize> = wants(&self.items[at])
            .into_iter()
            .flat_map(named)
            .filter_map(|thing| self.holders.get(&thing).copied())
            .filter(|holder| *holder != at)
            .collect();
        before.into_iter().for_each(|holder| self.visit(holder));
        self.done.push(at);
    }
}

/// What it is to become.
fn wants(item: &Item) -> Option<&Template> {
    match &item.work {
        Work::Create(entry) | Work::Replace(_, entry) => Some(&entry.template),
        Work::Alter(work) => Some(&work.entry.template),
        Work::Refused | Work::Release { .. } | Work::Delete(_) => None,
    }
}

fn named(template: &Template) -> impl Iterator<Item = Thing<'_>> {
    template.nets.iter().flat_map(|net| {
        let address = net.address.map(|ip| Thing::Address(&net.name, ip));
        address.into_iter().chain(net.mac.map(Thing::Mac))
    })
}

/// What it has until its turn comes.
fn has<'a>(situation: &'a Situation, item: &'a Item) -> impl Iterator<Item = Thing<'a>> {
    let spec: Option<&VmSpec> = match &item.work {
        Work::Alter(work) => Some(&work.spec),
        Work::Replace(vm, _) => situation.seen.iter().map(|seen| &seen.record.spec).find(|spec| spec.uuid == *vm),
        _ => None,
    };
    spec.into_iter().flat_map(|spec| &spec.nics).flat_map(|nic| {
        let address = nic.address.as_ref().map(|address| Thing::Address(&nic.network, address.ip.addr()));
        address.into_iter().chain([Thing::Mac(nic.mac)])
    })
}
