use clap::Args;

use super::select::Many;
use crate::cli::for_each;
use crate::cli::ui::Ui;
use crate::error::Result;
use crate::vm::{self, Site};

/// Delete VMs with their disks, for good
///
/// One that is protected stays (see `v vm protect`). One that the config declares comes back, new, with
/// the next `v apply`.
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
        let mut declared = Vec::new();
        let deleted = for_each(self.vms.find(&store)?, ui, |record| {
            let name = record.spec.name.clone();
            let of_the_config = record.is_declared();
            vm::delete(site, &mut store, record, self.force)?;
            ui.say(format!("deleted `{name}`"));
            if of_the_config {
                declared.push(name);
            }
            Ok(())
        });
        // Only one that the config still names comes back; a config that is wrong is another day's matter.
        if !declared.is_empty()
            && let Ok(config) = site.config()
        {
            for name in declared.iter().filter(|name| config.vms.iter().any(|vm| vm.name == **name)) {
                ui.say(format!("note: the config declares `{name}`: the next `v apply` makes it anew"));
            }
        }
        deleted
    }
}
