//! A reshape that was killed. The record decides what becomes of it: one that is as it was has what
//! was made taken away, one that is the new one has the rest done.

use std::path::PathBuf;

use uuid::Uuid;

use super::files;
use crate::error::{OrFailed, Result};
use crate::host::{Handle, Lock, LockError};
use crate::spec::{Disk, Progress, State, Verb, VmSpec};
use crate::store::{Record, Store};
use crate::vm::leftovers::told;
use crate::vm::{Site, hand_over, networks, runner};

/// The step of the transaction that makes the record the new one.
pub(super) const RECORDED: &str = "recorded";
/// The steps before it.
pub(super) const OPENING: &str = "reshaping";
pub(super) const NEW: &str = "new ";

/// Whether a process was killed while it reshaped the VM, or could not end that.
pub(in crate::vm) fn is_cut_short(record: &Record) -> bool {
    !matches!(record.state, State::Creating | State::Deleting)
        && record.progress.as_ref().is_some_and(|progress| progress.verb == Verb::Reshape)
        && record.owner.is_none_or(|owner| !owner.is_alive())
}

/// Whether the record is the new one.
pub(in crate::vm) fn is_recorded(record: &Record) -> bool {
    record.progress.as_ref().is_some_and(|progress| match progress.step.as_str() {
        OPENING => false,
        RECORDED => progress.done,
        step => !step.starts_with(NEW),
    })
}

/// Where a disk of a VM lies: one that a killed process has made may not be in its place yet.
pub fn disk_file(site: &Site, record: &Record, disk: &Disk) -> PathBuf {
    let made = files::new(site, &record.spec, &disk.file());
    match is_cut_short(record) && is_recorded(record) && made.exists() {
        true => made,
        false => site.dirs.vm(record.spec.uuid).join(disk.file()),
    }
}

/// Undoes or finishes all that were cut short. One that cannot be is in nobody's way: its next start, or
/// `v repair`, tries again.
pub fn finish_all(site: &Site) -> Result<()> {
    let Some(store) = Store::open_read_only(&site.dirs.database())? else { return Ok(()) };
    let cut: Vec<Uuid> =
        store.list()?.iter().filter(|record| is_cut_short(record)).map(|record| record.spec.uuid).collect();
    if cut.is_empty() {
        return Ok(());
    }
    let mut store = site.store()?;
    for vm in cut {
        if let Err(error) = finish(site, &mut store, vm) {
            tracing::warn!(error = %error.chain().join(": "));
        }
    }
    Ok(())
}

/// Undoes or finishes it, so that no supervisor can begin meanwhile. `false`: there is none any
/// more, or somebody is at work on the VM.
pub(in crate::vm) fn finish(site: &Site, store: &mut Store, vm: Uuid) -> Result<bool> {
    if !store.get(vm)?.as_ref().is_some_and(is_cut_short) {
        return Ok(false);
    }
    let path = site.lock(vm);
    match Lock::try_take(&path) {
        Ok(_lock) => finish_held(site, store, vm),
        Err(LockError::Held) => Ok(false),
        Err(LockError::Io(error)) => Err(error).or_failed(|| format!("cannot lock `{}`", path.display())),
    }
}

/// The same, for the holder of the VM's lock.
pub fn finish_held(site: &Site, store: &mut Store, vm: Uuid) -> Result<bool> {
    if !store.get(vm)?.as_ref().is_some_and(is_cut_short) {
        return Ok(false);
    }
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    let taken = store.update(vm, |record| {
        if !is_cut_short(record) {
            return Ok(None);
        }
        record.owner = Some(us);
        Ok(Some((record.spec.clone(), is_recorded(record), record.progress.as_ref().map(Progress::cut_short))))
    })?;
    let Some((spec, recorded, cut)) = taken else { return Ok(false) };
    let done = match recorded {
        true => bring(site, &spec),
        false => files::discard(site, &spec),
    };
    store.update(vm, |record| release(record, us, done.is_ok()))?;
    done.map_err(|error| error.context(format!("cannot finish changing `{}`", spec.name)))?;
    told(store, &spec, cut, if recorded { "finished" } else { "undone" })?;
    networks::publish_after(site);
    Ok(true)
}

/// Makes of the VM's folder what the record says.
pub(super) fn bring(site: &Site, spec: &VmSpec) -> Result<()> {
    files::place(site, spec)?;
    files::grow(site, spec)?;
    files::write_network(site, spec)?;
    match site.config() {
        Ok(config) => hand_over(site, spec, runner(site, &config)?.as_ref()),
        // Its start hands them over.
        Err(_) => Ok(()),
    }
}

/// Without `done` it stays cut short: whoever comes next tries again.
pub(super) fn release(record: &mut Record, us: Handle, done: bool) -> Result<()> {
    if record.owner == Some(us) {
        record.owner = None;
        if done {
            record.progress = None;
        }
    }
    Ok(())
}
