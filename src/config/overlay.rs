//! What a declared VM says, laid over its template.

use std::collections::{HashMap, VecDeque};

use super::declared::{DeclaredVm, VmEntry};
use super::file::{DiskEntry, NetEntry, Template};
use super::placed::{Origin, Placed};
use super::policy::LimitsEntry;
use crate::error::Result;
use crate::spec::{Label, Name};

/// The template with the VM's words in it, each key still knowing who said it.
pub(super) fn lay(vm: &Placed<VmEntry>, template: &Placed<Template>) -> Result<Placed<Template>> {
    let (own, below) = (&vm.entry, template.entry.clone());
    let (disks, disk_origins) = disks(vm, below.disks);
    let (nets, net_origins) = nets(vm, below.nets);
    let mut labels = below.labels;
    for (key, value) in own.labels.iter() {
        let label = Label { key: key.to_owned(), value: value.to_owned() };
        labels.set(label).map_err(|error| vm.wrong("labels", format_args!("are too many: {error}")))?;
    }
    // A VM boots by a kernel or by firmware: who names one, names the way.
    let by_firmware = own.firmware.is_some() && own.kernel.is_none();
    let by_kernel = own.kernel.is_some() && own.firmware.is_none();
    let not_started = own.autostart == Some(false);
    let effective = Template {
        name: below.name,
        vcpu: own.vcpu.unwrap_or(below.vcpu),
        vram: own.vram.unwrap_or(below.vram),
        vcpu_max: own.vcpu_max.or(below.vcpu_max),
        vram_max: own.vram_max.or(below.vram_max),
        hypervisor: own.hypervisor.or(below.hypervisor),
        kernel: own.kernel.clone().or(below.kernel.filter(|_| !by_firmware)),
        initramfs: own.initramfs.clone().or(below.initramfs.filter(|_| !by_firmware)),
        cmdline: own.cmdline.clone().or(below.cmdline.filter(|_| !by_firmware)),
        firmware: own.firmware.clone().or(below.firmware.filter(|_| !by_kernel)),
        restart: own.restart.unwrap_or(below.restart),
        watchdog: own.watchdog.unwrap_or(below.watchdog),
        autostart: own.autostart.unwrap_or(below.autostart),
        autostart_order: own.autostart_order.or(below.autostart_order.filter(|_| !not_started)),
        autostart_delay: own.autostart_delay.or(below.autostart_delay.filter(|_| !not_started)),
        limits: LimitsEntry {
            cpus: own.limits.cpus.or(below.limits.cpus),
            memory: own.limits.memory.or(below.limits.memory),
        },
        stop_timeout: own.stop_timeout.or(below.stop_timeout),
        protect: own.protect.unwrap_or(below.protect),
        labels,
        disks,
        nets,
    };
    Ok(vm.over(own.name.clone(), template, effective, disk_origins, net_origins))
}

/// As the rest of the program reads it.
pub(super) fn declared(vm: &VmEntry, template: Template) -> DeclaredVm {
    DeclaredVm {
        name: vm.name.clone(),
        template,
        running: vm.running,
        on_remove: vm.on_remove,
        user_data: vm.user_data.paths().to_vec(),
    }
}

fn disks(vm: &Placed<VmEntry>, below: Vec<DiskEntry>) -> (Vec<DiskEntry>, Vec<Origin>) {
    lay_list(
        &vm.entry.disks,
        below,
        |disk| &disk.name,
        |index, own, disk| {
            // What it is cloned from is one thing, in two spellings.
            if own.path.is_some() || own.image.is_some() {
                disk.path.clone_from(&own.path);
                disk.image.clone_from(&own.image);
            }
            disk.size = own.size.or(disk.size);
            if vm.says(&format!("disk[{index}].readonly")) {
                disk.readonly = own.readonly;
            }
        },
    )
}

fn nets(vm: &Placed<VmEntry>, below: Vec<NetEntry>) -> (Vec<NetEntry>, Vec<Origin>) {
    lay_list(
        &vm.entry.nets,
        below,
        |net| &net.name,
        |index, own, net| {
            let says = |key: &str| vm.says(&format!("net[{index}].{key}"));
            net.link = own.link.or(net.link);
            net.address = own.address.or(net.address);
            net.mac = own.mac.or(net.mac);
            net.rate = own.rate.or(net.rate);
            net.spoof = own.spoof.or(net.spoof);
            // A list that is written empty takes the template's away.
            if says("ports") {
                net.ports.clone_from(&own.ports);
            }
            if says("allow") {
                net.allow.clone_from(&own.allow);
            }
            if says("deny") {
                net.deny.clone_from(&own.deny);
            }
        },
    )
}

/// The first of a name meets the first of that name below, and so on; one that meets none comes after them.
fn lay_list<T: Clone>(
    own: &[T],
    below: Vec<T>,
    name: impl Fn(&T) -> &Name,
    lay: impl Fn(usize, &T, &mut T),
) -> (Vec<T>, Vec<Origin>) {
    let mut origins: Vec<Origin> = (0..below.len()).map(|index| Origin { vm: None, template: Some(index) }).collect();
    let mut unmet: HashMap<Name, VecDeque<usize>> = HashMap::new();
    for (index, entry) in below.iter().enumerate() {
        unmet.entry(name(entry).clone()).or_default().push_back(index);
    }
    let mut laid = below;
    for (index, entry) in own.iter().enumerate() {
        match unmet.get_mut(name(entry)).and_then(VecDeque::pop_front) {
            Some(place) => {
                lay(index, entry, &mut laid[place]);
                origins[place].vm = Some(index);
            }
            None => {
                laid.push(entry.clone());
                origins.push(Origin { vm: Some(index), template: None });
            }
        }
    }
    (laid, origins)
}
