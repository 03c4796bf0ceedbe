use clap::Args;

use super::select::Many;
use crate::cli::ui::Ui;
use crate::error::{Error, Result};
use crate::plan;
use crate::spec::{Name, State};
use crate::vm::Site;

/// Write the `[[vm]]` that declares a VM as it is
///
/// It stands over the VM's template; where that says what the VM has not, it comes with a template of its
/// own. With it in the config, `v apply --adopt NAME` makes the VM the config's, and changes nothing.
#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    vms: Many,
}

impl Export {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let config = site.config()?;
        let records = self.vms.find(&site.reader()?)?;
        let mut taken: Vec<Name> = config.templates.iter().map(|template| template.name.clone()).collect();
        let mut texts = Vec::new();
        for record in records {
            let name = &record.spec.name;
            if matches!(record.state, State::Creating | State::Deleting) {
                return Err(Error::refused(format!("cannot export `{name}`: it is {}", record.state)));
            }
            texts.push(plan::export(&config, &record, &mut taken)?);
            if plan::lacks_user_data(&config, &record) {
                ui.say(format!("note: what `{name}` was told at its first boot is not known: `user-data` is left out"));
            }
        }
        ui.data(texts.join("\n"));
        Ok(())
    }
}
