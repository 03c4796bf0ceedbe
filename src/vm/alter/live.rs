//! A change that reaches a VM while it runs. It is made first and recorded then: one that was killed
//! in between is still asked for, and making it again changes nothing.

use uuid::Uuid;

use crate::error::{Error, OrFailed, Result};
use crate::host::Handle;
use crate::spec::{Refusal, State, VmSpec};
use crate::store::{Record, Store};
use crate::vm::{Site, networks, reconcile};

pub(super) trait Change {
    /// In a person's words.
    const WHAT: &'static str;
    /// Whether it is one of the firewall, too: nobody else changes that, or looks which ports are
    /// free, before it is recorded.
    const OF_NETWORKS: bool;

    fn change(&self, spec: &mut VmSpec) -> Result<()>;

    /// Whether it can be while the VM runs.
    fn check(&self, site: &Site, store: &Store, before: &VmSpec, after: &VmSpec) -> Result<()>;

    /// Makes of a VM that runs, as `before` says, what `after` says.
    fn make(&self, site: &Site, store: &mut Store, before: &VmSpec, after: &VmSpec) -> Result<()>;
}

/// Whether the VM runs.
pub(super) fn change<C: Change>(site: &Site, store: &mut Store, vm: Uuid, change: &C) -> Result<bool> {
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    let record = recorded(store, vm, C::WHAT)?;
    let name = record.spec.name.clone();
    let failed = |error: Error| error.context(format!("cannot change the {} of `{name}`", C::WHAT));
    reconcile(site, store, record).map_err(failed)?;
    let look = |record: &mut Record| {
        is_free(record, us)?;
        let (runs, before) = (runs(record)?, record.spec.clone());
        change.change(&mut record.spec)?;
        let after = record.spec.clone();
        if runs {
            // Not yet.
            record.spec = before.clone();
        }
        Ok((runs, before, after))
    };
    let _lock = if C::OF_NETWORKS { Some(networks::hold(site)?) } else { None };
    let (running, before, after) = store.update(vm, look).map_err(failed)?;
    if !running || before == after {
        return Ok(running);
    }
    change.check(site, store, &before, &after).map_err(failed)?;
    let made = change.make(site, store, &before, &after).and_then(|()| {
        store.update(vm, |record| {
            is_free(record, us)?;
            if !runs(record)? {
                return Err(Refusal::NotRunning.into());
            }
            change.change(&mut record.spec)
        })
    });
    made.map_err(|error| {
        if let Err(undo) = change.make(site, store, &after, &before) {
            let undo = undo.chain().join(": ");
            tracing::warn!(vm = %name, error = %undo, "the {} may be half changed", C::WHAT);
        }
        failed(error)
    })?;
    Ok(true)
}

pub(super) fn recorded(store: &Store, vm: Uuid, what: &str) -> Result<Record> {
    let record = store.get(vm)?;
    record.ok_or_else(|| Error::not_found(format!("cannot change the {what} of the VM: it was deleted")))
}

/// Whether a change has to reach a guest that runs. Refused while the VM is on its way to another
/// state: what that needs has been read from the record already.
pub(super) fn runs(record: &Record) -> Result<bool, Refusal> {
    match record.state {
        State::Stopped | State::Crashed | State::Restarting => Ok(false),
        State::Running | State::Paused => Ok(true),
        State::Creating => Err(Refusal::BeingCreated),
        State::Deleting => Err(Refusal::BeingDeleted),
        State::Starting => Err(Refusal::AlreadyStarting),
        State::Stopping => Err(Refusal::AlreadyStopping),
    }
}

/// Refused while another process is at work on the VM.
pub(super) fn is_free(record: &Record, us: Handle) -> Result<()> {
    match record.owner {
        Some(owner) if owner != us && owner.is_alive() => Err(Error::refused("another command is at work on it")),
        _ => Ok(()),
    }
}
