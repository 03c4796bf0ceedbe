use clap::Args;

use super::select::Many;
use crate::cli::ui::Ui;
use crate::error::Result;
use crate::vm::Site;
use crate::vm::networks;

/// Make what is missing of networks that are up: bridge, addresses, firewall, name server, names
///
/// From what is recorded, whatever the config says by now. One that a killed command left half up
/// or half down is finished.
#[derive(Debug, Args)]
pub(crate) struct Repair {
    #[command(flatten)]
    networks: Many,
}

impl Repair {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        self.networks.each_that_is_up(site, ui, |config, name| {
            let repaired = networks::repair(site, config, name)?;
            let word = if repaired.already { "is as it should be" } else { "is mended" };
            ui.say(format!("network `{name}` {word}"));
            repaired.notes.iter().for_each(|note| ui.say(format!("note: {note}")));
            Ok(())
        })
    }
}
