//! What is known of a VM without asking it: the record, and who holds its lock. No hypervisor, no
//! guest and no switch is called, so one that hangs changes nothing for the others (D5).

use std::time::Duration;

use super::Site;
use super::launch::{Purpose, Starting, launch};
use crate::error::{OrFailed, Result};
use crate::host::Lock;
use crate::spec::{Exit, State};
use crate::store::{Record, Store};

#[derive(Debug, Clone)]
pub struct Observed {
    pub record: Record,
    /// What the record says, unless the kernel knows better.
    pub state: State,
    /// The hypervisor lives, but nobody watches it: its supervisor was killed.
    pub unwatched: bool,
}

pub fn observe(site: &Site, record: Record) -> Result<Observed> {
    let mut observed = Observed { state: record.state, unwatched: false, record };
    let record = &observed.record;
    if !record.state.is_live() || is_supervised(site, record)? {
        return Ok(observed);
    }
    let alive = record.runtime.as_ref().and_then(|runtime| runtime.hypervisor).is_some_and(|handle| handle.is_alive());
    if alive {
        observed.unwatched = true;
    } else {
        observed.state = State::Crashed;
    }
    Ok(observed)
}

pub(super) fn is_supervised(site: &Site, record: &Record) -> Result<bool> {
    let lock = site.lock(record.spec.uuid);
    Lock::is_held(&lock).or_failed(|| format!("cannot look at the lock `{}`", lock.display()))
}

/// How long a new supervisor may take to find its way into a running guest.
pub(super) const ADOPT: Duration = Duration::from_secs(15);

/// Mends what [`observe`] saw: a guest that nobody watches gets a new supervisor, and a run whose
/// supervisor and hypervisor are both gone is recorded as ended, unseen.
pub fn reconcile(site: &Site, store: &mut Store, record: Record) -> Result<Observed> {
    let observed = observe(site, record)?;
    if observed.unwatched {
        return adopt(site, store, observed);
    }
    if observed.state == observed.record.state {
        return Ok(observed);
    }
    let vm = observed.record.spec.uuid;
    let record = store.update(vm, |record| {
        // A supervisor may have come or finished since we looked.
        if record.state.is_live() && !is_supervised(site, record)? {
            record.end(Exit::Lost)?;
        }
        Ok(record.clone())
    })?;
    observe(site, record)
}

/// What is seen once a new supervisor watches. One that cannot (its hypervisor hangs) changes
/// nothing: the guest goes on unwatched, and can still be ended.
fn adopt(site: &Site, store: &Store, unwatched: Observed) -> Result<Observed> {
    let spec = &unwatched.record.spec;
    if let Err(error) = launch(site, spec, Purpose::Adopt, ADOPT).and_then(Starting::wait) {
        tracing::warn!(vm = %spec.name, error = %error.chain().join(": "), "nobody can watch over it");
    }
    match store.get(spec.uuid)? {
        Some(record) => observe(site, record),
        None => Ok(unwatched),
    }
}
