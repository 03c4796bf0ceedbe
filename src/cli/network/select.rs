use clap::Args;

use crate::cli::ui::Ui;
use crate::cli::{complete, for_each};
use crate::config::Config;
use crate::error::{Error, Result, nearest};
use crate::spec::Name;
use crate::store::Store;
use crate::vm::Site;
use crate::vm::networks::{self, View};

/// Some networks, or all.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Many {
    /// The networks' names
    #[arg(value_name = "NETWORK", add = complete::network_names())]
    names: Vec<String>,
    /// Every network
    #[arg(long, conflicts_with = "names")]
    pub(super) all: bool,
}

impl Many {
    /// Does `act` to each that is up. What is up is recorded: a config that cannot be read is no obstacle.
    pub(super) fn each_that_is_up(
        &self,
        site: &Site,
        ui: &Ui,
        mut act: impl FnMut(Option<&Config>, &Name) -> Result<()>,
    ) -> Result<()> {
        let config = site.config();
        let views = self.find(site, config.as_ref().ok(), |view| view.record.is_some())?;
        if views.is_empty() {
            ui.say("no network is up");
        }
        for_each(views, ui, |view| act(config.as_ref().ok(), &view.name))
    }

    /// The networks that were named, each once, in that order; with `--all`, those that are `meant`.
    pub(super) fn find(
        &self,
        site: &Site,
        config: Option<&Config>,
        meant: impl Fn(&View) -> bool,
    ) -> Result<Vec<View>> {
        let views = views(site, config)?;
        if config.is_none() && self.names.iter().any(|name| one(&views, name).is_err()) {
            // It may be in the config, which cannot be read.
            site.config()?;
        }
        if self.all {
            return Ok(views.into_iter().filter(meant).collect());
        }
        let mut found: Vec<View> = Vec::new();
        for name in &self.names {
            let view = one(&views, name)?;
            if found.iter().all(|other| other.name != view.name) {
                found.push(view);
            }
        }
        Ok(found)
    }
}

/// Every network, without waiting for anybody.
pub(super) fn views(site: &Site, config: Option<&Config>) -> Result<Vec<View>> {
    networks::views(site, config, Store::open_read_only(&site.dirs.database())?.as_ref())
}

pub(super) fn one(views: &[View], name: &str) -> Result<View> {
    let parsed: Option<Name> = name.parse().ok();
    if let Some(view) = views.iter().find(|view| parsed.as_ref() == Some(&view.name)) {
        return Ok(view.clone());
    }
    let error = Error::not_found(format!("there is no network `{}`", name.escape_debug()));
    Err(match nearest(name, views.iter().map(|view| view.name.as_str())) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("`v network ls` lists them"),
    })
}
