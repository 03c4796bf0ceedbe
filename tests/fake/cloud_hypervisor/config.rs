//! The VM's configuration, as far as it is looked at; the rest is kept as it came.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use serde::Deserialize;

const IN_USE: &str = "Address already in use (os error 98)";

#[derive(Deserialize)]
pub(crate) struct Config {
    #[serde(default = "Cpus::one")]
    pub(crate) cpus: Cpus,
    #[serde(default)]
    pub(crate) memory: Memory,
    pub(crate) payload: Option<Payload>,
    #[serde(default)]
    pub(crate) disks: Vec<Disk>,
    #[serde(default)]
    pub(crate) net: Vec<Net>,
    #[serde(default)]
    pub(crate) serial: Serial,
    pub(crate) vsock: Option<Vsock>,
}

#[derive(Deserialize)]
pub(crate) struct Vsock {
    #[serde(rename = "cid")]
    _cid: u32,
    pub(crate) socket: PathBuf,
}

#[derive(Deserialize)]
pub(crate) struct Cpus {
    pub(crate) boot_vcpus: usize,
    #[serde(rename = "max_vcpus")]
    _max_vcpus: usize,
}

impl Cpus {
    fn one() -> Self {
        Self { boot_vcpus: 1, _max_vcpus: 1 }
    }
}

#[derive(Deserialize, Default)]
pub(crate) struct Memory {
    #[serde(rename = "size")]
    _size: u64,
    #[serde(default)]
    pub(crate) shared: bool,
    #[serde(default)]
    pub(crate) hugepages: bool,
}

#[derive(Deserialize)]
pub(crate) struct Payload {
    pub(crate) firmware: Option<PathBuf>,
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) initramfs: Option<PathBuf>,
}

#[derive(Deserialize)]
pub(crate) struct Disk {
    pub(crate) id: Option<String>,
    pub(crate) path: Option<PathBuf>,
    #[serde(default)]
    pub(crate) readonly: bool,
    #[serde(default = "one")]
    pub(crate) num_queues: usize,
    #[serde(default, rename = "image_type")]
    _image_type: ImageType,
}

fn one() -> usize {
    1
}

#[derive(Deserialize, Default)]
pub(crate) enum ImageType {
    FixedVhd,
    Qcow2,
    Raw,
    Vhdx,
    #[default]
    Unknown,
}

#[derive(Deserialize)]
pub(crate) struct Net {
    pub(crate) id: Option<String>,
    #[serde(default = "two")]
    pub(crate) num_queues: usize,
    #[serde(default)]
    pub(crate) vhost_user: bool,
    pub(crate) vhost_socket: Option<PathBuf>,
    #[serde(default)]
    pub(crate) vhost_mode: VhostMode,
    pub(crate) fds: Option<Vec<RawFd>>,
}

fn two() -> usize {
    2
}

#[derive(Deserialize, Default, PartialEq)]
pub(crate) enum VhostMode {
    #[default]
    Client,
    Server,
}

#[derive(Deserialize)]
pub(crate) struct Serial {
    pub(crate) mode: String,
    pub(crate) socket: Option<PathBuf>,
}

impl Default for Serial {
    fn default() -> Self {
        Self { mode: "Null".to_owned(), socket: None }
    }
}

pub(crate) fn open_console(serial: &Serial) -> io::Result<Option<UnixListener>> {
    match (serial.mode.as_str(), &serial.socket) {
        ("Socket", Some(path)) => UnixListener::bind(path).map(Some).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => io::Error::other(IN_USE),
            _ => error,
        }),
        _ => Ok(None),
    }
}

pub(crate) fn validate(config: &Config) -> Result<(), Vec<String>> {
    let refuse = |words: &[&str]| Err(words.iter().map(|&word| word.to_owned()).collect());
    if !config.payload.as_ref().is_some_and(|payload| payload.kernel.is_some() || payload.firmware.is_some()) {
        return refuse(&["Payload configuration is not bootable", "No bootitem provided: neither firmware nor kernel"]);
    }
    let vcpus = config.cpus.boot_vcpus;
    let disks = config.disks.iter().map(|disk| (disk.num_queues, disk.num_queues));
    let nets = config.net.iter().map(|net| (net.num_queues, net.num_queues / 2));
    for (queues, needed) in disks.chain(nets) {
        if needed > vcpus {
            return refuse(&[&format!("Queue count ({queues}) must not exceed boot vCPUs ({vcpus})")]);
        }
    }
    for net in &config.net {
        if net.vhost_user && !config.memory.shared && !config.memory.hugepages {
            return refuse(&["Using vhost-user requires using shared memory or huge pages"]);
        }
        if let Some(fds) = net.fds.as_ref().filter(|fds| fds.len() * 2 != net.num_queues) {
            let (queues, fds) = (net.num_queues, fds.len());
            return refuse(&[&format!(
                "Number of queues to virtio_net does not match the number of input FDs: {queues} / {fds}"
            )]);
        }
    }
    let mut ids: Vec<&str> = Vec::new();
    let given = config.disks.iter().map(|disk| &disk.id).chain(config.net.iter().map(|net| &net.id));
    for id in given.flatten() {
        if ids.contains(&id.as_str()) {
            return refuse(&[&format!("Identifier {id} is not unique")]);
        }
        ids.push(id);
    }
    Ok(())
}
