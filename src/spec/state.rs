use std::fmt;

use serde::{Deserialize, Serialize};

use super::Exit;
use crate::error::Error;

/// Where a VM is in its life.
///
/// ```text
///             created        start         booted
/// (creating) ────────► stopped ────► starting ────► running ◄──────► paused
///      │                  ▲   ▲          │             │ stop   resume  │
///      │ failed           │   │   ended  ▼             ▼                ▼
///      └──► (gone) ◄── deleting   ◄── crashed ◄──── stopping ◄──────────┘
/// ```
///
/// `crashed` starts and deletes like `stopped`; it only remembers that the end was not wanted.
/// From both a supervisor that starts the VM again goes on through `restarting`: nothing runs, and
/// it waits for its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Creating,
    Stopped,
    Starting,
    Running,
    Paused,
    Stopping,
    Crashed,
    Restarting,
    Deleting,
}

/// What happens to a VM: asked for by a person, or seen by its supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Created,
    Start,
    Booted,
    Pause,
    Resume,
    /// It is given more, or other ports, while it runs.
    Alter,
    Stop,
    /// The guest has not shut down in the time it was given: it runs as before.
    StopGivenUp,
    Delete,
    Ended(Exit),
    /// What has ended will be started again, by the supervisor that saw its end.
    Retry,
}

/// Why a state does not allow what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it is still being created")]
    BeingCreated,
    #[error("it is being deleted")]
    BeingDeleted,
    #[error("it is already running")]
    AlreadyRunning,
    #[error("it is already starting")]
    AlreadyStarting,
    #[error("it is already stopping")]
    AlreadyStopping,
    #[error("it is already paused")]
    AlreadyPaused,
    #[error("it is not running")]
    NotRunning,
    #[error("it is not stopping")]
    NotStopping,
    #[error("it is not paused")]
    NotPaused,
    #[error("it is running")]
    Running,
    #[error("it has ended, and is about to be started again")]
    Restarting,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::refused(refusal.to_string())
    }
}

impl State {
    pub const ALL: [State; 9] = [
        State::Creating,
        State::Stopped,
        State::Starting,
        State::Running,
        State::Paused,
        State::Stopping,
        State::Crashed,
        State::Restarting,
        State::Deleting,
    ];

    /// Whether a supervisor owns the VM in this state.
    pub fn is_live(self) -> bool {
        matches!(self, State::Starting | State::Running | State::Paused | State::Stopping | State::Restarting)
    }

    /// Whether a run is under way: there is a hypervisor, or is about to be.
    pub fn is_run(self) -> bool {
        self.is_live() && self != State::Restarting
    }

    /// The state after `event`, or why not. The only place where states change.
    pub fn after(self, event: &Event) -> Result<State, Refusal> {
        use Event as E;
        use State as S;
        match (self, event) {
            (S::Creating, E::Created) => Ok(S::Stopped),
            (S::Creating | S::Deleting, E::Delete) => Ok(S::Deleting),
            (S::Creating, _) => Err(Refusal::BeingCreated),
            (S::Deleting, _) => Err(Refusal::BeingDeleted),

            (S::Stopped | S::Crashed, E::Start) => Ok(S::Starting),
            (S::Stopped | S::Crashed, E::Delete) => Ok(S::Deleting),
            (S::Stopped | S::Crashed, E::Retry) => Ok(S::Restarting),
            (S::Stopped | S::Crashed, _) => Err(Refusal::NotRunning),

            (_, E::Ended(exit)) if exit.is_clean() => Ok(S::Stopped),
            (_, E::Ended(_)) => Ok(S::Crashed),
            (S::Restarting, E::Start) => Ok(S::Starting),
            (S::Restarting, E::Stop) => Ok(S::Stopped),
            (S::Restarting, _) => Err(Refusal::Restarting),
            (_, E::Delete) => Err(Refusal::Running),

            (S::Starting, E::Booted) => Ok(S::Running),
            (S::Starting, E::Stop) => Ok(S::Stopping),
            (S::Starting, _) => Err(Refusal::AlreadyStarting),
            (S::Running | S::Paused, E::StopGivenUp) => Err(Refusal::NotStopping),

            (S::Running, E::Pause) => Ok(S::Paused),
            (S::Running | S::Paused | S::Stopping, E::Stop) => Ok(S::Stopping),
            (S::Stopping, E::StopGivenUp) => Ok(S::Running),
            (S::Running, E::Resume) => Err(Refusal::NotPaused),
            (S::Paused, E::Resume) => Ok(S::Running),
            (S::Running | S::Paused, E::Alter) => Ok(self),
            (S::Paused, E::Pause) => Err(Refusal::AlreadyPaused),
            (S::Stopping, E::Start | E::Pause | E::Resume | E::Alter) => Err(Refusal::AlreadyStopping),
            (S::Running | S::Paused | S::Stopping, E::Start | E::Booted | E::Created | E::Retry) => {
                Err(Refusal::AlreadyRunning)
            }
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Creating => "creating",
            State::Stopped => "stopped",
            State::Starting => "starting",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopping => "stopping",
            State::Crashed => "crashed",
            State::Restarting => "restarting",
            State::Deleting => "deleting",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENTS: [Event; 12] = [
        Event::Created,
        Event::Start,
        Event::Booted,
        Event::Pause,
        Event::Resume,
        Event::Alter,
        Event::Stop,
        Event::StopGivenUp,
        Event::Delete,
        Event::Ended(Exit::PoweredOff),
        Event::Ended(Exit::Killed { signal: 9 }),
        Event::Retry,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Whatever is asked in whatever order: a VM that lives is never deleted or started again,
        /// an end is always taken in, and one that is being deleted never comes back.
        #[test]
        fn any_sequence_keeps_the_promises(events in proptest::collection::vec(0..EVENTS.len(), 0..60)) {
            let mut state = State::Creating;
            for event in events {
                let event = EVENTS[event].clone();
                let next = state.after(&event);
                match (&event, state.is_live()) {
                    (Event::Start, true) if state == State::Restarting => prop_assert_eq!(next, Ok(State::Starting)),
                    (Event::Delete | Event::Start, true) => prop_assert!(next.is_err(), "{state} {event:?}"),
                    (Event::Ended(exit), true) => {
                        let expected = if exit.is_clean() { State::Stopped } else { State::Crashed };
                        prop_assert_eq!(next, Ok(expected));
                    }
                    (_, false) => prop_assert!(
                        next.is_err() || !next.is_ok_and(|n| n.is_live()) || matches!(event, Event::Start | Event::Retry), "{state} {event:?}"),
                    _ => {}
                }
                if state == State::Deleting {
                    prop_assert!(next.is_err() || next == Ok(State::Deleting));
                }
                state = next.unwrap_or(state);
            }
        }
    }

    #[test]
    fn refusals_say_why() {
        let rows = [
            (State::Running, Event::Start, Refusal::AlreadyRunning),
            (State::Starting, Event::Start, Refusal::AlreadyStarting),
            (State::Running, Event::Delete, Refusal::Running),
            (State::Stopped, Event::Stop, Refusal::NotRunning),
            (State::Stopped, Event::Pause, Refusal::NotRunning),
            (State::Running, Event::Resume, Refusal::NotPaused),
            (State::Stopped, Event::Alter, Refusal::NotRunning),
            (State::Stopping, Event::Alter, Refusal::AlreadyStopping),
            (State::Deleting, Event::Start, Refusal::BeingDeleted),
            (State::Creating, Event::Start, Refusal::BeingCreated),
        ];
        for (state, event, refusal) in rows {
            assert_eq!(state.after(&event), Err(refusal), "{state} {event:?}");
        }
    }
}
