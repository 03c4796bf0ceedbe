use clap::Args;

use super::select::Many;
use crate::cli::for_each;
use crate::cli::ui::Ui;
use crate::config::Keeping;
use crate::error::{OrFailed, Result};
use crate::host;
use crate::vm::Site;
use crate::vm::networks::{self, Condition};

/// Bring networks up: their bridges, addresses, rules and name servers
///
/// `v vm start` does it by itself for the networks of its VM. One that is up already gets what is
/// missing of it.
#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    networks: Many,
    /// As the main process of a unit: bring it up, then become its name server
    #[arg(long, hide = true, conflicts_with = "all")]
    as_unit: bool,
}

impl Up {
    pub(in crate::cli) fn is_of_a_unit(&self) -> bool {
        self.as_unit
    }

    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let config = site.config()?;
        let ours = |view: &networks::View| {
            view.condition != Condition::Foreign
                && view.config.as_ref().is_some_and(|config| config.keeping() != Keeping::Theirs)
        };
        let views = self.networks.find(site, Some(&config), ours)?;
        if self.as_unit {
            return as_unit(site, &views);
        }
        if views.is_empty() {
            ui.say("there is nothing to bring up");
        }
        for_each(views, ui, |view| {
            let name = &view.name;
            let raised = networks::up(site, &config, name)?;
            ui.say(match raised.already {
                true => format!("network `{name}` is up already"),
                false => format!("network `{name}` is up"),
            });
            raised.notes.iter().for_each(|note| ui.say(format!("note: {note}")));
            Ok(())
        })
    }
}

fn as_unit(site: &Site, views: &[networks::View]) -> Result<()> {
    let failed = || "cannot become the network's name server".to_owned();
    host::serve_manager().or_failed(failed)?;
    let mut server = None;
    for view in views {
        server = networks::up_as_unit(site, &view.name)?;
    }
    host::tell_manager("READY=1");
    match server {
        Some((program, args)) => Err(host::exec(&program, &args)).or_failed(failed),
        None => Ok(()),
    }
}
