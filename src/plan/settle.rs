//! VMs between two states: what an apply that was killed has begun, their supervisors bring to an end.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::apply::START;
use super::look::concerns;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::host;
use crate::spec::{Name, State};
use crate::store::{Record, Store};
use crate::vm::{self, Observed, Site};

/// What is over sooner is not worth a word.
pub(super) const MOMENT: Duration = Duration::from_secs(1);
pub(super) const POLL: Duration = Duration::from_millis(20);
/// What a supervisor needs beyond the guest's own time.
const MARGIN: Duration = Duration::from_secs(3);

/// VMs that are waited for.
#[derive(Debug)]
pub struct Wait {
    pub vms: Vec<Name>,
    /// What they are doing: starting, or stopping.
    pub state: State,
    pub at_most: Duration,
}

/// Waits for those of the config's VMs that are starting or stopping. One that takes longer than it may is left
/// to the plan, which refuses it. `told` hears whom it waits for, if that takes more than a moment.
///
/// What goes wrong with one is the plan's to find too: it keeps no other VM.
pub fn settle(site: &Site, config: &Config, told: impl Fn(Wait)) -> Result<()> {
    let mut store = site.store()?;
    let begun = Instant::now();
    let (mut is_told, mut reconciled, mut lost) = (false, HashSet::new(), HashSet::new());
    let mut records: Vec<Record> = store.list()?.into_iter().filter(concerns(config)).collect();
    loop {
        let look = |record| pending(vm::observe(site, record).map_err(warn).ok()?, begun);
        let waits: Vec<Pending> = records.into_iter().filter_map(look).collect();
        if waits.is_empty() {
            return Ok(());
        }
        let mut tell = || {
            if !is_told && begun.elapsed() >= MOMENT {
                is_told = true;
                [State::Stopping, State::Starting].into_iter().filter_map(|state| of(state, &waits)).for_each(&told);
            }
        };
        tell();
        for (observed, at_most) in &waits {
            // Nobody would bring it to an end. One that nobody can watch over is not tried again.
            let is_lost = observed.unwatched && begun.elapsed() < *at_most + MARGIN;
            if is_lost && reconciled.insert(observed.record.spec.uuid) {
                if let Err(error) = vm::reconcile(site, &mut store, observed.record.clone()) {
                    warn(error);
                    lost.insert(observed.record.spec.uuid);
                }
                tell();
            }
        }
        host::pause(pause(waits.len()));
        let left = waits.iter().map(|(observed, _)| observed.record.spec.uuid).filter(|vm| !lost.contains(vm));
        records = left.filter_map(|vm| Store::get(&store, vm).transpose()).collect::<Result<_>>()?;
    }
}

/// A VM between two states, and how long that may take.
type Pending = (Observed, Duration);

fn pending(observed: Observed, begun: Instant) -> Option<Pending> {
    let at_most = patience(&observed).filter(|most| begun.elapsed() < *most + MARGIN)?;
    Some((observed, at_most))
}

fn warn(error: Error) {
    tracing::warn!(error = %error.chain().join(": "), "not waited for");
}

/// No more than a thousand looks a second, however many are waited for.
fn pause(vms: usize) -> Duration {
    POLL.max(Duration::from_millis(vms.try_into().unwrap_or(u64::MAX))).min(MOMENT)
}

/// How long it may take to come to rest or to run; `None`: it is on its way to neither.
fn patience(observed: &Observed) -> Option<Duration> {
    match observed.state {
        State::Starting => Some(START),
        State::Stopping => Some(observed.record.spec.policy.stop_timeout()),
        _ => None,
    }
}

fn of(state: State, waits: &[Pending]) -> Option<Wait> {
    let waits = || waits.iter().filter(|(observed, _)| observed.state == state);
    let at_most = waits().map(|(_, at_most)| *at_most).max()?;
    Some(Wait { vms: waits().map(|(observed, _)| observed.record.spec.name.clone()).collect(), state, at_most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_are_waited_for_the_longer_is_each_pause() {
        for (vms, expected) in [(1, 20), (20, 20), (300, 300), (1000, 1000), (5000, 1000)] {
            assert_eq!(pause(vms), Duration::from_millis(expected), "{vms}");
        }
    }
}
