//! What follows a run's end: nothing, or another run by the same supervisor.

use crate::spec::{Event, Exit, Intent, Refusal};
use crate::store::Record;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    End,
    Again,
}

/// Takes in the end of a run of which `intent` was asked, and what follows it, in one change: a
/// process that is killed later leaves a record that says so.
pub(super) fn take_in(record: &mut Record, exit: &Exit, intent: Option<Intent>) -> Result<After, Refusal> {
    record.end(exit.clone())?;
    follow(record, intent)
}

/// A restart that was asked for follows whatever the end was like.
pub(super) fn follow(record: &mut Record, intent: Option<Intent>) -> Result<After, Refusal> {
    if intent != Some(Intent::Restart) {
        return Ok(After::End);
    }
    record.apply(&Event::Retry)?;
    record.intent = intent;
    Ok(After::Again)
}
