use std::collections::BTreeSet;
use std::fmt;

use uuid::Uuid;

use crate::config::{DeclaredVm, DiskEntry, HypervisorSetting, Template};
use crate::spec::{Declared, HypervisorKind, Name, VmSpec};

/// What a person allows beyond what disturbs nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// VMs may be restarted where a change needs it.
    pub restart: bool,
    /// These may be deleted and made anew.
    pub replace: BTreeSet<Name>,
    /// These were made by hand and become the config's.
    pub adopt: BTreeSet<Name>,
}

/// All that is to be done, in the order in which it is: what goes makes room for what comes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub items: Vec<Item>,
}

/// What is to be done to one VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub vm: Name,
    /// What a person reads: never empty.
    pub changes: Vec<Change>,
    pub work: Work,
}

/// What `apply` does for an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Nothing: its only change says why.
    Refused,
    Create(Box<DeclaredVm>),
    Alter(Box<Alter>),
    /// Deleted, then made anew.
    Replace(Uuid, Box<DeclaredVm>),
    /// The config declares it no more: it is shut down, where that is so, and from then on left alone.
    Release {
        vm: Uuid,
        stop: bool,
    },
    Delete(Uuid),
}

/// A recorded VM that is to become another.
#[derive(Debug, Clone, PartialEq)]
pub struct Alter {
    /// As it is recorded.
    pub spec: VmSpec,
    /// What it comes to now, where that can be said without looking at the host: what waits is as
    /// before, as is what is resolved anew, and a NIC that is to be given an address has none.
    pub target: VmSpec,
    /// What the config says of it.
    pub entry: DeclaredVm,
    /// What is recorded once all of that is done.
    pub declared: Declared,
    /// Whether its changes are meant for a VM that runs.
    pub runs: bool,
    /// Whether it is to run in the end; `None`: as it is now.
    pub run: Option<bool>,
}

impl Alter {
    /// What a VM that does not run is made to now: what the config says, but for its disks, which
    /// are lost only where that is asked for, and its hypervisor, unless that is chosen `anew`.
    pub fn template(&self, anew: bool) -> Template {
        let disks = self.target.disks.iter().map(|disk| DiskEntry {
            name: disk.name.clone(),
            path: disk.source.clone(),
            image: None,
            size: disk.size,
            readonly: disk.readonly,
        });
        let template = self.entry.template.clone();
        let hypervisor = match self.spec.hypervisor {
            _ if anew => template.hypervisor,
            HypervisorKind::CloudHypervisor => Some(HypervisorSetting::CloudHypervisor),
            HypervisorKind::Qemu => Some(HypervisorSetting::Qemu),
        };
        Template { disks: disks.collect(), hypervisor, ..template }
    }
}

impl Plan {
    /// Every line, with its VM.
    pub fn lines(&self) -> impl Iterator<Item = (&Name, &Change)> {
        self.items.iter().flat_map(|item| item.changes.iter().map(|change| (&item.vm, change)))
    }

    /// The lines that are refused.
    pub fn refusals(&self) -> impl Iterator<Item = (&Name, &Change)> {
        self.lines().filter(|(_, change)| change.class == Class::Refused)
    }
}

impl Item {
    /// Whether anything of it is done now.
    pub fn is_due(&self) -> bool {
        self.changes.iter().any(|change| change.needs.is_none() && change.class != Class::Refused)
    }
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub class: Class,
    pub field: Field,
    pub old: Option<String>,
    pub new: Option<String>,
    /// Without it the change waits.
    pub needs: Option<Need>,
    /// Why it is refused or waits, and what to do about it.
    pub why: Option<String>,
    pub hint: Option<String>,
}

/// What a change costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    Create,
    Start,
    /// The VM notices nothing, or does not run.
    Live,
    /// The VM must be started anew for it.
    Restart,
    /// The VM must be made anew for it: what is on its disks is lost.
    Replace,
    Stop,
    Delete,
    /// It cannot be as the config says.
    Refused,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Class::Create => "create",
            Class::Start => "start",
            Class::Live => "live",
            Class::Restart => "restart",
            Class::Replace => "replace",
            Class::Stop => "stop",
            Class::Delete => "delete",
            Class::Refused => "refused",
        })
    }
}

/// What a change waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    Restart,
    Replace(Name),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Restart => f.write_str("--restart"),
            Need::Replace(vm) => write!(f, "--replace {vm}"),
        }
    }
}

/// What changes, in the words of the config.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The VM itself.
    Vm,
    /// Whether the config declares it.
    Declared,
    Running,
    Template,
    Hypervisor,
    /// What executes the guest's instructions.
    Accel,
    Vcpu,
    VcpuMax,
    Vram,
    VramMax,
    Kernel,
    Initramfs,
    Cmdline,
    Firmware,
    Restart,
    Watchdog,
    Autostart,
    LimitCpus,
    LimitMemory,
    StopTimeout,
    Protect,
    OnRemove,
    UserData,
    Label(String),
    /// The order of the disks.
    Disks,
    Disk(Name, DiskField),
    Nic(u8, NicField),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskField {
    /// The disk itself: added, or gone.
    Whole,
    /// What it was cloned from.
    Source,
    Size,
    Readonly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NicField {
    /// The NIC itself: added, or gone.
    Whole,
    Network,
    Type,
    /// What it is plugged into, and who keeps that.
    Bridge,
    Address,
    Mac,
    Mtu,
    Vlan,
    Ports,
    Allow,
    Deny,
    Rate,
    Spoof,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Field::Vm => "vm",
            Field::Declared => "declared",
            Field::Running => "running",
            Field::Template => "template",
            Field::Hypervisor => "hypervisor",
            Field::Accel => "accel",
            Field::Vcpu => "vcpu",
            Field::VcpuMax => "vcpu-max",
            Field::Vram => "vram",
            Field::VramMax => "vram-max",
            Field::Kernel => "kernel",
            Field::Initramfs => "initramfs",
            Field::Cmdline => "cmdline",
            Field::Firmware => "firmware",
            Field::Restart => "restart",
            Field::Watchdog => "watchdog",
            Field::Autostart => "autostart",
            Field::LimitCpus => "limits.cpus",
            Field::LimitMemory => "limits.memory",
            Field::StopTimeout => "stop-timeout",
            Field::Protect => "protect",
            Field::OnRemove => "on-remove",
            Field::UserData => "user-data",
            Field::Label(key) => return write!(f, "labels.{key}"),
            Field::Disks => "disk",
            Field::Disk(disk, DiskField::Whole) => return write!(f, "disk.{disk}"),
            Field::Disk(disk, field) => {
                let word = match field {
                    DiskField::Whole => "",
                    DiskField::Source => "source",
                    DiskField::Size => "size",
                    DiskField::Readonly => "readonly",
                };
                return write!(f, "disk.{disk}.{word}");
            }
            Field::Nic(nic, NicField::Whole) => return write!(f, "net.{nic}"),
            Field::Nic(nic, field) => {
                let word = match field {
                    NicField::Whole => "",
                    NicField::Network => "name",
                    NicField::Type => "type",
                    NicField::Bridge => "bridge",
                    NicField::Address => "address",
                    NicField::Mac => "mac",
                    NicField::Mtu => "mtu",
                    NicField::Vlan => "vlan",
                    NicField::Ports => "ports",
                    NicField::Allow => "allow",
                    NicField::Deny => "deny",
                    NicField::Rate => "rate",
                    NicField::Spoof => "spoof",
                };
                return write!(f, "net.{nic}.{word}");
            }
        };
        f.write_str(word)
    }
}
