//! From a template to recorded VMs: all of them, or none.

use uuid::Uuid;

use super::site::{make_private, remove_tree};
use super::sources::{Source, check_space, copy_small, make_disk, sources};
use super::steps::{Step, opening, run_all};
use super::{Site, check_boot, hand_over, networks, resolve, runner, sweep};
use crate::config::{Config, Network, Template};
use crate::disk::{self, Part, Progress, Seed};
use crate::error::{Error, OrFailed, Result};
use crate::host::{Cancel, Handle, Runner};
use crate::network::{self, keep, ovs::Ovs};
use crate::spec::{Boot, Declared, Event, Name, Verb, VmSpec};
use crate::store::{Draft, Store, Wanted};
use crate::template::{self, Identity, Overrides, PlannedNic, Resolved, Settled, UserData};

/// What is to be made.
#[derive(Debug, Clone)]
pub struct Create {
    /// What the VMs are made from: one of the config, or a declared VM's own.
    pub template: Template,
    pub name: Option<Name>,
    pub count: u32,
    pub overrides: Overrides,
    pub users: UserData,
    /// Raw cloud-init user-data, already read.
    pub parts: Vec<Part>,
    /// For a VM that the config declares: it is recorded as such from the first moment.
    pub declared: Option<Declared>,
}

pub fn create(
    site: &Site,
    config: &Config,
    request: &Create,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Vec<VmSpec>> {
    let template = &request.template;
    let names = names(request)?;
    refuse_declared(config, request, &names)?;
    let Ready { mut store, runner, resolved, nics, sources } = ready(site, config, request, cancel, progress)?;
    let drafts = drafts(request, names, &nics);
    let owner = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    let specs = opening(Verb::Create, "rows", |noted| {
        let specs = store.reserve(&drafts, owner, &mut || made_up_name(config, &mut made_up), &mut |reserved| {
            let identity = Identity { uuid: reserved.uuid, number: reserved.number, name: reserved.name.clone() };
            let (given, chosen) = (&reserved.addresses, &request.overrides);
            let mut spec = template::instantiate(config, template, &identity, &resolved, &nics, given, chosen)?;
            spec.login = request.users.users.first().map(|user| user.name.clone());
            Ok(spec)
        })?;
        let vms: Vec<Uuid> = specs.iter().map(|spec| spec.uuid).collect();
        // A note stops no verb.
        if let Err(error) = store.note_progress(&vms, Some(&noted)) {
            tracing::debug!(error = %error.chain().join(": "), "progress not noted");
        }
        Ok(specs)
    })?;
    let steps = steps(site, request, &specs, &sources, runner.as_ref(), cancel, progress);
    let made = run_all(&mut store, Verb::Create, &steps);
    drop(steps);
    if let Err(error) = made {
        specs.iter().try_for_each(|spec| store.remove(spec.uuid))?;
        return Err(error);
    }
    networks::publish_after(site);
    Ok(specs)
}

/// Refuses what could not be made if the VMs of `replaces` were gone. Their disks are not: there must be
/// space for both.
pub fn check_create(
    site: &Site,
    config: &Config,
    request: &Create,
    replaces: &[Uuid],
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<()> {
    let ready = ready(site, config, request, cancel, progress)?;
    let drafts = drafts(request, names(request)?, &ready.nics);
    let wanted: Vec<Wanted> = drafts.into_iter().flat_map(|draft| draft.nics).collect();
    ready.store.check_free(&wanted, replaces)
}

/// What was looked at before anything is recorded.
struct Ready {
    store: Store,
    runner: Option<Runner>,
    resolved: Resolved,
    nics: Vec<PlannedNic>,
    /// One per disk.
    sources: Vec<Source>,
}

fn ready(site: &Site, config: &Config, request: &Create, cancel: &Cancel, progress: &dyn Progress) -> Result<Ready> {
    let template = &request.template;
    // Every VM's have the same length.
    site.check_socket_paths(Uuid::nil())?;
    let runner = runner(site, config)?;
    let (resolved, choice) = resolve(config, template)?;
    tracing::info!("{}", choice.why);
    check_boot(&resolved.boot)?;
    // What is refused by now has made no folder.
    let mut store = site.store()?;
    let ovs = site.ovs(config);
    let mut nics = template::nics(config, template, &mut |network| settle(site, &mut store, network, &ovs))?;
    template::lay_over(&mut nics, &request.overrides, request.count)?;
    template::keep_named(config, &mut nics);
    sweep(site, &mut store)?;
    make_private(&site.dirs.vms())?;

    check_networks(config, &nics, &ovs)?;
    let sources = sources(site, &template.name, template::disks(config, template)?, cancel, progress)?;
    check_space(site, &sources, request.count)?;
    Ok(Ready { store, runner, resolved, nics, sources })
}

/// What makes each VM, in order; the undo of the first removes all that the others made.
fn steps<'a>(
    site: &'a Site,
    request: &'a Create,
    specs: &'a [VmSpec],
    sources: &'a [Source],
    runner: Option<&'a Runner>,
    cancel: &'a Cancel,
    progress: &'a dyn Progress,
) -> Vec<Step<'a>> {
    let no_undo = |_: &mut Store| Ok(());
    let mut steps = Vec::new();
    for spec in specs {
        let vm = [spec.uuid];
        let dir = site.dirs.vm(spec.uuid);
        let folder = dir.clone();
        steps.push(Step::new(vm, "folder", move |_| make_private(&folder), {
            let dir = dir.clone();
            move |_| remove_tree(&dir)
        }));
        for (disk, source) in spec.disks.iter().zip(sources) {
            let target = dir.join(disk.file());
            let make = move |_: &mut Store| make_disk(disk, source, &target, cancel, progress);
            steps.push(Step::new(vm, format!("disk {}", disk.name), make, no_undo));
        }
        if let Boot::Firmware { vars: Some(vars), .. } = &spec.boot {
            let target = dir.join(VmSpec::EFI_VARS);
            steps.push(Step::new(vm, "uefi variables", move |_| copy_small(vars, &target), no_undo));
        }
        let seed = Seed {
            hostname: spec.name.clone(),
            instance: spec.uuid,
            users: request.users.clone(),
            parts: request.parts.clone(),
            nics: spec.nics.clone(),
        };
        steps.push(Step::new(vm, "seed", move |_| disk::write_seed(&dir.join(VmSpec::SEED), &seed), no_undo));
        steps.push(Step::new(vm, "owner", move |_| hand_over(site, spec, runner), no_undo));
    }
    // The last one: a failure to record undoes the rest too.
    let uuids: Vec<Uuid> = specs.iter().map(|spec| spec.uuid).collect();
    steps.push(Step::new(uuids.clone(), "created", move |store| finish(store, &uuids), no_undo));
    steps
}

fn finish(store: &mut Store, vms: &[Uuid]) -> Result<()> {
    store.update_all(vms, |record| {
        record.apply(&Event::Created)?;
        record.owner = None;
        record.progress = None;
        Ok(())
    })
}

/// What looking at the host tells of a network.
pub(super) fn settle(site: &Site, store: &mut Store, network: &Network, ovs: &Ovs) -> Result<Settled> {
    let kept = networks::kept(site, store, network, ovs)?;
    let ipv6 = kept && network.is_served() && keep::has_ipv6()?;
    let net6 = if ipv6 && network.needs_prefix6() { Some(store.prefix6(&network.name)?) } else { None };
    Ok(Settled { kept, ipv6, net6 })
}

/// What can be known now of what a start will need.
pub(super) fn check_networks(config: &Config, nics: &[PlannedNic], ovs: &Ovs) -> Result<()> {
    for (index, nic) in nics.iter().enumerate() {
        network::driver(&nic.link).check(&nic.network, &nic.link, ovs)?;
        let seen = nics[..index].iter().any(|other| other.network == nic.network);
        if let Some(network) = config.network(&nic.network).filter(|_| nic.guard.is_some() && !seen) {
            network::check_routes(&network.spec(None, nic.subnet.as_ref().and_then(|subnet| subnet.net6)))?;
        }
    }
    Ok(())
}

/// One for each VM; `None`: it is made up.
fn names(request: &Create) -> Result<Vec<Option<Name>>> {
    let name = |index| match &request.name {
        Some(name) if request.count > 1 => {
            name.with_suffix(index).map(Some).map_err(|error| Error::usage("no name for each VM").source(error))
        }
        name => Ok(name.clone()),
    };
    (1..=request.count).map(name).collect()
}

/// A VM made by hand would be in the way of the one that the config declares.
fn refuse_declared(config: &Config, request: &Create, names: &[Option<Name>]) -> Result<()> {
    let by_hand = request.declared.is_none();
    match names.iter().flatten().find(|name| by_hand && config.vm(name).is_some()) {
        Some(name) => Err(Error::refused(format!("the config declares `{name}`"))
            .hint("`v apply` makes it, where it is not there; give this one another name")),
        None => Ok(()),
    }
}

fn drafts(request: &Create, names: Vec<Option<Name>>, nics: &[PlannedNic]) -> Vec<Draft> {
    let nics: Vec<_> =
        nics.iter().map(|nic| Wanted { subnet: nic.subnet.clone(), address: nic.address, mac: nic.mac }).collect();
    let draft = |name| Draft { uuid: Uuid::new_v4(), name, nics: nics.clone(), declared: request.declared.clone() };
    names.into_iter().map(draft).collect()
}

fn made_up() -> Option<String> {
    petname::petname(2, "-")
}

/// The first of these that is a name, and none of a VM that the config declares.
fn made_up_name(config: &Config, made_up: &mut dyn FnMut() -> Option<String>) -> Name {
    loop {
        if let Some(name) = made_up().and_then(|words| words.parse().ok())
            && config.vm(&name).is_none()
        {
            return name;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_name_is_no_declared_ones() {
        let vm = |name| format!("{{ name = '{name}', template = 'xs' }}");
        let text = format!("vm = [{}, {}]\n{XS}", vm("kind-owl"), vm("sly-fox"));
        let config = crate::config::of_text(&text).unwrap();
        let mut words = [None, Some("kind-owl"), Some("No Name"), Some("sly-fox"), Some("shy-elk")].into_iter();
        let name = made_up_name(&config, &mut || words.next().unwrap().map(str::to_owned));
        assert_eq!(name.as_str(), "shy-elk");
    }

    const XS: &str = "[[template.vm]]\nname = 'xs'\nvcpu = 1\nvram = 1\ndisk = [{ name = 'os', path = '/a' }]";
}
