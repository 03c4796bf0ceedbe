//! What happened, line by line: written in the transaction of the change itself, so that neither
//! is there without the other.

use rusqlite::{Transaction, params};
use uuid::Uuid;

use super::fault::Fault;
use super::open::Store;
use super::record::{Record, to_json};
use crate::error::Result;
use crate::host;
use crate::spec::{Actor, Happening, VmSpec};

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
}

/// Notes what a change of the record shows: another state, another name.
pub(super) fn note_change(
    transaction: &Transaction<'_>,
    actor: &Actor,
    before: &Record,
    after: &Record,
) -> Result<(), Fault> {
    if before.spec.name != after.spec.name {
        note(transaction, &after.spec, actor, &Happening::Renamed { from: before.spec.name.clone() })?;
    }
    if before.state == after.state {
        return Ok(());
    }
    let ended =
        before.state.is_live() && before.exit != after.exit || before.runtime.is_some() && after.runtime.is_none();
    let happening = Happening::State {
        from: Some(before.state),
        to: after.state,
        intent: after.intent,
        exit: after.exit.clone().filter(|_| ended),
    };
    note(transaction, &after.spec, actor, &happening)
}

pub(super) fn note(
    transaction: &Transaction<'_>,
    spec: &VmSpec,
    actor: &Actor,
    happening: &Happening,
) -> Result<(), Fault> {
    let vm: Uuid = spec.uuid;
    let mut statement = transaction
        .prepare_cached("INSERT INTO history (time, vm, name, actor, happening) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    statement.execute(params![
        host::now().to_string(),
        vm.to_string(),
        spec.name.as_str(),
        to_json(actor)?,
        to_json(happening)?
    ])?;
    Ok(())
}
