//! One VM of the config.

use super::draft::Draft;
use super::text::{self, refused, row, shown};
use super::waits::{self, Wait};
use super::{disks, machine, nics, policy};
use crate::config::{DeclaredVm, Running};
use crate::error::Error;
use crate::plan::change::{Alter, Change, Class, Field, Item, Need, Wishes, Work};
use crate::plan::look::{Seen, Situation};
use crate::spec::{Name, State};

/// What is to be done about it; `None`: it is as it should be.
pub(super) fn item(
    situation: &Situation,
    wishes: &Wishes,
    entry: &DeclaredVm,
    seen: Option<&Seen>,
    wait: Option<&Wait>,
) -> Option<Item> {
    if let Some(seen) = seen.filter(|seen| !seen.is_abandoned()) {
        if seen.record.declared.is_none() && !wishes.adopt.contains(&entry.name) {
            let hint = format!("`v apply --adopt {0}` takes it in; else give one of the two another name", entry.name);
            return Some(refuse(&entry.name, refused(Field::Vm, "a VM that was made by hand has this name", hint)));
        }
        if seen.busy {
            return Some(refuse(&entry.name, at_work(seen)));
        }
    }
    if let Some(why) = nics::taken_mac(situation, wishes, entry) {
        return Some(refuse(&entry.name, why));
    }
    let is_made = seen.is_none_or(Seen::is_abandoned) || wishes.replace.contains(&entry.name);
    if is_made && let Some(why) = unreadable(situation, &entry.name) {
        return Some(refuse(&entry.name, why));
    }
    match seen {
        None => Some(create(entry, None, wait)),
        Some(seen) if seen.is_abandoned() => Some(create(entry, Some(seen), wait)),
        Some(seen) => known(situation, wishes, entry, seen, wait),
    }
}

pub(super) fn refuse(vm: &Name, why: Change) -> Item {
    Item { vm: vm.clone(), changes: vec![why], work: Work::Refused }
}

/// Another process is at work on it: whatever is planned now would be out of date.
pub(super) fn at_work(seen: &Seen) -> Change {
    let why = match seen.state {
        State::Creating => "another command is creating it",
        State::Deleting => "another command is deleting it",
        State::Starting => "it is starting",
        State::Stopping => "it is stopping",
        _ => "another command is at work on it",
    };
    refused(Field::Vm, why, "wait until that is done, and plan again")
}

/// `left`: what a killed command left of it.
fn create(entry: &DeclaredVm, left: Option<&Seen>, wait: Option<&Wait>) -> Item {
    let half = |left: &Seen| if left.record.state == State::Creating { "half created" } else { "half deleted" };
    let old = left.map(|left| half(left).to_owned());
    let again = left.and_then(|left| left.record.declared.as_ref()).is_some_and(|declared| declared.start_again);
    let mut changes = vec![row(Class::Create, Field::Vm, old, Some(text::vm(entry)))];
    if entry.running == Running::Yes || again && entry.running == Running::Leave {
        changes.push(row(Class::Start, Field::Running, None, shown(&State::Running)));
    }
    waits::put_off(&mut changes, wait);
    Item { vm: entry.name.clone(), changes, work: Work::Create(Box::new(entry.clone())) }
}

fn known(situation: &Situation, wishes: &Wishes, entry: &DeclaredVm, seen: &Seen, wait: Option<&Wait>) -> Option<Item> {
    let lives = seen.state.is_live();
    let mut draft = Draft::new(situation, wishes, entry, seen, lives && entry.running != Running::No);
    draft.wait = wait;
    let adopted = seen.record.declared.as_ref().is_none_or(|declared| declared.removed);
    if adopted {
        draft.changes.push(row(Class::Live, Field::Declared, text::yes(&false), text::yes(&true)));
    }
    if let Err(error) = differences(&mut draft) {
        let why = error.chain().join(": ");
        let hint = error.hint_text().unwrap_or("mend its `[[vm]]`, or its template");
        return Some(refuse(&entry.name, refused(Field::Vm, why, hint)));
    }
    let run = running(&mut draft, lives);
    let replace = wishes.replace.contains(&entry.name);
    if draft.changes.is_empty() && !replace {
        return None;
    }
    if matches!(seen.state, State::Starting | State::Stopping) {
        return Some(refuse(&entry.name, at_work(seen)));
    }
    let Draft { changes, target, declared, runs, .. } = draft;
    if replace {
        return Some(replacement(entry, seen, changes, wait));
    }
    let alter = Alter { spec: seen.record.spec.clone(), target, entry: entry.clone(), declared, runs, run };
    Some(Item { vm: entry.name.clone(), changes, work: Work::Alter(Box::new(alter)) })
}

fn differences(draft: &mut Draft<'_>) -> Result<(), Error> {
    let (spec, entry) = (draft.spec(), draft.entry);
    draft.value(Class::Live, Field::Template, (&spec.template, &entry.template.name), shown, |spec, new| {
        spec.template = new.clone();
    });
    machine::compare(draft);
    disks::compare(draft)?;
    nics::compare(draft)?;
    policy::compare(draft);
    if let Some(was) = draft.seen.record.declared.as_ref().filter(|was| was.on_remove != entry.on_remove) {
        draft.note(Class::Live, Field::OnRemove, shown(&was.on_remove), shown(&entry.on_remove));
    }
    labels(draft);
    user_data(draft);
    draft.declared.on_remove = entry.on_remove;
    draft.declared.removed = false;
    Ok(())
}

fn labels(draft: &mut Draft<'_>) {
    let (old, new) = (&draft.spec().labels, &draft.entry.template.labels);
    for (key, before) in old.iter() {
        let after = new.get(key);
        if after != Some(before) {
            draft.note(Class::Live, Field::Label(key.to_owned()), shown(&before), after.map(str::to_owned));
        }
    }
    for (key, value) in new.iter().filter(|(key, _)| old.get(key).is_none()) {
        draft.note(Class::Live, Field::Label(key.to_owned()), None, shown(&value));
    }
    draft.target.labels = new.clone();
}

/// Its first boot could not be told what it is to be told.
fn unreadable(situation: &Situation, vm: &Name) -> Option<Change> {
    let why = situation.user_data.get(vm)?.as_ref().err()?;
    Some(refused(Field::UserData, why, "mend `user-data` of its `[[vm]]`, or the file"))
}

/// What a VM made by hand was told nobody knows: it counts as what the config says.
fn user_data(draft: &mut Draft<'_>) {
    // Its first boot is over: it keeps nothing else from being done.
    if let Some(why) = unreadable(draft.situation, draft.name()) {
        draft.changes.push(why);
        return;
    }
    let new = draft.situation.user_data.get(draft.name()).cloned().and_then(Result::ok).flatten();
    let old = draft.declared.user_data.clone();
    if !draft.seen.seed {
        draft.note(Class::Replace, Field::UserData, Some("missing".to_owned()), text::digest(&new));
    } else if draft.seen.record.declared.is_none() {
        draft.declared.user_data = new;
    } else if old != new {
        draft.note(Class::Replace, Field::UserData, text::digest(&old), text::digest(&new));
    }
}

/// Whether it is started or stopped.
fn running(draft: &mut Draft<'_>, lives: bool) -> Option<bool> {
    let again = std::mem::take(&mut draft.declared.start_again);
    let wanted = match draft.entry.running {
        Running::Yes => true,
        Running::No => false,
        Running::Leave => lives || again,
    };
    if wanted == lives {
        return None;
    }
    let (class, becomes) = if wanted { (Class::Start, State::Running) } else { (Class::Stop, State::Stopped) };
    let mut change = row(class, Field::Running, shown(&draft.seen.state), shown(&becomes));
    if wanted && draft.broken {
        change.needs = Some(Need::Replace(draft.name().clone()));
    } else if let Some(wait) = draft.wait.filter(|wait| wanted && wait.port) {
        (change.needs, change.why) = (Some(wait.need.clone()), Some(wait.why.clone()));
    }
    let run = change.needs.is_none().then_some(wanted);
    draft.changes.push(change);
    run
}

/// All that differs is settled by it.
fn replacement(entry: &DeclaredVm, seen: &Seen, mut changes: Vec<Change>, wait: Option<&Wait>) -> Item {
    if seen.record.spec.policy.protect {
        let hint = if entry.template.protect {
            "write `protect = false` in the config and apply that first"
        } else {
            "`v apply` without `--replace` lifts the protection first"
        };
        return refuse(&entry.name, refused(Field::Protect, "it is protected, and would be deleted", hint));
    }
    for change in &mut changes {
        (change.needs, change.why) = (None, None);
        if matches!(change.class, Class::Live | Class::Restart) {
            change.class = Class::Replace;
        }
    }
    if changes.iter().all(|change| change.class != Class::Replace) {
        changes.insert(0, row(Class::Replace, Field::Vm, None, Some("as asked for".to_owned())));
    }
    waits::put_off(&mut changes, wait);
    let work = Work::Replace(seen.record.spec.uuid, Box::new(entry.clone()));
    Item { vm: entry.name.clone(), changes, work }
}
