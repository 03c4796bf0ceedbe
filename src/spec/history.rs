use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Exit, Intent, Name, State};

/// Who caused a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Actor {
    /// A person, by the user that their command ran as.
    User { uid: u32, name: Option<String> },
    /// The VM's supervisor, of its own accord: an end that it saw, a restart by policy.
    Supervisor,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::User { name: Some(name), .. } => f.pad(name),
            Actor::User { uid, name: None } => f.pad(&format!("uid {uid}")),
            Actor::Supervisor => f.pad("supervisor"),
        }
    }
}

/// What happened to a VM. Changes of the record are noted with the change itself, in one
/// transaction; the rest is told by whoever saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Happening {
    /// The state changed; `exit` when a run ended, `intent` when something was asked of it.
    State {
        from: Option<State>,
        to: State,
        intent: Option<Intent>,
        exit: Option<Exit>,
    },
    /// The record is gone, and what it named.
    Deleted,
    Renamed {
        from: Name,
    },
    /// The guest rebooted itself.
    Rebooted,
    /// The guest's watchdog reset it.
    WatchdogFired,
    /// What kept ending is not started again.
    GaveUp {
        attempts: u32,
    },
    /// A new supervisor took over a running guest.
    Adopted,
    /// A port was gone from its switch.
    PortLost {
        port: String,
    },
    PortRestored {
        port: String,
    },
    /// A port is there again, but the guest's NIC stays dead.
    PortDead {
        port: String,
    },
    /// What a dead process left was finished or undone.
    Repaired {
        detail: String,
    },
}

/// One line of a VM's history. It outlives the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Grows with time, never given twice.
    pub id: i64,
    /// RFC 3339, UTC.
    pub time: String,
    pub vm: Uuid,
    pub name: Name,
    pub actor: Actor,
    #[serde(flatten)]
    pub happening: Happening,
}
