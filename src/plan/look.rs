//! What there is: the records, who holds their locks, and whether their files are there. No
//! program is started and nobody is asked, so that a thousand VMs are looked at in no time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;

use ipnet::Ipv6Net;

use super::digest::Digests;
use crate::config::{Config, DeclaredVm, HypervisorSetting, Template};
use crate::error::{Error, Result};
use crate::spec::{Accel, Declared, Disk, HypervisorKind, Name, Size, State, VmSpec};
use crate::store::{Record, Store};
use crate::vm::{self, Site};

/// What should be, and what there is of it.
#[derive(Debug, Clone, Default)]
pub struct Situation {
    pub config: Config,
    /// By number: those that the config declares, or did when it was last applied, and those made by
    /// hand whose names it declares.
    pub seen: Vec<Seen>,
    /// Whether this host has IPv6 at all.
    pub ipv6: bool,
    /// The /64 that was made up for a network, as far as that was done.
    pub prefixes: HashMap<Name, Ipv6Net>,
    /// The digest of each declared VM's user data; `None`: it names none; `Err`: why it cannot be read.
    pub user_data: HashMap<Name, Result<Option<String>, String>>,
}

/// A VM that there is.
#[derive(Debug, Clone)]
pub struct Seen {
    pub record: Record,
    /// As it is now, whatever was recorded.
    pub state: State,
    /// A living process is creating, deleting or renaming it.
    pub busy: bool,
    /// How large the disks' files are; `None`: the file is missing.
    pub disks: BTreeMap<Name, Option<Size>>,
    /// Whether its first-boot volume is there, or it has none.
    pub seed: bool,
}

/// Looks at what the config is about, and changes nothing.
pub fn look(site: &Site, config: &Config) -> Result<Situation> {
    let (records, prefixes) = match Store::open_read_only(&site.dirs.database())? {
        Some(store) => (store.list()?, store.prefixes()?),
        None => (Vec::new(), Vec::new()),
    };
    let prefixes = prefixes.into_iter().filter_map(|(network, net)| Some((network.parse().ok()?, net))).collect();
    let seen =
        records.into_iter().filter(concerns(config)).map(|record| Seen::look(site, record)).collect::<Result<_>>()?;
    let mut digests = Digests::default();
    let user_data = config.vms.iter().map(|vm| (vm.name.clone(), digests.of(&vm.user_data))).collect();
    Ok(Situation { config: config.clone(), seen, ipv6: vm::networks::has_ipv6()?, prefixes, user_data })
}

/// Whether the config declares it, did when it was last applied, or has its name.
pub(super) fn concerns(config: &Config) -> impl Fn(&Record) -> bool {
    let names: HashSet<&Name> = config.vms.iter().map(|vm| &vm.name).collect();
    move |record| record.is_declared() || names.contains(&record.spec.name)
}

impl Situation {
    /// What is recorded of a VM that is made as the config says.
    pub fn declared(&self, entry: &DeclaredVm) -> Declared {
        Declared {
            on_remove: entry.on_remove,
            hypervisor: self.named_hypervisor(&entry.template),
            firmware: entry.template.firmware.clone(),
            user_data: self.user_data.get(&entry.name).cloned().and_then(Result::ok).flatten(),
            removed: false,
            start_again: false,
        }
    }

    /// The hypervisor that the template or the node names; `None`: the choice is left to Virshle.
    pub(super) fn named_hypervisor(&self, template: &Template) -> Option<HypervisorKind> {
        match template.hypervisor.unwrap_or(self.config.node.hypervisor) {
            HypervisorSetting::Auto => None,
            HypervisorSetting::CloudHypervisor => Some(HypervisorKind::CloudHypervisor),
            HypervisorSetting::Qemu => Some(HypervisorKind::Qemu),
        }
    }

    /// What the node names to execute the guests' instructions.
    pub(super) fn named_accel(&self) -> Option<Accel> {
        self.config.node.accel.named()
    }

    /// The variables that the node names for a firmware of this hypervisor.
    pub(super) fn named_variables(&self, kind: HypervisorKind) -> Option<&Path> {
        self.config.node.qemu.vars.as_deref().filter(|_| kind == HypervisorKind::Qemu)
    }

    /// The firmware that the template names, or the node for this hypervisor.
    pub(super) fn named_firmware<'a>(&'a self, template: &'a Template, kind: HypervisorKind) -> Option<&'a Path> {
        let node = match kind {
            HypervisorKind::CloudHypervisor => &self.config.node.cloud_hypervisor.firmware,
            HypervisorKind::Qemu => &self.config.node.qemu.firmware,
        };
        template.firmware.as_deref().or(node.as_deref())
    }
}

impl Seen {
    fn look(site: &Site, record: Record) -> Result<Self> {
        let vm::Observed { record, state, .. } = vm::observe(site, record)?;
        let folder = site.dirs.vm(record.spec.uuid);
        let size_of = |disk: &Disk| size(&vm::disk_file(site, &record, disk));
        let disks = record.spec.disks.iter().map(|disk| Ok((disk.name.clone(), size_of(disk)?)));
        Ok(Self {
            state,
            busy: record.owner.is_some_and(|owner| owner.is_alive()),
            disks: disks.collect::<Result<_>>()?,
            seed: !record.spec.seed || size(&folder.join(VmSpec::SEED))?.is_some(),
            record,
        })
    }

    /// Whether a killed process has left it half created or half deleted.
    pub(super) fn is_abandoned(&self) -> bool {
        !self.busy && matches!(self.record.state, State::Creating | State::Deleting)
    }
}

fn size(file: &Path) -> Result<Option<Size>> {
    match file.metadata() {
        Ok(metadata) => Ok(Some(Size::from_bytes(metadata.len()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::failed(format!("cannot look at `{}`", file.display())).source(error)),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::config::of_text;
    use crate::host::{self, Dirs, Handle};
    use crate::spec::Event;
    use crate::store::Draft;

    const CONFIG: &str = "
        vm = [{ name = 'half', template = 'xs' }, { name = 'busy', template = 'xs' }, { name = 'web', template = 'xs' }]
        [[template.vm]]
        name = 'xs'
        vcpu = 1
        vram = 1
        disk = [{ name = 'os', size = 1 }, { name = 'data', size = 1 }]
    ";

    fn draft(name: &str, declared: Option<Declared>) -> Draft {
        Draft { uuid: Uuid::new_v4(), name: Some(name.parse().unwrap()), nics: Vec::new(), declared }
    }

    fn reserve(store: &mut Store, draft: &Draft, owner: Handle) {
        let disk = |name: &str| Disk { name: name.parse().unwrap(), source: None, size: None, readonly: false };
        let mut build = |reserved: &crate::store::Reserved| {
            let (number, name) = (reserved.number, reserved.name.clone());
            let disks = vec![disk("os"), disk("data")];
            Ok(VmSpec { number, name, disks, seed: true, ..VmSpec::sample(reserved.uuid) })
        };
        store.reserve(std::slice::from_ref(draft), owner, &mut || "any".parse().unwrap(), &mut build).unwrap();
    }

    #[test]
    fn where_nothing_ever_was_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::new(Dirs::find(Some(dir.path())).unwrap());
        assert!(look(&site, &of_text(CONFIG).unwrap()).unwrap().seen.is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn who_is_at_work_and_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::new(Dirs::find(Some(dir.path())).unwrap());
        let mut store = site.store().unwrap();
        let us = Handle::current().unwrap();
        let gone = Handle { start_time: us.start_time + 1, ..us };
        let declared = || Some(Declared::default());
        reserve(&mut store, &draft("half", declared()), gone);
        reserve(&mut store, &draft("busy", declared()), us);
        let made = ["web", "lab", "old", "kept"].map(|name| {
            let removed = Some(Declared { removed: name == "old", ..Declared::default() });
            let draft = draft(name, removed.filter(|_| !matches!(name, "web" | "lab")));
            reserve(&mut store, &draft, us);
            draft.uuid
        });
        store
            .update_all(&made, |record| {
                record.owner = None;
                Ok(record.apply(&Event::Created)?)
            })
            .unwrap();
        let folder = site.dirs.vm(made[0]);
        host::make_private(&folder).unwrap();
        std::fs::write(folder.join("os.raw"), [0; 512]).unwrap();

        let situation = look(&site, &of_text(CONFIG).unwrap()).unwrap();
        let seen: Vec<_> = situation.seen.iter().map(|seen| (seen.record.spec.name.as_str(), seen.busy)).collect();
        assert_eq!(seen, [("half", false), ("busy", true), ("web", false), ("kept", false)]);
        let abandoned: Vec<_> = situation.seen.iter().map(Seen::is_abandoned).collect();
        assert_eq!(abandoned, [true, false, false, false]);
        let web = &situation.seen[2];
        let sizes: Vec<_> = web.disks.iter().map(|(name, size)| (name.as_str(), *size)).collect();
        assert_eq!(sizes, [("data", None), ("os", Some(Size::from_bytes(512)))]);
        assert!(!web.seed);
        assert_eq!(situation.user_data[&web.record.spec.name], Ok(None));
    }
}
