//! Processors, memory, what runs them, and what is booted.

use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::text::{maybe, path, shown};
use crate::error::Result;
use crate::plan::change::{Class, Field};
use crate::spec::Boot;
use crate::vm;

pub(super) fn compare(draft: &mut Draft<'_>) {
    hypervisor(draft);
    size(draft);
    boot(draft);
}

/// What was left to Virshle stays as it was decided.
fn hypervisor(draft: &mut Draft<'_>) {
    let named = draft.situation.named_hypervisor(&draft.entry.template);
    let (is, was_named) = (draft.spec().hypervisor, draft.declared.hypervisor);
    let differs = match named {
        Some(kind) => kind != is,
        None => was_named.is_some(),
    };
    let new = named.map_or_else(|| "auto".to_owned(), |kind| kind.to_string());
    if !differs || draft.note(Class::Restart, Field::Hypervisor, Some(is.to_string()), Some(new)) {
        draft.declared.hypervisor = named;
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
    let (old, code) = match &spec.boot {
        Boot::Kernel { kernel, initramfs, cmdline } => {
            (Direct { kernel: Some(kernel), initramfs: initramfs.as_deref(), cmdline }, None)
        }
        Boot::Firmware { code, .. } => (Direct::default(), Some(code.as_path())),
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
    firmware(draft, code);
}

/// What was left to Virshle stays as it was decided here too. `code`: the firmware that it boots.
fn firmware(draft: &mut Draft<'_>, code: Option<&Path>) {
    let template = &draft.entry.template;
    let kind = draft.situation.named_hypervisor(template).unwrap_or(draft.spec().hypervisor);
    let named = draft.situation.named_firmware(template, kind).filter(|_| template.kernel.is_none());
    let differs = match named {
        Some(named) => code != Some(named),
        None => code.is_some() && draft.declared.firmware.is_some(),
    };
    let new = match (named, &template.kernel) {
        (Some(named), _) => path(Some(named)),
        (None, None) => Some("auto".to_owned()),
        (None, Some(_)) => None,
    };
    if !differs || draft.note(Class::Restart, Field::Firmware, path(code), new) {
        draft.declared.firmware = template.firmware.clone();
    }
}
