//! VMs that the config wants and the store has not, or is to have anew.

use std::collections::HashMap;

use uuid::Uuid;

use super::account::{Account, Fate};
use super::go;
use super::{Apply, Told};
use crate::config::{DeclaredVm, Running};
use crate::error::{Error, OrFailed, Result};
use crate::plan::{Class, Work, digest};
use crate::spec::{Declared, VmSpec};
use crate::store::Store;
use crate::template::{self, Overrides, UserData};
use crate::vm::{self, Part};

/// What new guests are told, by the item's VM.
pub(super) type Words = HashMap<String, (UserData, Vec<Part>)>;

impl Apply<'_> {
    /// Reads what new guests are told, before anything makes way for them.
    pub(super) fn read(&self, accounts: &mut [Account<'_>]) -> Words {
        let mut words = Words::new();
        let mut usual = None;
        for account in accounts {
            let (entry, anew) = match &account.item.work {
                Work::Create(entry) => (entry, false),
                Work::Replace(_, entry) => (entry, true),
                _ => continue,
            };
            match self.read_one(entry, anew, &mut usual) {
                Ok(told) => drop(words.insert(entry.name.to_string(), told)),
                Err(error) => self.fail(account, |_| true, error.context(format!("cannot create `{}`", entry.name))),
            }
        }
        words
    }

    fn read_one(
        &self,
        entry: &DeclaredVm,
        anew: bool,
        usual: &mut Option<(UserData, Vec<Part>)>,
    ) -> Result<(UserData, Vec<Part>)> {
        let config = &self.situation.config;
        if anew {
            vm::resolve(config, &entry.template)?;
            for path in template::disks(config, &entry.template)?.into_iter().filter_map(|disk| disk.source) {
                std::fs::metadata(&path).or_failed(|| format!("cannot look at `{}`", path.display()))?;
            }
        }
        if !entry.user_data.is_empty() {
            return vm::user_data(&entry.user_data);
        }
        if usual.is_none() {
            *usual = Some((self.first_boot)()?);
        }
        usual.clone().ok_or_else(|| Error::failed("nothing is known of the caller"))
    }

    pub(super) fn make(&self, store: &mut Store, account: &mut Account<'_>, words: &mut Words) {
        let (entry, old) = match &account.item.work {
            Work::Create(entry) => (entry, None),
            Work::Replace(vm, entry) => (entry, Some(*vm)),
            _ => return,
        };
        if !self.goes_on(account) {
            return;
        }
        let Some(told) = words.remove(entry.name.as_str()) else { return };
        match self.make_one(store, entry, old, account.ran, told) {
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
        ran: bool,
        (users, parts): (UserData, Vec<Part>),
    ) -> Result<VmSpec> {
        if let Some(old) = old {
            go::delete(self.site, store, old, |record| go::check_name(&entry.name, record))?;
            (self.told)(Told::Deleted(&entry.name));
        }
        let told = (!entry.user_data.is_empty()).then(|| digest(&users, &parts)).transpose()?;
        let declared = Declared {
            user_data: told,
            start_again: ran && entry.running == Running::Leave,
            ..self.situation.declared(entry)
        };
        let request = vm::Create {
            template: entry.template.clone(),
            name: Some(entry.name.clone()),
            count: 1,
            overrides: Overrides::default(),
            users,
            parts,
            declared: Some(declared),
        };
        let mut specs = vm::create(self.site, &self.situation.config, &request, self.cancel, self.progress)?;
        specs.pop().ok_or_else(|| Error::failed("nothing was made"))
    }
}
