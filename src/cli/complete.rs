//! What the shell is told while a person types: the names that exist now.

use std::collections::BTreeSet;

use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use serde::Deserialize;

use crate::host::Dirs;
use crate::spec::Labels;
use crate::vm::Site;

/// When the shell asks (the variable `COMPLETE` is set), answers and ends the process.
pub(super) fn answer_the_shell() {
    CompleteEnv::with_factory(super::command).complete();
}

/// The site that the environment names: `--root` on the half-typed line is not seen.
fn site() -> Option<Site> {
    Dirs::find(super::root_of_environment().as_deref()).ok().map(Site::new)
}

/// The rows that a listing of root's helper prints, for one who may ask it.
fn rows(listing: [&str; 4]) -> Option<Vec<serde_json::Value>> {
    let dirs = super::relay::helper(super::root_of_environment().as_deref())?;
    serde_json::from_str(&super::relay::answer(&dirs, &listing)?).ok()
}

fn candidate(row: &serde_json::Value, help: impl FnOnce(&serde_json::Value) -> String) -> Option<CompletionCandidate> {
    Some(CompletionCandidate::new(row["name"].as_str()?).help(Some(help(row).into())))
}

/// The names of the VMs, with their states.
pub(super) fn vm_names() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        if let Some(rows) = rows(["vm", "ls", "-o", "json"]) {
            let state = |row: &serde_json::Value| row["state"].as_str().unwrap_or_default().to_owned();
            return rows.iter().filter_map(|row| candidate(row, state)).collect();
        }
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

/// The labels of the VMs, with and without their values.
pub(super) fn labels() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let all: Vec<Labels> = match rows(["vm", "ls", "-o", "json"]) {
            Some(rows) => rows.iter().filter_map(|row| Labels::deserialize(&row["labels"]).ok()).collect(),
            None => {
                let site = site().filter(|site| site.dirs.database().exists());
                let records = site.and_then(|site| site.store().ok()?.list().ok()).unwrap_or_default();
                records.into_iter().map(|record| record.spec.labels).collect()
            }
        };
        let texts = all.iter().flat_map(|labels| labels.iter());
        let texts: BTreeSet<String> =
            texts.flat_map(|(key, value)| [key.to_owned(), format!("{key}={value}")]).collect();
        texts.into_iter().map(CompletionCandidate::new).collect()
    })
}

/// The names of the templates.
pub(super) fn template_names() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        if let Some(rows) = rows(["template", "ls", "-o", "json"]) {
            return rows.iter().filter_map(|row| candidate(row, |row| format!("{} vCPU", row["vcpu"]))).collect();
        }
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

/// The names of the networks.
pub(super) fn network_names() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        if let Some(rows) = rows(["network", "ls", "-o", "json"]) {
            let kind = |row: &serde_json::Value| row["type"].as_str().unwrap_or_default().to_owned();
            return rows.iter().filter_map(|row| candidate(row, kind)).collect();
        }
        let config = site().and_then(|site| site.config().ok());
        let networks = config.map(|config| config.networks).unwrap_or_default();
        networks
            .into_iter()
            .map(|network| {
                CompletionCandidate::new(network.name.as_str()).help(Some(network.kind.as_str().to_owned().into()))
            })
            .collect()
    })
}
