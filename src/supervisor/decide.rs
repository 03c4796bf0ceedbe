//! What there is to do for whoever has taken a VM's lock, decided from the record alone (and from
//! which process lives), so that it can be tested against a model.

use super::again::{self, Next};
use crate::host::{Handle, Timestamp};
use crate::spec::{Event, Exit, Intent, Refusal, State};
use crate::store::{Record, Retries, Runtime};
use crate::vm::Purpose;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// The start is recorded.
    Start,
    /// The guest runs, and nobody watches it.
    Adopt(Handle),
    /// A run whose supervisor was killed is over, or must be: its hypervisor, if it has one, was
    /// told to boot by somebody who is gone. What is left of it is to be cleared away, and its end
    /// [recorded](cut_short); then there is another decision.
    CutShort(Option<Handle>),
    /// The restart policy's next attempt is to come.
    Wait(Retries),
    Nothing,
}

/// Decides, and records what is decided.
pub(super) fn decide(
    record: &mut Record,
    purpose: Purpose,
    us: Handle,
    is_alive: impl Fn(Handle) -> bool,
) -> Result<Decision, Refusal> {
    let hypervisor = record.runtime.as_ref().and_then(|runtime| runtime.hypervisor);
    match hypervisor.filter(|handle| record.state.is_live() && is_alive(*handle)) {
        // A boot is never taken up in the middle.
        Some(hypervisor) if record.state == State::Starting => return Ok(Decision::CutShort(Some(hypervisor))),
        Some(hypervisor) if purpose == Purpose::Adopt => return Ok(Decision::Adopt(hypervisor)),
        Some(_) => return Err(Refusal::AlreadyRunning),
        None if record.state.is_run() => return Ok(Decision::CutShort(None)),
        None => {}
    }
    if purpose == Purpose::Adopt && record.state != State::Restarting {
        return Ok(Decision::Nothing);
    }
    // A person who starts it waits for nothing, and neither does a restart that was asked for.
    if let (Purpose::Adopt, Some(retries)) = (purpose, &record.retries)
        && record.intent != Some(Intent::Restart)
    {
        record.runtime = Some(Runtime::of(us));
        return Ok(Decision::Wait(retries.clone()));
    }
    record.retries = None;
    start(record, us)?;
    Ok(Decision::Start)
}

/// Records a run that begins. The wish for a restart stays until the VM runs again.
pub(super) fn start(record: &mut Record, us: Handle) -> Result<(), Refusal> {
    let restarts = record.state == State::Restarting;
    record.apply(&Event::Start)?;
    record.runtime = Some(Runtime::of(us));
    record.intent = record.intent.filter(|intent| restarts && *intent == Intent::Restart);
    Ok(())
}

/// Records the end of a run that was cut short with its supervisor, and what follows it. `seen`: how
/// it ended, if somebody knows.
pub(super) fn cut_short(record: &mut Record, seen: Option<Exit>, now: Timestamp, us: Handle) -> Result<Next, Refusal> {
    let exit = seen.unwrap_or_else(|| record.unseen_exit());
    let intent = record.intent;
    again::settle(record, exit, intent, now, us)
}
