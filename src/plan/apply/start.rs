use std::time::Duration;

use uuid::Uuid;

use super::account::{Account, Fate};
use super::{Apply, Told};
use crate::config::Running;
use crate::error::{Error, Result};
use crate::plan::{Class, Work};
use crate::spec::{State, VmSpec};
use crate::store::{Record, Store};
use crate::vm::{self, Starting};

/// How long a hypervisor may take to come up and boot.
pub(in crate::plan) const START: Duration = Duration::from_secs(60);

impl Apply<'_> {
    /// Launches all that are to run, then waits for each.
    pub(super) fn start(&self, store: &mut Store, accounts: &mut [Account<'_>]) {
        let mut launched = Vec::new();
        for account in accounts {
            let vm = match self.cancel.is_set() {
                false => to_start(account).or_else(|| owed(store, account)),
                true => None,
            };
            let Some(vm) = vm.or_else(|| put_back(store, account)) else { continue };
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

/// The VM, if it is to run, and there.
fn to_start(account: &Account<'_>) -> Option<Uuid> {
    let due = account.is_due(|change| change.class == Class::Start);
    match &account.item.work {
        // What could not be changed is started as it was.
        Work::Alter(work) => due.then_some(work.spec.uuid),
        _ if account.has_failed() => None,
        Work::Create(_) => account.made.filter(|_| due),
        Work::Replace(_, entry) => account.made.filter(|_| match entry.running {
            Running::Yes => true,
            Running::Leave => account.ran || due,
            Running::No => false,
        }),
        Work::Refused | Work::Release { .. } | Work::Delete(_) => None,
    }
}

/// One that was to be restarted and was too slow to shut down: it may have done so since.
fn owed(store: &Store, account: &Account<'_>) -> Option<Uuid> {
    let Work::Alter(work) = &account.item.work else { return None };
    if !account.has_failed() {
        return None;
    }
    let declared = store.get(work.spec.uuid).ok()??.declared?;
    declared.start_again.then_some(work.spec.uuid)
}

/// One that was stopped to be made anew, and is still there: it ran, and is to run.
fn put_back(store: &Store, account: &Account<'_>) -> Option<Uuid> {
    match &account.item.work {
        Work::Replace(vm, entry) if account.ran && account.has_failed() && entry.running != Running::No => {
            store.get(*vm).ok()?.filter(|record| record.state != State::Deleting).map(|_| *vm)
        }
        _ => None,
    }
}

pub(super) fn find(store: &Store, vm: Uuid) -> Result<Record> {
    store.get(vm)?.ok_or_else(|| Error::not_found("the VM was deleted meanwhile"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{DeclaredVm, Template};
    use crate::plan::{Alter, Change, Field, Item};
    use crate::spec::{Declared, OnRemove};

    #[test]
    fn what_could_not_be_changed_is_started_as_it_was() {
        let entry = DeclaredVm {
            name: "web".parse().unwrap(),
            template: Template::blank("xs".parse().unwrap()),
            running: Running::Yes,
            on_remove: OnRemove::Stop,
            user_data: Vec::new(),
        };
        let spec = VmSpec::sample(Uuid::from_u128(1));
        let declared = Declared::default();
        let change = |class, field| Change { class, field, old: None, new: None, needs: None, why: None, hint: None };
        let changes = vec![change(Class::Live, Field::Watchdog), change(Class::Start, Field::Running)];
        let alter = Alter { target: spec.clone(), spec, entry: entry.clone(), declared, runs: false, run: Some(true) };
        let failed = Fate::Failed(Arc::new(Error::failed("no such image")));
        for (work, starts) in [(Work::Alter(Box::new(alter)), true), (Work::Create(Box::new(entry)), false)] {
            let item = Item { vm: "web".parse().unwrap(), changes: changes.clone(), work };
            let mut account = Account::of(&item);
            account.made = Some(Uuid::from_u128(1));
            account.settle(|change| change.class == Class::Live, &failed);
            assert_eq!(to_start(&account).is_some(), starts);
        }
    }
}
