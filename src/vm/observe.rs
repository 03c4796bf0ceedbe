//! What is known of a VM without asking it: the record, and who holds its lock. No hypervisor, no
//! guest and no switch is called, so one that hangs changes nothing for the others (D5).

use std::time::Duration;

use super::Site;
use super::launch::{Purpose, Starting, launch};
use super::leftovers::{awaits_another_run, end_unseen};
use crate::error::{OrFailed, Result};
use crate::host::Lock;
use crate::spec::{Restart, State};
use crate::store::{Record, Store};

#[derive(Debug, Clone)]
pub struct Observed {
    pub record: Record,
    /// What the record says, unless the kernel knows better.
    pub state: State,
    /// There is something to watch, but nobody does: the supervisor was killed. The hypervisor
    /// lives, or is to be started again.
    pub unwatched: bool,
}

pub fn observe(site: &Site, record: Record) -> Result<Observed> {
    let mut observed = Observed { state: record.state, unwatched: false, record };
    let record = &observed.record;
    if !record.state.is_live() {
        return Ok(observed);
    }
    if is_supervised(site, record)? {
        // Its supervisor is about to record how it ended, or tries to.
        let launched = record.runtime.as_ref().is_some_and(|runtime| runtime.hypervisor.is_some());
        if record.state != State::Starting && launched && !is_alive(record) {
            observed.state = State::Stopping;
        }
        return Ok(observed);
    }
    if is_alive(record) {
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
pub(super) const ADOPT: Duration = Duration::from_secs(15);
/// How long it may take to run the VM again.
const AGAIN: Duration = Duration::from_secs(60);

/// Mends what [`observe`] saw: a guest that nobody watches, or that shall run again, gets a new
/// supervisor; any other run whose supervisor and hypervisor are both gone is recorded as ended,
/// unseen, and what it left is cleared away. Where the VM's policy may let another run follow that
/// end, a new supervisor sees to both.
pub fn reconcile(site: &Site, store: &mut Store, record: Record) -> Result<Observed> {
    let mut observed = observe(site, record)?;
    // Twice, because a guest may end while its new supervisor is on the way.
    for attempt in 0..2 {
        let mut failure = None;
        let is_lost = observed.state == State::Crashed && observed.record.state.is_live();
        if observed.unwatched || is_lost && attempt == 0 && observed.record.spec.policy.restart != Restart::No {
            failure = adopt(site, &observed.record).err();
        } else if is_lost {
            end_unseen(site, store, &observed.record.spec, None)?;
        } else {
            break;
        }
        let Some(record) = store.get(observed.record.spec.uuid)? else { break };
        observed = observe(site, record)?;
        // One that cannot be watched (its hypervisor hangs) goes on as it is, and can still be ended.
        if let Some(error) = failure.filter(|_| observed.unwatched && is_alive(&observed.record)) {
            let name = &observed.record.spec.name;
            tracing::warn!(vm = %name, error = %error.chain().join(": "), "nobody can watch over it");
            break;
        }
    }
    Ok(observed)
}

fn adopt(site: &Site, record: &Record) -> Result<()> {
    let deadline = if awaits_another_run(record) { AGAIN } else { ADOPT };
    launch(site, &record.spec, Purpose::Adopt, deadline).and_then(Starting::wait)
}

fn is_alive(record: &Record) -> bool {
    record.runtime.as_ref().and_then(|runtime| runtime.hypervisor).is_some_and(|handle| handle.is_alive())
}
