//! A plan as it is read: by a person, or by a script.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::colour::Tone;
use crate::cli::table::{Cell, Table};
use crate::cli::ui::count;
use crate::plan::{Change, Class, Plan, Work};

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

pub(in crate::cli) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["VM", "CHANGE", "FIELD", "OLD", "NEW", "NEEDS"]);
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for row in rows {
        table.row(vec![
            row.vm.clone().into(),
            match tone(row.class) {
                Some(tone) => Cell::toned(row.change.clone(), tone),
                None => row.change.clone().into(),
            },
            row.field.clone().into(),
            or_dash(&row.old).into(),
            or_dash(&row.new).into(),
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

/// What a plan comes to, what waits for what, and what is refused.
pub(in crate::cli) fn talk(plan: &Plan) -> Vec<String> {
    if plan.items.is_empty() {
        return vec!["nothing to do".to_owned()];
    }
    let mut lines = vec![summary(plan)];
    lines.extend(waiting(plan));
    for (vm, Change { why, hint, .. }) in plan.refusals() {
        lines.push(format!("refused: `{vm}`: {}", why.as_deref().unwrap_or_default()));
        lines.extend(hint.as_ref().map(|hint| format!("hint: {hint}")));
    }
    lines
}

/// `1 VM to create, 2 to change, 1 refused`.
fn summary(plan: &Plan) -> String {
    let number = |which: fn(&Work) -> bool| plan.items.iter().filter(|item| item.is_due() && which(&item.work)).count();
    let kinds = [
        (number(|work| matches!(work, Work::Create(_))), "to create"),
        (number(|work| matches!(work, Work::Alter(_))), "to change"),
        (number(|work| matches!(work, Work::Replace(..))), "to replace"),
        (number(|work| matches!(work, Work::Release { .. })), "to let go"),
        (number(|work| matches!(work, Work::Delete(_))), "to delete"),
    ];
    let there = kinds.iter().filter(|(number, _)| *number > 0).enumerate();
    let parts: Vec<String> = there
        .map(|(index, (number, what))| match index {
            0 => format!("{} {what}", count(*number, "VM")),
            _ => format!("{number} {what}"),
        })
        .collect();
    if parts.is_empty() { "nothing to do as it stands".to_owned() } else { parts.join(", ") }
}

/// How many names are told one by one.
const NAMES: usize = 5;

/// What waits, by what it waits for.
fn waiting(plan: &Plan) -> Vec<String> {
    let mut waits: BTreeMap<String, Vec<(String, usize)>> = BTreeMap::new();
    for item in &plan.items {
        for need in item.changes.iter().filter_map(|change| change.needs.as_ref()) {
            let vms = waits.entry(need.to_string()).or_default();
            match vms.last_mut().filter(|(vm, _)| *vm == item.vm.as_str()) {
                Some((_, number)) => *number += 1,
                None => vms.push((item.vm.to_string(), 1)),
            }
        }
    }
    let line = |(need, vms): (String, Vec<(String, usize)>)| {
        let all = vms.iter().map(|(_, number)| number).sum();
        let of = match vms.len() {
            0..=NAMES => vms.iter().map(|(vm, _)| format!("`{vm}`")).collect::<Vec<_>>().join(", "),
            many => format!("{many} VMs"),
        };
        let wait = if all == 1 { "waits" } else { "wait" };
        format!("{} of {of} {wait} for `{need}`", count(all, "change"))
    };
    waits.into_iter().map(line).collect()
}
