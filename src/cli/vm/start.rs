use std::time::{Duration, Instant};

use clap::Args;

use super::select::Many;
use crate::cli::for_each;
use crate::cli::ui::Ui;
use crate::error::Result;
use crate::spec::VmSpec;
use crate::store::{Record, Store};
use crate::vm::{self, Goal, Site};

/// Start VMs and wait until they run
#[derive(Debug, Args)]
pub(crate) struct Start {
    #[command(flatten)]
    vms: Many,
    /// Wait until ssh answers, too
    #[arg(long)]
    wait: bool,
    /// Seconds for the hypervisor to come up; with --wait, again for ssh to answer
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Start {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let mut store = site.store()?;
        let mut records = self.vms.find(&store)?;
        if self.vms.all {
            records = startable(site, &mut store, records)?;
            if records.is_empty() {
                ui.say("there is nothing to start");
            }
        }
        let timeout = Duration::from_secs(self.timeout);
        start_all(site, &mut store, records, timeout, self.wait.then_some(timeout), ui)
    }
}

/// Of all VMs, those that do not run yet: `--all` means "see that all run".
pub(super) fn startable(site: &Site, store: &mut Store, records: Vec<Record>) -> Result<Vec<Record>> {
    let mut rest = Vec::new();
    for record in records {
        let observed = vm::reconcile(site, store, record)?;
        if !observed.state.is_live() {
            rest.push(observed.record);
        }
    }
    Ok(rest)
}

/// Launches them all, then waits for each; with `ssh`, also for its ssh server, that long.
pub(super) fn start_all(
    site: &Site,
    store: &mut Store,
    records: Vec<Record>,
    timeout: Duration,
    ssh: Option<Duration>,
    ui: &Ui,
) -> Result<()> {
    let launched: Vec<_> = records
        .into_iter()
        .map(|record| {
            let spec = record.spec.clone();
            (spec, vm::start(site, store, record, timeout))
        })
        .collect();
    for_each(launched, ui, |(spec, starting)| {
        starting?.wait()?;
        if let Some(timeout) = ssh {
            vm::wait_for(site, store, spec.uuid, Goal::Ssh, Instant::now() + timeout, timeout)?;
        }
        started(site, &spec, ui);
        Ok(())
    })
}

/// Says that it runs, and what is not as it was asked for.
pub(in crate::cli) fn started(site: &Site, spec: &VmSpec, ui: &Ui) {
    ui.say(format!("started `{}`", spec.name));
    if !vm::limits_hold(site, spec) {
        ui.say(format!(
            "warning: nothing holds `{}` to its limits: this host's VMs are no units of systemd (see `v doctor`)",
            spec.name
        ));
    }
}
