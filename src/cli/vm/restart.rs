use std::time::Duration;

use clap::Args;

use super::select::Many;
use super::start::start_all;
use super::stop::How;
use crate::cli::side_by_side;
use crate::cli::ui::Ui;
use crate::error::{Error, Result};
use crate::spec::Intent;
use crate::store::Record;
use crate::vm::{self, Restarted, Site};

/// Stop VMs in order and start them again; one that does not run is started
#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    vms: Many,
    #[command(flatten)]
    how: How,
}

impl Restart {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let records = self.vms.find(&site.store()?)?;
        side_by_side(records, ui, |record| restart_one(site, record, &self.how, ui))
    }
}

fn restart_one(site: &Site, record: Record, how: &How, ui: &Ui) -> Result<()> {
    let mut store = site.store()?;
    let (vm, name) = (record.spec.uuid, record.spec.name.clone());
    let timeout = how.timeout(&record);
    let observed = vm::reconcile(site, &mut store, record)?;
    // One that waits for its next attempt is not kept waiting.
    if !observed.state.is_run() {
        return start_all(site, &mut store, vec![observed.record], Duration::from_secs(60), None, ui);
    }
    let mut outcome = Restarted::StillRunning;
    if !(how.at_once() || observed.unwatched && how.force) {
        outcome = vm::restart(site, &mut store, observed.record, Some(timeout))?;
        if outcome == Restarted::StillRunning && how.force {
            ui.say(format!("`{name}` has not shut down in {} s: cutting its power", timeout.as_secs()));
        }
    }
    if outcome == Restarted::StillRunning && how.force {
        let gone = || Error::not_found("the VM was deleted meanwhile");
        let record = store.get(vm)?.ok_or_else(gone)?;
        outcome = match vm::restart(site, &mut store, record, None) {
            Ok(outcome) => outcome,
            // Its hypervisor hangs, so there is no supervisor to ask.
            Err(_) if vm::observe(site, store.get(vm)?.ok_or_else(gone)?)?.unwatched => {
                vm::force_stop(site, &mut store, vm, Intent::Stop)?;
                let record = store.get(vm)?.ok_or_else(gone)?;
                return start_all(site, &mut store, vec![record], Duration::from_secs(60), None, ui);
            }
            Err(error) => return Err(error),
        };
    }
    match outcome {
        Restarted::Running => {
            ui.say(format!("restarted `{name}`"));
            Ok(())
        }
        Restarted::StillRunning => Err(how.still_running(&name, timeout)),
    }
}
