//! What a run leaves on the host when both its supervisor and its hypervisor are gone.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::site::remove_tree;
use super::{Site, networks};
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Lock, LockError};
use crate::network::{self, Port, ovs::Ovs};
use crate::spec::{Exit, Happening, Intent, Progress, State, VmSpec};
use crate::store::{Helper, Record, Store};

/// How long a process may take to be gone after SIGKILL.
const KILLED: Duration = Duration::from_secs(10);

/// Whether what was asked of a run that ended unseen is still to come: only a supervisor starts it
/// again.
pub fn awaits_another_run(record: &Record) -> bool {
    record.state == State::Restarting || record.intent == Some(Intent::Restart)
}

/// Records the end of a run that nobody saw, with its ports and its runtime folder cleared away
/// first. It holds the VM's lock meanwhile; whoever else holds it is at work on it already, and
/// nothing is done. `exit`: how it ended, if the caller knows.
pub(super) fn end_unseen(site: &Site, store: &mut Store, spec: &VmSpec, exit: Option<Exit>) -> Result<()> {
    let path = site.lock(spec.uuid);
    let _lock = match Lock::try_take(&path) {
        Ok(lock) => lock,
        Err(LockError::Held) => return Ok(()),
        Err(LockError::Io(error)) => return Err(error).or_failed(|| format!("cannot lock `{}`", path.display())),
    };
    // What was seen may be old: since then it may have ended in order, or even run again.
    let is_over = |record: &Record| {
        let hypervisor = record.runtime.as_ref().and_then(|runtime| runtime.hypervisor);
        record.state.is_live() && !hypervisor.is_some_and(|handle| handle.is_alive())
    };
    let Some(record) = store.get(spec.uuid)?.filter(is_over) else { return Ok(()) };
    clear_run(site, &record)?;
    let cut = store.update(spec.uuid, |record| {
        let cut = record.progress.as_ref().map(Progress::cut_short);
        match exit {
            Some(exit) => record.end(exit)?,
            None => drop(record.end_unseen()?),
        }
        Ok(cut)
    })?;
    networks::settle_after(site, spec);
    told(store, spec, cut, "cleared away")
}

/// Says, to the person and in the history, what was cut short and what became of it.
pub fn told(store: &mut Store, spec: &VmSpec, cut: Option<String>, became: &str) -> Result<()> {
    let Some(cut) = cut else { return Ok(()) };
    tracing::warn!("`{}`: {cut}: {became}", spec.name);
    store.tell(spec, &Happening::Repaired { detail: format!("{cut}: {became}") })
}

/// Nothing of a run is left on the host: no helper, no port, no socket.
pub fn clear_run(site: &Site, record: &Record) -> Result<()> {
    end_helpers(record)?;
    release_ports(site, &record.spec)?;
    remove_tree(&site.dirs.run(record.spec.uuid))
}

/// Ends what ran beside a hypervisor, for a run that nobody took over.
pub fn end_helpers(record: &Record) -> Result<()> {
    let helpers = record.runtime.iter().flat_map(|runtime| &runtime.helpers);
    for Helper { serves, process } in helpers.filter(|helper| helper.process.is_alive()) {
        let failed = || format!("cannot end process {} (`{}`)", process.pid, serves.program());
        process.signal(Signal::KILL).or_failed(failed)?;
        let until = Instant::now() + KILLED;
        while process.is_alive() {
            if Instant::now() >= until {
                return Err(Error::failed(failed()));
            }
            host::pause(Duration::from_millis(5));
        }
    }
    Ok(())
}

/// Ports are normally gone with the run; one is left only when its supervisor was killed. A switch
/// that cannot be asked must not keep a VM from being deleted: the port names its VM, so it can
/// still be found and collected.
pub(super) fn release_ports(site: &Site, spec: &VmSpec) -> Result<()> {
    for_each_port(site, spec, |port| {
        if let Err(error) = network::driver(&port.nic.link).release(port) {
            tracing::warn!(vm = %spec.name, port = port.name(), error = %error.chain().join(": "), "port not released");
        }
    });
    Ok(())
}

/// The VM's ports, whether they are there or not.
pub(super) fn for_each_port(site: &Site, spec: &VmSpec, mut act: impl FnMut(&Port<'_>)) {
    let ovs = site.config().map_or_else(|_| Ovs::new(None).for_state(&site.dirs.state), |config| site.ovs(&config));
    for nic in &spec.nics {
        act(&Port { vm: spec.uuid, vm_number: spec.number, vm_name: spec.name.as_str(), nic, ovs: &ovs });
    }
}
