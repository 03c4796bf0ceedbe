use std::time::Duration;

use super::launch::{Purpose, Starting, launch};
use super::{Site, reconcile};
use crate::error::{Error, Result};
use crate::spec::Event;
use crate::store::{Record, Store};

/// Launches the VM's supervisor. Several can be under way at once; [`Starting::wait`] ends each.
pub fn start(site: &Site, store: &mut Store, record: Record, deadline: Duration) -> Result<Starting> {
    let observed = reconcile(site, store, record)?;
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
    launch(site, spec, Purpose::Start, deadline)
}
