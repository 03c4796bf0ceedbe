use clap::Args;

use super::select::Many;
use crate::cli::for_each;
use crate::cli::ui::Ui;
use crate::error::Result;
use crate::vm::Site;
use crate::vm::networks::{self, Fallen};

/// Take networks down: all that was made for them goes, and settings of the host are put back
///
/// One that VMs run on is left as it is.
#[derive(Debug, Args)]
pub(crate) struct Down {
    #[command(flatten)]
    networks: Many,
}

impl Down {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        // What is up goes down whatever has become of the config.
        let config = site.config();
        let views = self.networks.find(site, config.as_ref().ok(), |view| view.record.is_some())?;
        if views.is_empty() {
            ui.say("no network is up");
        }
        for_each(views, ui, |view| {
            let name = &view.name;
            ui.say(match networks::down(site, config.as_ref().ok(), name)? {
                Fallen::Down => format!("network `{name}` is down"),
                Fallen::Already => format!("network `{name}` is down already"),
            });
            Ok(())
        })
    }
}
