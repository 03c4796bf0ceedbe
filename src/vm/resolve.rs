//! What the host decides for a template: which hypervisor, on what, from which firmware.

use crate::config::{Config, HypervisorSetting, Template};
use crate::error::{Error, Result};
use crate::host::find_program;
use crate::hypervisor::{self, Choice, Host, Needs, cloud_hypervisor, qemu};
use crate::network::passt::Passt;
use crate::spec::{Boot, HypervisorKind, Link, VmSpec};
use crate::template::{self, Resolved, Settled};

/// The hypervisors of this host, with the programs the config names.
pub fn hosts(config: &Config) -> Host {
    Host::probe(config.node.cloud_hypervisor.program.as_deref(), config.node.qemu.program.as_deref())
}

/// A program that the config names must be there: falling back to another would hide the mistake.
fn check_named(config: &Config) -> Result<()> {
    let named =
        [("node.cloud-hypervisor", &config.node.cloud_hypervisor.program), ("node.qemu", &config.node.qemu.program)];
    for (table, program) in named {
        if let Some(program) = program.as_deref().filter(|program| find_program(program).is_none()) {
            return Err(Error::usage(format!(
                "`{}`, which the config names in `[{table}]`, is no program that can be run",
                program.display()
            ))
            .hint("mend `program`, or leave it out: then `PATH` is searched"));
        }
    }
    Ok(())
}

/// How each NIC of a template meets its network.
pub fn links(config: &Config, template: &Template) -> Result<Vec<Link>> {
    Ok(template::nics(config, template, &mut |network| Ok(Settled::by_config(network)))?
        .into_iter()
        .map(|nic| nic.link)
        .collect())
}

/// Decides, once, at create; start finds it in the spec.
pub fn resolve(config: &Config, template: &Template) -> Result<(Resolved, Choice)> {
    let wanted = match template.hypervisor.unwrap_or(config.node.hypervisor) {
        HypervisorSetting::Auto => None,
        HypervisorSetting::CloudHypervisor => Some(HypervisorKind::CloudHypervisor),
        HypervisorSetting::Qemu => Some(HypervisorKind::Qemu),
    };
    let choice = choose(config, template, wanted)?;
    let boot = match kernel(template) {
        Some(boot) => boot,
        None => firmware(config, template, choice.kind)?,
    };
    Ok((Resolved { hypervisor: choice.kind, accel: choice.accel, boot }, choice))
}

fn choose(config: &Config, template: &Template, wanted: Option<HypervisorKind>) -> Result<Choice> {
    check_named(config)?;
    let links = links(config, template)?;
    let needs = Needs::of(&links.iter().collect::<Vec<_>>(), template.kernel.is_some());
    let host = Host { passt: needs.user && Passt::find().program().is_ok(), ..hosts(config) };
    hypervisor::choose(wanted, config.node.accel.named(), &needs, &host)
}

/// What was decided for a VM that is there, as far as its template and the node leave it undecided.
pub(super) fn as_before(config: &Config, template: &Template, spec: &VmSpec) -> Result<Resolved> {
    let boot = match (kernel(template), &spec.boot) {
        (Some(boot), _) => boot,
        (None, Boot::Firmware { .. }) => spec.boot.clone(),
        (None, Boot::Kernel { .. }) => firmware(config, template, spec.hypervisor)?,
    };
    // cloud-hypervisor has one alone.
    let other =
        config.node.accel.named().filter(|accel| *accel != spec.accel && spec.hypervisor == HypervisorKind::Qemu);
    let accel = match other {
        Some(_) => choose(config, template, Some(spec.hypervisor))?.accel,
        None => spec.accel,
    };
    Ok(Resolved { hypervisor: spec.hypervisor, accel, boot })
}

fn kernel(template: &Template) -> Option<Boot> {
    Some(Boot::Kernel {
        kernel: template.kernel.clone()?,
        initramfs: template.initramfs.clone(),
        cmdline: template.cmdline.clone().unwrap_or_default(),
    })
}

fn firmware(config: &Config, template: &Template, kind: HypervisorKind) -> Result<Boot> {
    match kind {
        HypervisorKind::CloudHypervisor => {
            let named = template.firmware.as_deref().or(config.node.cloud_hypervisor.firmware.as_deref());
            cloud_hypervisor::firmware(named)
        }
        HypervisorKind::Qemu => {
            let code = template.firmware.as_deref().or(config.node.qemu.firmware.as_deref());
            qemu::firmware(code, config.node.qemu.vars.as_deref())
        }
    }
}
