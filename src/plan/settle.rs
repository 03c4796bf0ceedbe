//! VMs between two states: what an apply that was killed has begun, their supervisors bring to an end.

use std::time::{Duration, Instant};

use super::apply::START;
use super::look::concerns;
use crate::config::Config;
use crate::error::Result;
use crate::host;
use crate::spec::{Name, State};
use crate::store::Record;
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
pub fn settle(site: &Site, config: &Config, told: impl Fn(Wait)) -> Result<()> {
    let mut store = site.store()?;
    let begun = Instant::now();
    let mut is_told = false;
    let mut records: Vec<Record> = store.list()?.into_iter().filter(concerns(config)).collect();
    loop {
        let mut waits = Vec::new();
        for record in records {
            let mut observed = vm::observe(site, record)?;
            // Nobody would bring it to an end.
            if observed.unwatched && patience(&observed).is_some() {
                observed = vm::reconcile(site, &mut store, observed.record)?;
            }
            if let Some(at_most) = patience(&observed).filter(|most| begun.elapsed() < *most + MARGIN) {
                waits.push((observed, at_most));
            }
        }
        if waits.is_empty() {
            return Ok(());
        }
        if !is_told && begun.elapsed() >= MOMENT {
            is_told = true;
            [State::Stopping, State::Starting].into_iter().filter_map(|state| of(state, &waits)).for_each(&told);
        }
        host::pause(POLL);
        let again = waits.iter().filter_map(|(observed, _)| store.get(observed.record.spec.uuid).transpose());
        records = again.collect::<Result<_>>()?;
    }
}

/// How long it may take to come to rest or to run; `None`: it is on its way to neither.
fn patience(observed: &Observed) -> Option<Duration> {
    match observed.state {
        State::Starting => Some(START),
        State::Stopping => Some(observed.record.spec.policy.stop_timeout()),
        _ => None,
    }
}

fn of(state: State, waits: &[(Observed, Duration)]) -> Option<Wait> {
    let waits = || waits.iter().filter(|(observed, _)| observed.state == state);
    let at_most = waits().map(|(_, at_most)| *at_most).max()?;
    Some(Wait { vms: waits().map(|(observed, _)| observed.record.spec.name.clone()).collect(), state, at_most })
}
