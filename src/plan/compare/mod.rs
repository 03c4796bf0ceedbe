//! From what there is to what should be. Pure: it opens no file and asks nobody.
//!
//! ```text
//! for each VM of the config    not there ─► create     made by hand, or at work ─► refused
//!                              else, field by field ─► a draft: rows, and what it comes to
//! for each other declared VM   ─► stopped, kept or deleted, as it was last declared
//! whoever is to have what another has, and that one waits, waits with it
//! ```

mod disks;
mod draft;
mod machine;
mod nics;
mod policy;
mod removed;
mod text;
mod vm;
mod waits;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use super::change::{Item, Plan, Wishes};
use super::look::{Seen, Situation};
use crate::config::{DeclaredVm, or_one_of};
use crate::error::{Error, Result, nearest};
use crate::spec::Name;
use waits::{Wait, waits};

/// What is to be done. Fails only on wishes that make no sense, and where what is declared cannot be told.
pub fn compare(situation: &Situation, wishes: &Wishes) -> Result<Plan> {
    let names: HashSet<&Name> = situation.config.vms.iter().map(|vm| &vm.name).collect();
    check_whole(situation, &names)?;
    check(wishes, &names)?;
    let (declared, others): (Vec<&Seen>, Vec<&Seen>) =
        situation.seen.iter().partition(|seen| names.contains(&seen.record.spec.name));
    let seen: HashMap<&Name, &Seen> = declared.into_iter().map(|seen| (&seen.record.spec.name, seen)).collect();
    let removed = others.into_iter().filter_map(removed::item);
    let entry = |entry: &DeclaredVm, wait: Option<&Wait>| {
        vm::item(situation, wishes, entry, seen.get(&entry.name).copied(), wait)
    };
    let entries = &situation.config.vms;
    let mut items: Vec<Item> = removed.chain(entries.iter().filter_map(|vm| entry(vm, None))).collect();
    for (at, wait) in waits(situation, &items) {
        // Names are those of the config there: nothing else gains anything.
        let vm = entries.iter().find(|entry| entry.name == items[at].vm);
        if let Some(item) = vm.and_then(|vm| entry(vm, Some(&wait))) {
            items[at] = item;
        }
    }
    Ok(Plan { items })
}

/// How many VMs are told one by one.
const NAMES: usize = 5;

/// A config file that is lost must not be taken for one that declares nothing.
fn check_whole(situation: &Situation, names: &HashSet<&Name>) -> Result<()> {
    let Some(file) = &situation.config.missing else { return Ok(()) };
    let records = situation.seen.iter().map(|seen| &seen.record);
    let gone: Vec<&Name> = records
        .filter(|record| record.is_declared())
        .map(|record| &record.spec.name)
        .filter(|name| !names.contains(name))
        .collect();
    let whom = match gone.len() {
        0 => return Ok(()),
        1..=NAMES => or_one_of(&gone),
        number => format!("{number} of the VMs that it declared"),
    };
    Err(Error::usage(format!("there is no config file `{}`, and no drop-in declares {whom}", file.display()))
        .hint("put it back; an empty one says that they are meant to be declared no more"))
}

fn check(wishes: &Wishes, names: &HashSet<&Name>) -> Result<()> {
    for (option, wished) in [("--replace", &wishes.replace), ("--adopt", &wishes.adopt)] {
        if let Some(unknown) = wished.iter().find(|name| !names.contains(name)) {
            let hint = match nearest(unknown.as_str(), names.iter().map(|name| name.as_str())) {
                Some(near) => format!("did you mean `{near}`?"),
                None if option == "--adopt" => {
                    format!("if there is such a VM, `v vm export {unknown}` writes its `[[vm]]`")
                }
                None => "it is for VMs that have a `[[vm]]` in the config".to_owned(),
            };
            return Err(Error::usage(format!("`{option} {unknown}`: the config declares no such VM")).hint(hint));
        }
    }
    Ok(())
}
