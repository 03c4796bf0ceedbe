//! A VM that does not run, and is not to begin to, as long as somebody changes it.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::cut_short::{OPENING, finish_held};
use super::live;
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Handle, Lock, LockError};
use crate::spec::{Progress, Refusal, Verb, VmSpec};
use crate::store::{Record, Store};
use crate::vm::steps::opening;
use crate::vm::{Site, reconcile, rename};

/// Takes a VM that does not run, so that nobody else is at work on it.
pub(super) fn begin(site: &Site, store: &mut Store, vm: Uuid, us: Handle) -> Result<(Lock, VmSpec)> {
    let Some(record) = store.get(vm)? else {
        return Err(Error::not_found("cannot change the VM: it was deleted"));
    };
    let spec = record.spec.clone();
    let failed = |error: Error| failed([&spec], error);
    let observed = reconcile(site, store, record).map_err(failed)?;
    let patience = if observed.state.is_live() { Duration::ZERO } else { PATIENCE };
    let lock = hold(site, vm, patience).map_err(failed)?;
    finish_held(site, store, vm)?;
    rename::finish(site, store, vm)?;
    let taken = opening(Verb::Reshape, OPENING, |progress| {
        store.update(vm, |record| take(record, us, progress).map(|()| record.spec.clone()))
    });
    Ok((lock, taken.map_err(failed)?))
}

/// How long a lock that is about to be given back is waited for: its supervisor may just have recorded the
/// end.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn hold(site: &Site, vm: Uuid, patience: Duration) -> Result<Lock> {
    let path = site.lock(vm);
    let until = Instant::now() + patience;
    loop {
        match Lock::try_take(&path) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held) if Instant::now() < until => host::pause(Duration::from_millis(10)),
            Err(LockError::Held) => return Err(Error::refused("it runs, or another command is at work on it")),
            Err(LockError::Io(error)) => return Err(error).or_failed(|| format!("cannot lock `{}`", path.display())),
        }
    }
}

/// Refuses a VM that runs, or that somebody else is at work on.
pub(super) fn is_at_rest(record: &Record, us: Handle) -> Result<()> {
    if live::runs(record)? {
        return Err(Refusal::Running.into());
    }
    if record.state.is_live() {
        return Err(Refusal::Restarting.into());
    }
    live::is_free(record, us)
}

pub(super) fn take(record: &mut Record, us: Handle, progress: Progress) -> Result<()> {
    is_at_rest(record, us)?;
    record.owner = Some(us);
    record.progress = Some(progress);
    Ok(())
}

pub(super) fn failed<'a>(vms: impl IntoIterator<Item = &'a VmSpec>, error: Error) -> Error {
    let names: Vec<String> = vms.into_iter().map(|spec| format!("`{}`", spec.name)).collect();
    if names.is_empty() { error } else { error.context(format!("cannot change {}", names.join(", "))) }
}
