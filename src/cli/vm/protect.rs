use clap::Args;

use super::select::Many;
use crate::cli::for_each;
use crate::cli::ui::Ui;
use crate::error::Result;
use crate::vm::{self, Site};

/// Keep VMs from being deleted
///
/// Of a VM that the config declares, `protect` there has the last word, with the next `v apply`.
#[derive(Debug, Args)]
pub(crate) struct Protect {
    #[command(flatten)]
    vms: Many,
    /// Let them be deleted again
    #[arg(long)]
    off: bool,
}

impl Protect {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let mut store = site.store()?;
        for_each(self.vms.find(&store)?, ui, |record| {
            let name = &record.spec.name;
            vm::set_policy(site, &mut store, record.spec.uuid, |policy| policy.protect = !self.off)?;
            ui.say(match self.off {
                false => format!("protected `{name}`"),
                true => format!("`{name}` can be deleted"),
            });
            Ok(())
        })
    }
}
