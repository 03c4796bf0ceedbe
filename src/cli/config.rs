use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ui::{Ui, count};
use crate::config;
use crate::error::{OrFailed, Result};
use crate::vm::Site;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Check(Check),
    /// Print the JSON schema of the config file, for editors
    Schema,
}

/// Check the config, or one file: says where the first mistake is, and changes nothing
#[derive(Debug, Args)]
pub(super) struct Check {
    /// A file; without one, the config with its drop-ins
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
}

impl Check {
    pub(super) fn is_of_a_file(&self) -> bool {
        self.file.is_some()
    }
}

pub(super) fn run(command: Command, site: &Site, ui: &Ui) -> Result<()> {
    match command {
        Command::Check(Check { file }) => {
            let (config, what) = match &file {
                Some(file) => (config::check(file)?, file.display().to_string()),
                None => (site.config()?, site.dirs.config_file().display().to_string()),
            };
            ui.say(format!(
                "`{what}` is fine: {}, {}, {}, {}",
                count(config.templates.len(), "template"),
                count(config.networks.len(), "network"),
                count(config.images.len(), "image"),
                count(config.vms.len(), "VM")
            ));
        }
        Command::Schema => {
            let schema = serde_json::to_string_pretty(&config::json_schema());
            ui.data(schema.or_failed(|| "cannot write the schema".to_owned())?);
        }
    }
    Ok(())
}
