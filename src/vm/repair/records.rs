//! What the records show: work cut short, and runs that nobody watches.

use uuid::Uuid;

use super::rest::{Standings, hypervisor_lives};
use super::{Action, Finding, Kind, Remedy};
use crate::error::{Error, Result};
use crate::spec::{Happening, Progress, Restart, State, VmSpec};
use crate::store::{Record, Store};
use crate::vm::launch::{Purpose, Starting, launch};
use crate::vm::observe::{ADOPT, is_supervised};
use crate::vm::{Site, alter, reconcile, rename, sweep};

pub(super) fn survey(site: &Site, standings: &Standings) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for record in &standings.records {
        if let Some(finding) = cut_short(site, record) {
            found.push(finding);
        }
        if let Some(kind) = untended(site, record)? {
            found.push(run(site, record, kind));
        }
    }
    Ok(found)
}

fn cut_short(site: &Site, record: &Record) -> Option<Finding> {
    let vm = record.spec.uuid;
    let (kind, verb, action, remedy) = if rename::is_cut_short(record) {
        (Kind::HalfRenamed, "rename", Action::Finish, Remedy::Rename(vm))
    } else if alter::is_cut_short(record) {
        let action = if alter::is_recorded(record) { Action::Finish } else { Action::Undo };
        (Kind::HalfReshaped, "change", action, Remedy::Reshape(vm))
    } else if !sweep::is_abandoned(record) {
        return None;
    } else if record.state == State::Creating {
        (Kind::HalfCreated, "create", Action::Undo, Remedy::Abandoned(vm))
    } else {
        (Kind::HalfDeleted, "delete", Action::Finish, Remedy::Abandoned(vm))
    };
    let what = format!("its {verb} was cut short{}", at_step(record.progress.as_ref()));
    let place = site.dirs.vm(vm).display().to_string();
    Some(Finding { kind, what, place, action, vm: Some(record.spec.name.to_string()), remedy })
}

fn at_step(progress: Option<&Progress>) -> String {
    match progress {
        Some(Progress { step, done: true, .. }) => format!(", after the step `{step}`"),
        Some(Progress { step, done: false, .. }) => format!(", at the step `{step}`"),
        None => String::new(),
    }
}

/// What a record that says that the VM lives lacks; `None` when nothing.
fn untended(site: &Site, record: &Record) -> Result<Option<Kind>> {
    if !record.state.is_live() || is_supervised(site, record)? {
        return Ok(None);
    }
    Ok(Some(match (record.state, hypervisor_lives(record)) {
        (State::Restarting, _) => Kind::StalledRestart,
        (State::Starting, true) => Kind::HalfStarted,
        (_, true) => Kind::UnwatchedGuest,
        (_, false) => Kind::LostRun,
    }))
}

fn run(site: &Site, record: &Record, kind: Kind) -> Finding {
    let (what, action) = match kind {
        Kind::StalledRestart => ("it waits to start again, and its supervisor was killed", Action::Watch),
        Kind::HalfStarted => ("its supervisor was killed while it was starting", Action::Undo),
        Kind::UnwatchedGuest => ("it runs, and its supervisor was killed", Action::Watch),
        _ => ("its supervisor and its hypervisor are gone", Action::RecordEnd),
    };
    let hypervisor = record.runtime.as_ref().and_then(|runtime| runtime.hypervisor);
    let place = match hypervisor {
        Some(hypervisor) => format!("process {}", hypervisor.pid),
        None => site.dirs.vm(record.spec.uuid).display().to_string(),
    };
    let vm = Some(record.spec.name.to_string());
    Finding { kind, what: what.to_owned(), place, action, vm, remedy: Remedy::Run(record.spec.uuid) }
}

pub(super) fn collect_abandoned(site: &Site, store: &mut Store, vm: Uuid) -> Result<bool> {
    sweep::collect(site, store, vm)
}

pub(super) fn finish_rename(site: &Site, store: &mut Store, vm: Uuid) -> Result<bool> {
    let Some(record) = store.get(vm)? else { return Ok(false) };
    let done = rename::finish(site, store, vm)?;
    if done {
        told(store, &record.spec, format!("its rename to `{}` was finished", record.spec.name))?;
    }
    Ok(done)
}

/// Gives a run that nobody watches a new supervisor, which decides, holding the lock, what becomes
/// of it. One that is over, and will not be followed by another, is recorded as ended here.
pub(super) fn tend(site: &Site, store: &mut Store, vm: Uuid) -> Result<bool> {
    let Some(record) = store.get(vm)? else { return Ok(false) };
    let spec = record.spec.clone();
    let Some(kind) = untended(site, &record)? else { return Ok(false) };
    if kind == Kind::LostRun && spec.policy.restart == Restart::No {
        reconcile(site, store, record)?;
    } else {
        launch(site, &spec, Purpose::Adopt, ADOPT).and_then(Starting::wait)?;
    }
    if let Some(record) = store.get(vm)?
        && untended(site, &record)? == Some(kind)
    {
        return Err(Error::failed(format!("nobody can watch over `{}`", spec.name))
            .hint(format!("its supervisor says why: `v vm log --supervisor {}`", spec.name)));
    }
    let detail = match kind {
        Kind::LostRun => "the end of its run was recorded",
        Kind::HalfStarted => "its start was undone",
        _ => "a new supervisor took over",
    };
    told(store, &spec, detail.to_owned())?;
    Ok(true)
}

pub(super) fn told(store: &mut Store, spec: &VmSpec, detail: String) -> Result<()> {
    store.tell(spec, &Happening::Repaired { detail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Verb;

    #[test]
    fn where_it_was_cut_short() {
        let progress = |done| Progress { verb: Verb::Create, step: "disk".to_owned(), done };
        assert_eq!(at_step(Some(&progress(true))), ", after the step `disk`");
        assert_eq!(at_step(Some(&progress(false))), ", at the step `disk`");
        assert_eq!(at_step(None), "");
    }
}
