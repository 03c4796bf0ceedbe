//! The main process of `virshle-network@<name>.service`: brings the network up, then becomes its
//! name server.

use std::ffi::OsString;
use std::path::PathBuf;

use super::lock::hold;
use super::server::{self, Server};
use super::up;
use super::work::Work;
use crate::error::{OrFailed, Result};
use crate::host::{Lock, LockError};
use crate::spec::Name;
use crate::vm::Site;

/// What the process becomes when the network is up. `None`: one that needs no server.
///
/// Where a command is bringing the network up it holds the lock, and waits for this: then there is
/// nothing to do but to become the server.
pub fn up_as_unit(site: &Site, name: &Name) -> Result<Option<(PathBuf, Vec<OsString>)>> {
    let config = site.config()?;
    let mut work = Work::new(site, Some(&config))?;
    let asked_for = work.store.network(name)?.is_some() && is_held(site)?;
    if asked_for {
        server::note_itself(&mut work, name)?;
    } else {
        let _lock = hold(site)?;
        up::by_config(&mut work, &config, name, &Server::Itself)?;
    }
    server::command(&work, name)
}

fn is_held(site: &Site) -> Result<bool> {
    let path = site.dirs.state.join("networks.lock");
    match Lock::try_take(&path) {
        Ok(_) => Ok(false),
        Err(LockError::Held) => Ok(true),
        Err(LockError::Io(error)) => Err(error).or_failed(|| format!("cannot lock `{}`", path.display())),
    }
}
