//! VMs that the config wants and the store has not, or is to have anew.
//!
//! One that makes way for itself is looked at twice: before anything is stopped, so that it runs on if it
//! could not be made anew, and before it is deleted, as others of the plan may have what they were to give
//! up.

use std::collections::HashMap;

use uuid::Uuid;

use super::account::{Account, Fate};
use super::go;
use super::{Apply, Told};
use crate::config::{DeclaredVm, Running};
use crate::error::{Error, Result};
use crate::plan::{Class, Field, Work, digest};
use crate::spec::{Declared, VmSpec};
use crate::store::Store;
use crate::template::{Overrides, UserData};
use crate::vm::{self, Part};

/// What is to be made, with what its guest is told, by the item's VM.
pub(super) type Requests = HashMap<String, vm::Create>;

impl Apply<'_> {
    /// Reads what new guests are told, and looks whether what makes way for them can be made anew.
    pub(super) fn read(&self, accounts: &mut [Account<'_>]) -> Requests {
        let mut requests = Requests::new();
        let mut usual = None;
        let yielding: Vec<Uuid> = accounts.iter().filter_map(yields).collect();
        for account in accounts {
            if !account.item.is_due() {
                continue;
            }
            let (entry, anew) = match &account.item.work {
                Work::Create(entry) => (entry, false),
                Work::Replace(_, entry) => (entry, true),
                _ => continue,
            };
            let read = self.read_one(entry, &mut usual).and_then(|request| {
                if anew {
                    self.check(&request, &yielding)?;
                }
                Ok(request)
            });
            match read {
                Ok(request) => drop(requests.insert(entry.name.to_string(), request)),
                Err(error) => self.fail(account, |_| true, error.context(format!("cannot create `{}`", entry.name))),
            }
        }
        requests
    }

    fn read_one(&self, entry: &DeclaredVm, usual: &mut Option<(UserData, Vec<Part>)>) -> Result<vm::Create> {
        let (users, parts) = match (&*usual, entry.user_data.is_empty()) {
            (_, false) => vm::user_data(&entry.user_data)?,
            (Some(usual), true) => usual.clone(),
            (None, true) => usual.insert((self.first_boot)()?).clone(),
        };
        Ok(vm::Create {
            template: entry.template.clone(),
            name: Some(entry.name.clone()),
            count: 1,
            overrides: Overrides::default(),
            users,
            parts,
            declared: None,
        })
    }

    fn check(&self, request: &vm::Create, replaces: &[Uuid]) -> Result<()> {
        vm::check_create(self.site, &self.situation.config, request, replaces, self.cancel, self.progress)
    }

    pub(super) fn make(&self, store: &mut Store, account: &mut Account<'_>, requests: &mut Requests) {
        let (entry, old) = match &account.item.work {
            Work::Create(entry) => (entry, None),
            Work::Replace(vm, entry) => (entry, Some(*vm)),
            _ => return,
        };
        if !self.goes_on(account) {
            return;
        }
        let Some(request) = requests.remove(entry.name.as_str()) else { return };
        let starts = account.ran || account.is_due(|change| change.class == Class::Start);
        match self.make_one(store, entry, old, starts, request) {
            Ok(spec) => {
                (self.told)(Told::Created(&spec));
                account.made = Some(spec.uuid);
                account.settle(|change| change.class != Class::Start, &Fate::Done);
            }
            Err(error) => self.fail(account, |_| true, error.context(format!("cannot create `{}`", entry.name))),
        }
    }

    fn make_one(
        &self,
        store: &mut Store,
        entry: &DeclaredVm,
        old: Option<Uuid>,
        starts: bool,
        request: vm::Create,
    ) -> Result<VmSpec> {
        if let Some(old) = old {
            self.check(&request, &[old])?;
            go::delete(self.site, store, old, |record| go::check_name(&entry.name, record))?;
            (self.told)(Told::Deleted(&entry.name));
        }
        let told = (!entry.user_data.is_empty()).then(|| digest(&request.users, &request.parts)).transpose()?;
        let declared = Declared {
            user_data: told,
            start_again: starts && entry.running == Running::Leave,
            ..self.situation.declared(entry)
        };
        let request = vm::Create { declared: Some(declared), ..request };
        let mut specs = vm::create(self.site, &self.situation.config, &request, self.cancel, self.progress)?;
        specs.pop().ok_or_else(|| Error::failed("nothing was made"))
    }
}

/// A VM that may give up addresses or MACs before another one of the plan is made.
fn yields(account: &Account<'_>) -> Option<Uuid> {
    match &account.item.work {
        Work::Delete(vm) | Work::Replace(vm, _) => Some(*vm),
        Work::Alter(work) if account.is_due(|change| matches!(change.field, Field::Nic(..))) => Some(work.spec.uuid),
        _ => None,
    }
}
