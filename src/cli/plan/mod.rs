mod fit;
mod show;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod page;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::complete;
use super::ui::{Format, Ui};
use crate::config;
use crate::error::{Error, Result};
use crate::plan::{self, Wishes};
use crate::spec::Name;
use crate::vm::Site;

pub(super) use show::{Row, rows, table, talk};

/// Say what `v apply` would do to bring the VMs to what the config declares
///
/// It changes nothing and asks no hypervisor and no guest. Exit code 0: nothing to do; 10: something
/// to do; 4: something of it is refused.
#[derive(Debug, Args)]
pub(super) struct Plan {
    #[command(flatten)]
    wished: Wished,
    /// Compare with FILE in the place of the config file; the drop-ins are laid over it, too
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What a person allows beyond what disturbs nobody.
#[derive(Debug, Clone, Args)]
pub(super) struct Wished {
    /// Let VMs be restarted where a change needs that
    #[arg(long)]
    restart: bool,
    /// Let these VMs be deleted, with their disks, and made anew: `web`, or `web,db`; may be given more
    /// than once
    #[arg(long, value_name = "NAME", value_delimiter = ',', add = complete::vm_names())]
    replace: Vec<Name>,
    /// Take in these VMs, which were made by hand, as the declared ones of their names: `web`, or
    /// `web,db`; may be given more than once
    #[arg(long, value_name = "NAME", value_delimiter = ',', add = complete::vm_names())]
    adopt: Vec<Name>,
}

impl From<Wished> for Wishes {
    fn from(wished: Wished) -> Self {
        let set = |names: Vec<Name>| names.into_iter().collect::<BTreeSet<_>>();
        Self { restart: wished.restart, replace: set(wished.replace), adopt: set(wished.adopt) }
    }
}

impl Plan {
    pub(super) fn is_of_a_file(&self) -> bool {
        self.config.is_some()
    }

    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<u8> {
        let config = match &self.config {
            None => site.config()?,
            Some(file) => {
                let unreadable = |error| Error::usage(format!("cannot read `{}`", file.display())).source(error);
                fs::metadata(file).map_err(unreadable)?;
                config::load(file, &site.dirs.drop_ins())?
            }
        };
        let situation = plan::look(site, &config)?;
        let plan = plan::compare(&situation, &self.wished.into())?;
        if !(plan.items.is_empty() && self.output == Format::Table) {
            ui.rows(self.output, &rows(&plan), |rows| table(rows, ui.verbose > 0))?;
        }
        if self.output == Format::Table {
            talk(&plan).iter().for_each(|line| ui.say(line));
        }
        Ok(exit_code(&plan))
    }
}

/// Of one who only asked.
fn exit_code(plan: &plan::Plan) -> u8 {
    match () {
        () if plan.items.is_empty() => 0,
        () if plan.refusals().next().is_some() => 4,
        () => 10,
    }
}
