use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::host::{self, Lock, LockError};
use crate::vm::{Site, make_private};

/// A network comes up in well under a second; a switch that hangs is given up by itself before this.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// The right to change this store's networks, and the firewall. Waits for another who has it.
pub(in crate::vm) fn hold(site: &Site) -> Result<Lock> {
    make_private(&site.dirs.state)?;
    let path = site.dirs.state.join("networks.lock");
    let until = Instant::now() + PATIENCE;
    loop {
        match Lock::try_take(&path) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held) if Instant::now() < until => host::pause(POLL),
            Err(LockError::Held) => {
                return Err(Error::failed("another command is at work on the networks, and does not end"));
            }
            Err(LockError::Io(error)) => {
                return Err(Error::failed(format!("cannot lock `{}`", path.display())).source(error));
            }
        }
    }
}
