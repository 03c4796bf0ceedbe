//! QEMU's command line for one VM. Pure: the same launch always gives the same words.
//!
//! Devices, disks and objects are given as JSON (QEMU 6.2 and later), where any path is just a
//! string. The options that have no JSON form (`-chardev`, `-netdev`) split at commas, so a comma
//! in a value is doubled. Descriptors have fixed numbers: [`QMP_FD`] is the listening QMP socket,
//! [`VSOCK_FD`] the kernel's vsock, [`tap_fd`] the tap of a NIC.
//!
//! The PCI slots are in `board`. `-S`: no vCPU runs before QMP's `cont`.

use std::path::Path;

use serde_json::{Value, json};

use super::board::{self, Board};
use crate::error::{Error, Result};
use crate::hypervisor::vsock::program_socket;
use crate::hypervisor::{Launch, Vsock, forwards, line_socket};
use crate::spec::{Accel, Boot, Forward, Link, Nic, Size, VmSpec};

/// QMP listens on this descriptor. The socket is there before QEMU is, so connecting cannot race.
pub(super) const QMP_FD: i32 = 3;

/// The descriptor of `/dev/vhost-vsock`.
pub(super) const VSOCK_FD: i32 = 4;

/// The descriptor under which a NIC's tap is handed over.
pub(super) fn tap_fd(index: u8) -> i32 {
    10 + i32::from(index)
}

/// The memory that other processes map.
pub(super) const MEMORY: &str = "mem";

/// How often a running guest can be given memory.
const MEMORY_SLOTS: u32 = 8;

/// A disk's name, as a device and as what it is read from.
pub(super) fn disk_id(position: usize) -> String {
    format!("disk{position}")
}

/// What a NIC is plugged into.
pub(super) fn netdev(index: u8) -> String {
    format!("net{index}")
}

/// The arguments after the program's name.
pub fn argv(launch: &Launch<'_>) -> Result<Vec<String>> {
    argv_for(Board::of(std::env::consts::ARCH)?, launch)
}

fn argv_for(board: &Board, launch: &Launch<'_>) -> Result<Vec<String>> {
    let spec = launch.spec;
    check_sockets(launch)?;
    let mut args = Args::default();
    args.option("-name", format!("guest={},debug-threads=on", spec.name));
    args.option("-uuid", spec.uuid.to_string());
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    args.flag("-S");
    machine(&mut args, board, launch)?;
    boot(&mut args, launch)?;
    disks(&mut args, launch)?;
    nics(&mut args, launch)?;
    serial(&mut args, launch)?;
    let mut rng = json!({"driver": "virtio-rng-pci", "id": "rng", "bus": "pcie.0", "addr": board::RNG_SLOT});
    if launch.cid().is_some() {
        rng["multifunction"] = json!(true);
    }
    args.json("-device", rng);
    vsock(&mut args, launch)?;
    if spec.policy.watchdog {
        // It does nothing until somebody in the guest feeds it; fed no more, it resets the guest.
        args.json(
            "-device",
            json!({"driver": "i6300esb", "id": "watchdog", "bus": "pcie.0", "addr": board::WATCHDOG_SLOT}),
        );
        args.option("-action", "watchdog=reset");
    }
    args.option("-display", "none");
    args.option("-vga", "none");
    args.option("-rtc", "base=utc");
    args.option("-chardev", format!("socket,id=qmp,fd={QMP_FD},server=on,wait=off"));
    args.option("-mon", "chardev=qmp,mode=control");
    args.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    Ok(args.0)
}

#[derive(Default)]
struct Args(Vec<String>);

impl Args {
    fn flag(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(name.to_owned());
        self.0.push(value.into());
    }

    fn json(&mut self, name: &str, value: Value) {
        self.option(name, value.to_string());
    }
}

fn machine(args: &mut Args, board: &Board, launch: &Launch<'_>) -> Result<()> {
    let spec = launch.spec;
    let kvm = spec.accel == Accel::Kvm;
    let mut machine = board.machine(kvm);
    let mib = spec.vram.bytes().div_ceil(Size::MIB);
    if launch.needs_shared_memory() {
        args.json(
            "-object",
            json!({"qom-type": "memory-backend-memfd", "id": MEMORY, "size": mib * Size::MIB, "share": true}),
        );
        machine.push_str(&format!(",memory-backend={MEMORY}"));
    }
    if let Boot::Firmware { code, vars } = &spec.boot {
        args.json("-blockdev", blockdev("code", utf8(code)?, true));
        machine.push_str(",pflash0=code");
        if vars.is_some() {
            args.json("-blockdev", blockdev("vars", &in_dir(launch, VmSpec::EFI_VARS)?, false));
            machine.push_str(",pflash1=vars");
        }
    }
    args.option("-machine", machine);
    args.option("-accel", if kvm { "kvm" } else { "tcg,thread=multi" });
    args.option("-cpu", if kvm { "host" } else { "max" });
    let most = spec.most_vcpus();
    args.option("-smp", if most > spec.vcpu { format!("{},maxcpus={most}", spec.vcpu) } else { spec.vcpu.to_string() });
    let room = spec.most_vram().bytes().div_ceil(Size::MIB);
    let room = if room > mib { format!(",slots={MEMORY_SLOTS},maxmem={room}M") } else { String::new() };
    args.option("-m", format!("size={mib}M{room}"));
    Ok(())
}

fn boot(args: &mut Args, launch: &Launch<'_>) -> Result<()> {
    args.option("-boot", "strict=on");
    if let Boot::Kernel { kernel, initramfs, cmdline } = &launch.spec.boot {
        args.option("-kernel", absolute(kernel)?);
        if let Some(initramfs) = initramfs {
            args.option("-initrd", absolute(initramfs)?);
        }
        if !cmdline.is_empty() {
            args.option("-append", cmdline.as_str());
        }
    }
    Ok(())
}

/// Raw files through threads: `io_uring` is faster, but containers and hardened kernels forbid it.
/// The host's page cache is used and the guest's flushes reach the disk.
fn blockdev(node: &str, filename: &str, readonly: bool) -> Value {
    json!({
        "driver": "raw",
        "node-name": node,
        "read-only": readonly,
        "discard": "unmap",
        "file": {
            "driver": "file",
            "filename": filename,
            "aio": "threads",
            "locking": "on",
            "discard": "unmap",
        },
    })
}

fn disks(args: &mut Args, launch: &Launch<'_>) -> Result<()> {
    let spec = launch.spec;
    let mut files: Vec<(String, Option<&str>, bool)> =
        spec.disks.iter().map(|disk| (disk.file(), Some(disk.name.as_str()), disk.readonly)).collect();
    if spec.seed {
        files.push((VmSpec::SEED.to_owned(), None, true));
    }
    for (position, (file, name, readonly)) in files.iter().enumerate() {
        let id = disk_id(position);
        args.json("-blockdev", blockdev(&id, &in_dir(launch, file)?, *readonly));
        let mut device = json!({
            "driver": "virtio-blk-pci",
            "id": id,
            "drive": id,
            "bus": "pcie.0",
            "addr": board::disk_slot(position)?,
        });
        // The guest sees 20 bytes of a serial number at most; a name cut to fit would be another's.
        if let Some(name) = name.filter(|name| name.len() <= 20) {
            device["serial"] = json!(name);
        }
        // A kernel that is handed over takes the first place in the boot order itself.
        if position == 0 && matches!(spec.boot, Boot::Firmware { .. }) {
            device["bootindex"] = json!(1);
        }
        args.json("-device", device);
    }
    Ok(())
}

fn nics(args: &mut Args, launch: &Launch<'_>) -> Result<()> {
    let spec = launch.spec;
    let mut user_nics = 0;
    for nic in &spec.nics {
        let id = netdev(nic.index);
        match &nic.link {
            Link::Vhost { .. } => {
                // `wait=off`: all sockets appear at once. QEMU still waits, at `-netdev`, for each
                // switch port to connect.
                let path = escape(&vhost_socket(launch, nic)?);
                args.option("-chardev", format!("socket,id={id}-socket,path={path},server=on,wait=off"));
                args.option("-netdev", format!("vhost-user,id={id},chardev={id}-socket"));
            }
            Link::Tap { .. } => args.option("-netdev", format!("tap,id={id},fd={}", tap_fd(nic.index))),
            Link::User => {
                args.option("-netdev", user_netdev(&id, user_nics, &forwards(spec, nic, launch.ssh)));
                user_nics += 1;
            }
        }
        let mut device = json!({
            "driver": "virtio-net-pci",
            "id": format!("nic{}", nic.index),
            "netdev": id,
            "mac": nic.mac,
            "bus": "pcie.0",
            "addr": board::nic_slot(nic.index)?,
            // No network boot: guests boot from their first disk, and the ROM's file may be missing.
            "romfile": "",
        });
        if !launch.offload(nic) {
            for feature in ["csum", "gso", "host_tso4", "host_tso6", "host_ufo", "host_ecn"] {
                device[feature] = json!(false);
            }
        }
        if spec.accel == Accel::Tcg && matches!(nic.link, Link::Vhost { .. }) {
            // QEMU 7.2 crashes when a guest turns on MSI-X for a vhost-user NIC under TCG.
            device["vectors"] = json!(0);
        }
        args.json("-device", device);
    }
    if user_nics == 0 && launch.ssh.is_some() {
        return Err(Error::usage(format!("ssh is forwarded to `{}`, which has no `user` NIC", spec.name))
            .hint("connect to its address instead, or give the template a net of type `user`"));
    }
    Ok(())
}

/// Each further NIC gets a subnet of its own, because two equal ones would confuse the guest's
/// routing.
fn user_netdev(id: &str, nth: u8, forwards: &[Forward]) -> String {
    use std::fmt::Write;

    let mut netdev = format!("user,id={id}");
    if nth > 0 {
        let third = 2 + nth;
        let _ = write!(netdev, ",net=10.0.{third}.0/24");
    }
    for Forward { host, host_port, guest_port, protocol } in forwards {
        let host = host.map(|host| host.to_string()).unwrap_or_default();
        let _ = write!(netdev, ",hostfwd={protocol}:{host}:{host_port}-:{guest_port}");
    }
    netdev
}

fn vsock(args: &mut Args, launch: &Launch<'_>) -> Result<()> {
    let (Some(vsock), Some(cid)) = (&launch.vsock, launch.cid()) else { return Ok(()) };
    let mut device = match vsock {
        Vsock::Kernel(_) => {
            json!({"driver": "vhost-vsock-pci", "id": "vsock", "guest-cid": cid, "vhostfd": VSOCK_FD.to_string()})
        }
        Vsock::Program => {
            let path = escape(utf8(&program_socket(launch.run))?);
            args.option("-chardev", format!("socket,id=vsock-socket,path={path}"));
            json!({"driver": "vhost-user-vsock-pci", "id": "vsock", "chardev": "vsock-socket"})
        }
        Vsock::Own => return Err(Error::failed("QEMU does not serve a guest's vsock itself")),
    };
    device["bus"] = json!("pcie.0");
    device["addr"] = json!(board::VSOCK_SLOT);
    if launch.spec.accel == Accel::Tcg && matches!(vsock, Vsock::Program) {
        // As for vhost-user NICs: QEMU 7.2 crashes.
        device["vectors"] = json!(0);
    }
    args.json("-device", device);
    Ok(())
}

fn serial(args: &mut Args, launch: &Launch<'_>) -> Result<()> {
    let path = launch.serial_socket();
    args.option("-chardev", format!("socket,id=serial,path={},server=on,wait=off", escape(utf8(&path)?)));
    args.option("-serial", "chardev:serial");
    Ok(())
}

/// A socket's path must fit into the kernel's `sun_path`; QEMU says so too, but later and one by one.
fn check_sockets(launch: &Launch<'_>) -> Result<()> {
    const MOST: usize = 107;
    let nics = launch.spec.nics.iter().filter(|nic| matches!(nic.link, Link::Vhost { .. }));
    let mut sockets = vec![launch.serial_socket(), launch.api_socket(), line_socket(launch.run)];
    sockets.extend(nics.map(|nic| launch.run.join(nic.socket())));
    match sockets.iter().find(|path| path.as_os_str().len() > MOST) {
        None => Ok(()),
        Some(path) => Err(Error::usage(format!(
            "the socket `{}` has a path of {} bytes, and {MOST} is the most that the kernel takes",
            path.display(),
            path.as_os_str().len()
        ))
        .hint("use a shorter folder for the runtime files, e.g. with `--root DIR`")),
    }
}

fn vhost_socket(launch: &Launch<'_>, nic: &Nic) -> Result<String> {
    Ok(utf8(&launch.run.join(nic.socket()))?.to_owned())
}

fn in_dir(launch: &Launch<'_>, file: &str) -> Result<String> {
    Ok(utf8(&launch.dir.join(file))?.to_owned())
}

/// A value of an option that is split at commas.
/// The QMP socket's option where no descriptor can be passed.
pub(super) fn qmp_by_path(launch: &Launch<'_>) -> Result<String> {
    Ok(format!("socket,id=qmp,path={},server=on,wait=off", escape(utf8(&launch.api_socket())?)))
}

fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// A path that stands alone as an argument; a relative one could read as an option.
fn absolute(path: &Path) -> Result<&str> {
    if path.is_absolute() {
        return utf8(path);
    }
    Err(Error::usage(format!("the path `{}` is not absolute", path.display())))
}

pub(super) fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::usage(format!("the path {path:?} is not valid UTF-8"))
            .hint("rename the file or folder: QEMU takes its disks as JSON text")
    })
}

#[cfg(test)]
#[path = "argv_tests.rs"]
mod tests;
