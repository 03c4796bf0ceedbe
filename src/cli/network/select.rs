use clap::Args;

use crate::cli::complete;
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
