//! One row of `vm`: what was decided (the spec), where its life stands, and who works on it now.
//!
//! Rows are text and JSON in the file and typed here; the two forms meet in this file only. The
//! spec carries its own version: an older one is converted when it is read, a newer one refused.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use rusqlite::Row;
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Serialize};

use crate::error::{Error, OrFailed, Result};
use crate::host::{Handle, Timestamp};
use crate::spec::{Declared, Event, Exit, Intent, PortTrouble, Progress, Refusal, SPEC_VERSION, Serves, State, VmSpec};

use super::fault::Fault;

#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub spec: VmSpec,
    pub state: State,
    /// What was asked of the present run.
    pub intent: Option<Intent>,
    /// How the last run ended.
    pub exit: Option<Exit>,
    /// Who runs it now.
    pub runtime: Option<Runtime>,
    /// The process that is creating or deleting it.
    pub owner: Option<Handle>,
    /// How far the process at work on it has come.
    pub progress: Option<Progress>,
    /// What the config last made of it, where it is or was declared there.
    pub declared: Option<Declared>,
    /// Of the restart policy: what it has tried in the present series.
    pub retries: Option<Retries>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Of the present run: "up since".
    pub started_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    pub supervisor: Handle,
    pub hypervisor: Option<Handle>,
    /// The host's side of the forwarded ssh port of a user NIC.
    pub ssh: Option<SocketAddrV4>,
    /// What is wrong with its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<PortTrouble>,
    /// The programs that run beside the hypervisor, and end with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub helpers: Vec<Helper>,
    /// How the guest's `AF_VSOCK` is reached from this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<Line>,
}

/// A program that a run has beside its hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Helper {
    pub serves: Serves,
    pub process: Handle,
}

/// The host's end of a guest's `AF_VSOCK`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The kernel's: the guest has this number.
    Cid(u32),
    /// A unix socket that takes `CONNECT PORT` as its first line.
    Socket(PathBuf),
}

/// A series of starts that followed ends nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retries {
    /// Starts so far, with the one that is due.
    pub attempts: u32,
    /// When the last of them is, or was, due.
    pub next_at: Timestamp,
}

impl Runtime {
    /// What is known when a supervisor begins.
    pub fn of(supervisor: Handle) -> Self {
        Self { supervisor, hypervisor: None, ssh: None, troubles: Vec::new(), helpers: Vec::new(), vsock: None }
    }
}

#[cfg(test)]
impl Record {
    /// One of a VM that runs.
    pub(crate) fn running(spec: VmSpec, runtime: Runtime) -> Self {
        Self {
            spec,
            state: State::Running,
            intent: None,
            exit: None,
            runtime: Some(runtime),
            owner: None,
            progress: None,
            declared: None,
            retries: None,
            created_at: crate::host::now(),
            updated_at: crate::host::now(),
            started_at: None,
        }
    }
}

impl Record {
    /// Whether it is the config's: declared there when that was last applied.
    pub fn is_declared(&self) -> bool {
        self.declared.as_ref().is_some_and(|declared| !declared.removed)
    }

    /// Moves the state, or refuses. The other fields are the caller's: only it knows what it did.
    pub fn apply(&mut self, event: &Event) -> Result<(), Refusal> {
        self.state = self.state.after(event)?;
        if let (Event::Booted, Some(declared)) = (event, &mut self.declared) {
            declared.start_again = false;
        }
        Ok(())
    }

    /// How a run ended that nobody saw end: its supervisor and its hypervisor are gone.
    pub fn unseen_exit(&self) -> Exit {
        match (self.state, self.intent) {
            (State::Starting, _) => {
                Exit::BootFailed { detail: "its supervisor was killed while it was starting".to_owned() }
            }
            (_, Some(Intent::ForceStop)) => Exit::Forced,
            _ => Exit::Lost,
        }
    }

    /// Takes in the end of such a run.
    pub fn end_unseen(&mut self) -> Result<Exit, Refusal> {
        let exit = self.unseen_exit();
        self.end(exit.clone())?;
        Ok(exit)
    }

    /// Takes in the end of a run: how it ended is kept, and nothing of the run itself.
    pub fn end(&mut self, exit: Exit) -> Result<(), Refusal> {
        self.apply(&Event::Ended(exit.clone()))?;
        self.exit = Some(exit);
        self.runtime = None;
        self.intent = None;
        self.started_at = None;
        self.progress = None;
        Ok(())
    }

    /// What [`Record::read`] expects to be selected, in its order.
    pub(super) const COLUMNS: &str = "uuid, spec, state, intent, exit, runtime, owner, created_at, updated_at, started_at, progress, retries, declared";

    pub(super) fn read(row: &Row<'_>) -> Result<Self, Fault> {
        let uuid = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let text = |index| row.get_ref(index).and_then(|value| Ok(value.as_str_or_null()?));
        let required = |index| Ok::<_, rusqlite::Error>(text(index)?.unwrap_or_default());
        Ok(Self {
            spec: read_spec(uuid, required(1)?)?,
            state: word(uuid, "state", required(2)?)?,
            intent: text(3)?.map(|text| word(uuid, "intent", text)).transpose()?,
            exit: text(4)?.map(|text| json(uuid, "exit", text)).transpose()?,
            runtime: text(5)?.map(|text| json(uuid, "runtime", text)).transpose()?,
            owner: text(6)?.map(|text| json(uuid, "owner", text)).transpose()?,
            created_at: time(uuid, "created_at", required(7)?)?,
            updated_at: time(uuid, "updated_at", required(8)?)?,
            started_at: text(9)?.map(|text| time(uuid, "started_at", text)).transpose()?,
            progress: text(10)?.map(|text| json(uuid, "progress", text)).transpose()?,
            retries: text(11)?.map(|text| json(uuid, "retries", text)).transpose()?,
            declared: text(12)?.map(|text| json(uuid, "declared", text)).transpose()?,
        })
    }
}

/// A [`Record`] in the form of its columns.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) state: String,
    pub(super) intent: Option<String>,
    pub(super) spec: String,
    pub(super) exit: Option<String>,
    pub(super) runtime: Option<String>,
    pub(super) owner: Option<String>,
    pub(super) created_at: String,
    pub(super) updated_at: String,
    pub(super) started_at: Option<String>,
    pub(super) progress: Option<String>,
    pub(super) retries: Option<String>,
    pub(super) declared: Option<String>,
}

impl Columns {
    pub(super) fn of(record: &Record) -> Result<Self> {
        Ok(Self {
            state: record.state.to_string(),
            intent: record.intent.as_ref().map(to_word).transpose()?,
            spec: to_json(&record.spec)?,
            exit: record.exit.as_ref().map(to_json).transpose()?,
            runtime: record.runtime.as_ref().map(to_json).transpose()?,
            owner: record.owner.as_ref().map(to_json).transpose()?,
            created_at: record.created_at.to_string(),
            updated_at: record.updated_at.to_string(),
            started_at: record.started_at.map(|time| time.to_string()),
            progress: record.progress.as_ref().map(to_json).transpose()?,
            retries: record.retries.as_ref().map(to_json).transpose()?,
            declared: record.declared.as_ref().map(to_json).transpose()?,
        })
    }
}

/// Reads a spec of any version this program knows into the present form.
fn read_spec(uuid: &str, text: &str) -> Result<VmSpec> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    // The usual case first: `ls` reads a thousand of them.
    if let Ok(spec) = serde_json::from_str::<VmSpec>(text)
        && spec.version == SPEC_VERSION
    {
        return Ok(spec);
    }
    let Versioned { version } = json(uuid, "spec", text)?;
    match version {
        // Version 1 had no policy, none of them what later NICs and VMs may leave out.
        1..=3 => Ok(VmSpec { version: SPEC_VERSION, ..json(uuid, "spec", text)? }),
        newer if newer > SPEC_VERSION => Err(Error::failed(format!(
            "the spec of VM `{uuid}` has version {newer}, and this `v` knows up to {SPEC_VERSION}"
        ))
        .hint("a newer `v` has made this VM: upgrade `v`")),
        unknown => Err(Error::failed(format!("the spec of VM `{uuid}` has version {unknown}, which never was"))
            .hint("`v doctor` checks the database")),
    }
}

fn json<T: DeserializeOwned>(uuid: &str, column: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| unreadable(uuid, column).source(error))
}

fn word<T: DeserializeOwned>(uuid: &str, column: &str, text: &str) -> Result<T> {
    let word: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    T::deserialize(word).map_err(|error| unreadable(uuid, column).source(error))
}

fn time(uuid: &str, column: &str, text: &str) -> Result<Timestamp> {
    text.parse().map_err(|error: jiff::Error| unreadable(uuid, column).source(error))
}

fn unreadable(uuid: &str, column: &str) -> Error {
    Error::failed(format!("the `{column}` recorded of VM `{uuid}` cannot be read"))
        .hint("`v doctor` checks the database")
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).or_failed(|| "cannot write a VM's record as JSON".to_owned())
}

/// A variant's kebab-case name, as serde has it.
fn to_word<T: Serialize>(value: &T) -> Result<String> {
    Ok(to_json(value)?.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::fixture;

    #[test]
    fn an_event_moves_the_state_or_leaves_the_record_as_it_is() {
        let mut record = fixture::record(1, "web");
        record.apply(&Event::Start).unwrap();
        assert_eq!(record.state, State::Starting);
        let before = record.clone();
        assert_eq!(record.apply(&Event::Delete), Err(Refusal::Running));
        assert_eq!(record, before);
    }

    #[test]
    fn every_state_and_intent_reads_back() {
        for state in State::ALL {
            assert_eq!(word::<State>("u", "state", &state.to_string()).unwrap(), state);
        }
        for intent in [Intent::Stop, Intent::ForceStop, Intent::Restart, Intent::Delete] {
            assert_eq!(word::<Intent>("u", "intent", &to_word(&intent).unwrap()).unwrap(), intent);
        }
        let error = word::<State>("u", "state", "flying").unwrap_err();
        assert_eq!(error.message(), "the `state` recorded of VM `u` cannot be read");
    }

    #[test]
    fn specs_of_other_versions() {
        let spec = fixture::record(1, "web").spec;
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(read_spec("u", &text).unwrap(), spec);
        let rows = [
            (
                text.replace("\"version\":4", "\"version\":5"),
                "the spec of VM `u` has version 5, and this `v` knows up to 4",
            ),
            // A newer spec has fields this program never heard of: its version is what must be named.
            ("{\"version\":9,\"new\":true}".to_owned(), "the spec of VM `u` has version 9, and this `v` knows up to 4"),
            ("{\"version\":0}".to_owned(), "the spec of VM `u` has version 0, which never was"),
            ("{\"version\":1}".to_owned(), "the `spec` recorded of VM `u` cannot be read"),
            ("{\"version\":3}".to_owned(), "the `spec` recorded of VM `u` cannot be read"),
            ("{}".to_owned(), "the `spec` recorded of VM `u` cannot be read"),
            ("null".to_owned(), "the `spec` recorded of VM `u` cannot be read"),
        ];
        for (text, message) in rows {
            let error = read_spec("u", &text).unwrap_err();
            assert_eq!(error.message(), message, "{text}");
            assert!(error.hint_text().is_some(), "{text}");
        }
    }
}
