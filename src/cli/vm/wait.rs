use std::time::Duration;

use clap::{Args, ValueEnum};

use super::select::Many;
use crate::cli::for_each;
use crate::cli::ui::Ui;
use crate::error::Result;
use crate::vm::{self, Goal, Site};

/// Wait until VMs run, have stopped, or answer on ssh
#[derive(Debug, Args)]
pub(crate) struct Wait {
    #[command(flatten)]
    vms: Many,
    /// What to wait for
    #[arg(long = "for", value_enum, default_value = "ssh", value_name = "GOAL")]
    goal: For,
    /// Seconds to wait, for all of them together
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum For {
    Running,
    Stopped,
    Ssh,
}

impl Wait {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let mut store = site.store()?;
        let goal = match self.goal {
            For::Running => Goal::Running,
            For::Stopped => Goal::Stopped,
            For::Ssh => Goal::Ssh,
        };
        let timeout = Duration::from_secs(self.timeout);
        let until = std::time::Instant::now() + timeout;
        for_each(self.vms.find(&store)?, ui, |record| {
            let record = vm::reconcile(site, &mut store, record)?.record;
            vm::wait_for(site, &store, record.spec.uuid, goal, until, timeout)?;
            ui.say(match goal {
                Goal::Running => format!("`{}` runs", record.spec.name),
                Goal::Stopped => format!("`{}` has stopped", record.spec.name),
                Goal::Ssh => format!("`{}` answers on ssh", record.spec.name),
            });
            Ok(())
        })
    }
}
