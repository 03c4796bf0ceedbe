use super::leftovers::{release_ports, told};
use super::site::remove_tree;
use super::steps::{Step, opening, run_all};
use super::{Site, force_stop, networks, reconcile, unit};
use crate::error::{Error, OrFailed, Result};
use crate::host::Handle;
use crate::spec::{Event, Intent, Progress, State, Verb, VmSpec};
use crate::store::{Record, Store};

/// Removes a VM, its disks and its addresses. A running one is refused unless `force`, which cuts
/// its power first; a protected one is refused in any case.
pub fn delete(site: &Site, store: &mut Store, record: Record, force: bool) -> Result<()> {
    delete_if(site, store, record, force, |_| Ok(()))
}

/// The same, as long as the record passes `check`: before its power is cut, and in the transaction
/// that begins the delete.
pub fn delete_if(
    site: &Site,
    store: &mut Store,
    record: Record,
    force: bool,
    check: impl Fn(&Record) -> Result<()>,
) -> Result<()> {
    let observed = reconcile(site, store, record)?;
    check(&observed.record)?;
    check_unprotected(&observed.record)?;
    let spec = observed.record.spec;
    if observed.state.is_live() {
        if !force {
            return Err(Error::refused(format!("cannot delete `{}`: it is {}", spec.name, observed.state)).hint(
                format!(
                    "stop it first with `v vm stop {0}`, or cut its power with `v vm delete --force {0}` (its disks are lost either way)",
                    spec.name
                ),
            ));
        }
        force_stop(site, store, spec.uuid, Intent::Delete)?;
    }
    let owner = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    let failed = || format!("cannot delete `{}`", spec.name);
    let cut = opening(Verb::Delete, "deleting", |progress| {
        store.update(spec.uuid, |record| {
            check(record)?;
            check_unprotected(record)?;
            let cut = record.progress.as_ref().filter(|_| record.owner.is_some()).map(Progress::cut_short);
            if record.owner.is_some_and(|other| other != owner && other.is_alive()) {
                return Err(Error::refused(format!("{}: another command is at work on it", failed())));
            }
            let applied = record.apply(&Event::Delete);
            applied.map_err(|refusal| Error::refused(format!("{}: {refusal}", failed())))?;
            record.owner = Some(owner);
            record.progress = Some(progress);
            Ok(cut)
        })
    })?;
    told(store, &spec, cut, "finished")?;
    finish(site, store, &spec)
}

/// Refused as long as somebody wants it kept.
pub fn check_unprotected(record: &Record) -> Result<()> {
    let name = &record.spec.name;
    // What is half made, or half gone, is nobody's yet, or no more.
    let is_there = !matches!(record.state, State::Creating | State::Deleting);
    match record.spec.policy.protect && is_there {
        true => Err(Error::refused(format!("cannot delete `{name}`: it is protected"))
            .hint(format!("`v vm protect --off {name}` lets it be deleted"))),
        false => Ok(()),
    }
}

/// The rest of a delete whose intent is recorded. It has no undo: it can only be finished.
pub(super) fn finish(site: &Site, store: &mut Store, spec: &VmSpec) -> Result<()> {
    let vm = [spec.uuid];
    let no_undo = |_: &mut Store| Ok(());
    let steps = [
        Step::new(vm, "ports", |_| release_ports(site, spec), no_undo),
        Step::new(vm, "limits", |_| unit::forget(site, spec), no_undo),
        Step::new(vm, "runtime folder", |_| remove_tree(&site.dirs.run(spec.uuid)), no_undo),
        Step::new(vm, "folder", |_| remove_tree(&site.dirs.vm(spec.uuid)), no_undo),
        Step::new(vm, "row", |store| store.remove(spec.uuid), no_undo),
    ];
    run_all(store, Verb::Delete, &steps)?;
    networks::publish_after(site);
    Ok(())
}
