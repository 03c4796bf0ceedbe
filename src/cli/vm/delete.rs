use clap::Args;

use super::select::Many;
use crate::cli::for_each;
use crate::cli::ui::Ui;
use crate::error::Result;
use crate::vm::{self, Site};

/// Delete VMs with their disks, for good
#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    vms: Many,
    /// Cut the power of a VM that runs
    #[arg(long)]
    force: bool,
}

impl Delete {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let mut store = site.store()?;
        for_each(self.vms.find(&store)?, ui, |record| {
            let name = record.spec.name.clone();
            vm::delete(site, &mut store, record, self.force)?;
            ui.say(format!("deleted `{name}`"));
            Ok(())
        })
    }
}
