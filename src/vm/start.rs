use std::time::Duration;

use super::launch::{Purpose, Starting, launch};
use super::{Site, networks, observe, reconcile};
use crate::error::{Error, Result};
use crate::spec::{Event, State};
use crate::store::{Record, Store};

/// Launches the VM's supervisor, or tells the one that waits for the next attempt not to. Several can be under way at once; [`Starting::wait`] ends each.
pub fn start(site: &Site, store: &mut Store, record: Record, deadline: Duration) -> Result<Starting> {
    let observed = observe(site, record)?;
    // One that was to be started again has nothing to be mended first.
    let observed = match observed.state {
        State::Restarting => observed,
        _ => reconcile(site, store, observed.record)?,
    };
    let spec = &observed.record.spec;
    // Only a quick answer: the supervisor decides, holding the lock.
    observed.state.after(&Event::Start).map_err(|refusal| {
        let error = Error::refused(format!("cannot start `{}`: {refusal}", spec.name));
        match observed.unwatched {
            true => error.hint(format!("nobody can watch over it; `v vm stop --force {}` ends it", spec.name)),
            false => error,
        }
    })?;
    site.check_socket_paths(spec.uuid).map_err(|error| error.context(format!("cannot start `{}`", spec.name)))?;
    // The supervisor asks again, when they are its own. What is refused here has not begun.
    networks::check_forwards(site, store, spec)
        .map_err(|error| error.context(format!("cannot start `{}`", spec.name)))?;
    if observed.state == State::Restarting && !observed.unwatched {
        return Ok(Starting::at_once(site, spec, deadline));
    }
    launch(site, spec, Purpose::Start, deadline)
}
