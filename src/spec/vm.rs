use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Address, Forward, Guard, Labels, Mac, Name, Policy, Size};

/// The form of [`VmSpec`] that this program writes; an older one is converted when it is read.
pub const SPEC_VERSION: u32 = 4;

/// Everything decided about one VM. Stored as JSON; what the hypervisor says is an observation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    pub version: u32,
    pub uuid: Uuid,
    /// Small, unique on this host, never given twice.
    pub number: u32,
    pub name: Name,
    pub template: Name,
    pub hypervisor: HypervisorKind,
    pub accel: Accel,
    pub vcpu: u32,
    pub vram: Size,
    /// How many vCPUs it can come to while it runs; no more than `vcpu` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpu_max: Option<u32>,
    /// How much memory it can come to while it runs; no more than `vram` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vram_max: Option<Size>,
    pub boot: Boot,
    pub disks: Vec<Disk>,
    pub nics: Vec<Nic>,
    /// Whether the first-boot volume [`VmSpec::SEED`] is plugged in, as the last disk.
    pub seed: bool,
    /// The first user that the seed makes: who `v vm ssh` logs in as.
    pub login: Option<String>,
    #[serde(default)]
    pub policy: Policy,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The guest's number on its line to this host that needs no network (`AF_VSOCK`); a VM made
    /// before there was one has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<u32>,
}

impl VmSpec {
    /// The first-boot volume's file in the VM's folder.
    pub const SEED: &'static str = "seed.img";
    /// The VM's own UEFI variables, in the VM's folder (QEMU only).
    pub const EFI_VARS: &'static str = "efivars.fd";

    /// A running guest is given memory in multiples of this.
    pub const MEMORY_STEP: Size = Size::mib(128);

    /// The number of a VM on its line to this host: high enough to be nobody else's by chance.
    pub fn cid(uuid: Uuid) -> u32 {
        0x4000_0000 | (uuid.as_u128() as u32 & 0x3fff_ffff)
    }

    /// How many vCPUs it can come to while it runs.
    pub fn most_vcpus(&self) -> u32 {
        self.vcpu_max.map_or(self.vcpu, |most| most.max(self.vcpu))
    }

    /// How much memory it can come to while it runs.
    pub fn most_vram(&self) -> Size {
        self.vram_max.map_or(self.vram, |most| most.max(self.vram))
    }

    /// vhost-user backends map the guest's memory, so it must be shared.
    pub fn needs_shared_memory(&self) -> bool {
        self.nics.iter().any(|nic| matches!(nic.link, Link::Vhost { .. }))
    }

    /// A VM that a test changes to its liking.
    #[cfg(test)]
    pub(crate) fn sample(uuid: Uuid) -> Self {
        Self {
            version: SPEC_VERSION,
            uuid,
            number: 1,
            name: "web".parse().unwrap(),
            template: "xs".parse().unwrap(),
            hypervisor: HypervisorKind::CloudHypervisor,
            accel: Accel::Kvm,
            vcpu: 1,
            vram: Size::mib(64),
            vcpu_max: None,
            vram_max: None,
            boot: Boot::Kernel { kernel: "/kernel".into(), initramfs: None, cmdline: String::new() },
            disks: Vec::new(),
            nics: Vec::new(),
            seed: false,
            login: None,
            policy: Policy::default(),
            labels: Labels::default(),
            vsock: None,
        }
    }

    /// The address to reach the guest at, if this host knows one.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.nics.iter().find_map(|nic| nic.address.as_ref().map(|address| address.ip.addr()))
    }

    pub fn has_user_network(&self) -> bool {
        self.nics.iter().any(|nic| matches!(nic.link, Link::User))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HypervisorKind {
    CloudHypervisor,
    Qemu,
}

impl fmt::Display for HypervisorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            HypervisorKind::CloudHypervisor => "cloud-hypervisor",
            HypervisorKind::Qemu => "qemu",
        })
    }
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    Kvm,
    /// QEMU's own translation: works everywhere, many times slower.
    Tcg,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Boot {
    /// UEFI. `vars` is the empty variable store that QEMU's firmware is shipped with; each VM gets
    /// its own copy.
    Firmware { code: PathBuf, vars: Option<PathBuf> },
    /// The kernel is handed over directly.
    Kernel { kernel: PathBuf, initramfs: Option<PathBuf>, cmdline: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The template's word for it; also the device's id, so it is a [`Name`].
    pub name: Name,
    /// What it was cloned from; a blank disk has none.
    pub source: Option<PathBuf>,
    /// What the disk is grown to; the source's own size when not given.
    pub size: Option<Size>,
    pub readonly: bool,
}

impl Disk {
    /// The disk's file in the VM's folder.
    pub fn file(&self) -> String {
        format!("{}.raw", self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    pub index: u8,
    /// The network's name.
    pub network: Name,
    pub mac: Mac,
    pub link: Link,
    /// What this host gave it; without one the guest's own DHCP decides.
    pub address: Option<Address>,
    /// In bytes, where the network says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// The tag of its network's frames (Open vSwitch only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// What its port lets through, on a network that Virshle keeps; elsewhere everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// Ports of the host that lead to it while it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
}

impl Nic {
    /// With the MAC that follows from the VM, and nothing else.
    pub fn new(vm: Uuid, index: u8, network: Name, link: Link) -> Self {
        let mac = Mac::of(vm, index);
        Self { index, network, mac, link, address: None, mtu: None, vlan: None, guard: None, forwards: Vec::new() }
    }

    /// The host's name for its port: `v<number>n<index>`, at most 15 bytes for ever.
    pub fn port(&self, vm_number: u32) -> String {
        format!("v{vm_number}n{}", self.index)
    }

    /// The vhost-user socket's file in the VM's runtime folder.
    pub fn socket(&self) -> String {
        format!("n{}.sock", self.index)
    }
}

/// How a NIC meets its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Link {
    /// A `dpdkvhostuserclient` port of an Open vSwitch `netdev` bridge.
    Vhost { bridge: String, create: bool },
    /// A tap on an Open vSwitch bridge, or on a plain Linux one.
    Tap { bridge: String, switch: Switch, create: bool },
    /// The hypervisor's own address translation: no privileges, nothing to set up.
    User,
}

/// What a bridge is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// Open vSwitch.
    Ovs,
    /// A Linux bridge.
    Bridge,
}
