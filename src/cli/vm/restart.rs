use std::time::Duration;

use clap::Args;

use super::select::Many;
use super::start::start_all;
use super::stop::{How, stop_one};
use crate::cli::for_each;
use crate::cli::ui::Ui;
use crate::error::{Error, Result};
use crate::spec::Intent;
use crate::vm::{self, Site};

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
        let mut store = site.store()?;
        let records = self.vms.find(&store)?;
        for_each(records, ui, |record| {
            let observed = vm::reconcile(site, &mut store, record)?;
            let vm = observed.record.spec.uuid;
            if observed.state.is_live() {
                stop_one(site, observed.record, &self.how, Intent::Restart, ui)?;
            }
            let record = store.get(vm)?.ok_or_else(|| Error::not_found("the VM was deleted meanwhile"))?;
            start_all(site, &mut store, vec![record], Duration::from_secs(60), None, ui)
        })
    }
}
