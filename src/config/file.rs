//! The grammar as types: serde reads by them, schemars describes them (the doc comments are the
//! descriptions an editor shows), and the rest of the program uses them as they are.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::declared::{DeclaredVm, VmEntry};
use super::limits::{MAX_DISKS, MAX_NICS, MAX_SECONDS, MAX_VCPU};
use super::link::LinkEntry;
use super::policy::LimitsEntry;
use super::subnet6::Subnet6;
use crate::spec::{Accel, Forward, Labels, Mac, Name, Rate, Restart, Rule, Size, Switch};

/// All files merged and checked: every reference leads somewhere and every path is absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    pub node: NodeEntry,
    pub networks: Vec<Network>,
    pub images: Vec<ImageEntry>,
    pub templates: Vec<Template>,
    pub vms: Vec<DeclaredVm>,
    /// The main file, where there is none, and the drop-ins are all there is.
    #[serde(skip)]
    pub missing: Option<PathBuf>,
}

impl Config {
    pub fn network(&self, name: &Name) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == *name)
    }

    pub fn image(&self, name: &Name) -> Option<&ImageEntry> {
        self.images.iter().find(|image| image.name == *name)
    }

    /// Whether a declared VM is to have this address of the network.
    pub fn names_address(&self, network: &Name, ip: Ipv4Addr) -> bool {
        self.nets().any(|net| net.address == Some(ip) && net.name == *network)
    }

    /// Whether a declared VM is to have this MAC.
    pub fn names_mac(&self, mac: Mac) -> bool {
        self.nets().any(|net| net.mac == Some(mac))
    }

    fn nets(&self) -> impl Iterator<Item = &NetEntry> {
        self.vms.iter().flat_map(|vm| &vm.template.nets)
    }

    /// The declared VM of a name.
    pub fn vm(&self, name: &Name) -> Option<&DeclaredVm> {
        self.vms.iter().find(|vm| vm.name == *name)
    }

    /// The link a NIC asks for, or its network's own; none when neither says one.
    pub fn link(&self, net: &NetEntry) -> Option<LinkEntry> {
        net.link.or_else(|| self.network(&net.name).map(|network| network.kind.default_link()))
    }
}

/// Virshle's configuration: this host, its networks and images, the templates VMs are made from, and the VMs there are to be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// This host.
    #[serde(default)]
    pub(super) node: NodeEntry,
    /// The networks that VMs are plugged into.
    #[serde(default)]
    pub(super) network: Vec<Network>,
    /// The images that disks are cloned from, by name.
    #[serde(default)]
    pub(super) image: Vec<ImageEntry>,
    /// What VMs are made from.
    #[serde(default)]
    pub(super) template: Templates,
    /// The VMs that `v apply` makes, and keeps as they stand here.
    #[serde(default)]
    pub(super) vm: Vec<VmEntry>,
}

/// What VMs are made from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Templates {
    /// The templates.
    #[serde(default)]
    pub(super) vm: Vec<Template>,
}

/// This host: which hypervisor runs its VMs, and where the programs are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct NodeEntry {
    /// The hypervisor of templates that name none.
    pub hypervisor: HypervisorSetting,
    /// What executes the guests' instructions.
    pub accel: Accelerator,
    /// The Open vSwitch database, like `unix:/run/openvswitch/db.sock`; without it, where `ovs-vsctl` looks by itself.
    #[schemars(regex(pattern = "^(unix|tcp|ssl):.+$"))]
    pub ovs_db: Option<String>,
    /// The user that hypervisors run as when root starts them; `virshle-vm` when not given.
    #[schemars(regex(pattern = "^[a-z_][a-z0-9_-]{0,30}$"))]
    pub user: Option<String>,
    /// The file that gets the names of VMs where systemd-resolved does not run; `/etc/hosts` when not given.
    pub hosts_file: Option<PathBuf>,
    /// cloud-hypervisor's files.
    pub cloud_hypervisor: CloudHypervisorEntry,
    /// QEMU's files.
    pub qemu: QemuEntry,
}

/// cloud-hypervisor's files, where they are not in the usual places.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CloudHypervisorEntry {
    /// The program; without it, `cloud-hypervisor` on PATH.
    pub program: Option<PathBuf>,
    /// The firmware, `CLOUDHV.fd`; without it, the usual places.
    pub firmware: Option<PathBuf>,
}

/// QEMU's files, where they are not in the usual places.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct QemuEntry {
    /// The program; without it, QEMU for this machine's architecture on PATH.
    pub program: Option<PathBuf>,
    /// The firmware's code, like `OVMF_CODE_4M.fd`; without it, the usual places.
    pub firmware: Option<PathBuf>,
    /// The firmware's empty variable store, like `OVMF_VARS_4M.fd`; each VM gets its own copy.
    pub vars: Option<PathBuf>,
}

/// Which hypervisor to use; `auto` takes cloud-hypervisor where hardware virtualisation works, else QEMU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HypervisorSetting {
    #[default]
    Auto,
    CloudHypervisor,
    Qemu,
}

/// What executes the guests' instructions; `auto` takes kvm where it works, else tcg.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    #[default]
    Auto,
    Kvm,
    Tcg,
}

impl Accelerator {
    /// `None`: the choice is left to Virshle.
    pub fn named(self) -> Option<Accel> {
        match self {
            Accelerator::Auto => None,
            Accelerator::Kvm => Some(Accel::Kvm),
            Accelerator::Tcg => Some(Accel::Tcg),
        }
    }
}

/// A network that VMs are plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// Its name, which a template's `net` refers to.
    pub name: Name,
    /// What it is made of.
    #[serde(default, rename = "type")]
    pub kind: NetworkKind,
    /// The bridge; `vsbr0` when not given. A `user` network has none.
    #[schemars(regex(pattern = "^[A-Za-z0-9_.-]{1,15}$"))]
    pub bridge: Option<String>,
    /// Whether Virshle makes the bridge, and all that stands on it. When not given it does where a `subnet` or an
    /// `uplink` is given and nobody else has made a bridge of that name; `false`: a bridge of the site's own is used as it is.
    pub create: Option<bool>,
    /// What a new Open vSwitch bridge moves frames by; `auto` takes `netdev` where Open vSwitch has DPDK or the kernel has no part of it.
    pub datapath: Option<DatapathSetting>,
    /// What VMs get their addresses from, like `10.44.0.0/24`; without it, the guest's own DHCP decides.
    #[serde(default, deserialize_with = "subnet")]
    #[schemars(with = "Option<String>", regex(pattern = "^[0-9]+(\\.[0-9]+){3}/[0-9]+$"))]
    pub subnet: Option<Ipv4Net>,
    /// The same for IPv6, a /64; when not given, one is made up (a ULA) and remembered. `false`: no IPv6.
    pub subnet6: Option<Subnet6>,
    /// The guests' way out, which is this host's own address on a bridge that Virshle makes; the subnet's first address when not given. It is never given to a VM.
    #[serde(default, deserialize_with = "gateway")]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers: the guests' own on a bridge of the site's, else those that this host's DNS asks; the host's own when not given.
    #[serde(default, deserialize_with = "name_servers")]
    pub dns: Vec<IpAddr>,
    /// What names of VMs end in; `vm` when not given.
    pub domain: Option<String>,
    /// Whether guests that ask get an address; they do when not given.
    pub dhcp: Option<bool>,
    /// Whether guests go out under the host's address, and nobody comes in uninvited; so it is when not given.
    pub nat: Option<bool>,
    /// Whether guests reach nothing but each other and this host's DHCP and DNS.
    #[serde(default)]
    pub isolated: bool,
    /// The tag of its frames, on an Open vSwitch bridge that it shares with other networks.
    #[schemars(range(min = 1, max = 4094))]
    pub vlan: Option<u16>,
    /// The largest packet, in bytes; the kernel's own when not given.
    #[schemars(range(min = 1280, max = 9216))]
    pub mtu: Option<u16>,
    /// The host's interface to put into the bridge: the site's own router and DHCP serve then.
    #[schemars(regex(pattern = "^[A-Za-z0-9_.-]{1,15}$"))]
    pub uplink: Option<String>,
}

/// What moves the frames of an Open vSwitch bridge: its own process (`netdev`), the kernel (`system`), or what this host has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DatapathSetting {
    #[default]
    Auto,
    Netdev,
    System,
}

/// What a network is made of: an Open vSwitch bridge, a Linux bridge, or the hypervisor's own address translation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    #[default]
    Ovs,
    Bridge,
    User,
}

impl NetworkKind {
    /// The link of a NIC that names none.
    pub fn default_link(self) -> LinkEntry {
        match self {
            NetworkKind::Ovs => LinkEntry::Vhost,
            NetworkKind::Bridge => LinkEntry::Tap,
            NetworkKind::User => LinkEntry::User,
        }
    }

    pub fn fits(self, link: LinkEntry) -> bool {
        match link {
            LinkEntry::Vhost => self == NetworkKind::Ovs,
            LinkEntry::Tap => self != NetworkKind::User,
            LinkEntry::User => self == NetworkKind::User,
        }
    }

    /// What its bridge is made of; a `user` network has none.
    pub fn switch(self) -> Option<Switch> {
        match self {
            NetworkKind::Ovs => Some(Switch::Ovs),
            NetworkKind::Bridge => Some(Switch::Bridge),
            NetworkKind::User => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            NetworkKind::Ovs => "ovs",
            NetworkKind::Bridge => "bridge",
            NetworkKind::User => "user",
        }
    }
}

/// An image that disks are cloned from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImageEntry {
    /// Its name, which a template's disk refers to.
    pub name: Name,
    /// The file: raw, qcow2, vmdk, vdi or vhdx. It is never written.
    pub path: PathBuf,
}

/// What a VM is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Template {
    /// Its name, for `v vm create -t`.
    pub name: Name,
    /// How many processors.
    #[schemars(range(min = 1, max = MAX_VCPU))]
    pub vcpu: u32,
    /// How much memory, in whole MiB.
    pub vram: Size,
    /// How many processors it can come to while it runs; no more than `vcpu` when not given.
    #[schemars(range(min = 1, max = MAX_VCPU))]
    pub vcpu_max: Option<u32>,
    /// How much memory it can come to while it runs, a multiple of 128 MiB more than `vram`; no more than that when not given.
    pub vram_max: Option<Size>,
    /// The hypervisor, if not the node's.
    pub hypervisor: Option<HypervisorSetting>,
    /// A kernel that is booted directly, instead of the firmware.
    pub kernel: Option<PathBuf>,
    /// The kernel's initial RAM disk.
    pub initramfs: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: Option<String>,
    /// The firmware, if not the node's.
    pub firmware: Option<PathBuf>,
    /// What follows the end of a run that nobody asked for: nothing, a new run after a crash, or always a new run.
    #[serde(default)]
    pub restart: Restart,
    /// Whether the guest gets a watchdog: once it feeds it and then hangs, it is reset.
    #[serde(default)]
    pub watchdog: bool,
    /// Whether it is started with the host.
    #[serde(default)]
    pub autostart: bool,
    /// Its place among those that are started with the host, lower ones first; 0 when not given.
    pub autostart_order: Option<u32>,
    /// Seconds to wait after it is started with the host, before the next order begins.
    #[schemars(range(max = MAX_SECONDS))]
    pub autostart_delay: Option<u32>,
    /// What it may take of the host.
    #[serde(default)]
    pub limits: LimitsEntry,
    /// Seconds that the guest gets to shut down; 60 when not given.
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub stop_timeout: Option<u32>,
    /// Whether it cannot be deleted.
    #[serde(default)]
    pub protect: bool,
    /// What people note about it, like `role = "db"`.
    #[serde(default)]
    pub labels: Labels,
    /// The disks, in the order the guest sees them.
    #[serde(default, rename = "disk")]
    #[schemars(length(max = MAX_DISKS))]
    pub disks: Vec<DiskEntry>,
    /// The network interfaces, in the order the guest sees them.
    #[serde(default, rename = "net")]
    #[schemars(length(max = MAX_NICS))]
    pub nets: Vec<NetEntry>,
}

impl Template {
    /// One that says nothing yet.
    pub fn blank(name: Name) -> Self {
        Self {
            name,
            vcpu: 0,
            vram: Size::mib(0),
            vcpu_max: None,
            vram_max: None,
            hypervisor: None,
            kernel: None,
            initramfs: None,
            cmdline: None,
            firmware: None,
            restart: Restart::No,
            watchdog: false,
            autostart: false,
            autostart_order: None,
            autostart_delay: None,
            limits: LimitsEntry::default(),
            stop_timeout: None,
            protect: false,
            labels: Labels::default(),
            disks: Vec::new(),
            nets: Vec::new(),
        }
    }
}

/// A disk: a clone of the file `path`, or of the image `image`, or blank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskEntry {
    /// Its name, different from the VM's other disks'.
    pub name: Name,
    /// The file to clone; it is never written.
    pub path: Option<PathBuf>,
    /// The name of the image to clone.
    pub image: Option<Name>,
    /// What the disk is grown to; a blank disk needs it.
    pub size: Option<Size>,
    /// Whether the guest may only read it.
    #[serde(default)]
    pub readonly: bool,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetEntry {
    /// The name of its network.
    pub name: Name,
    /// How it is plugged in; without it, as the network's type has it: ovs → vhost, bridge → tap, user → user.
    #[serde(rename = "type")]
    pub link: Option<LinkEntry>,
    /// Its address, in the network's subnet; a free one when not given.
    #[serde(default, deserialize_with = "gateway")]
    pub address: Option<Ipv4Addr>,
    /// Its MAC; when not given, one that follows from the VM.
    pub mac: Option<Mac>,
    /// Ports of the host that lead to it while the VM runs, like `8080:80`, `127.0.0.1:2222:22/tcp` or `5353:53/udp`.
    #[serde(default)]
    pub ports: Vec<Forward>,
    /// What is let through, like `tcp/22`, `in udp/5000-5010 from 10.0.0.0/8` or `out tcp/443`: nothing else of that direction is, but answers.
    #[serde(default)]
    pub allow: Vec<Rule>,
    /// What is not let through, in the same words; it comes before `allow`.
    #[serde(default)]
    pub deny: Vec<Rule>,
    /// How much it may send, and receive, in a second, like `100Mbit`.
    pub rate: Option<Rate>,
    /// Whether the guest may use other MACs and addresses than its own.
    pub spoof: Option<bool>,
}

/// Reads a text whose own parser does not repeat what it was given.
fn written<'de, T: FromStr, D: Deserializer<'de>>(deserializer: D, what: impl Display) -> Result<T, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(|_| de::Error::custom(format!("`{}` is not {what}", text.escape_debug())))
}

fn subnet<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Net>, D::Error> {
    written(deserializer, "an IPv4 subnet, which is written like `10.44.0.0/24`").map(Some)
}

fn gateway<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Addr>, D::Error> {
    written(deserializer, "an IPv4 address, which is written like `10.44.0.1`").map(Some)
}

fn name_servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    struct Server(IpAddr);
    impl<'de> Deserialize<'de> for Server {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            written(deserializer, "an IP address, which is written like `10.44.0.1`").map(Self)
        }
    }
    Ok(Vec::<Server>::deserialize(deserializer)?.into_iter().map(|server| server.0).collect())
}
