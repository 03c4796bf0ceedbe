//! Waiting for a VM from outside: for a state in its record, or for its ssh server to answer.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Observed, Site, observe};
use crate::error::{Error, Result};
use crate::host;
use crate::spec::{Link, State, VmSpec};
use crate::store::{Record, Store};

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    Running,
    Stopped,
    /// Its ssh server sends its greeting.
    Ssh,
}

const POLL: Duration = Duration::from_millis(50);
const TRY: Duration = Duration::from_secs(2);

/// Where the guest's ssh server is, if this host knows.
pub fn endpoint(record: &Record) -> Option<SocketAddr> {
    let forwarded = record.runtime.as_ref().and_then(|runtime| runtime.ssh).map(SocketAddr::V4);
    forwarded.or_else(|| record.spec.address().map(|address| SocketAddr::from((address, 22))))
}

/// Waits until the VM has come to `goal`; an error when it cannot any more, or at the deadline.
///
/// `until` may be shared by several; `timeout` is what a person asked for, and is told.
pub fn wait_for(site: &Site, store: &Store, vm: Uuid, goal: Goal, until: Instant, timeout: Duration) -> Result<()> {
    loop {
        let Some(record) = store.get(vm)? else {
            return if goal == Goal::Stopped { Ok(()) } else { Err(Error::not_found("the VM was deleted")) };
        };
        let observed = observe(site, record)?;
        let name = observed.record.spec.name.clone();
        if reached(&observed, goal)? {
            return Ok(());
        }
        if Instant::now() >= until {
            let awaited = match goal {
                Goal::Running => "is not running",
                Goal::Stopped => "has not stopped",
                Goal::Ssh => "does not answer on ssh",
            };
            let hint = match goal {
                Goal::Ssh => dead_link(site, &observed.record.spec),
                _ => None,
            };
            return Err(Error::failed(format!("`{name}` {awaited} after {} s", timeout.as_secs()))
                .hint(hint.unwrap_or_else(|| format!("look at its console with `v vm log {name}`"))));
        }
        host::pause(POLL);
    }
}

fn reached(observed: &Observed, goal: Goal) -> Result<bool> {
    let name = &observed.record.spec.name;
    match (goal, observed.state) {
        (Goal::Running, State::Running) | (Goal::Stopped, State::Stopped | State::Crashed) => Ok(true),
        (Goal::Ssh, State::Running) => match endpoint(&observed.record) {
            Some(address) => Ok(greets(address)),
            None => Err(Error::failed(format!("`{name}` has no address that this host knows"))
                .hint("give its network a `subnet`, or use a `user` network")),
        },
        (Goal::Running | Goal::Ssh, State::Stopped) => {
            Err(Error::refused(format!("cannot wait for `{name}`: it is stopped"))
                .hint(format!("`v vm start --wait {name}`")))
        }
        (Goal::Running | Goal::Ssh, State::Crashed) => {
            let exit = observed.record.exit.as_ref().map_or_else(|| "unseen".to_owned(), ToString::to_string);
            Err(Error::failed(format!("`{name}` has crashed")).source(Error::failed(exit)))
        }
        _ => Ok(false),
    }
}

/// A vhost-user port can be connected and yet be dead: the switch fails to serve it only once the
/// guest's driver is there, and says so in its log alone.
fn dead_link(site: &Site, spec: &VmSpec) -> Option<String> {
    let ovs = site.ovs(&site.config().ok()?);
    let vhost = spec.nics.iter().filter(|nic| matches!(nic.link, Link::Vhost { .. }));
    let down = vhost
        .map(|nic| nic.port(spec.number))
        .find(|port| ovs.port_state(port).is_ok_and(|state| state.is_some_and(|state| state.link_up == Some(false))))?;
    Some(format!(
        "the link of its port `{down}` is down: the log of `ovs-vswitchd` says why (on Debian often that \
         `librte-mempool-ring23` is not installed)"
    ))
}

/// A forwarded port accepts before the guest does, so only the greeting counts.
fn greets(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, TRY) else { return false };
    let mut greeting = [0; 4];
    stream.set_read_timeout(Some(TRY)).is_ok() && stream.read_exact(&mut greeting).is_ok() && &greeting == b"SSH-"
}
