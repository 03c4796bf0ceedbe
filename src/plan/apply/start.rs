use std::time::Duration;

use uuid::Uuid;

use super::account::{Account, Fate};
use super::{Apply, Told};
use crate::config::Running;
use crate::error::{Error, Result};
use crate::plan::{Class, Work};
use crate::spec::VmSpec;
use crate::store::{Record, Store};
use crate::vm::{self, Starting};

/// How long a hypervisor may take to come up and boot.
const START: Duration = Duration::from_secs(60);

impl Apply<'_> {
    /// Launches all that are to run, then waits for each.
    pub(super) fn start(&self, store: &mut Store, accounts: &mut [Account<'_>]) {
        let mut launched = Vec::new();
        for account in accounts {
            let Some(vm) = to_start(account).filter(|_| !self.cancel.is_set()) else { continue };
            match self.launch(store, vm) {
                Ok(launch) => launched.push((account, launch)),
                Err(error) => self.fail(account, |_| true, error),
            }
        }
        for (account, launch) in launched {
            let Some((spec, starting)) = launch else {
                account.settle(|_| true, &Fate::Done);
                continue;
            };
            match starting.wait() {
                Ok(()) => {
                    (self.told)(Told::Started(&spec));
                    account.settle(|_| true, &Fate::Done);
                }
                Err(error) => self.fail(account, |_| true, error),
            }
        }
    }

    /// `None`: it runs, somebody else has started it.
    pub(super) fn launch(&self, store: &mut Store, vm: Uuid) -> Result<Option<(VmSpec, Starting)>> {
        let observed = vm::reconcile(self.site, store, find(store, vm)?)?;
        if observed.state.is_run() {
            return Ok(None);
        }
        let spec = observed.record.spec.clone();
        Ok(Some((spec, vm::start(self.site, store, observed.record, START)?)))
    }
}

/// The VM, if it is to run and nothing went wrong with it before.
fn to_start(account: &Account<'_>) -> Option<Uuid> {
    let due = account.is_due(|change| change.class == Class::Start);
    match &account.item.work {
        _ if account.has_failed() => None,
        Work::Create(_) => account.made.filter(|_| due),
        Work::Replace(_, entry) => account.made.filter(|_| match entry.running {
            Running::Yes => true,
            Running::Leave => account.ran,
            Running::No => false,
        }),
        Work::Alter(work) => due.then_some(work.spec.uuid),
        Work::Refused | Work::Release { .. } | Work::Delete(_) => None,
    }
}

pub(super) fn find(store: &Store, vm: Uuid) -> Result<Record> {
    store.get(vm)?.ok_or_else(|| Error::not_found("the VM was deleted meanwhile"))
}
