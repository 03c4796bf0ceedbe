//! The wire types of cloud-hypervisor's API: strict about what is sent, lenient about what is read.
//!
//! The server drops fields it does not know without a word, so every name here is checked against
//! the real program by the contract tests. Ids, MACs, queue counts and image types are always given:
//! left out they are random, depend on the order, or are guessed from the disk's first sector.

use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::version::Version;
use crate::error::{Error, Result};
use crate::hypervisor::{Launch, line_socket};
use crate::spec::{Accel, Boot, Link, Name, Nic, VmSpec};

/// The most queues one disk gets; each costs a thread.
const DISK_QUEUES: u32 = 4;
/// One pair: a queue to receive and one to send.
const NIC_QUEUES: u32 = 2;

#[derive(Debug, Serialize)]
pub(super) struct VmConfig {
    cpus: Cpus,
    memory: Memory,
    payload: Payload,
    disks: Vec<Disk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    net: Vec<Net>,
    rng: Rng,
    serial: Console,
    console: Console,
    platform: Platform,
    #[serde(skip_serializing_if = "Option::is_none")]
    vsock: Option<Vsock>,
    /// A virtio watchdog: once the guest feeds it and then no more, it is reset.
    #[serde(skip_serializing_if = "is_false")]
    watchdog: bool,
    #[serde(flatten)]
    landlock: Option<Landlock>,
}

/// The process shuts itself out of all files but those that its configuration names, and these.
#[derive(Debug, Serialize)]
struct Landlock {
    landlock_enable: bool,
    landlock_rules: Vec<LandlockRule>,
}

#[derive(Debug, Serialize)]
struct LandlockRule {
    path: String,
    access: &'static str,
}

fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Debug, Serialize)]
struct Cpus {
    boot_vcpus: u32,
    max_vcpus: u32,
}

#[derive(Debug, Serialize)]
struct Memory {
    size: u64,
    shared: bool,
    #[serde(flatten)]
    room: Option<Room>,
}

/// Room for memory that is added while the guest runs.
#[derive(Debug, Serialize)]
struct Room {
    hotplug_method: HotplugMethod,
    hotplug_size: u64,
}

#[derive(Debug, Serialize)]
enum HotplugMethod {
    Acpi,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Payload {
    Firmware {
        firmware: String,
    },
    Kernel {
        kernel: String,
        cmdline: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        initramfs: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Disk {
    id: String,
    path: String,
    readonly: bool,
    image_type: ImageType,
    num_queues: u32,
}

#[derive(Debug, Serialize)]
enum ImageType {
    Raw,
}

#[derive(Debug, Serialize)]
pub(super) struct Net {
    id: String,
    mac: String,
    num_queues: u32,
    #[serde(flatten)]
    backend: Option<Vhost>,
    #[serde(flatten)]
    offload: Option<NoOffload>,
}

/// All three are offered to the guest unless they are refused.
#[derive(Debug, Serialize)]
struct NoOffload {
    offload_tso: bool,
    offload_ufo: bool,
    offload_csum: bool,
}

#[derive(Debug, Serialize)]
struct Vhost {
    vhost_user: bool,
    vhost_mode: VhostMode,
    vhost_socket: String,
}

#[derive(Debug, Serialize)]
enum VhostMode {
    Server,
    /// It connects, and the other side is there already.
    Client,
}

/// Its devices come after all NICs on the bus, so none of these moves for it.
#[derive(Debug, Serialize)]
struct Vsock {
    id: &'static str,
    cid: u32,
    socket: String,
}

#[derive(Debug, Serialize)]
struct Rng {
    src: &'static str,
}

#[derive(Debug, Serialize)]
struct Console {
    mode: ConsoleMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<String>,
}

#[derive(Debug, Serialize)]
enum ConsoleMode {
    Off,
    Socket,
}

/// What the guest reads as SMBIOS. The names changed with version 53, which still reads the old
/// ones with a warning; later ones will not.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Platform {
    Current { system_uuid: Uuid, system_serial_number: Uuid },
    Before53 { uuid: Uuid, serial_number: Uuid },
}

impl VmConfig {
    /// The VM without its taps, whose descriptors cannot come with `vm.create`.
    pub(super) fn of(launch: &Launch<'_>, version: Version) -> Result<Self> {
        let spec = launch.spec;
        if spec.accel != Accel::Kvm {
            return Err(Error::usage("cloud-hypervisor runs guests with KVM only").hint("set `hypervisor = \"qemu\"`"));
        }
        let mut disks = Vec::new();
        for disk in &spec.disks {
            let path = text(&launch.dir.join(disk.file()))?;
            disks.push(self::disk(disk_id(&disk.name), path, disk.readonly, spec.vcpu));
        }
        if spec.seed {
            disks.push(disk("seed".to_owned(), text(&launch.dir.join(VmSpec::SEED))?, true, 1));
        }
        let mut net = Vec::new();
        for nic in &spec.nics {
            match nic.link {
                Link::Vhost { .. } => net.push(Net::vhost(nic, &launch.run.join(nic.socket()))?),
                Link::Tap { .. } => {}
                Link::User => net.push(Net::passt(nic, &launch.run.join(nic.socket()))?),
            }
        }
        let id = spec.uuid;
        Ok(Self {
            cpus: Cpus { boot_vcpus: spec.vcpu, max_vcpus: spec.most_vcpus() },
            memory: Memory { size: spec.vram.bytes(), shared: launch.needs_shared_memory(), room: Room::of(spec) },
            payload: match &spec.boot {
                Boot::Firmware { code, .. } => Payload::Firmware { firmware: text(code)? },
                Boot::Kernel { kernel, initramfs, cmdline } => Payload::Kernel {
                    kernel: text(kernel)?,
                    cmdline: cmdline.clone(),
                    initramfs: initramfs.as_deref().map(text).transpose()?,
                },
            },
            disks,
            net,
            rng: Rng { src: "/dev/urandom" },
            serial: Console { mode: ConsoleMode::Socket, socket: Some(text(&launch.serial_socket())?) },
            console: Console { mode: ConsoleMode::Off, socket: None },
            platform: if version.major >= 53 {
                Platform::Current { system_uuid: id, system_serial_number: id }
            } else {
                Platform::Before53 { uuid: id, serial_number: id }
            },
            vsock: launch.cid().map(|cid| Vsock::of(cid, launch.run)).transpose()?,
            watchdog: spec.policy.watchdog,
            landlock: launch.landlock.then(|| Landlock::of(launch)).transpose()?,
        })
    }
}

impl Room {
    fn of(spec: &VmSpec) -> Option<Self> {
        let room = spec.most_vram().bytes() - spec.vram.bytes();
        (room > 0).then_some(Self { hotplug_method: HotplugMethod::Acpi, hotplug_size: room })
    }
}

impl Landlock {
    /// The sockets' folder as a whole: the serial one is made anew when the guest reboots.
    fn of(launch: &Launch<'_>) -> Result<Self> {
        let run = LandlockRule { path: text(launch.run)?, access: "rw" };
        Ok(Self { landlock_enable: true, landlock_rules: vec![run] })
    }
}

impl Vsock {
    fn of(cid: u32, run: &Path) -> Result<Self> {
        Ok(Self { id: "vsock", cid, socket: text(&line_socket(run))? })
    }
}

impl Net {
    /// A NIC behind a vhost-user socket that cloud-hypervisor listens on.
    pub(super) fn vhost(nic: &Nic, socket: &Path) -> Result<Self> {
        let backend = Vhost { vhost_user: true, vhost_mode: VhostMode::Server, vhost_socket: text(socket)? };
        Ok(Self { backend: Some(backend), ..Self::tap(nic, true) })
    }

    /// A NIC behind passt, which listens.
    fn passt(nic: &Nic, socket: &Path) -> Result<Self> {
        let backend = Vhost { vhost_user: true, vhost_mode: VhostMode::Client, vhost_socket: text(socket)? };
        Ok(Self { backend: Some(backend), ..Self::tap(nic, true) })
    }

    /// A NIC behind a tap, whose descriptor goes with the request.
    pub(super) fn tap(nic: &Nic, offload: bool) -> Self {
        let refused = NoOffload { offload_tso: false, offload_ufo: false, offload_csum: false };
        Self {
            id: nic_id(nic),
            mac: nic.mac.to_string(),
            num_queues: NIC_QUEUES,
            backend: None,
            offload: (!offload).then_some(refused),
        }
    }
}

/// What a NIC's id begins with; its index follows.
pub(super) const NIC: &str = "net";

pub(super) fn nic_id(nic: &Nic) -> String {
    format!("{NIC}{}", nic.index)
}

pub(super) fn disk_id(disk: &Name) -> String {
    format!("disk-{disk}")
}

fn disk(id: String, path: String, readonly: bool, vcpu: u32) -> Disk {
    // More queues than vCPUs are refused.
    Disk { id, path, readonly, image_type: ImageType::Raw, num_queues: vcpu.clamp(1, DISK_QUEUES) }
}

fn text(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| Error::usage(format!("cloud-hypervisor cannot be given the path {path:?}: it is not UTF-8")))?;
    Ok(text.to_owned())
}

/// The part of the reply to `vm.info` that is read.
#[derive(Debug, Deserialize)]
pub(super) struct Info {
    /// `Created`, `Running`, `Paused`, …
    pub(super) state: String,
    pub(super) config: Has,
    /// In bytes.
    pub(super) memory_actual_size: u64,
}

/// What of the configuration changes while the guest runs.
#[derive(Debug, Deserialize)]
pub(super) struct Has {
    pub(super) cpus: HasCpus,
}

#[derive(Debug, Deserialize)]
pub(super) struct HasCpus {
    pub(super) boot_vcpus: u32,
}

/// The reply to `vmm.ping`.
#[derive(Debug, Deserialize)]
pub(super) struct Ping {
    #[serde(default)]
    pub(super) version: String,
    #[serde(default)]
    pub(super) build_version: String,
}
