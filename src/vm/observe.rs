//! What is known of a VM without asking it: the record, and who holds its lock. No hypervisor, no
//! guest and no switch is called, so one that hangs changes nothing for the others (D5).

use std::time::Duration;

use super::Site;
use super::launch::{Purpose, Starting, launch};
use super::leftovers::{awaits_another_run, end_unseen};
use crate::error::{OrFailed, Result};
use crate::host::Lock;
use crate::spec::State;
use crate::store::{Record, Store};

#[derive(Debug, Clone)]
pub struct Observed {
    pub record: Record,
    /// What the record says, unless the kernel knows better.
    pub state: State,
    /// The hypervisor lives, or shall be started again, but nobody watches: its supervisor was killed.
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
    } else if awaits_another_run(record) {
        observed.state = State::Restarting;
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
const ADOPT: Duration = Duration::from_secs(15);
/// How long it may take to run the VM again.
const AGAIN: Duration = Duration::from_secs(60);

/// Mends what [`observe`] saw: a guest that nobody watches, or that shall run again, gets a new
/// supervisor; any other run whose supervisor and hypervisor are both gone is recorded as ended,
/// unseen, and what it left is cleared away.
pub fn reconcile(site: &Site, store: &mut Store, record: Record) -> Result<Observed> {
    let observed = observe(site, record)?;
    if observed.unwatched {
        return adopt(site, store, observed);
    }
    if observed.state == observed.record.state {
        return Ok(observed);
    }
    let spec = observed.record.spec.clone();
    end_unseen(site, store, &spec, None)?;
    match store.get(spec.uuid)? {
        Some(record) => observe(site, record),
        None => Ok(observed),
    }
}

/// What is seen once a new supervisor watches. One that cannot (its hypervisor hangs) changes
/// nothing: the guest goes on unwatched, and can still be ended.
fn adopt(site: &Site, store: &Store, unwatched: Observed) -> Result<Observed> {
    let spec = &unwatched.record.spec;
    let deadline = if awaits_another_run(&unwatched.record) { AGAIN } else { ADOPT };
    if let Err(error) = launch(site, spec, Purpose::Adopt, deadline).and_then(Starting::wait) {
        tracing::warn!(vm = %spec.name, error = %error.chain().join(": "), "nobody can watch over it");
    }
    match store.get(spec.uuid)? {
        Some(record) => observe(site, record),
        None => Ok(unwatched),
    }
}
