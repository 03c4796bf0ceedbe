//! What the config wants no more, or wants to rest.

use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::account::{Account, Fate};
use super::alter::start_again;
use super::{Apply, Told, alive};
use crate::config::Running;
use crate::error::{Error, Result};
use crate::host;
use crate::plan::settle::{MOMENT, POLL, Wait};
use crate::plan::{Change, Class, Item, Work};
use crate::spec::{Declared, Exit, Intent, Name, OnRemove, State};
use crate::store::{Record, Store};
use crate::vm::{self, Site, Stopped};

/// How a VM is brought to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A guest that does not shut down in its time runs on, and that is a failure.
    InOrder,
    /// Its power is cut then: its disks are to go with it.
    ForGood,
}

impl Apply<'_> {
    /// Presses all power buttons together, and waits.
    pub(super) fn stop(&self, store: &Store, accounts: &mut [Account<'_>]) {
        let mut stops = Vec::new();
        for account in accounts.iter_mut() {
            let (vm, end) = match &account.item.work {
                Work::Release { vm, stop: true } => (*vm, End::InOrder),
                Work::Alter(work) if work.run == Some(false) => (work.spec.uuid, End::InOrder),
                Work::Delete(vm) | Work::Replace(vm, _) => (*vm, End::ForGood),
                _ => continue,
            };
            if !self.goes_on(account) {
                continue;
            }
            match alive(self.site, store, vm) {
                Ok(Some(record)) => stops.push((account, record, end)),
                Ok(None) => {}
                Err(error) => self.fail(account, |_| true, error),
            }
        }
        let site = self.site;
        std::thread::scope(|scope| {
            let threads: Vec<_> = stops
                .into_iter()
                .map(|(account, record, end)| {
                    account.ran = true;
                    let (item, timeout) = (account.item, record.spec.policy.stop_timeout());
                    (account, timeout, scope.spawn(move || end_one(site, item, record, end)))
                })
                .collect();
            let slow = || threads.iter().filter(|(.., thread)| !thread.is_finished());
            self.tell_slow(|| slow().map(|(account, timeout, _)| (&account.item.vm, *timeout)).collect());
            for (account, _, thread) in threads {
                match joined(thread) {
                    Ok(exit) => {
                        if let Some(exit) = exit {
                            (self.told)(Told::Stopped(&account.item.vm, exit));
                        }
                        account.settle(is_stop, &Fate::Done);
                    }
                    Err(error) => self.fail(account, |_| true, error),
                }
            }
        });
    }

    /// Waits a moment for guests that are shutting down, and tells of those that take longer. `slow`: who has not
    /// yet, and how long they may take.
    fn tell_slow<'n>(&self, slow: impl Fn() -> Vec<(&'n Name, Duration)>) {
        let begun = Instant::now();
        let mut left = slow();
        while !left.is_empty() && begun.elapsed() < MOMENT {
            host::pause(POLL);
            left = slow();
        }
        if let Some(at_most) = left.iter().map(|(_, timeout)| *timeout).max() {
            let vms = left.into_iter().map(|(name, _)| name.clone()).collect();
            (self.told)(Told::Waiting(Wait { vms, state: State::Stopping, at_most }));
        }
    }

    /// Presses the power button, and waits.
    pub(super) fn stop_one(&self, store: &mut Store, record: Record) -> Result<Stopped> {
        let (site, name, timeout) = (self.site, record.spec.name.clone(), record.spec.policy.stop_timeout());
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| vm::stop(site, store, record, timeout, Intent::Stop));
            self.tell_slow(|| if thread.is_finished() { Vec::new() } else { vec![(&name, timeout)] });
            joined(thread)
        })
    }

    /// The same for several at a time.
    pub(super) fn stop_together(&self, records: Vec<Record>) -> Vec<Result<Stopped>> {
        let site = self.site;
        let whom = |record: &Record| (record.spec.name.clone(), record.spec.policy.stop_timeout());
        let whom: Vec<_> = records.iter().map(whom).collect();
        std::thread::scope(|scope| {
            let stop = |record: Record, timeout| vm::stop(site, &mut site.store()?, record, timeout, Intent::Stop);
            let stops = records.into_iter().zip(&whom);
            let threads: Vec<_> =
                stops.map(|(record, (_, timeout))| scope.spawn(move || stop(record, *timeout))).collect();
            let slow = || whom.iter().zip(&threads).filter(|(_, thread)| !thread.is_finished());
            self.tell_slow(|| slow().map(|((name, timeout), _)| (name, *timeout)).collect());
            threads.into_iter().map(joined).collect()
        })
    }

    pub(super) fn delete(&self, store: &mut Store, account: &mut Account<'_>, vm: Uuid) {
        if !self.goes_on(account) {
            return;
        }
        let item = account.item;
        match delete(self.site, store, vm, |record| check_same(item, record)) {
            Ok(()) => {
                (self.told)(Told::Deleted(&account.item.vm));
                account.settle(|_| true, &Fate::Done);
            }
            Err(error) => self.fail(account, |_| true, error),
        }
    }

    pub(super) fn release(&self, store: &mut Store, account: &mut Account<'_>, vm: Uuid) {
        if !self.goes_on(account) {
            return;
        }
        let released = store.update(vm, |record| {
            check_same(account.item, record)?;
            if let Some(declared) = &mut record.declared {
                *declared = Declared { removed: true, start_again: false, ..declared.clone() };
            }
            Ok(())
        });
        match released {
            Ok(()) => {
                (self.told)(Told::Released(&account.item.vm));
                account.settle(|_| true, &Fate::Done);
            }
            Err(error) => self.fail(account, |_| true, error),
        }
    }
}

/// One that somebody else has deleted meanwhile is gone too.
pub(super) fn delete(site: &Site, store: &mut Store, vm: Uuid, check: impl Fn(&Record) -> Result<()>) -> Result<()> {
    match store.get(vm)? {
        Some(record) => vm::delete_if(site, store, record, true, check),
        None => Ok(()),
    }
}

/// The look is old by the time a person has answered, or guests have shut down.
fn check_same(item: &Item, record: &Record) -> Result<()> {
    check_name(&item.vm, record)?;
    let declared = record.declared.as_ref().filter(|declared| !declared.removed);
    let same = match &item.work {
        Work::Delete(_) => {
            let is_half = matches!(record.state, State::Creating | State::Deleting);
            declared.is_some_and(|declared| is_half || declared.on_remove == OnRemove::Delete)
        }
        Work::Release { .. } => declared.is_some(),
        _ => true,
    };
    if same { Ok(()) } else { Err(changed(&item.vm)) }
}

/// A uuid stays when a VM is renamed, and the config means names.
pub(super) fn check_name(name: &Name, record: &Record) -> Result<()> {
    if record.spec.name == *name { Ok(()) } else { Err(changed(name)) }
}

fn changed(name: &Name) -> Error {
    Error::refused(format!("`{name}` has changed meanwhile")).hint("`v apply` again")
}

fn is_stop(change: &Change) -> bool {
    change.class == Class::Stop
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(Error::failed("a thread ended in a panic")))
}

/// `None`: it ended by itself, just before.
fn end_one(site: &Site, item: &Item, record: Record, end: End) -> Result<Option<Exit>> {
    // A connection of its own: it waits as long as the guest does.
    let mut store = site.store()?;
    let (vm, name, timeout) = (record.spec.uuid, record.spec.name.clone(), record.spec.policy.stop_timeout());
    // Refused before its guest is told anything.
    check_same(item, &record)?;
    if end == End::ForGood {
        vm::check_unprotected(&record)?;
    }
    // The new one runs as this one did, also if that is another apply's to see to.
    if matches!(&item.work, Work::Replace(_, entry) if entry.running == Running::Leave) {
        start_again(&mut store, vm)?;
    }
    let error = match vm::stop(site, &mut store, record, timeout, Intent::Stop) {
        Ok(Stopped::Ended(exit)) => return Ok(Some(exit)),
        Ok(Stopped::StillRunning) => still_running(&name, timeout),
        Err(error) => error,
    };
    let Some(record) = alive(site, &store, vm)? else { return Ok(None) };
    match end {
        End::ForGood => {
            check_same(item, &record)?;
            vm::force_stop(site, &mut store, vm, Intent::Delete).map(Some)
        }
        End::InOrder => Err(error),
    }
}

pub(super) fn still_running(name: &Name, timeout: Duration) -> Error {
    Error::failed(format!("`{name}` has not shut down in {} s", timeout.as_secs())).hint(format!(
        "give it longer with `stop-timeout`, or cut its power with `v vm stop --force --timeout 0 {name}`"
    ))
}
