use clap::Args;

use super::select::Many;
use crate::cli::for_each;
use crate::cli::ui::Ui;
use crate::error::Result;
use crate::vm::{self, Site};

/// Pause VMs; their memory stays
#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    vms: Many,
}

/// Resume paused VMs
#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    vms: Many,
}

impl Pause {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let mut store = site.store()?;
        for_each(self.vms.find(&store)?, ui, |record| {
            let name = record.spec.name.clone();
            vm::pause(site, &mut store, record)?;
            ui.say(format!("paused `{name}`"));
            Ok(())
        })
    }
}

impl Resume {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let mut store = site.store()?;
        for_each(self.vms.find(&store)?, ui, |record| {
            let name = record.spec.name.clone();
            vm::resume(site, &mut store, record)?;
            ui.say(format!("resumed `{name}`"));
            Ok(())
        })
    }
}
