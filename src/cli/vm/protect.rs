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
        let mut declared = Vec::new();
        let done = for_each(self.vms.find(&store)?, ui, |record| {
            let name = &record.spec.name;
            vm::set_policy(site, &mut store, record.spec.uuid, |policy| policy.protect = !self.off)?;
            ui.say(match self.off {
                false => format!("protected `{name}`"),
                true => format!("`{name}` can be deleted"),
            });
            if record.is_declared() {
                declared.push(record.spec.name);
            }
            Ok(())
        });
        // What the config says otherwise holds; a config that is wrong is another day's matter.
        if !declared.is_empty()
            && let Ok(config) = site.config()
        {
            for vm in config.vms.iter().filter(|vm| declared.contains(&vm.name) && vm.template.protect == self.off) {
                let (name, protect) = (&vm.name, self.off);
                ui.say(format!(
                    "note: the config declares `{name}` with `protect = {protect}`: the next `v apply` sets that"
                ));
            }
        }
        done
    }
}
