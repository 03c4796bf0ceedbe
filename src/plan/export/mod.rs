//! The part of a config that declares a VM as it is: over its template where that can be said, else
//! over one of its own.

mod devices;
mod lines;

use crate::config::{Config, HypervisorSetting, Template};
use crate::error::Result;
use crate::spec::{Boot, HypervisorKind, Labels, Name, OnRemove, VmSpec};
use crate::store::Record;
use lines::{Lines, number, text};

/// `taken`: the names of templates that are there, those that were made before this one with them.
pub fn export(config: &Config, record: &Record, taken: &mut Vec<Name>) -> Result<String> {
    let spec = &record.spec;
    let mut vm = Lines::default();
    let over = config.templates.iter().find(|template| template.name == spec.template);
    let said = over.map(|template| over_template(config, record, template, "vm.")).transpose()?;
    let (template, before) = match said.filter(|said| !said.unsaid) {
        Some(said) => {
            head(&mut vm, config, record, &spec.template);
            return Ok(format!("[[vm]]\n{}{}", vm.text(), said.text()));
        }
        None => {
            let name = free(&spec.name, taken);
            let own = over_template(config, record, &Template::blank(name.clone()), "template.vm.")?;
            taken.push(name.clone());
            (name.clone(), format!("[[template.vm]]\nname = {}\n{}\n", text(&name), own.text()))
        }
    };
    head(&mut vm, config, record, &template);
    Ok(format!("{before}[[vm]]\n{}", vm.text()))
}

fn head(vm: &mut Lines, config: &Config, record: &Record, template: &Name) {
    vm.say("name", text(&record.spec.name));
    vm.say("template", text(template));
    if !record.state.is_live() {
        vm.say("running", false);
    }
    let declared = record.declared.as_ref();
    let on_remove = declared.map_or(OnRemove::Stop, |declared| declared.on_remove);
    vm.value("on-remove", on_remove, &OnRemove::Stop, text);
    // Only a digest of it is recorded; the files are named where it is declared.
    let entry = config.vms.iter().find(|vm| vm.name == record.spec.name);
    if let Some(entry) = entry.filter(|entry| !entry.user_data.is_empty()) {
        let paths: Vec<String> = entry.user_data.iter().map(|path| path.display().to_string()).collect();
        vm.say("user-data", lines::list(&paths));
    }
}

/// Whether the files that its first boot was told are not known.
pub fn lacks_user_data(config: &Config, record: &Record) -> bool {
    let told = record.declared.as_ref().is_some_and(|declared| declared.user_data.is_some());
    told && !config.vms.iter().any(|vm| vm.name == record.spec.name && !vm.user_data.is_empty())
}

/// All that the VM is and the template is not. `tables`: what stands before `disk` and `net`.
fn over_template(config: &Config, record: &Record, below: &Template, tables: &str) -> Result<Lines> {
    let spec = &record.spec;
    let mut lines = Lines::default();
    lines.value("vcpu", spec.vcpu, &below.vcpu, number);
    lines.value("vram", spec.vram, &below.vram, text);
    lines.maybe("vcpu-max", spec.vcpu_max, below.vcpu_max, number);
    lines.maybe("vram-max", spec.vram_max, below.vram_max, text);
    hypervisor(&mut lines, config, record, below);
    boot(&mut lines, config, record, below);
    policy(&mut lines, spec, below);
    labels(&mut lines, &spec.labels, &below.labels);
    devices::disks(&mut lines, config, spec, below, tables)?;
    devices::nets(&mut lines, config, spec, below, tables);
    Ok(lines)
}

/// One that was left to Virshle is left to it again.
fn hypervisor(lines: &mut Lines, config: &Config, record: &Record, below: &Template) {
    let is = record.spec.hypervisor;
    let setting = match is {
        HypervisorKind::CloudHypervisor => HypervisorSetting::CloudHypervisor,
        HypervisorKind::Qemu => HypervisorSetting::Qemu,
    };
    let named = below.hypervisor.unwrap_or(config.node.hypervisor);
    let was_named = record.declared.as_ref().is_some_and(|declared| declared.hypervisor.is_some());
    if named != setting && (named != HypervisorSetting::Auto || was_named) {
        lines.say("hypervisor", text(is));
    }
}

fn boot(lines: &mut Lines, config: &Config, record: &Record, below: &Template) {
    let path = |path: &std::path::Path| text(path.display());
    match &record.spec.boot {
        Boot::Kernel { kernel, initramfs, cmdline } => {
            lines.maybe("kernel", Some(kernel.as_path()), below.kernel.as_deref(), path);
            lines.maybe("initramfs", initramfs.as_deref(), below.initramfs.as_deref(), path);
            lines.value("cmdline", cmdline.as_str(), &below.cmdline.as_deref().unwrap_or_default(), text);
        }
        Boot::Firmware { code, .. } => {
            let node = match record.spec.hypervisor {
                HypervisorKind::CloudHypervisor => &config.node.cloud_hypervisor.firmware,
                HypervisorKind::Qemu => &config.node.qemu.firmware,
            };
            let named = below.firmware.as_ref().or(node.as_ref());
            let was_named = record.declared.as_ref().is_some_and(|declared| declared.firmware.is_some());
            let other = named.map_or(was_named, |named| named != code);
            if other || below.kernel.is_some() {
                lines.say("firmware", path(code));
            }
        }
    }
}

fn policy(lines: &mut Lines, spec: &VmSpec, below: &Template) {
    let (is, there) = (&spec.policy, below.policy());
    lines.value("restart", is.restart, &there.restart, text);
    lines.value("watchdog", is.watchdog, &there.watchdog, |on| on);
    lines.value("autostart", is.autostart.is_some(), &there.autostart.is_some(), |on| on);
    if let Some(autostart) = is.autostart {
        let there = there.autostart.unwrap_or_default();
        lines.value("autostart-order", autostart.order, &there.order, number);
        lines.value("autostart-delay", autostart.delay, &there.delay, number);
    }
    let mut limits = Lines::default();
    limits.maybe("cpus", is.limits.millicpus, there.limits.millicpus, |millicpus| f64::from(millicpus) / 1000.0);
    limits.maybe("memory", is.limits.memory, there.limits.memory, text);
    lines.inline("limits", &limits);
    lines.value("stop-timeout", is.stop_timeout, &there.stop_timeout, number);
    lines.value("protect", is.protect, &there.protect, |on| on);
}

fn labels(lines: &mut Lines, is: &Labels, below: &Labels) {
    let mut table = Lines::default();
    for (key, value) in is.iter().filter(|(key, value)| below.get(key) != Some(value)) {
        table.say(key, text(value));
    }
    table.unsaid = below.iter().any(|(key, _)| is.get(key).is_none());
    lines.inline("labels", &table);
}

/// The VM's own name, or that with a number.
fn free(name: &Name, taken: &[Name]) -> Name {
    let numbered = (2..).map_while(|number| name.with_suffix(number).ok());
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or_else(|| name.clone())
}
