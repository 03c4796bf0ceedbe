//! Does a plan, VM by VM: what goes makes room for what comes, what fails keeps nobody else.
//!
//! ```text
//! read     what new guests are told, and look: nothing is stopped that could not be made anew
//! stop     whatever is to go or to rest, side by side
//! go       deletes and releases
//! alter    one VM after the other: live, then what needs a restart, if that is wished
//! make     creates; but before either, whoever gives up an address goes, and those that exchange some
//!          change together
//! start    together, and with them what was stopped and could not be made anew
//! ```
//!
//! Each piece is recorded by the verb of `vm` that does it and can be done again, so that whoever
//! finds an apply that was killed makes a new plan, and that one has what is missing. Only a stop for
//! the sake of a change must be remembered beyond that: `Declared::start_again`.

mod account;
mod alter;
mod go;
mod make;
mod ring;
#[cfg(test)]
mod ring_tests;
mod start;
#[cfg(test)]
mod tests;
mod turns;

use std::sync::Arc;

use uuid::Uuid;

pub use account::Fate;
pub(super) use start::START;

use super::{Change, Plan, Situation, Wait, Work};
use crate::error::{Error, Result};
use crate::host::{Cancel, Progress};
use crate::spec::{Exit, Name, VmSpec};
use crate::store::{Record, Store};
use crate::template::UserData;
use crate::vm::{self, Part, Site};
use account::Account;
use turns::turns;

/// Who does a plan, and with what.
#[expect(missing_debug_implementations, reason = "it holds closures")]
pub struct Apply<'a> {
    pub site: &'a Site,
    /// What the plan was made from.
    pub situation: &'a Situation,
    /// What a guest is told at its first boot whose entry names nothing.
    pub first_boot: &'a dyn Fn() -> Result<(UserData, Vec<Part>)>,
    pub cancel: &'a Cancel,
    pub progress: &'a dyn Progress,
    /// Hears of each thing as it is done.
    pub told: &'a (dyn Fn(Told<'_>) + Sync),
}

/// What was done to one VM, or is being done.
#[derive(Debug)]
pub enum Told<'a> {
    /// It takes a while.
    Waiting(Wait),
    Stopped(&'a Name, Exit),
    Deleted(&'a Name),
    Released(&'a Name),
    /// In the words of the plan.
    Altered(&'a Name, Vec<String>),
    Restarted(&'a Name),
    Created(&'a VmSpec),
    Started(&'a VmSpec),
    Failed(&'a Error),
}

impl Apply<'_> {
    /// What became of each change of each item, in the plan's order.
    pub fn run(&self, plan: &Plan) -> Result<Vec<Vec<Fate>>> {
        let mut store = self.site.store()?;
        let mut accounts: Vec<Account<'_>> = plan.items.iter().map(Account::of).collect();
        let mut requests = self.read(&mut accounts);
        self.stop(&store, &mut accounts);
        for account in &mut accounts {
            match &account.item.work {
                Work::Delete(vm) => self.delete(&mut store, account, *vm),
                Work::Release { vm, .. } => self.release(&mut store, account, *vm),
                _ => {}
            }
        }
        self.free_ports(&mut store, &mut accounts);
        for turn in turns(self.situation, &plan.items) {
            let [at] = turn[..] else {
                self.exchange(&mut store, &mut accounts, &turn, &mut requests);
                continue;
            };
            let account = &mut accounts[at];
            match &account.item.work {
                Work::Alter(work) => self.alter(&mut store, account, work),
                _ => self.make(&mut store, account, &mut requests),
            }
        }
        self.start(&mut store, &mut accounts);
        if let Err(interrupted) = self.cancel.check() {
            (self.told)(Told::Failed(&interrupted));
        }
        Ok(accounts.into_iter().map(Account::fates).collect())
    }

    /// Does what stands behind some changes, if one of them is due, and notes what became of them.
    fn attempt(&self, account: &mut Account<'_>, which: impl Fn(&Change) -> bool, work: impl FnOnce() -> Result<()>) {
        if !account.is_due(&which) {
            return;
        }
        match work() {
            Ok(()) => account.settle(which, &Fate::Done),
            Err(error) => self.fail(account, which, error),
        }
    }

    /// Tells of a failure, and notes it for all that it keeps from being done. An interruption is told once, at
    /// the end.
    fn fail(&self, account: &mut Account<'_>, which: impl Fn(&Change) -> bool, error: Error) {
        if !self.cancel.is_cause_of(&error) {
            (self.told)(Told::Failed(&error));
        }
        account.settle(which, &Fate::Failed(Arc::new(error)));
    }

    /// Whether there is something to do for it, and nobody has interrupted it all.
    fn goes_on(&self, account: &mut Account<'_>) -> bool {
        let open = account.is_due(|_| true);
        if open && let Err(error) = self.cancel.check() {
            account.settle(|_| true, &Fate::Failed(Arc::new(error)));
            return false;
        }
        open
    }
}

/// The VM's record, if it runs or is about to: seen as the look before the plan saw it.
fn alive(site: &Site, store: &Store, vm: Uuid) -> Result<Option<Record>> {
    let Some(record) = store.get(vm)? else { return Ok(None) };
    let observed = vm::observe(site, record)?;
    Ok(observed.state.is_live().then_some(observed.record))
}
