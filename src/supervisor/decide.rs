//! What there is to do for whoever has taken a VM's lock, decided from the record alone (and from
//! which process lives), so that it can be tested against a model.

use super::again;
use crate::host::Handle;
use crate::spec::{Event, Exit, Intent, Refusal, State};
use crate::store::{Record, Runtime};
use crate::vm::Purpose;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The start is recorded.
    Start,
    /// The guest runs, and nobody watches it.
    Adopt(Handle),
    /// A run whose supervisor was killed is over, or must be: its hypervisor, if it has one, was
    /// told to boot by somebody who is gone. What is left of it is to be cleared away, and its end
    /// [recorded](cut_short); then there is another decision.
    CutShort(Option<Handle>),
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
    let is_live = record.state.is_live();
    match hypervisor.filter(|handle| is_live && is_alive(*handle)) {
        // A boot is never taken up in the middle.
        Some(hypervisor) if record.state == State::Starting => return Ok(Decision::CutShort(Some(hypervisor))),
        Some(hypervisor) if purpose == Purpose::Adopt => return Ok(Decision::Adopt(hypervisor)),
        Some(_) => return Err(Refusal::AlreadyRunning),
        None if is_live && record.state != State::Restarting => return Ok(Decision::CutShort(None)),
        None => {}
    }
    if purpose == Purpose::Adopt && record.state != State::Restarting {
        return Ok(Decision::Nothing);
    }
    start(record, us)?;
    Ok(Decision::Start)
}

/// Records a run that begins. The wish for a restart stays until the VM runs again.
pub(super) fn start(record: &mut Record, us: Handle) -> Result<(), Refusal> {
    let restarts = record.state == State::Restarting;
    record.apply(&Event::Start)?;
    record.runtime = Some(Runtime { supervisor: us, hypervisor: None, ssh: None });
    record.intent = record.intent.filter(|intent| restarts && *intent == Intent::Restart);
    Ok(())
}

/// Records the end of a run that was cut short with its supervisor.
pub(super) fn cut_short(record: &mut Record) -> Result<Exit, Refusal> {
    let intent = record.intent;
    let exit = record.end_unseen()?;
    again::follow(record, intent)?;
    Ok(exit)
}
