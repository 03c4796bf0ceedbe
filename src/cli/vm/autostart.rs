use std::time::Duration;

use clap::Args;

use super::start::{start_all, startable};
use crate::cli::for_each;
use crate::cli::ui::Ui;
use crate::error::Result;
use crate::host;
use crate::vm::{self, Site};

/// Start the VMs that start with the host, in their order
///
/// For the host's start: virshle-autostart.service runs it, or rc.local, or cron at `@reboot`. VMs
/// of one order start together; one that fails does not keep the others. What runs already is left
/// alone, and not waited for.
#[derive(Debug, Args)]
pub(crate) struct Autostart {
    /// Seconds for each hypervisor to come up
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Autostart {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let mut store = site.store()?;
        let groups = vm::autostart(store.list()?);
        if groups.is_empty() {
            ui.say("no VM starts with the host");
        }
        let timeout = Duration::from_secs(self.timeout);
        let mut pause = Duration::ZERO;
        let mut failures = Vec::new();
        for group in groups {
            let mut records = Vec::new();
            for record in group.vms {
                match startable(site, &mut store, vec![record]) {
                    Ok(found) => records.extend(found),
                    Err(error) => failures.push(error),
                }
            }
            if records.is_empty() {
                continue;
            }
            host::pause(std::mem::replace(&mut pause, group.delay));
            if let Err(error) = start_all(site, &mut store, records, timeout, None, ui) {
                failures.push(error);
            }
        }
        for_each(failures, ui, Err)
    }
}
