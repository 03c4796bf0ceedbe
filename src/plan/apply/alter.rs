//! A recorded VM becomes what the config says of it.

use uuid::Uuid;

use super::account::{Account, Fate};
use super::start::find;
use super::{Apply, Told, alive, go};
use crate::config::Template;
use crate::error::{Error, Result};
use crate::plan::{Alter, Change, Class, DiskField, Field, NicField};
use crate::spec::{Declared, Forward, Guard, Happening, Name, Policy};
use crate::store::{Store, Wanted};
use crate::template::{self, Settled};
use crate::vm::{self, Reshape, Stopped};

impl Apply<'_> {
    pub(super) fn alter(&self, store: &mut Store, account: &mut Account<'_>, work: &Alter) {
        if !self.goes_on(account) || !self.begin(store, account, work) {
            return;
        }
        let vm = work.spec.uuid;
        let failed = |error: Error| error.context(format!("cannot change `{}`", work.spec.name));
        let is_restart = |change: &Change| change.class == Class::Restart;
        let restarts = due(account, is_restart);
        let mut runs = alive(self.site, store, vm);
        if matches!(runs, Ok(Some(_))) && work.runs && !restarts.is_empty() {
            match self.restart(store, work, &restarts) {
                // The new run has all of it: nobody is given live what the end of the old one takes away.
                Ok(()) => account.settle(is_rest, &Fate::Done),
                Err(error) => {
                    self.fail(account, is_restart, failed(error));
                    runs = alive(self.site, store, vm);
                }
            }
        }
        let runs = match runs {
            Ok(record) => record.is_some(),
            Err(error) => return self.fail(account, |_| true, failed(error)),
        };
        if runs {
            if work.runs {
                self.live(store, account, work, &failed);
            }
            // Planned for a VM that did not run.
            self.attempt(account, is_rest, || Err(started_meanwhile(&work.spec.name)));
        } else {
            let fields = due(account, is_rest);
            self.attempt(account, is_rest, || self.reshape(store, work, &fields).map_err(failed));
        }
        self.end(store, account, work);
    }

    /// What a VM notices in no state. `false`: it stays as it is.
    pub(super) fn begin(&self, store: &mut Store, account: &mut Account<'_>, work: &Alter) -> bool {
        let failed = |error: Error| error.context(format!("cannot change `{}`", work.spec.name));
        // Without it nothing else is the config's to change.
        if let Err(error) = note(store, account, work) {
            self.fail(account, |_| true, failed(error));
            return false;
        }
        account.settle(is_note, &Fate::Done);
        let policies: Vec<Field> = due(account, is_policy);
        self.attempt(account, is_policy, || {
            let change = |policy: &mut Policy| take_policy(policy, &work.target.policy, &policies);
            vm::set_policy(self.site, store, work.spec.uuid, change).map_err(failed)
        });
        true
    }

    pub(super) fn end(&self, store: &mut Store, account: &mut Account<'_>, work: &Alter) {
        if let Err(error) = self.close(store, account, work) {
            self.fail(account, |_| true, error.context(format!("cannot change `{}`", work.spec.name)));
        }
    }

    /// What a running guest notices, if at all, as a gain.
    fn live(&self, store: &mut Store, account: &mut Account<'_>, work: &Alter, failed: &dyn Fn(Error) -> Error) {
        let (site, vm, target) = (self.site, work.spec.uuid, &work.target);
        let is_size = |change: &Change| is_live(change, |field| matches!(field, Field::Vcpu | Field::Vram));
        let sizes = due(account, is_size);
        self.attempt(account, is_size, || {
            let vcpu = sizes.contains(&Field::Vcpu).then_some(target.vcpu);
            let vram = sizes.contains(&Field::Vram).then_some(target.vram);
            vm::resize(site, store, vm, vcpu, vram).map_err(failed)
        });
        for disk in &target.disks {
            let field = Field::Disk(disk.name.clone(), DiskField::Size);
            let grown = |change: &Change| is_live(change, |other| *other == field);
            if let Some(size) = disk.size {
                self.attempt(account, grown, || vm::grow_disk(site, store, vm, &disk.name, size).map_err(failed));
            }
        }
        let of_nics = |account: &Account<'_>, which: fn(NicField) -> bool| {
            let fields = due(account, |change| nic_field(change).is_some_and(|(_, field)| which(field)));
            target.nics.iter().filter(move |nic| {
                fields.iter().any(|field| matches!(field, Field::Nic(index, _) if *index == nic.index))
            })
        };
        let ports: Vec<(u8, Vec<Forward>)> =
            of_nics(account, is_ports).map(|nic| (nic.index, nic.forwards.clone())).collect();
        self.attempt(
            account,
            |change| nic_field(change).is_some_and(|(_, field)| is_ports(field)),
            || vm::set_ports(site, store, vm, &ports).map_err(failed),
        );
        let guards: Vec<(u8, Guard)> =
            of_nics(account, is_guard).map(|nic| (nic.index, nic.guard.clone().unwrap_or_default())).collect();
        self.attempt(
            account,
            |change| nic_field(change).is_some_and(|(_, field)| is_guard(field)),
            || vm::set_guard(site, store, vm, &guards).map_err(failed),
        );
    }

    /// Stopped, changed and started: one VM after the other, so that no more than one is away.
    fn restart(&self, store: &mut Store, work: &Alter, fields: &[Field]) -> Result<()> {
        let (vm, name) = (work.spec.uuid, &work.spec.name);
        self.check_free(store, &[work], &[])?;
        self.rest(store, work)?;
        let reshaped = self.reshape(store, work, fields);
        // As it was, if it cannot be changed: it ran, and is to run.
        let launch = self.launch(store, vm);
        let launch = launch.and_then(|launch| launch.map_or(Ok(()), |(_, starting)| starting.wait()));
        if let (Err(_), Err(error)) = (&reshaped, &launch) {
            (self.told)(Told::Failed(error));
        }
        reshaped.and(launch)?;
        (self.told)(Told::Restarted(name));
        Ok(())
    }

    /// Refuses VMs whose addresses and MACs somebody has who gives up nothing, before their guests are told
    /// anything. `yielding`: those that give up all.
    pub(super) fn check_free(&self, store: &Store, works: &[&Alter], yielding: &[Uuid]) -> Result<()> {
        let config = &self.situation.config;
        let vms: Vec<Uuid> = works.iter().map(|work| work.spec.uuid).chain(yielding.iter().copied()).collect();
        let mut asked = Vec::new();
        for work in works {
            let nics = template::nics(config, &work.entry.template, &mut |network| Ok(Settled::by_config(network)))?;
            // Who asks for no address keeps its own, or is given one that there is.
            asked.extend(nics.into_iter().map(|nic| Wanted {
                subnet: nic.subnet.filter(|_| nic.address.is_some()),
                address: nic.address,
                mac: nic.mac,
            }));
        }
        store.check_free(&asked, &vms)
    }

    /// Shuts it down for the sake of a change.
    pub(super) fn rest(&self, store: &mut Store, work: &Alter) -> Result<()> {
        let (vm, name) = (work.spec.uuid, &work.spec.name);
        if !work.runs {
            return Err(started_meanwhile(name));
        }
        let record = find(store, vm)?;
        let timeout = record.spec.policy.stop_timeout();
        start_again(store, vm)?;
        let stopped = self.stop_one(store, record);
        // One that ended by itself just before is down all the same. One that is slow may still go down: it is
        // owed its start until somebody stops it for good.
        if alive(self.site, store, vm)?.is_some() {
            match stopped {
                Ok(Stopped::Ended(_)) => {}
                Ok(Stopped::StillRunning) => return Err(go::still_running(name, timeout)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn reshape(&self, store: &mut Store, work: &Alter, fields: &[Field]) -> Result<()> {
        let template = work.template(fields.contains(&Field::Hypervisor));
        let wish = wish(&template, fields);
        vm::reshape(self.site, store, &self.situation.config, work.spec.uuid, wish).map(drop)
    }

    /// Records what was reached, and that it was.
    fn close(&self, store: &mut Store, account: &Account<'_>, work: &Alter) -> Result<()> {
        let done: Vec<&Change> = account.done().filter(|change| change.class != Class::Stop).collect();
        let reached = |field: &Field| done.iter().any(|change| change.field == *field);
        let (hypervisor, firmware) = (reached(&Field::Hypervisor), reached(&Field::Firmware));
        if hypervisor || firmware {
            store.update(work.spec.uuid, |record| {
                let declared = record.declared.get_or_insert_default();
                if hypervisor {
                    declared.hypervisor = work.declared.hypervisor;
                }
                if firmware {
                    declared.firmware.clone_from(&work.declared.firmware);
                }
                Ok(())
            })?;
        }
        if !done.is_empty() {
            let fields: Vec<String> = done.iter().map(|change| change.field.to_string()).collect();
            (self.told)(Told::Altered(&work.spec.name, fields.clone()));
            let spec = find(store, work.spec.uuid)?.spec;
            store.tell(&spec, &Happening::Altered { fields })?;
        }
        Ok(())
    }
}

/// Records that the VM is the config's, and what of that needs nothing to be done.
fn note(store: &mut Store, account: &Account<'_>, work: &Alter) -> Result<()> {
    let has = |field: Field| account.item.changes.iter().any(|change| change.field == field);
    let notes = due(account, is_note);
    store.update(work.spec.uuid, |record| {
        let old = record.declared.clone().unwrap_or_default();
        let new = work.declared.clone();
        // What is still to be reached is not said to be there.
        record.declared = Some(Declared {
            on_remove: new.on_remove,
            hypervisor: if has(Field::Hypervisor) { old.hypervisor } else { new.hypervisor },
            firmware: if has(Field::Firmware) { old.firmware } else { new.firmware },
            user_data: new.user_data,
            removed: false,
            start_again: old.start_again,
        });
        if notes.contains(&Field::Template) {
            record.spec.template = work.target.template.clone();
        }
        if notes.iter().any(|field| matches!(field, Field::Label(_))) {
            record.spec.labels = work.target.labels.clone();
        }
        Ok(())
    })
}

/// From now on it is owed a start: whoever finds it at rest starts it.
pub(super) fn start_again(store: &mut Store, vm: Uuid) -> Result<()> {
    store.update(vm, |record| {
        record.declared.get_or_insert_default().start_again = true;
        Ok(())
    })
}

/// How the VM is made to what the template says, for the sake of these fields.
pub(super) fn wish<'t>(template: &'t Template, fields: &[Field]) -> Reshape<'t> {
    Reshape { template, resolve: fields.contains(&Field::Hypervisor) || fields.contains(&Field::Firmware) }
}

pub(super) fn started_meanwhile(name: &Name) -> Error {
    Error::refused(format!("`{name}` was started meanwhile")).hint("`v apply` again")
}

pub(super) fn due(account: &Account<'_>, which: impl Fn(&Change) -> bool) -> Vec<Field> {
    account.due().filter(|change| which(change)).map(|change| change.field.clone()).collect()
}

/// What is more than a note or a policy.
pub(super) fn is_rest(change: &Change) -> bool {
    !matches!(change.class, Class::Start | Class::Stop)
}

/// What only the record says.
fn is_note(change: &Change) -> bool {
    matches!(change.field, Field::Declared | Field::Template | Field::OnRemove | Field::Label(_))
}

/// Changed at once in any state. The watchdog is a device, and less memory comes with a restart.
fn is_policy(change: &Change) -> bool {
    change.class != Class::Restart
        && matches!(
            change.field,
            Field::Restart
                | Field::Autostart
                | Field::LimitCpus
                | Field::LimitMemory
                | Field::StopTimeout
                | Field::Protect
        )
}

fn take_policy(policy: &mut Policy, target: &Policy, fields: &[Field]) {
    for field in fields {
        match field {
            Field::Restart => policy.restart = target.restart,
            Field::Autostart => policy.autostart = target.autostart,
            Field::LimitCpus => policy.limits.millicpus = target.limits.millicpus,
            Field::LimitMemory => policy.limits.memory = target.limits.memory,
            Field::StopTimeout => policy.stop_timeout = target.stop_timeout,
            Field::Protect => policy.protect = target.protect,
            _ => {}
        }
    }
}

fn is_live(change: &Change, which: impl Fn(&Field) -> bool) -> bool {
    change.class == Class::Live && which(&change.field)
}

pub(super) fn nic_field(change: &Change) -> Option<(u8, NicField)> {
    match change.field {
        Field::Nic(index, field) if change.class == Class::Live => Some((index, field)),
        _ => None,
    }
}

fn is_ports(field: NicField) -> bool {
    field == NicField::Ports
}

fn is_guard(field: NicField) -> bool {
    matches!(field, NicField::Allow | NicField::Deny | NicField::Rate | NicField::Spoof)
}
