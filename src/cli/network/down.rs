use clap::Args;

use super::select::Many;
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
        self.networks.each_that_is_up(site, ui, |config, name| {
            ui.say(match networks::down(site, config, name)? {
                Fallen::Down => format!("network `{name}` is down"),
                Fallen::Already => format!("network `{name}` is down already"),
            });
            Ok(())
        })
    }
}
