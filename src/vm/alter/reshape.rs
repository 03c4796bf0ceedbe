use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::cut_short::{NEW, RECORDED, bring, release};
use super::files;
use super::rest::{begin, failed};
use crate::config::{Config, Template};
use crate::disk::{self, Quiet};
use crate::error::{Error, OrFailed, Result};
use crate::host::{Cancel, Handle};
use crate::network::ovs::Ovs;
use crate::spec::{Boot, Disk, Mac, Name, Nic, Progress, Verb, VmSpec};
use crate::store::{Given, Record, Store, Wanted};
use crate::template::{self, Identity, Overrides, PlannedNic, Resolved};
use crate::vm::create::{check_networks, settle};
use crate::vm::resolve::as_before;
use crate::vm::sources::{Source, check_space, copy_small, make_disk, sources};
use crate::vm::steps::{Step, run_all};
use crate::vm::{Site, check_boot, hand_over, networks, resolve, runner};

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
    let mut specs = reshape_all(site, store, config, &[(vm, wish)], &[], &|_| Ok(()))?;
    specs.pop().ok_or_else(|| Error::failed("nothing was changed"))
}

/// The same for several, all of them or none, so that one can have what another gives up. `yielding`: VMs
/// that are to be made anew from these templates. Of these they have the NICs already, so that they can run
/// whatever comes of that. All records must pass `check` in the transaction.
pub fn reshape_all(
    site: &Site,
    store: &mut Store,
    config: &Config,
    vms: &[(Uuid, Reshape<'_>)],
    yielding: &[(Uuid, &Template)],
    check: &dyn Fn(&Record) -> Result<()>,
) -> Result<Vec<VmSpec>> {
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    let altered = vms.iter().map(|(vm, wish)| (*vm, wish.template, Some(wish.resolve)));
    let all: Vec<_> = altered.chain(yielding.iter().map(|(vm, template)| (*vm, *template, None))).collect();
    // No supervisor begins before this ends.
    let (mut locks, mut taken) = (Vec::new(), Vec::new());
    let begun = all.iter().try_for_each(|(vm, ..)| {
        let (lock, spec) = begin(site, store, *vm, us)?;
        locks.push(lock);
        taken.push(spec);
        Ok(())
    });
    let begun = begun.and_then(|()| {
        let members = all.iter().zip(&taken).map(|((_, template, resolve), spec)| {
            let new = match resolve {
                Some(resolve) => look(site, store, config, spec, Reshape { template, resolve: *resolve }),
                None => look_at_nics(site, store, config, template),
            };
            Ok(Member { spec, template, new: new.map_err(|error| failed([spec], error))? })
        });
        members.collect::<Result<Vec<_>>>()
    });
    let done = begun
        .and_then(|members| work(site, store, config, &members, check).map_err(|error| failed(taken.iter(), error)));
    if done.is_err() {
        for spec in &taken {
            store.update(spec.uuid, |record| {
                let recorded = record.spec != *spec;
                release(record, us, !recorded)
            })?;
        }
    }
    let specs = done?;
    networks::publish_after(site);
    Ok(specs)
}

/// What is new, and was looked at before anything is made.
struct New {
    /// `None`: only its NICs become others.
    resolved: Option<Resolved>,
    nics: Vec<PlannedNic>,
    disks: Vec<(Disk, Source)>,
    /// What the VM's own UEFI variables begin as.
    variables: Option<PathBuf>,
}

/// One of those that change together.
struct Member<'a> {
    spec: &'a VmSpec,
    template: &'a Template,
    new: New,
}

fn work(
    site: &Site,
    store: &mut Store,
    config: &Config,
    members: &[Member<'_>],
    check: &dyn Fn(&Record) -> Result<()>,
) -> Result<Vec<VmSpec>> {
    let runner = runner(site, config)?;
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    let all: Vec<Uuid> = members.iter().map(|member| member.spec.uuid).collect();
    let altered = members.iter().filter(|member| member.new.resolved.is_some());
    let vms: Vec<Uuid> = altered.map(|member| member.spec.uuid).collect();
    let no_undo = |_: &mut Store| Ok(());
    // From then on there is no way back.
    let recorded: RefCell<Vec<VmSpec>> = RefCell::default();
    let after = |work: &dyn Fn(&VmSpec) -> Result<()>| {
        recorded.borrow().iter().filter(|spec| vms.contains(&spec.uuid)).try_for_each(work)
    };
    let is_recorded = || !recorded.borrow().is_empty();
    let cancel = &Cancel::default();
    let mut steps = Vec::new();
    for Member { spec, new, .. } in members {
        let discard = move |_: &mut Store| if is_recorded() { Ok(()) } else { files::discard(site, spec) };
        for (disk, source) in &new.disks {
            let target = files::new(site, spec, &disk.file());
            let make = move |_: &mut Store| make_disk(disk, source, &target, cancel, &Quiet);
            steps.push(Step::new([spec.uuid], format!("{NEW}disk {}", disk.name), make, discard));
        }
        if let Some(variables) = &new.variables {
            let target = files::new(site, spec, VmSpec::EFI_VARS);
            let copy = move |_: &mut Store| copy_small(variables, &target);
            steps.push(Step::new([spec.uuid], format!("{NEW}uefi variables"), copy, discard));
        }
    }
    let record = |store: &mut Store| {
        let made = record(store, config, members, check)?;
        *recorded.borrow_mut() = made;
        Ok(())
    };
    steps.push(Step::new(&all[..], RECORDED, record, no_undo));
    steps.push(Step::new(&vms[..], "files", |_| after(&|spec| files::place(site, spec)), no_undo));
    steps.push(Step::new(&vms[..], "sizes", |_| after(&|spec| files::grow(site, spec)), no_undo));
    steps.push(Step::new(&vms[..], "network config", |_| after(&|spec| files::write_network(site, spec)), no_undo));
    steps.push(Step::new(&vms[..], "owner", |_| after(&|spec| hand_over(site, spec, runner.as_ref())), no_undo));
    let end = |store: &mut Store| store.update_all(&vms, |record| release(record, us, true));
    steps.push(Step::new(&vms[..], "reshaped", end, no_undo));
    run_all(store, Verb::Reshape, &steps)?;
    drop(steps);
    let recorded = recorded.into_inner();
    // A broken one may be made anew for just that: then it stays cut short.
    for spec in recorded.iter().filter(|spec| !vms.contains(&spec.uuid)) {
        let brought = bring(site, spec);
        store.update(spec.uuid, |record| release(record, us, brought.is_ok()))?;
    }
    Ok(recorded)
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
    Ok(New { resolved: Some(resolved), nics, disks: fresh.into_iter().zip(sources).collect(), variables })
}

fn look_at_nics(site: &Site, store: &mut Store, config: &Config, template: &Template) -> Result<New> {
    let nics = planned(site, store, config, template, &site.ovs(config))?;
    Ok(New { resolved: None, nics, disks: Vec::new(), variables: None })
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

fn record(
    store: &mut Store,
    config: &Config,
    members: &[Member<'_>],
    check: &dyn Fn(&Record) -> Result<()>,
) -> Result<Vec<VmSpec>> {
    let wanted: Vec<_> = members.iter().map(|member| (member.spec.uuid, wanted(config, member))).collect();
    let mut left = members.iter();
    store.reshape(&wanted, |record, given| {
        let member = left.next().ok_or_else(|| Error::failed("more was changed than was asked for"))?;
        check(record)?;
        record.spec = build(config, &record.spec, member.template, &member.new, given)?;
        record.progress = Some(Progress { verb: Verb::Reshape, step: RECORDED.to_owned(), done: true });
        Ok(record.spec.clone())
    })
}

/// What the NICs ask for. A MAC that the config names for another is not kept.
fn wanted(config: &Config, Member { spec, new, .. }: &Member<'_>) -> Vec<(Name, Wanted)> {
    let own = |nic: &Nic| config.names_mac(nic.mac).then(|| Mac::of(spec.uuid, nic.index));
    let one = |(index, nic): (usize, &PlannedNic)| {
        let mac = nic.mac.or_else(|| spec.nics.get(index).and_then(own));
        (nic.network.clone(), Wanted { subnet: nic.subnet.clone(), address: nic.address, mac })
    };
    new.nics.iter().enumerate().map(one).collect()
}

/// What the template says, with what a VM keeps for its life.
fn build(config: &Config, spec: &VmSpec, template: &Template, new: &New, given: &[Given]) -> Result<VmSpec> {
    let addresses: Vec<_> = given.iter().map(|given| given.address.clone()).collect();
    let mut made = match &new.resolved {
        Some(resolved) => {
            let identity = Identity { uuid: spec.uuid, number: spec.number, name: spec.name.clone() };
            let none = Overrides::default();
            let made = template::instantiate(config, template, &identity, resolved, &new.nics, &addresses, &none)?;
            VmSpec { seed: spec.seed, login: spec.login.clone(), vsock: spec.vsock, ..made }
        }
        None => {
            let nics = (0..).zip(&new.nics).zip(addresses);
            let nics = nics.map(|((index, nic), address)| nic.nic(spec.uuid, index, address)).collect();
            VmSpec { nics, ..spec.clone() }
        }
    };
    for (nic, given) in made.nics.iter_mut().zip(given) {
        nic.mac = given.mac.unwrap_or(nic.mac);
    }
    Ok(made)
}
