//! What happened, line by line: written in the transaction of the change itself, so that neither
//! is there without the other.
//!
//! A line is found and ordered by its id alone: ids grow in the order of the commits, and a clock
//! that is set back changes nothing. Old lines make way for new ones when these are written, so
//! nothing has to tidy up: of one VM at most [`PER_VM`] are kept, of all at most [`IN_ALL`]. A
//! deleted VM's lines stay until others push them out: what became of it is asked later.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::fault::Fault;
use super::find::Selector;
use super::open::Store;
use super::record::{Record, to_json};
use crate::error::{Error, Result};
use crate::host;
use crate::spec::{Actor, Entry, Exit, Happening, State, VmSpec};

/// A VM that is started and stopped twice a day makes some 3,000 lines a year; 500 are two months.
/// One that is restarted again and again pushes out its own lines, and nobody else's.
const PER_VM: i64 = 500;
/// About 6 MB of file.
const IN_ALL: i64 = 20_000;
/// All are counted once in so many lines, since counting reads them.
const COUNTED_EVERY: i64 = 100;
/// Lines read at a time.
const BATCH: usize = 1000;

/// A VM as the history remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    pub vm: Uuid,
    /// Its last name.
    pub name: String,
    /// When its last line was written.
    pub last: String,
    /// Whether the VM is still there.
    pub exists: bool,
}

impl Store {
    /// Notes what no change of the record shows.
    pub fn tell(&mut self, spec: &VmSpec, happening: &Happening) -> Result<()> {
        let actor = self.actor();
        self.write("note what happened", |transaction| note(transaction, spec, &actor, happening))
    }

    /// Whether a VM was ever recorded here, also when it is gone by now.
    pub fn knew(&self, vm: Uuid) -> Result<bool> {
        self.read("look into the history", |connection| {
            let mut statement = connection.prepare_cached("SELECT 1 FROM history WHERE vm = ?1 LIMIT 1")?;
            Ok(statement.exists([vm.to_string()])?)
        })
    }

    /// The last lines of one VM, or of all, the oldest first.
    pub fn history(&self, vm: Option<Uuid>, last: usize) -> Result<Vec<Entry>> {
        let mut entries = self.entries(vm, "ORDER BY id DESC LIMIT ?2", &i64::try_from(last).unwrap_or(i64::MAX))?;
        entries.reverse();
        Ok(entries)
    }

    /// The lines after the one with this id, the oldest first: some at a time, none when there are
    /// no more.
    pub fn events_after(&self, id: i64, vm: Option<Uuid>) -> Result<Vec<Entry>> {
        self.entries(vm, &format!("AND id > ?2 ORDER BY id LIMIT {BATCH}"), &id)
    }

    /// The id of the newest line; 0 before there is one.
    pub fn newest_event(&self) -> Result<i64> {
        self.read("read the history", |connection| {
            Ok(connection.query_row("SELECT coalesce(max(id), 0) FROM history", [], |row| row.get(0))?)
        })
    }

    /// The VMs that `text` named at some time, by name or by the beginning of a uuid; the one of
    /// the newest line first.
    pub fn remembered(&self, text: &str) -> Result<Vec<Remembered>> {
        self.read("read the history", |connection| {
            for reading in Selector::parse(text) {
                let (condition, value) = match &reading {
                    Selector::Name(name) => ("name = ?1", name.as_str()),
                    Selector::Uuid(prefix) => ("vm >= ?1 AND vm < ?1 || 'g'", prefix.as_str()),
                    // A number is the VM's as long as it is there.
                    Selector::Number(_) => continue,
                };
                let found = bearers(connection, condition, value)?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
            Ok(Vec::new())
        })
    }

    fn entries(&self, vm: Option<Uuid>, rest: &str, value: &i64) -> Result<Vec<Entry>> {
        self.read("read the history", |connection| {
            // Without a VM `?1` is null, and the condition true; with one, the index serves it.
            let condition = if vm.is_some() { "vm = ?1" } else { "?1 IS NULL" };
            let sql = format!("SELECT id, time, vm, name, actor, happening FROM history WHERE {condition} {rest}");
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params![vm.map(|vm| vm.to_string()), value])?;
            let mut entries = Vec::new();
            while let Some(row) = rows.next()? {
                entries.push(entry(row)?);
            }
            Ok(entries)
        })
    }
}

fn bearers(connection: &Connection, condition: &str, value: &str) -> Result<Vec<Remembered>, Fault> {
    // With `max`, sqlite takes the other columns from that same row.
    let mut statement = connection
        .prepare(&format!("SELECT vm, max(id) FROM history WHERE {condition} GROUP BY vm ORDER BY max(id) DESC"))?;
    let mut rows = statement.query([value])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        let Ok(vm) = Uuid::parse_str(&text) else { continue };
        let (name, last) = connection.query_row(
            "SELECT name, time FROM history WHERE vm = ?1 ORDER BY id DESC LIMIT 1",
            [&text],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let there = connection.query_row("SELECT 1 FROM vm WHERE uuid = ?1", [&text], |_| Ok(())).optional()?;
        found.push(Remembered { vm, name, last, exists: there.is_some() });
    }
    Ok(found)
}

/// A line that cannot be read (a newer program wrote it, or somebody's hand did) is still a line.
fn entry(row: &Row<'_>) -> Result<Entry, Fault> {
    let text = |index| row.get_ref(index).map(|value| String::from_utf8_lossy(value.as_bytes().unwrap_or_default()));
    let (actor, happening) = (text(4)?, text(5)?);
    Ok(Entry {
        id: row.get(0)?,
        time: text(1)?.into_owned(),
        vm: text(2)?.into_owned(),
        name: text(3)?.into_owned(),
        actor: parse(&actor).unwrap_or(Actor::Unknown),
        happening: parse(&happening).unwrap_or_else(|| Happening::Unreadable { detail: happening.into_owned() }),
    })
}

fn parse<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

/// Notes what a change of the record shows: another name, another state, another wish.
pub(super) fn note_change(
    transaction: &Transaction<'_>,
    actor: &Actor,
    before: &Record,
    after: &Record,
) -> Result<(), Fault> {
    if before.spec.name != after.spec.name {
        note(transaction, &after.spec, actor, &Happening::Renamed { from: before.spec.name.clone() })?;
    }
    for happening in changes(before, after) {
        // Whoever finds a run lost has not caused its end.
        let lost = matches!(happening, Happening::State { exit: Some(Exit::Lost), .. });
        note(transaction, &after.spec, if lost { &Actor::Unknown } else { actor }, &happening)?;
    }
    Ok(())
}

/// What lies between two forms of a record. How a run ended goes with the change that ended it, and
/// with no other: the record keeps its last exit through the runs that follow.
fn changes(before: &Record, after: &Record) -> Vec<Happening> {
    let line = |from, to, exit| Happening::State { from: Some(from), to, intent: after.intent, exit };
    let (from, to) = (before.state, after.state);
    if from.is_run() && !to.is_run() {
        return vec![line(from, to, after.exit.clone())];
    }
    let another_run = match (&before.runtime, &after.runtime) {
        (Some(old), Some(new)) => to == State::Starting && old.supervisor != new.supervisor,
        _ => false,
    };
    if from.is_run() && (another_run || to == State::Starting && from != to) {
        // A run that nobody saw end, and in the same breath the next one.
        let between = match &after.exit {
            Some(exit) if exit.is_clean() => State::Stopped,
            _ => State::Crashed,
        };
        return vec![line(from, between, after.exit.clone()), line(between, to, None)];
    }
    if from == to {
        // Already stopping, and asked for something else: the power to be cut.
        let asked = before.intent != after.intent && after.intent.is_some() && to == State::Stopping;
        return if asked { vec![line(from, to, None)] } else { Vec::new() };
    }
    // A wait to start again that its supervisor's death ended.
    let exit = after.exit.clone().filter(|_| from == State::Restarting && before.exit != after.exit);
    vec![line(from, to, exit)]
}

pub(super) fn note(
    transaction: &Transaction<'_>,
    spec: &VmSpec,
    actor: &Actor,
    happening: &Happening,
) -> Result<(), Fault> {
    if matches!(happening, Happening::Unreadable { .. }) {
        return Err(Error::failed("a line that cannot be read is not written").into());
    }
    let vm = spec.uuid.to_string();
    let mut statement = transaction
        .prepare_cached("INSERT INTO history (time, vm, name, actor, happening) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    statement.execute(params![
        host::now().to_string(),
        vm,
        spec.name.as_str(),
        to_json(actor)?,
        to_json(happening)?
    ])?;
    Ok(prune(transaction, &vm, transaction.last_insert_rowid())?)
}

fn prune(transaction: &Transaction<'_>, vm: &str, newest: i64) -> rusqlite::Result<()> {
    let mut of_vm = transaction.prepare_cached(
        "DELETE FROM history WHERE vm = ?1
         AND id <= (SELECT id FROM history WHERE vm = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )?;
    of_vm.execute(params![vm, PER_VM])?;
    if newest % COUNTED_EVERY == 0 {
        // As many more as may come until the next count.
        let kept = IN_ALL - COUNTED_EVERY;
        let mut of_all = transaction.prepare_cached(
            "DELETE FROM history WHERE id <= (SELECT id FROM history ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        )?;
        of_all.execute([kept])?;
    }
    Ok(())
}
