//! Processors, memory, what runs them, and what is booted.

use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::text::{maybe, path, refused, shown};
use crate::error::Result;
use crate::plan::change::{Change, Class, Field};
use crate::spec::{Accel, Boot, HypervisorKind};
use crate::vm;

pub(super) fn compare(draft: &mut Draft<'_>) {
    match contradiction(draft) {
        Some(why) => draft.changes.push(why),
        None => {
            hypervisor(draft);
            accel(draft);
        }
    }
    size(draft);
    boot(draft);
}

/// What was left to Virshle stays as it was decided.
fn hypervisor(draft: &mut Draft<'_>) {
    let named = draft.situation.named_hypervisor(&draft.entry.template);
    let (is, was_named) = (draft.spec().hypervisor, draft.declared.hypervisor);
    let differs = match named {
        Some(kind) => kind != is,
        None => was_named.is_some() || !executes(is, draft.situation.named_accel()),
    };
    let new = match named {
        Some(kind) => kind.to_string(),
        // `auto` comes to the only one that can.
        None if !executes(is, draft.situation.named_accel()) => HypervisorKind::Qemu.to_string(),
        None => "auto".to_owned(),
    };
    if !differs || draft.note(Class::Restart, Field::Hypervisor, Some(is.to_string()), Some(new)) {
        draft.declared.hypervisor = named;
    }
}

/// What the node names is decided with the hypervisor, too.
fn accel(draft: &mut Draft<'_>) {
    let is = draft.spec().accel;
    let new = draft.situation.named_accel().unwrap_or(is);
    let text = |accel: &Accel| shown(&word(*accel));
    draft.value(Class::Restart, Field::Accel, (is, new), text, |spec, new| spec.accel = new);
}

/// Both are named, and do not go together.
fn contradiction(draft: &Draft<'_>) -> Option<Change> {
    let accel = draft.situation.named_accel();
    let kind = draft.situation.named_hypervisor(&draft.entry.template)?;
    let why = "`accel = \"tcg\"` is set, and cloud-hypervisor has KVM only";
    let hint = "set `hypervisor = \"qemu\"`, which has it, or leave it at \"auto\"";
    (!executes(kind, accel)).then(|| refused(Field::Accel, why, hint))
}

fn executes(kind: HypervisorKind, accel: Option<Accel>) -> bool {
    kind == HypervisorKind::Qemu || accel != Some(Accel::Tcg)
}

fn word(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg",
    }
}

fn size(draft: &mut Draft<'_>) {
    let (spec, template) = (draft.spec(), &draft.entry.template);
    let class = |live: Result<()>| if live.is_ok() { Class::Live } else { Class::Restart };
    let vcpu = class(vm::check_resize(spec, Some(template.vcpu), None));
    draft.value(vcpu, Field::Vcpu, (spec.vcpu, template.vcpu), shown, |spec, new| spec.vcpu = new);
    draft.value(Class::Restart, Field::VcpuMax, (spec.vcpu_max, template.vcpu_max), maybe, |spec, new| {
        spec.vcpu_max = new;
    });
    let vram = class(vm::check_resize(spec, None, Some(template.vram)));
    draft.value(vram, Field::Vram, (spec.vram, template.vram), shown, |spec, new| spec.vram = new);
    draft.value(Class::Restart, Field::VramMax, (spec.vram_max, template.vram_max), maybe, |spec, new| {
        spec.vram_max = new;
    });
}

/// A kernel with what goes with it; without one the firmware is booted.
#[derive(Default)]
struct Direct<'a> {
    kernel: Option<&'a Path>,
    initramfs: Option<&'a Path>,
    cmdline: &'a str,
}

fn boot(draft: &mut Draft<'_>) {
    let (spec, template) = (draft.spec(), &draft.entry.template);
    let (old, firmware_before) = match &spec.boot {
        Boot::Kernel { kernel, initramfs, cmdline } => {
            (Direct { kernel: Some(kernel), initramfs: initramfs.as_deref(), cmdline }, None)
        }
        Boot::Firmware { code, vars } => (Direct::default(), Some((code.as_path(), vars.as_deref()))),
    };
    let new = Direct {
        kernel: template.kernel.as_deref(),
        initramfs: template.initramfs.as_deref(),
        cmdline: template.cmdline.as_deref().unwrap_or_default(),
    };
    let line = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let rows = [
        (Field::Kernel, path(old.kernel), path(new.kernel)),
        (Field::Initramfs, path(old.initramfs), path(new.initramfs)),
        (Field::Cmdline, line(old.cmdline), line(new.cmdline)),
    ];
    for (field, old, new) in rows.into_iter().filter(|(_, old, new)| old != new) {
        draft.note(Class::Restart, field, old, new);
    }
    if let Some(kernel) = new.kernel.filter(|_| draft.restarts()) {
        let (kernel, initramfs) = (kernel.to_owned(), new.initramfs.map(PathBuf::from));
        draft.target.boot = Boot::Kernel { kernel, initramfs, cmdline: new.cmdline.to_owned() };
    }
    firmware(draft, firmware_before);
}

/// What was left to Virshle stays as it was decided here too. `old`: the firmware that it boots, and the
/// variables that its own began as.
fn firmware(draft: &mut Draft<'_>, old: Option<(&Path, Option<&Path>)>) {
    let template = &draft.entry.template;
    let kind = draft.situation.named_hypervisor(template).unwrap_or(draft.spec().hypervisor);
    let named = draft.situation.named_firmware(template, kind).filter(|_| template.kernel.is_none());
    let (code, old_vars) = (old.map(|(code, _)| code), old.and_then(|(_, vars)| vars));
    let new_vars = draft.situation.named_variables(kind);
    let others = named.is_some() && code == named && new_vars.is_some() && old_vars != new_vars;
    let differs = match named {
        Some(named) => code != Some(named) || others,
        None => code.is_some() && draft.declared.firmware.is_some(),
    };
    let new = match (named, &template.kernel) {
        (Some(named), _) => path(Some(named)),
        (None, None) => Some("auto".to_owned()),
        (None, Some(_)) => None,
    };
    // Of the same firmware it is they that differ.
    let vars = |vars| path(vars).map(|vars| format!("vars {vars}"));
    let (old, new) = if others { (vars(old_vars), vars(new_vars)) } else { (path(code), new) };
    if !differs || draft.note(Class::Restart, Field::Firmware, old, new) {
        draft.declared.firmware = template.firmware.clone();
    }
}
