use clap::Args;

use crate::cli::complete;
use crate::cli::ui::Ui;
use crate::error::Result;
use crate::spec::Name;
use crate::vm::{self, Site};

/// Give a VM another name
///
/// Its uuid, number, addresses and disks stay as they are. The guest of one that runs takes over
/// its new host name when the VM is started again. Of one that the config declares, the name is changed
/// there too, before the next `v apply`.
#[derive(Debug, Args)]
pub(crate) struct Rename {
    /// A name, a number, or a uuid (its first 4 digits are enough)
    #[arg(value_name = "VM", add = complete::vm_names())]
    vm: String,
    /// The new name
    #[arg(value_name = "NEW")]
    new: Name,
}

impl Rename {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let mut store = site.store()?;
        let record = store.find(&self.vm)?;
        let (old, live) = (&record.spec.name, record.state.is_live());
        let still_declared = vm::rename(site, &mut store, record.spec.uuid, &self.new)?;
        ui.say(format!("renamed `{old}` to `{}`", self.new));
        if still_declared {
            let new = &self.new;
            ui.say(format!(
                "note: the config still declares `{old}`: until it names `{new}` instead, `v apply` makes another `{old}`"
            ));
        }
        // A config that is wrong is another day's matter.
        if record.declared.is_none() && site.config().is_ok_and(|config| config.vm(&self.new).is_some()) {
            let new = &self.new;
            ui.say(format!("note: the config declares `{new}`: `v apply --adopt {new}` takes this VM in"));
        }
        if live && record.spec.seed {
            ui.say("its guest takes over the host name when it is started again");
        }
        Ok(())
    }
}
