use std::time::Duration;

use super::Site;
use super::control::{Reply, Request};
use super::stop::{FORCE_DEADLINE, ask, unexpected};
use crate::error::{Error, Result};
use crate::spec::{Event, Intent};
use crate::store::{Record, Store};

/// How long the second start may take.
const START_DEADLINE: Duration = Duration::from_secs(75);

/// What became of a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restarted {
    Running,
    /// The power button was pressed, and the guest has not shut down in time.
    StillRunning,
}

/// Has a running VM's supervisor end it and run it again, and waits until it does. Killing this
/// process changes nothing: from the request on, the restart is the supervisor's. Without
/// `timeout` the power is cut at once.
pub fn restart(site: &Site, store: &mut Store, record: Record, timeout: Option<Duration>) -> Result<Restarted> {
    let intent = Intent::Restart;
    let request = match timeout {
        Some(timeout) => Request::Stop { timeout_ms: timeout.as_millis().try_into().unwrap_or(u64::MAX), intent },
        None => Request::ForceStop { intent },
    };
    let deadline = timeout.unwrap_or_default() + FORCE_DEADLINE + START_DEADLINE;
    let name = record.spec.name.clone();
    match ask(site, store, record, "restart", &Event::Stop, &request, deadline)? {
        Reply::State { .. } => Ok(Restarted::Running),
        Reply::StillRunning => Ok(Restarted::StillRunning),
        Reply::Ended { exit } => Err(Error::refused(format!("`{name}` was not started again"))
            .source(Error::failed(format!("it was stopped meanwhile ({exit})")))
            .hint(format!("start it with `v vm start {name}`"))),
        reply => Err(unexpected(&reply)),
    }
}
