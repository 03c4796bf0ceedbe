use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Exit, Intent, Name, Serves, State};

/// Who caused a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Actor {
    /// A person, by the user that their command ran as.
    User { uid: u32, name: Option<String> },
    /// The VM's supervisor, of its own accord: an end that it saw, a restart by policy.
    Supervisor,
    /// Nobody saw it happen; or what was noted cannot be read.
    Unknown,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::User { name: Some(name), .. } => f.pad(name),
            Actor::User { uid, name: None } => f.pad(&format!("uid {uid}")),
            Actor::Supervisor => f.pad("supervisor"),
            Actor::Unknown => f.pad("?"),
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
    /// The config had something else said of it, and it followed.
    Altered {
        fields: Vec<String>,
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
    /// Its supervisor became the program that an upgrade had put in its place.
    HandedOver,
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
    /// A program that runs beside the hypervisor ended before it.
    HelperEnded {
        serves: Serves,
    },
    /// What a dead process left was finished or undone.
    Repaired {
        detail: String,
    },
    /// A line that this program cannot read. Never written.
    #[serde(skip_deserializing)]
    Unreadable {
        detail: String,
    },
}

impl Happening {
    /// What the VM is or was, in a word or two.
    pub fn words(&self) -> String {
        use State as S;
        match self {
            Happening::State { from: Some(S::Creating), to: S::Stopped, .. } => "created".to_owned(),
            Happening::State { from: Some(S::Paused), to: S::Running, .. } => "resumed".to_owned(),
            Happening::State { from: Some(S::Stopping), to: S::Running, .. } => "still running".to_owned(),
            Happening::State { to, .. } => to.to_string(),
            Happening::Deleted => "deleted".to_owned(),
            Happening::Renamed { .. } => "renamed".to_owned(),
            Happening::Altered { .. } => "altered".to_owned(),
            Happening::Rebooted => "rebooted".to_owned(),
            Happening::WatchdogFired => "reset".to_owned(),
            Happening::GaveUp { .. } => "given up".to_owned(),
            Happening::Adopted => "adopted".to_owned(),
            Happening::HandedOver => "handed over".to_owned(),
            Happening::PortLost { .. } => "port lost".to_owned(),
            Happening::PortRestored { .. } => "port restored".to_owned(),
            Happening::PortDead { .. } => "port dead".to_owned(),
            Happening::HelperEnded { .. } => "helper ended".to_owned(),
            Happening::Repaired { .. } => "repaired".to_owned(),
            Happening::Unreadable { .. } => "unreadable".to_owned(),
        }
    }

    /// Why, where more is known than the words say.
    pub fn cause(&self) -> Option<String> {
        use State as S;
        Some(match self {
            Happening::State { exit: Some(exit), .. } => exit.to_string(),
            Happening::State { from: Some(S::Stopping), to: S::Running, .. } => {
                "the guest has not shut down in its time".to_owned()
            }
            Happening::State { from: Some(S::Restarting), to: S::Stopped, .. } => "not to be started again".to_owned(),
            Happening::State { to: S::Restarting, intent: Some(Intent::Restart), .. } => {
                "a restart was asked for".to_owned()
            }
            Happening::State { to: S::Restarting, .. } => "by its restart policy".to_owned(),
            Happening::State { to: S::Stopping, intent: Some(intent), .. } => match intent {
                Intent::Stop => "asked to shut down",
                Intent::ForceStop => "power to be cut",
                Intent::Restart => "asked to shut down, to be started again",
                Intent::Delete => "power to be cut, to be deleted",
            }
            .to_owned(),
            Happening::Renamed { from } => format!("it was `{from}`"),
            Happening::Altered { fields } => fields.join(", "),
            Happening::Rebooted => "by the guest".to_owned(),
            Happening::WatchdogFired => "by its watchdog: the guest had stopped feeding it".to_owned(),
            Happening::GaveUp { attempts } => format!("not started again: it ended after each of {attempts} attempts"),
            Happening::HandedOver => "its supervisor became the program installed since".to_owned(),
            Happening::Adopted => "its supervisor had ended and left it running".to_owned(),
            Happening::PortLost { port } => format!("`{port}` was gone from its switch"),
            Happening::PortRestored { port } => format!("`{port}`"),
            Happening::PortDead { port } => format!("`{port}` is there again, but the guest's NIC stays dead"),
            Happening::HelperEnded { serves } => {
                format!("`{}`, which served {serves}, is gone until the VM is started anew", serves.program())
            }
            Happening::Repaired { detail } | Happening::Unreadable { detail } => detail.clone(),
            Happening::State { .. } | Happening::Deleted => return None,
        })
    }
}

/// One line of a VM's history. It outlives the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Grows from line to line, whatever the clock does, and is never given twice.
    pub id: i64,
    /// RFC 3339, UTC: the clock as it stood then.
    pub time: String,
    /// The VM's uuid.
    pub vm: String,
    /// The VM's name at that time.
    pub name: String,
    pub actor: Actor,
    #[serde(flatten)]
    pub happening: Happening,
}
