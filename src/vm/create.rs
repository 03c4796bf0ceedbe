//! From a template to recorded VMs: all of them, or none.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::site::{make_private, remove_tree};
use super::steps::{Step, run_all};
use super::{Site, check_boot, hand_over, resolve, runner, sweep};
use crate::config::Config;
use crate::disk::{self, Part, Progress, Seed};
use crate::error::{Error, OrFailed, Result};
use crate::host::{Cancel, Handle, Runner};
use crate::image;
use crate::network;
use crate::spec::{Boot, Disk, Event, Name, Size, VmSpec};
use crate::store::{Draft, Store};
use crate::template::{self, Identity, Overrides, PlannedNic, UserData};

/// What `v vm create` asks for.
#[derive(Debug, Clone)]
pub struct Create {
    pub template: String,
    pub name: Option<Name>,
    pub count: u32,
    pub overrides: Overrides,
    pub users: UserData,
    /// Raw cloud-init user-data, already read.
    pub parts: Vec<Part>,
}

/// A disk's source, ready to be cloned: raw, and large enough to be measured.
#[derive(Debug)]
struct Source {
    name: Name,
    raw: Option<PathBuf>,
    size: Option<Size>,
}

pub fn create(site: &Site, request: &Create, cancel: &Cancel, progress: &dyn Progress) -> Result<Vec<VmSpec>> {
    let config = site.config()?;
    let runner = runner(site, &config)?;
    let template = template::find(&config, &request.template)?;
    let (resolved, choice) = resolve(&config, template)?;
    tracing::info!("{}", choice.why);
    check_boot(&resolved.boot)?;
    let nics = template::nics(&config, template)?;
    let mut store = site.store()?;
    sweep(site, &mut store)?;
    make_private(&site.dirs.vms())?;

    check_networks(site, &config, &nics)?;
    let sources = sources(site, &config, template, cancel, progress)?;
    check_space(site, &sources, request.count)?;

    let drafts = drafts(request, &nics)?;
    let owner = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    let specs = store.reserve(&drafts, owner, &mut made_up_name, &mut |reserved| {
        let identity = Identity { uuid: reserved.uuid, number: reserved.number, name: reserved.name.clone() };
        let mut spec =
            template::instantiate(&config, template, &identity, &resolved, &reserved.addresses, &request.overrides)?;
        spec.login = request.users.users.first().map(|user| user.name.clone());
        Ok(spec)
    })?;

    let shared = RefCell::new(&mut store);
    let mut steps = steps(site, request, &specs, &sources, runner.as_ref(), cancel, progress);
    // The last one: a failure to record undoes the rest too.
    steps.push(Step::new("record", || finish(*shared.borrow_mut(), &specs), || Ok(())));
    let made = run_all(&steps);
    drop(steps);
    if let Err(error) = made {
        for spec in &specs {
            store.remove(spec.uuid)?;
        }
        return Err(error);
    }
    Ok(specs)
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
    let mut steps = Vec::new();
    for spec in specs {
        let dir = site.dirs.vm(spec.uuid);
        let folder = dir.clone();
        steps.push(Step::new("folder", move || make_private(&folder), {
            let dir = dir.clone();
            move || remove_tree(&dir)
        }));
        for (disk, source) in spec.disks.iter().zip(sources) {
            let target = dir.join(disk.file());
            steps.push(Step::new("disk", move || make_disk(disk, source, &target, cancel, progress), || Ok(())));
        }
        if let Boot::Firmware { vars: Some(vars), .. } = &spec.boot {
            let target = dir.join(VmSpec::EFI_VARS);
            steps.push(Step::new("uefi variables", move || copy_small(vars, &target), || Ok(())));
        }
        let seed = Seed {
            hostname: spec.name.clone(),
            instance: spec.uuid,
            users: request.users.clone(),
            parts: request.parts.clone(),
            nics: spec.nics.clone(),
        };
        steps.push(Step::new("seed", move || disk::write_seed(&dir.join(VmSpec::SEED), &seed), || Ok(())));
        steps.push(Step::new("owner", move || hand_over(site, spec, runner), || Ok(())));
    }
    steps
}

fn finish(store: &mut Store, specs: &[VmSpec]) -> Result<()> {
    let uuids: Vec<Uuid> = specs.iter().map(|spec| spec.uuid).collect();
    store.update_all(&uuids, |record| {
        record.apply(&Event::Created)?;
        record.owner = None;
        Ok(())
    })
}

fn check_networks(site: &Site, config: &Config, nics: &[PlannedNic]) -> Result<()> {
    let ovs = site.ovs(config);
    nics.iter().try_for_each(|nic| network::driver(&nic.link).check(&nic.network, &nic.link, &ovs))
}

fn sources(
    site: &Site,
    config: &Config,
    template: &crate::config::Template,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Vec<Source>> {
    template::disks(config, template)?
        .into_iter()
        .map(|disk: Disk| {
            let Some(path) = &disk.source else {
                return Ok(Source { name: disk.name, raw: None, size: disk.size });
            };
            let context = |error: Error| {
                error.context(format!("cannot make disk `{}` of template `{}`", disk.name, template.name))
            };
            let image = image::raw_image(path, &site.dirs.cache(), cancel, progress).map_err(context)?;
            match disk.size {
                Some(size) if size.bytes() < image.virtual_size => Err(context(
                    Error::usage(format!(
                        "its size {size} is below the {} of its image `{}`",
                        Size::from_bytes(image.virtual_size),
                        path.display()
                    ))
                    .hint("a disk can grow, never shrink: raise `size` or leave it out"),
                )),
                size => Ok(Source { name: disk.name, raw: Some(image.path), size }),
            }
        })
        .collect()
}

/// Refuses before anything is made what would run out of space half way.
fn check_space(site: &Site, sources: &[Source], count: u32) -> Result<()> {
    let vms = site.dirs.vms();
    let mut each = 0;
    for source in sources {
        if let Some(raw) = &source.raw {
            each += disk::bytes_needed(raw, &vms)?;
        }
    }
    let needed = each.saturating_mul(count.into());
    let free = disk::free_space(&vms)?;
    if needed > free {
        return Err(Error::failed(format!(
            "no space for {count} VM(s): {} are needed in `{}` and {} are free",
            human(needed),
            vms.display(),
            human(free)
        ))
        .hint("delete VMs that are not needed, or put the state on a file system with reflink (xfs, btrfs)"));
    }
    Ok(())
}

fn human(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / Size::MIB as f64)
}

fn drafts(request: &Create, nics: &[PlannedNic]) -> Result<Vec<Draft>> {
    let subnets: Vec<_> = nics.iter().map(|nic| nic.subnet.clone()).collect();
    (1..=request.count)
        .map(|index| {
            let name = match &request.name {
                Some(name) if request.count > 1 => {
                    Some(name.with_suffix(index).map_err(|error| Error::usage("no name for each VM").source(error))?)
                }
                name => name.clone(),
            };
            Ok(Draft { uuid: Uuid::new_v4(), name, subnets: subnets.clone() })
        })
        .collect()
}

fn made_up_name() -> Name {
    loop {
        let words = petname::petname(2, "-");
        if let Some(name) = words.and_then(|words| words.parse().ok()) {
            return name;
        }
    }
}

fn make_disk(disk: &Disk, source: &Source, target: &Path, cancel: &Cancel, progress: &dyn Progress) -> Result<()> {
    debug_assert_eq!(disk.name, source.name);
    match (&source.raw, source.size) {
        (Some(raw), size) => {
            let cloned = disk::clone(raw, target, size, cancel, progress)?;
            tracing::info!(disk = %disk.name, method = ?cloned.method, bytes = cloned.bytes, "cloned");
            Ok(())
        }
        (None, Some(size)) => disk::blank(target, size),
        (None, None) => Err(Error::usage(format!("the blank disk `{}` has no size", disk.name))),
    }
}

fn copy_small(source: &Path, target: &Path) -> Result<()> {
    let copy = || -> io::Result<()> {
        let bytes = fs::read(source)?;
        fs::write(target, bytes)?;
        fs::File::open(target)?.sync_all()
    };
    copy().or_failed(|| format!("cannot copy `{}` to `{}`", source.display(), target.display()))
}
