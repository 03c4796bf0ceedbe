//! A VM that the config declared when it was last applied, and declares no more.

use super::text::{refused, row, shown, yes};
use super::vm::{at_work, refuse};
use crate::plan::change::{Class, Field, Item, Work};
use crate::plan::look::Seen;
use crate::spec::{OnRemove, State};

pub(super) fn item(seen: &Seen) -> Option<Item> {
    let declared = seen.record.declared.as_ref().filter(|declared| !declared.removed)?;
    let spec = &seen.record.spec;
    let lives = seen.state.is_live();
    let deletes = declared.on_remove == OnRemove::Delete || seen.is_abandoned();
    let disturbs = deletes || lives && declared.on_remove == OnRemove::Stop;
    if seen.busy || disturbs && matches!(seen.state, State::Starting | State::Stopping) {
        return Some(refuse(&spec.name, at_work(seen)));
    }
    if deletes {
        if spec.policy.protect && !seen.is_abandoned() {
            let hint = format!("`v vm protect --off {}` lets it be deleted", spec.name);
            let why = "it is protected, and was to be deleted once it is declared no more";
            return Some(refuse(&spec.name, refused(Field::Protect, why, hint)));
        }
        let old = match seen.state {
            State::Creating => "half created".to_owned(),
            State::Deleting => "half deleted".to_owned(),
            state => state.to_string(),
        };
        let changes = vec![row(Class::Delete, Field::Vm, Some(old), None)];
        return Some(Item { vm: spec.name.clone(), changes, work: Work::Delete(spec.uuid) });
    }
    let stop = lives && declared.on_remove == OnRemove::Stop;
    let mut changes = Vec::new();
    if stop {
        changes.push(row(Class::Stop, Field::Running, shown(&seen.state), shown(&State::Stopped)));
    }
    changes.push(row(Class::Live, Field::Declared, yes(&true), yes(&false)));
    Some(Item { vm: spec.name.clone(), changes, work: Work::Release { vm: spec.uuid, stop } })
}
