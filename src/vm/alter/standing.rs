use crate::error::{Error, Result};
use crate::host::Handle;
use crate::spec::{Refusal, State};
use crate::store::Record;

/// Whether a change has to reach a guest that runs. Refused while the VM is on its way to another state:
/// what is made then has been read from the record already.
pub(super) fn runs(record: &Record) -> Result<bool> {
    let refusal = match record.state {
        State::Stopped | State::Crashed | State::Restarting => return Ok(false),
        State::Running | State::Paused => return Ok(true),
        State::Creating => Refusal::BeingCreated,
        State::Deleting => Refusal::BeingDeleted,
        State::Starting => Refusal::AlreadyStarting,
        State::Stopping => Refusal::AlreadyStopping,
    };
    Err(refusal.into())
}

/// Refused while another process is at work on the VM.
pub(super) fn is_free(record: &Record, us: Handle) -> Result<()> {
    match record.owner {
        Some(owner) if owner != us && owner.is_alive() => Err(Error::refused("another command is at work on it")),
        _ => Ok(()),
    }
}

/// Refused when it has been started or stopped since.
pub(super) fn is_still(record: &Record, running: bool) -> Result<()> {
    match runs(record)? == running {
        true => Ok(()),
        false => Err(Error::refused("it has just been started or stopped").hint("try again")),
    }
}
