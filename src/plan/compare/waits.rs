//! What nobody can have as long as another VM has it: an address or a MAC that waits to be given up is
//! waited for. So does all that is done at one go with it, and whoever is to have what that VM has.

use std::collections::HashMap;

use crate::plan::change::{Change, Item, Need, Work};
use crate::plan::look::Situation;
use crate::plan::things::{self, Thing, gains, is_nic};
use crate::spec::VmSpec;

/// Why an item cannot be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) need: Need,
    pub(super) why: String,
}

/// Which items wait for another one.
pub(super) fn waits(situation: &Situation, items: &[Item]) -> HashMap<usize, Wait> {
    let mut waits = HashMap::new();
    let mut late: Vec<(usize, Need)> =
        items.iter().enumerate().filter_map(|(at, item)| Some((at, late(item)?))).collect();
    if late.is_empty() {
        return waits;
    }
    let takers: HashMap<Thing<'_>, usize> =
        items.iter().enumerate().flat_map(|(at, item)| gains(item).into_iter().map(move |thing| (thing, at))).collect();
    while let Some((at, need)) = late.pop() {
        for thing in has(situation, &items[at]).filter(|thing| !matches!(thing, Thing::Port(..))) {
            let Some(taker) = takers.get(&thing).filter(|taker| **taker != at && !waits.contains_key(*taker)) else {
                continue;
            };
            let why = format!("`{}` gives up {thing} with `{need}`", items[at].vm);
            waits.insert(*taker, Wait { need: need.clone(), why });
            late.push((*taker, need.clone()));
        }
    }
    waits
}

/// What a NIC of it waits for.
fn late(item: &Item) -> Option<Need> {
    let mut nics = item.changes.iter().filter(|change| is_nic(&change.field));
    nics.find_map(|change| change.needs.clone())
}

fn has<'a>(situation: &'a Situation, item: &'a Item) -> impl Iterator<Item = Thing<'a>> {
    let spec: Option<&VmSpec> = match &item.work {
        Work::Alter(work) => Some(&work.spec),
        Work::Replace(vm, _) => situation.seen.iter().map(|seen| &seen.record.spec).find(|spec| spec.uuid == *vm),
        _ => None,
    };
    spec.into_iter().flat_map(things::of)
}

/// What is done later to one that is made.
pub(super) fn put_off(changes: &mut [Change], wait: Option<&Wait>) {
    let Some(Wait { need, why }) = wait else { return };
    for change in &mut *changes {
        change.needs = Some(need.clone());
    }
    if let Some(first) = changes.first_mut() {
        first.why = Some(why.clone());
    }
}
