//! What nobody can have as long as another VM has it: an address, a MAC or a port that waits to be given up is
//! waited for. So does all that is done at one go with it, and whoever is to have what that VM has.

use std::collections::HashMap;

use crate::plan::change::{Change, Item, Need, Work};
use crate::plan::look::Situation;
use crate::plan::things::{self, Book, Thing, gains, is_nic};
use crate::spec::VmSpec;

/// Why an item cannot be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) need: Need,
    pub(super) why: String,
    /// It is for a port: what runs takes no such port and is not restarted, what is at rest is neither changed
    /// nor started, and a new one is not made.
    pub(super) port: bool,
}

/// Which items wait for another one.
pub(super) fn waits(situation: &Situation, items: &[Item]) -> HashMap<usize, Wait> {
    let mut waits: HashMap<usize, Wait> = HashMap::new();
    let mut late: Vec<(usize, Need, bool)> =
        items.iter().enumerate().filter_map(|(at, item)| Some((at, late(item)?, false))).collect();
    if late.is_empty() {
        return waits;
    }
    let takers = Book::of(items.iter().map(gains));
    while let Some((at, need, all)) = late.pop() {
        for thing in has(situation, &items[at], all) {
            let port = thing.is_port();
            for taker in takers.of_one(thing).filter(|taker| *taker != at) {
                if waits.get(&taker).is_some_and(|wait| wait.port || !port) {
                    continue;
                }
                let why = format!("`{}` gives up {thing} with `{need}`", items[at].vm);
                waits.insert(taker, Wait { need: need.clone(), why, port });
                late.push((taker, need.clone(), port));
            }
        }
    }
    waits
}

/// What a NIC of it waits for.
fn late(item: &Item) -> Option<Need> {
    let mut nics = item.changes.iter().filter(|change| is_nic(&change.field));
    nics.find_map(|change| change.needs.clone())
}

/// What it keeps until then; of the ports, those that it runs with: `all`, or what it does not give up now.
fn has<'a>(situation: &'a Situation, item: &'a Item, all: bool) -> impl Iterator<Item = Thing<'a>> {
    let (spec, ports): (Option<&VmSpec>, Vec<Thing<'a>>) = match &item.work {
        Work::Alter(work) => {
            let kept = if all { &work.spec } else { &work.target };
            (Some(&work.spec), if work.runs { things::of(kept).collect() } else { Vec::new() })
        }
        Work::Replace(vm, _) => {
            let seen = situation.seen.iter().find(|seen| seen.record.spec.uuid == *vm);
            let runs = seen.filter(|seen| seen.state.is_live());
            (seen.map(|seen| &seen.record.spec), runs.iter().flat_map(|seen| things::of(&seen.record.spec)).collect())
        }
        _ => (None, Vec::new()),
    };
    spec.into_iter().flat_map(things::of).filter(move |thing| !thing.is_port() || ports.contains(thing))
}

/// What is done later to one that is made.
pub(super) fn put_off(changes: &mut [Change], wait: Option<&Wait>) {
    let Some(Wait { need, why, .. }) = wait else { return };
    for change in &mut *changes {
        change.needs = Some(need.clone());
    }
    if let Some(first) = changes.first_mut() {
        first.why = Some(why.clone());
    }
}
