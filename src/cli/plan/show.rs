//! A plan as it is read: by a person, or by a script.

use std::collections::BTreeSet;

use serde::Serialize;

use super::fit::fit;
use crate::cli::colour::Tone;
use crate::cli::table::{Cell, Table};
use crate::cli::ui::count;
use crate::plan::{Change, Class, Item, Need, Plan, Work};
use crate::spec::Name;

/// One line of a plan, in stable form.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Row {
    vm: String,
    change: String,
    field: String,
    old: Option<String>,
    new: Option<String>,
    /// The option without which it waits.
    needs: Option<String>,
    why: Option<String>,
    hint: Option<String>,
    #[serde(skip)]
    pub(in crate::cli) class: Class,
}

pub(in crate::cli) fn rows(plan: &Plan) -> Vec<Row> {
    plan.lines()
        .map(|(vm, change)| Row {
            vm: vm.to_string(),
            change: change.class.to_string(),
            field: change.field.to_string(),
            old: change.old.clone(),
            new: change.new.clone(),
            needs: change.needs.as_ref().map(ToString::to_string),
            why: change.why.clone(),
            hint: change.hint.clone(),
            class: change.class,
        })
        .collect()
}

/// `wide`: values are shown in the whole, however long they are.
pub(in crate::cli) fn table(rows: &[Row], wide: bool) -> Table {
    let mut table = Table::new(["VM", "CHANGE", "FIELD", "OLD", "NEW", "NEEDS"]);
    let or_dash = |text: &Option<String>| match text.as_deref() {
        None => "-".to_owned(),
        Some("") => "\"\"".to_owned(),
        Some(text) => text.to_owned(),
    };
    for row in rows {
        let (old, new) = match wide {
            true => (row.old.clone(), row.new.clone()),
            false => fit(row.old.as_deref(), row.new.as_deref()),
        };
        table.row(vec![
            row.vm.clone().into(),
            match tone(row.class) {
                Some(tone) => Cell::toned(row.change.clone(), tone),
                None => row.change.clone().into(),
            },
            row.field.clone().into(),
            or_dash(&old).into(),
            or_dash(&new).into(),
            or_dash(&row.needs).into(),
        ]);
    }
    table
}

fn tone(class: Class) -> Option<Tone> {
    match class {
        Class::Create | Class::Start => Some(Tone::Good),
        Class::Live => None,
        Class::Restart | Class::Stop => Some(Tone::Busy),
        Class::Replace | Class::Delete | Class::Refused => Some(Tone::Bad),
    }
}

/// What a plan comes to, what is lost by it, what waits for what, and what is refused.
pub(in crate::cli) fn talk(plan: &Plan) -> Vec<String> {
    if plan.items.is_empty() {
        return vec!["nothing to do".to_owned()];
    }
    let mut lines = vec![summary(plan)];
    let loses = |item: &&Item| matches!(item.work, Work::Replace(..) | Work::Delete(_));
    let lost: Vec<&Name> = plan.items.iter().filter(loses).map(|item| &item.vm).collect();
    if !lost.is_empty() {
        lines.push(format!("what is on the disks of {} is lost", names(&lost)));
    }
    lines.extend(waiting(plan));
    for (vm, Change { why, hint, .. }) in plan.refusals() {
        lines.push(format!("refused: `{vm}`: {}", why.as_deref().unwrap_or_default()));
        lines.extend(hint.as_ref().map(|hint| format!("hint: {hint}")));
    }
    lines
}

/// `1 VM to create, 2 to change`.
fn summary(plan: &Plan) -> String {
    const KINDS: [&str; 8] =
        ["to create", "to start", "to change", "to restart", "to replace", "to stop", "to let go", "to delete"];
    let due: Vec<&str> = plan.items.iter().filter(|item| item.is_due()).filter_map(what_becomes).collect();
    let number = |kind: &str| due.iter().filter(|becomes| **becomes == kind).count();
    let there = KINDS.iter().map(|kind| (number(kind), kind)).filter(|(number, _)| *number > 0).enumerate();
    let parts: Vec<String> = there
        .map(|(index, (number, kind))| match index {
            0 => format!("{} {kind}", count(number, "VM")),
            _ => format!("{number} {kind}"),
        })
        .collect();
    match parts.is_empty() {
        false => parts.join(", "),
        true if plan.lines().any(|(_, change)| change.needs.is_some()) => "nothing to do but what waits".to_owned(),
        true => "nothing to do but what is refused".to_owned(),
    }
}

/// What its VM will notice most of it.
fn what_becomes(item: &Item) -> Option<&'static str> {
    let restarts = |change: &Change| change.class == Class::Restart && change.needs.is_none();
    match &item.work {
        Work::Refused => None,
        Work::Create(_) => Some("to create"),
        Work::Alter(alter) => Some(match alter.run {
            Some(true) => "to start",
            Some(false) => "to stop",
            None if item.changes.iter().any(restarts) => "to restart",
            None => "to change",
        }),
        Work::Replace(..) => Some("to replace"),
        Work::Release { stop: true, .. } => Some("to stop"),
        Work::Release { stop: false, .. } => Some("to let go"),
        Work::Delete(_) => Some("to delete"),
    }
}

/// What waits, by what it waits for, and for whom.
fn waiting(plan: &Plan) -> Vec<String> {
    let waits = |need: fn(&Need) -> bool| -> (Vec<&Name>, BTreeSet<String>) {
        let lines = plan.lines().filter_map(|(vm, change)| Some((vm, change.needs.as_ref().filter(|is| need(is))?)));
        lines.map(|(vm, need)| (vm, need.to_string())).unzip()
    };
    let mut lines = Vec::new();
    for (mut vms, options) in [waits(|need| *need == Need::Restart), waits(|need| *need != Need::Restart)] {
        let changes = count(vms.len(), "change");
        let wait = if vms.len() == 1 { "waits" } else { "wait" };
        vms.dedup();
        let option = match options.len() {
            0 => continue,
            1 => options.into_iter().collect(),
            _ => "--replace NAME".to_owned(),
        };
        lines.push(format!("{changes} of {} {wait} for `{option}`", names(&vms)));
    }
    let mut reasons: Vec<String> = plan
        .lines()
        .filter(|(_, change)| change.needs.is_some())
        .filter_map(|(vm, change)| Some(format!("`{vm}` waits: {}", change.why.as_ref()?)))
        .collect();
    reasons.dedup();
    lines.extend(reasons);
    lines
}

/// How many names are told one by one.
const NAMES: usize = 5;

fn names(vms: &[&Name]) -> String {
    if vms.len() > NAMES {
        return count(vms.len(), "VM");
    }
    let names: Vec<String> = vms.iter().map(|vm| format!("`{vm}`")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}
