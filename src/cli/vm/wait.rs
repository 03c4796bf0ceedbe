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
        let store = site.store()?;
        let goal = match self.goal {
            For::Running => Goal::Running,
            For::Stopped => Goal::Stopped,
            For::Ssh => Goal::Ssh,
        };
        let until = std::time::Instant::now() + Duration::from_secs(self.timeout);
        for_each(self.vms.find(&store)?, ui, |record| {
            let left = until.saturating_duration_since(std::time::Instant::now());
            vm::wait_for(site, &store, record.spec.uuid, goal, left)
        })
    }
}
