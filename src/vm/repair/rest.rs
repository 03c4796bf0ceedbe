//! Which VMs live, which are at rest, and how one is kept at rest while something is removed.

use std::collections::HashMap;
use std::io;

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::host::{Lock, LockError};
use crate::spec::State;
use crate::store::{Record, Store};
use crate::vm::Site;
use crate::vm::observe::is_supervised;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It runs, or a supervisor has it.
    Live,
    /// It is being made, renamed or deleted, or that was cut short: what belongs to it goes with that.
    AtWork,
    /// It is recorded, and nothing of it should be on the host but its folder.
    AtRest,
    /// This store has no such VM.
    Unknown,
}

/// The VMs of a moment.
#[derive(Debug)]
pub(super) struct Standings {
    pub(super) records: Vec<Record>,
    standings: HashMap<Uuid, Standing>,
}

impl Standings {
    pub(super) fn of(site: &Site, records: Vec<Record>) -> Result<Self> {
        let standings = records
            .iter()
            .map(|record| Ok((record.spec.uuid, standing(site, record)?)))
            .collect::<Result<HashMap<_, _>>>()?;
        Ok(Self { records, standings })
    }

    pub(super) fn standing(&self, vm: Uuid) -> Standing {
        self.standings.get(&vm).copied().unwrap_or(Standing::Unknown)
    }

    /// What a person calls it.
    pub(super) fn name(&self, vm: Uuid) -> String {
        let record = self.records.iter().find(|record| record.spec.uuid == vm);
        record.map_or_else(|| vm.to_string(), |record| record.spec.name.to_string())
    }
}

fn standing(site: &Site, record: &Record) -> Result<Standing> {
    if matches!(record.state, State::Creating | State::Deleting) || record.owner.is_some_and(|owner| owner.is_alive()) {
        return Ok(Standing::AtWork);
    }
    let lives = is_supervised(site, record)? || record.state.is_live() && hypervisor_lives(record);
    Ok(if lives { Standing::Live } else { Standing::AtRest })
}

pub(super) fn hypervisor_lives(record: &Record) -> bool {
    record.runtime.as_ref().and_then(|runtime| runtime.hypervisor).is_some_and(|handle| handle.is_alive())
}

/// A VM that is not recorded, or that no supervisor can begin to run while this is there.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) record: Option<Record>,
    _lock: Option<Lock>,
}

impl Rest {
    /// `None`: it lives by now, or a process is at work on it.
    pub(super) fn hold(site: &Site, store: &Store, vm: Uuid) -> Result<Option<Self>> {
        if store.get(vm)?.is_none() {
            return Ok(Some(Self { record: None, _lock: None }));
        }
        let path = site.lock(vm);
        let lock = match Lock::try_take(&path) {
            Ok(lock) => Some(lock),
            Err(LockError::Held) => return Ok(None),
            // Without its folder no supervisor can begin either.
            Err(LockError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(LockError::Io(error)) => {
                return Err(Error::failed(format!("cannot lock `{}`", path.display())).source(error));
            }
        };
        // Again, now that no supervisor can change it.
        let record = store.get(vm)?;
        let busy = record.as_ref().is_some_and(|record| {
            matches!(record.state, State::Creating | State::Deleting)
                || record.owner.is_some_and(|owner| owner.is_alive())
                || record.state.is_live() && hypervisor_lives(record)
        });
        Ok((!busy).then_some(Self { record, _lock: lock }))
    }
}
