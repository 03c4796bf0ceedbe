//! Who runs a network's name server: the command that brings the network up, or systemd.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::hosts::hosts;
use super::step::step;
use super::work::Work;
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Activity, Gate, Handle, Unit};
use crate::network::dnsmasq;
use crate::spec::Name;
use crate::vm::{Site, unit};

/// How a server is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    /// As a process that nobody watches; whoever needs it starts it again.
    Process,
    /// As `virshle-network@<name>.service`.
    Unit,
    /// This process becomes it.
    Itself,
}

pub(super) fn of(site: &Site) -> Server {
    if unit::serves_networks(site) { Server::Unit } else { Server::Process }
}

/// How long systemd may take.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Sees to it that the server runs; `false`: it did already.
pub(super) fn run(work: &mut Work<'_>, name: &Name, server: &Server) -> Result<bool> {
    let Some(record) = work.store.network(name)? else { return Ok(false) };
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    if record.server.is_some_and(|server| server != us && server.is_alive()) {
        return Ok(false);
    }
    let dir = work.site.network_run(name);
    dnsmasq::publish(&record.spec, &dir, &hosts(&record.spec, &work.store.list()?), None)?;
    let store = &mut work.store;
    let mut note = |handle| {
        step("up", "server noted", || {
            store.update_network(name, |record| {
                record.server = Some(handle);
                Ok(())
            })
        })
    };
    match server {
        Server::Process => {
            let gate = Gate { program: OURSELVES.into(), runner: None };
            dnsmasq::start_noted(&record.spec, &dir, &gate, note)?;
        }
        Server::Unit => note(start_unit(name)?)?,
        Server::Itself => note(us)?,
    }
    Ok(true)
}

/// This very program, also after it was replaced on the disk.
const OURSELVES: &str = "/proc/self/exe";

fn start_unit(name: &Name) -> Result<Handle> {
    let unit = Unit::of_network(name.as_str());
    let failed = || format!("cannot start `{}`", unit.name());
    let log = || format!("its log: `journalctl -u {}`", unit.name());
    unit.start().or_failed(failed)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match unit.activity().or_failed(failed)? {
            Activity::Active => {
                let pid = unit.main_pid().or_failed(failed)?;
                let handle = pid.and_then(|pid| Handle::of_pid(pid).ok());
                return handle.ok_or_else(|| Error::failed(failed()).hint(log()));
            }
            Activity::Inactive => return Err(Error::failed(failed()).hint(log())),
            Activity::Busy if Instant::now() >= until => return Err(Error::failed(failed()).hint(log())),
            Activity::Busy => host::pause(POLL),
        }
    }
}

/// Ends the server, if it is there.
pub(super) fn stop(site: &Site, name: &Name, handle: Option<Handle>) -> Result<()> {
    if unit::serves_networks(site) {
        let unit = Unit::of_network(name.as_str());
        if unit.activity().or_failed(|| format!("cannot ask for `{}`", unit.name()))? != Activity::Inactive {
            unit.stop().or_failed(|| format!("cannot stop `{}`", unit.name()))?;
        }
    }
    match handle.filter(|handle| handle.is_alive()) {
        Some(handle) => dnsmasq::stop(handle),
        None => Ok(()),
    }
}

/// Notes this process as the server that it is about to become.
pub(super) fn note_itself(work: &mut Work<'_>, name: &Name) -> Result<()> {
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    work.store.update_network(name, |record| {
        record.server = Some(us);
        Ok(())
    })
}

/// What the main process of a network's unit becomes; nothing where another process serves already.
pub(super) fn command(work: &Work<'_>, name: &Name) -> Result<Option<(PathBuf, Vec<OsString>)>> {
    match work.store.network(name)? {
        Some(record) if record.server != Handle::current().ok() => {
            tracing::warn!(network = %name, "another process serves it already");
            Ok(None)
        }
        Some(record) if record.spec.host.is_some() => {
            dnsmasq::command(&record.spec, &work.site.network_run(name)).map(Some)
        }
        _ => Ok(None),
    }
}
