//! 6 · What runs a VM. Drivers stand side by side behind two small traits:
//!
//! - a [`Driver`] knows what it can do ([`Capabilities`], data) and how one VM is launched
//!   ([`Driver::script`], pure: what `v vm show-launch` prints is what [`Driver::launch`] does);
//! - a [`Machine`] is one launched process.
//!
//! ```text
//! launch ──► Machine (process there, guest not yet running) ── boot ──► Event::Booted … Event::Ended
//! ```
//!
//! Between `launch` and `boot` the supervisor connects to the serial socket, so that not one byte
//! of the console is lost. A vhost-user socket may appear during either, and the switch is
//! connected to it meanwhile: the drivers block until it is, under the caller's deadline.
//! A launch or boot that fails has killed its process; it is never retried in place (D2).

mod choose;
mod helper;
mod launch_log;
mod vsock;
pub mod cloud_hypervisor;
pub mod qemu;

pub use choose::{Choice, Host, Kvm, Needs, choose};
pub use helper::Helper;
pub(crate) use launch_log::LaunchLog;
pub use vsock::{Vsock, line_program, line_socket};

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::error::Result;
use crate::host::{ExitStatus, Gate, Handle};
use crate::spec::{Forward, HypervisorKind, Link, Name, Nic, Protocol, Size, VmSpec};

/// What a driver can do. A template that needs more is refused at create, by the name of the
/// driver that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// vhost-user NICs.
    pub vhost: bool,
    /// A tap handed over as a descriptor.
    pub tap: bool,
    /// Address translation, with forwarded ports.
    pub user: UserNetworks,
    /// UEFI firmware.
    pub firmware: bool,
    /// UEFI variables that are kept.
    pub efi_vars: bool,
    /// A kernel handed over directly.
    pub kernel: bool,
    /// Works without hardware virtualisation.
    pub tcg: bool,
    /// What a running guest can be given. A disk grows under every driver.
    pub resize: Resize,
}

/// What changes while the guest runs, where its spec leaves room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resize {
    /// Memory is added, by multiples of [`VmSpec::MEMORY_STEP`].
    pub memory: bool,
    /// vCPUs are added.
    pub cpus: bool,
    /// The forwarded ports of a `user` NIC.
    pub forwards: bool,
}

/// What serves the `user` networks of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserNetworks {
    /// The hypervisor itself.
    Own,
    /// passt, where this host has one that speaks vhost-user.
    Passt,
}

/// An open tap for one NIC.
#[derive(Debug)]
pub struct Tap {
    pub nic: u8,
    pub fd: OwnedFd,
    /// Whether the guest may leave checksums and segmentation to this host.
    pub offload: bool,
}

/// Everything one launch needs beside the spec. Plain paths and descriptors: nothing is looked up.
#[derive(Debug)]
pub struct Launch<'a> {
    pub spec: &'a VmSpec,
    /// The hypervisor's program.
    pub program: &'a Path,
    /// The VM's folder: disks, seed, UEFI variables.
    pub dir: &'a Path,
    /// The hypervisor's own fresh folder of the runtime folder: every socket is made in it.
    pub run: &'a Path,
    /// What holds the process back until it is recorded, and as whom it goes on.
    pub gate: Gate,
    /// Whether it shuts itself out of all files but the VM's.
    pub landlock: bool,
    /// For [`Driver::script`] the list may be empty.
    pub taps: Vec<Tap>,
    /// The host's side of the guest's ssh port, at its first `user` NIC.
    pub ssh: Option<SocketAddrV4>,
    /// Who serves the guest's number [`VmSpec::vsock`]; `None`: the guest has no such device.
    pub vsock: Option<Vsock>,
    /// The hypervisor's own standard error is appended here.
    pub log: &'a Path,
    /// For the whole of launch, and again for boot.
    pub deadline: Duration,
}

impl Launch<'_> {
    /// Whether a NIC may offer the guest to leave checksums and segmentation to this host.
    pub fn offload(&self, nic: &Nic) -> bool {
        self.taps.iter().find(|tap| tap.nic == nic.index).is_none_or(|tap| tap.offload)
    }

    /// Whether other processes map the guest's memory.
    pub fn needs_shared_memory(&self) -> bool {
        let passt = self.spec.hypervisor == HypervisorKind::CloudHypervisor && self.spec.has_user_network();
        self.spec.needs_shared_memory() || passt || matches!(self.vsock, Some(Vsock::Program))
    }

    /// The guest's number on its line to this host, if it has one.
    pub fn cid(&self) -> Option<u32> {
        self.vsock.as_ref().and(self.spec.vsock)
    }

    /// The guest's serial port: the hypervisor listens, the supervisor is the only client.
    pub fn serial_socket(&self) -> PathBuf {
        self.run.join("serial.sock")
    }

    /// Where the hypervisor's own API (or QMP) listens.
    pub fn api_socket(&self) -> PathBuf {
        self.run.join("api.sock")
    }
}

/// The ports of this host that lead to a `user` NIC: those of its network, and to the first such NIC
/// the one for ssh.
pub fn forwards(spec: &VmSpec, nic: &Nic, ssh: Option<SocketAddrV4>) -> Vec<Forward> {
    let first = spec.nics.iter().find(|nic| matches!(nic.link, Link::User)).map(|nic| nic.index);
    let ssh = ssh.filter(|_| first == Some(nic.index)).map(|host| Forward {
        host: Some(*host.ip()),
        host_port: host.port(),
        guest_port: 22,
        protocol: Protocol::Tcp,
    });
    ssh.into_iter().chain(nic.forwards.iter().cloned()).collect()
}

/// What a launch runs and sends, ready to paste.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Script {
    /// The programs that are there before it, each as it is run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub helpers: Vec<Vec<String>>,
    /// Exactly what is run.
    pub argv: Vec<String>,
    /// The same for a shell: with paths where the supervisor passes descriptors.
    #[serde(skip)]
    pub by_hand: Vec<String>,
    /// Where the calls go.
    pub socket: PathBuf,
    /// Each call over the API socket, in order.
    pub calls: Vec<Call>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Call {
    /// `PUT /api/v1/vm.create`, or QMP's `cont`.
    pub request: String,
    pub body: Option<serde_json::Value>,
    /// What goes with it that text cannot show, e.g. "the tap's descriptor".
    pub note: Option<String>,
}

/// What a running machine tells. Who caused an end is not among it: hypervisors do not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineEvent {
    /// The vCPUs run.
    Booted,
    Paused,
    Resumed,
    /// The guest rebooted itself; the process goes on.
    Rebooted,
    /// The guest gave up the NIC with this index: it may be plugged in anew.
    Unplugged(u8),
    /// The guest's watchdog resets it; the process goes on.
    WatchdogFired,
    /// The guest asked for power-off; the process ends or is ended by the supervisor.
    PoweredOff,
    /// The process has ended. Always the last event.
    Ended(ExitStatus),
}

/// Who wants to know a process as soon as it is there. An error ends the launch.
pub type Spawned<'a> = dyn Fn(Handle) -> Result<()> + 'a;

#[async_trait(?Send)]
pub trait Driver: std::fmt::Debug {
    fn kind(&self) -> HypervisorKind;
    fn capabilities(&self) -> Capabilities;
    /// What `launch` and `boot` will run and send. Pure.
    fn script(&self, launch: &Launch<'_>) -> Result<Script>;
    /// Starts the process and tells it the VM; the guest does not run yet. `spawned` is told the
    /// process while it still waits at its gate, so that a record names it before it is anything.
    async fn launch(&self, launch: Launch<'_>, spawned: &Spawned<'_>) -> Result<Box<dyn Machine>>;
    /// Takes over the process of an earlier [`Driver::launch`] whose supervisor is gone. The guest
    /// notices nothing; on failure it runs on as before.
    async fn adopt(&self, launch: Launch<'_>, process: Handle) -> Result<Box<dyn Machine>>;
}

#[async_trait(?Send)]
pub trait Machine: std::fmt::Debug {
    fn handle(&self) -> Handle;
    /// Runs the guest. Under the launch's deadline; on failure the process is killed and the error
    /// carries the hypervisor's own last words.
    async fn boot(&mut self) -> Result<()>;
    /// Lets the guest run on without us; dropping the value instead kills the process.
    fn leave(self: Box<Self>);
    async fn is_paused(&mut self) -> Result<bool>;
    async fn pause(&mut self) -> Result<()>;
    async fn resume(&mut self) -> Result<()>;
    /// Presses the ACPI power button; what the guest makes of it comes as an event, or never.
    async fn power_button(&mut self) -> Result<()>;
    /// The next event. Cancel-safe: a dropped call loses nothing.
    async fn next_event(&mut self) -> MachineEvent;
    /// What its process last wrote on its standard error.
    fn last_words(&self) -> Option<String>;
    /// Gives the guest so much memory in all. As the next two: it may have that already, and it is
    /// checked that it has it then.
    async fn grow_memory(&mut self, to: Size) -> Result<()>;
    /// Gives the guest so many vCPUs in all.
    async fn add_cpus(&mut self, to: u32) -> Result<()>;
    /// Makes the disk at this place of the spec so large, in its file and for the guest.
    async fn grow_disk(&mut self, position: usize, disk: &Name, to: Size) -> Result<()>;
    /// Makes these the ports that lead to a `user` NIC: all of them, that for ssh included.
    async fn forward(&mut self, nic: &Nic, forwards: &[Forward]) -> Result<()>;
    /// How a NIC of this machine is taken out and put back, where that is needed and possible.
    fn hotplug(&self) -> Option<Box<dyn Hotplug>>;
    /// Cuts the power: asks the hypervisor to quit, then SIGKILL. Returns when the process is gone.
    async fn kill(&mut self) -> Result<()>;
}

/// Replaces a vhost-user NIC whose connection the hypervisor has given up for good. It goes on
/// beside the [`Machine`], which tells when the guest has let go ([`MachineEvent::Unplugged`]).
#[async_trait(?Send)]
pub trait Hotplug: std::fmt::Debug {
    /// Whether it is at rest: not about to make its devices anew.
    async fn answers(&self) -> bool;
    /// Asks the guest to give up a NIC.
    async fn unplug(&self, nic: &Nic) -> Result<()>;
    /// Plugs it in again. It needs the switch, which must connect to `socket` meanwhile.
    async fn plug(&self, nic: &Nic, socket: &Path) -> Result<()>;
}

/// The driver of a kind.
pub fn driver(kind: HypervisorKind) -> &'static dyn Driver {
    match kind {
        HypervisorKind::CloudHypervisor => &cloud_hypervisor::CloudHypervisor,
        HypervisorKind::Qemu => &qemu::Qemu,
    }
}

/// The file names a driver's program is looked for under, on `PATH`.
pub fn program_names(kind: HypervisorKind) -> &'static [&'static str] {
    match kind {
        HypervisorKind::CloudHypervisor => &["cloud-hypervisor"],
        HypervisorKind::Qemu => {
            if cfg!(target_arch = "aarch64") {
                &["qemu-system-aarch64"]
            } else {
                &["qemu-system-x86_64", "qemu-kvm"]
            }
        }
    }
}
