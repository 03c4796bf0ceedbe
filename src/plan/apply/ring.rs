//! What one VM gives up and another is to have, where no order of turns will do.
//!
//! ```text
//! addresses, MACs   the VMs of a ring come to rest, change together, and are started again
//! ports of a host   each that runs gives up what another is to have, before anybody gets any
//! ```
//!
//! All that the VMs of a ring have changes in one transaction: whoever comes after a kill finds all of
//! them as they were, or all as they are to be, and `start_again` says who ran.
//! One that is made anew has the NICs of its entry by then: it can run if that fails, and the next apply
//! finds nothing to exchange.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::account::{Account, Fate};
use super::alter::{due, is_rest, nic_field, start_again, started_meanwhile, wish};
use super::make::Requests;
use super::{Apply, Told, alive, go};
use crate::config::Template;
use crate::error::{Error, Result};
use crate::plan::{Alter, Change, Field, Item, NicField, Work};
use crate::spec::{Forward, Nic, State};
use crate::store::{Record, Store};
use crate::vm::{self, Stopped};

impl Apply<'_> {
    /// Does the items of one ring.
    pub(super) fn exchange(
        &self,
        store: &mut Store,
        accounts: &mut [Account<'_>],
        ring: &[usize],
        requests: &mut Requests,
    ) {
        for at in ring {
            let account = &mut accounts[*at];
            if let Work::Alter(work) = &account.item.work
                && self.goes_on(account)
            {
                self.begin(store, account, work);
            }
        }
        let mut stopped = Vec::new();
        let exchanged = self.exchange_all(store, accounts, ring, &mut stopped);
        if let Err(error) = &exchanged
            && !self.cancel.is_cause_of(error)
        {
            (self.told)(Told::Failed(error));
        }
        let fate = exchanged.map_or_else(|error| Fate::Failed(Arc::new(error)), |()| Fate::Done);
        // As they were, if they cannot be changed: they ran, and are to run.
        let launched: Vec<_> = stopped.into_iter().map(|(at, vm)| (at, self.launch(store, vm))).collect();
        for (at, launch) in launched {
            let account = &mut accounts[at];
            match launch.and_then(|launch| launch.map_or(Ok(()), |(_, starting)| starting.wait())) {
                Ok(()) if matches!(fate, Fate::Done) => (self.told)(Told::Restarted(&account.item.vm)),
                Ok(()) => {}
                Err(error) => {
                    let error = error.context(format!("cannot change `{}`", account.item.vm));
                    self.fail(account, is_rest, error);
                }
            }
        }
        for at in ring {
            let account = &mut accounts[*at];
            match &account.item.work {
                Work::Alter(work) => {
                    account.settle(is_rest, &fate);
                    self.end(store, account, work);
                }
                _ => self.make(store, account, requests),
            }
        }
    }

    /// Changes them together. `stopped`: those that run, and were shut down for it.
    fn exchange_all(
        &self,
        store: &mut Store,
        accounts: &mut [Account<'_>],
        ring: &[usize],
        stopped: &mut Vec<(usize, Uuid)>,
    ) -> Result<()> {
        let stay = ring.iter().filter(|at| !self.goes_on(&mut accounts[**at])).count();
        self.cancel.check()?;
        if stay > 0 {
            let vms: Vec<String> = ring.iter().map(|at| format!("`{}`", accounts[*at].item.vm)).collect();
            let vms = vms.join(", ");
            return Err(Error::refused(format!("{vms} can only change together")).hint("`v apply` again"));
        }
        // Nobody is shut down before all can go.
        let mut run = Vec::new();
        for at in ring {
            let item = accounts[*at].item;
            let asked = self.ask(store, item);
            let record = asked.map_err(|error| error.context(format!("cannot change `{}`", item.vm)))?;
            run.extend(record.map(|record| (*at, record)));
        }
        let (mut works, mut going): (Vec<&Alter>, Vec<Uuid>) = (Vec::new(), Vec::new());
        for at in ring {
            match &accounts[*at].item.work {
                Work::Alter(work) => works.push(work),
                Work::Replace(vm, _) => going.push(*vm),
                _ => {}
            }
        }
        self.check_free(store, &works, &going)?;
        self.rest_all(store, accounts, run, stopped)?;
        let (mut altered, mut yielding, mut names) = (Vec::new(), Vec::new(), HashMap::new());
        for at in ring {
            let account = &accounts[*at];
            match &account.item.work {
                Work::Alter(work) => {
                    names.insert(work.spec.uuid, account.item);
                    altered.push((work, due(account, is_rest)));
                }
                Work::Replace(vm, entry) => {
                    let Some(record) = store.get(*vm)? else { continue };
                    names.insert(*vm, account.item);
                    match is_half(&record) {
                        // It can only go, and never runs.
                        true => go::delete(self.site, store, *vm, |record| check(account.item, record))?,
                        false => yielding.push((*vm, &entry.template)),
                    }
                }
                _ => {}
            }
        }
        let templates: Vec<Template> =
            altered.iter().map(|(work, fields)| work.template(fields.contains(&Field::Hypervisor))).collect();
        let wishes =
            altered.iter().zip(&templates).map(|((work, fields), template)| (work.spec.uuid, wish(template, fields)));
        let wishes: Vec<_> = wishes.collect();
        let check = |record: &Record| names.get(&record.spec.uuid).map_or(Ok(()), |item| check(item, record));
        vm::reshape_all(self.site, store, &self.situation.config, &wishes, &yielding, &check).map(drop)
    }

    /// Whether it can change now. Its record, if it is to be shut down for that.
    fn ask(&self, store: &Store, item: &Item) -> Result<Option<Record>> {
        let (vm, runs) = match &item.work {
            Work::Alter(work) => (work.spec.uuid, work.runs),
            Work::Replace(vm, _) => (*vm, false),
            _ => return Ok(None),
        };
        let Some(record) = store.get(vm)? else { return Ok(None) };
        check(item, &record)?;
        match alive(self.site, store, vm)? {
            Some(_) if !runs => Err(started_meanwhile(&item.vm)),
            record => Ok(record),
        }
    }

    /// Shuts them down for the sake of a change, side by side.
    fn rest_all(
        &self,
        store: &mut Store,
        accounts: &[Account<'_>],
        run: Vec<(usize, Record)>,
        stopped: &mut Vec<(usize, Uuid)>,
    ) -> Result<()> {
        // Each is owed its start, whatever becomes of the others.
        for (_, record) in &run {
            start_again(store, record.spec.uuid)?;
        }
        let all: Vec<_> = run.iter().map(|(at, record)| (*at, record.spec.uuid)).collect();
        let timeouts: Vec<Duration> = run.iter().map(|(_, record)| record.spec.policy.stop_timeout()).collect();
        let ends = self.stop_together(run.into_iter().map(|(_, record)| record).collect());
        let mut failed = None;
        for (((at, vm), timeout), end) in all.into_iter().zip(timeouts).zip(ends) {
            let name = &accounts[at].item.vm;
            let error = match (alive(self.site, store, vm), end) {
                (Err(error), _) | (Ok(Some(_)), Err(error)) => error,
                (Ok(Some(_)), Ok(Stopped::StillRunning)) => go::still_running(name, timeout),
                // One that ended by itself just before is down all the same.
                (Ok(None), _) | (Ok(_), Ok(Stopped::Ended(_))) => {
                    stopped.push((at, vm));
                    continue;
                }
            };
            let error = error.context(format!("cannot change `{name}`"));
            if let Some(before) = failed.replace(error) {
                (self.told)(Told::Failed(&before));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Frees the ports of this host that VMs give up as they run and others are to have.
    pub(super) fn free_ports(&self, store: &mut Store, accounts: &mut [Account<'_>]) {
        for at in 0..accounts.len() {
            let Work::Alter(work) = &accounts[at].item.work else { continue };
            let fields = due(&accounts[at], is_ports);
            if !work.runs || fields.is_empty() {
                continue;
            }
            let others = accounts.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| other.item);
            let less = less(work, &fields, &others.flat_map(forwards).collect::<Vec<_>>());
            let account = &mut accounts[at];
            // Nothing of it is changed before it is the config's.
            if less.is_empty() || !self.goes_on(account) || !self.begin(store, account, work) {
                continue;
            }
            if let Err(error) = vm::set_ports(self.site, store, work.spec.uuid, &less) {
                self.fail(account, is_ports, error.context(format!("cannot change `{}`", work.spec.name)));
            }
        }
    }
}

fn check(item: &Item, record: &Record) -> Result<()> {
    go::check_name(&item.vm, record)?;
    match item.work {
        Work::Replace(..) => vm::check_unprotected(record),
        _ => Ok(()),
    }
}

/// Half made, or half gone.
fn is_half(record: &Record) -> bool {
    matches!(record.state, State::Creating | State::Deleting)
}

fn is_ports(change: &Change) -> bool {
    matches!(nic_field(change), Some((_, NicField::Ports)))
}

/// What the item's VM is to have.
fn forwards(item: &Item) -> impl Iterator<Item = &Forward> {
    let template = match &item.work {
        Work::Create(entry) | Work::Replace(_, entry) => Some(&entry.template),
        Work::Alter(work) => Some(&work.entry.template),
        Work::Refused | Work::Release { .. } | Work::Delete(_) => None,
    };
    template.into_iter().flat_map(|template| &template.nets).flat_map(|net| &net.ports)
}

/// Its NICs that give up what is wanted, with what is left to them.
fn less(work: &Alter, fields: &[Field], wanted: &[&Forward]) -> Vec<(u8, Vec<Forward>)> {
    let one = |(old, new): (&Nic, &Nic)| {
        let is_due = fields.contains(&Field::Nic(old.index, NicField::Ports));
        let (kept, gone): (Vec<_>, Vec<_>) =
            old.forwards.iter().cloned().partition(|forward| !is_due || new.forwards.contains(forward));
        gone.iter().any(|gone| wanted.iter().any(|wanted| wanted.clashes(gone))).then_some((old.index, kept))
    };
    work.spec.nics.iter().zip(&work.target.nics).filter_map(one).collect()
}
