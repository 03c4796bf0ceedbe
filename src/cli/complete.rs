//! What the shell is told while a person types: the names that exist now.

use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use crate::host::Dirs;
use crate::vm::Site;

/// When the shell asks (the variable `COMPLETE` is set), answers and ends the process.
pub(super) fn answer_the_shell() {
    CompleteEnv::with_factory(super::command).complete();
}

/// The site that the environment names: `--root` on the half-typed line is not seen.
fn site() -> Option<Site> {
    Dirs::find(super::root_of_environment().as_deref()).ok().map(Site::new)
}

/// The names of the VMs, with their states.
pub(super) fn vm_names() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let site = site().filter(|site| site.dirs.database().exists());
        let records = site.and_then(|site| site.store().ok()?.list().ok()).unwrap_or_default();
        records
            .into_iter()
            .map(|record| {
                CompletionCandidate::new(record.spec.name.as_str()).help(Some(record.state.to_string().into()))
            })
            .collect()
    })
}

/// The names of the templates.
pub(super) fn template_names() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let config = site().and_then(|site| site.config().ok());
        let templates = config.map(|config| config.templates).unwrap_or_default();
        templates
            .into_iter()
            .map(|template| {
                let help = format!("{} vCPU, {}", template.vcpu, template.vram);
                CompletionCandidate::new(template.name.as_str()).help(Some(help.into()))
            })
            .collect()
    })
}
