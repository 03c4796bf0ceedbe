use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::cut_short::{NEW, OPENING, RECORDED, finish_held, release};
use super::{files, live};
use crate::config::{Config, Template};
use crate::disk::{self, Quiet};
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Cancel, Handle, Lock, LockError};
use crate::network::ovs::Ovs;
use crate::spec::{Boot, Disk, Name, Progress, Refusal, Verb, VmSpec};
use crate::store::{Given, Record, Store, Wanted};
use crate::template::{self, Identity, Overrides, PlannedNic, Resolved};
use crate::vm::create::{check_networks, settle};
use crate::vm::resolve::as_before;
use crate::vm::sources::{Source, check_space, copy_small, make_disk, sources};
use crate::vm::steps::{Step, opening, run_all};
use crate::vm::{Site, check_boot, hand_over, networks, reconcile, rename, resolve, runner};

/// What a VM is to become.
#[derive(Debug, Clone, Copy)]
pub struct Reshape<'a> {
    pub template: &'a Template,
    /// Whether hypervisor and firmware are chosen anew; else they stay what they were.
    pub resolve: bool,
}

/// Makes of a VM that does not run what the template says. Its disks stay: one that is to go, to come
/// from elsewhere or to be smaller is refused. So are its NICs, as long as the template has them in the
/// same place on the same network. What is killed is undone or finished by whoever comes next.
pub fn reshape(site: &Site, store: &mut Store, config: &Config, vm: Uuid, wish: Reshape<'_>) -> Result<VmSpec> {
    let Some(record) = store.get(vm)? else {
        return Err(Error::not_found("cannot change the VM: it was deleted"));
    };
    let name = record.spec.name.clone();
    let failed = |error: Error| error.context(format!("cannot change `{name}`"));
    let observed = reconcile(site, store, record).map_err(failed)?;
    let patience = if observed.state.is_live() { Duration::ZERO } else { PATIENCE };
    // No supervisor begins before this ends.
    let _lock = hold(site, vm, patience).map_err(failed)?;
    finish_held(site, store, vm)?;
    rename::finish(site, store, vm)?;
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    let spec = opening(Verb::Reshape, OPENING, |progress| {
        store.update(vm, |record| take(record, us, progress).map(|()| record.spec.clone()))
    })
    .map_err(failed)?;
    let done = work(site, store, config, &spec, wish);
    if done.is_err() {
        store.update(vm, |record| {
            let recorded = record.spec != spec;
            release(record, us, !recorded)
        })?;
    }
    let spec = done.map_err(failed)?;
    networks::publish_after(site);
    Ok(spec)
}

/// How long a lock that is about to be given back is waited for: its supervisor may just have recorded the
/// end.
const PATIENCE: Duration = Duration::from_secs(2);

fn hold(site: &Site, vm: Uuid, patience: Duration) -> Result<Lock> {
    let path = site.lock(vm);
    let until = Instant::now() + patience;
    loop {
        match Lock::try_take(&path) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held) if Instant::now() < until => host::pause(Duration::from_millis(10)),
            Err(LockError::Held) => return Err(Error::refused("it runs, or another command is at work on it")),
            Err(LockError::Io(error)) => return Err(error).or_failed(|| format!("cannot lock `{}`", path.display())),
        }
    }
}

pub(super) fn take(record: &mut Record, us: Handle, progress: Progress) -> Result<()> {
    if live::runs(record)? {
        return Err(Refusal::Running.into());
    }
    if record.state.is_live() {
        return Err(Refusal::Restarting.into());
    }
    live::is_free(record, us)?;
    record.owner = Some(us);
    record.progress = Some(progress);
    Ok(())
}

/// What is new, and was looked at before anything is made.
struct New {
    resolved: Resolved,
    nics: Vec<PlannedNic>,
    disks: Vec<(Disk, Source)>,
    /// What the VM's own UEFI variables begin as.
    variables: Option<PathBuf>,
}

fn work(site: &Site, store: &mut Store, config: &Config, spec: &VmSpec, wish: Reshape<'_>) -> Result<VmSpec> {
    let new = look(site, store, config, spec, wish)?;
    let runner = runner(site, config)?;
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    let vm = [spec.uuid];
    let no_undo = |_: &mut Store| Ok(());
    // From then on there is no way back.
    let recorded: RefCell<Option<VmSpec>> = RefCell::new(None);
    let after = || recorded.borrow().clone().unwrap_or_else(|| spec.clone());
    let discard = |_: &mut Store| if recorded.borrow().is_none() { files::discard(site, spec) } else { Ok(()) };
    let cancel = &Cancel::default();
    let mut steps = Vec::new();
    for (disk, source) in &new.disks {
        let target = files::new(site, spec, &disk.file());
        let make = move |_: &mut Store| make_disk(disk, source, &target, cancel, &Quiet);
        steps.push(Step::new(vm, format!("{NEW}disk {}", disk.name), make, discard));
    }
    if let Some(variables) = &new.variables {
        let target = files::new(site, spec, VmSpec::EFI_VARS);
        steps.push(Step::new(vm, format!("{NEW}uefi variables"), move |_| copy_small(variables, &target), discard));
    }
    let record = |store: &mut Store| {
        let made = record(store, config, spec, wish.template, &new)?;
        *recorded.borrow_mut() = Some(made);
        Ok(())
    };
    steps.push(Step::new(vm, RECORDED, record, no_undo));
    steps.push(Step::new(vm, "files", |_| files::place(site, &after()), no_undo));
    steps.push(Step::new(vm, "sizes", |_| files::grow(site, &after()), no_undo));
    steps.push(Step::new(vm, "network config", |_| files::write_network(site, &after()), no_undo));
    steps.push(Step::new(vm, "owner", |_| hand_over(site, &after(), runner.as_ref()), no_undo));
    let end = |store: &mut Store| store.update(spec.uuid, |record| release(record, us, true));
    steps.push(Step::new(vm, "reshaped", end, no_undo));
    run_all(store, Verb::Reshape, &steps)?;
    drop(steps);
    Ok(after())
}

/// Everything that can be refused is refused here.
fn look(site: &Site, store: &mut Store, config: &Config, spec: &VmSpec, wish: Reshape<'_>) -> Result<New> {
    let template = wish.template;
    let resolved = match wish.resolve {
        true => resolve(config, template)?.0,
        false => as_before(config, template, spec)?,
    };
    check_boot(&resolved.boot)?;
    let ovs = site.ovs(config);
    let nics = planned(site, store, config, template, &ovs)?;
    let fresh = fresh_disks(site, spec, &template::disks(config, template)?)?;
    let sources = sources(site, &template.name, fresh.clone(), &Cancel::default(), &Quiet)?;
    check_space(site, &sources, 1)?;
    if spec.seed {
        disk::check_seed(&site.dirs.vm(spec.uuid).join(VmSpec::SEED))?;
    }
    let variables = variables(site, spec, &resolved.boot);
    Ok(New { resolved, nics, disks: fresh.into_iter().zip(sources).collect(), variables })
}

fn planned(site: &Site, store: &mut Store, config: &Config, template: &Template, ovs: &Ovs) -> Result<Vec<PlannedNic>> {
    let mut nics = template::nics(config, template, &mut |network| settle(site, store, network, ovs))?;
    template::lay_over(&mut nics, &Overrides::default(), 1)?;
    template::keep_named(config, &mut nics);
    check_networks(config, &nics, ovs)?;
    Ok(nics)
}

/// The disks that the VM does not have yet.
fn fresh_disks(site: &Site, spec: &VmSpec, wanted: &[Disk]) -> Result<Vec<Disk>> {
    let dir = site.dirs.vm(spec.uuid);
    let refuse = |disk: &Name, what: String| {
        Err(Error::refused(format!("its disk `{disk}` {what}")).hint(format!(
            "only a VM made anew can have that, and the data on its disks is lost: `v apply --replace {}`",
            spec.name
        )))
    };
    for had in &spec.disks {
        let path = dir.join(had.file());
        let Some(disk) = wanted.iter().find(|disk| disk.name == had.name) else {
            return refuse(&had.name, "would be gone".to_owned());
        };
        if disk.source != had.source {
            return refuse(&had.name, "was made from another source".to_owned());
        }
        let Ok(file) = fs::metadata(&path) else { return refuse(&had.name, "is missing".to_owned()) };
        let least = had.size.map_or(file.len(), |size| size.bytes());
        if let Some(size) = disk.size.filter(|size| size.bytes() < least) {
            return refuse(&had.name, format!("would be smaller, with {size}"));
        }
    }
    let fresh: Vec<Disk> =
        wanted.iter().filter(|disk| spec.disks.iter().all(|had| had.name != disk.name)).cloned().collect();
    for disk in &fresh {
        let path = dir.join(disk.file());
        if path.symlink_metadata().is_ok() {
            return Err(Error::refused(format!("there is a file `{}`, which is no disk of the VM", path.display()))
                .hint("move it away, or give the disk another name"));
        }
    }
    Ok(fresh)
}

/// What the VM's own UEFI variables are to begin as, unless it has some that the firmware can go on with:
/// they are written for a store of one length.
fn variables(site: &Site, spec: &VmSpec, boot: &Boot) -> Option<PathBuf> {
    let of = |boot: &Boot| match boot {
        Boot::Firmware { vars, .. } => vars.clone(),
        Boot::Kernel { .. } => None,
    };
    let length = |path: &Path| path.metadata().ok().map(|meta| meta.len());
    let own = length(&site.dirs.vm(spec.uuid).join(VmSpec::EFI_VARS));
    of(boot).filter(|vars| own.is_none() || of(&spec.boot).as_ref() != Some(vars) && own != length(vars))
}

fn record(store: &mut Store, config: &Config, spec: &VmSpec, template: &Template, new: &New) -> Result<VmSpec> {
    let wanted: Vec<(Name, Wanted)> = new
        .nics
        .iter()
        .map(|nic| (nic.network.clone(), Wanted { subnet: nic.subnet.clone(), address: nic.address, mac: nic.mac }))
        .collect();
    store.reshape(spec.uuid, &wanted, |record, given| {
        record.spec = build(config, &record.spec, template, new, given)?;
        record.progress = Some(Progress { verb: Verb::Reshape, step: RECORDED.to_owned(), done: true });
        Ok(record.spec.clone())
    })
}

/// What the template says, with what a VM keeps for its life.
fn build(config: &Config, spec: &VmSpec, template: &Template, new: &New, given: &[Given]) -> Result<VmSpec> {
    let identity = Identity { uuid: spec.uuid, number: spec.number, name: spec.name.clone() };
    let addresses: Vec<_> = given.iter().map(|given| given.address.clone()).collect();
    let none = Overrides::default();
    let made = template::instantiate(config, template, &identity, &new.resolved, &new.nics, &addresses, &none)?;
    let mut made = VmSpec { seed: spec.seed, login: spec.login.clone(), vsock: spec.vsock, ..made };
    for (nic, given) in made.nics.iter_mut().zip(given) {
        nic.mac = given.mac.unwrap_or(nic.mac);
    }
    Ok(made)
}
