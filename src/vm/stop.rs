use std::time::{Duration, Instant};

use rustix::process::Signal;
use uuid::Uuid;

use super::control::{self, Reply, Request};
use super::leftovers::end_unseen;
use super::observe::is_supervised;
use super::{Site, reconcile};
use crate::error::{Error, OrFailed, Result};
use crate::host;
use crate::spec::{Event, Exit, Intent, State};
use crate::store::{Record, Store};

/// How long a power cut may take: the hypervisor is killed, its ports are released.
pub(super) const FORCE_DEADLINE: Duration = Duration::from_secs(30);
/// How long a call that the hypervisor answers at once may take.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// What became of a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    Ended(Exit),
    /// The power button was pressed, and the guest has not shut down in time.
    StillRunning,
}

/// Presses the power button and waits for the guest to shut down.
pub fn stop(site: &Site, store: &mut Store, record: Record, timeout: Duration, intent: Intent) -> Result<Stopped> {
    let request = Request::Stop { timeout_ms: timeout.as_millis().try_into().unwrap_or(u64::MAX), intent };
    match ask(site, store, record, "stop", &Event::Stop, &request, timeout + FORCE_DEADLINE)? {
        Reply::Ended { exit } => Ok(Stopped::Ended(exit)),
        Reply::StillRunning => Ok(Stopped::StillRunning),
        reply => Err(unexpected(&reply)),
    }
}

pub fn pause(site: &Site, store: &mut Store, record: Record) -> Result<State> {
    state(ask(site, store, record, "pause", &Event::Pause, &Request::Pause, CALL_DEADLINE)?)
}

pub fn resume(site: &Site, store: &mut Store, record: Record) -> Result<State> {
    state(ask(site, store, record, "resume", &Event::Resume, &Request::Resume, CALL_DEADLINE)?)
}

fn state(reply: Reply) -> Result<State> {
    match reply {
        Reply::State { state } => Ok(state),
        reply => Err(unexpected(&reply)),
    }
}

pub(super) fn unexpected(reply: &Reply) -> Error {
    Error::failed(format!("the VM's supervisor gave an answer to another question: {reply:?}"))
}

pub(super) fn ask(
    site: &Site,
    store: &mut Store,
    record: Record,
    verb: &str,
    event: &Event,
    request: &Request,
    deadline: Duration,
) -> Result<Reply> {
    let was_asked = record.state.is_live() && matches!(record.intent, Some(Intent::Stop | Intent::ForceStop));
    let observed = reconcile(site, store, record)?;
    let spec = &observed.record.spec;
    let failed = || format!("cannot {verb} `{}`", spec.name);
    // A stop that was cut short: finding out has finished it.
    if *event == Event::Stop
        && was_asked
        && !observed.state.is_live()
        && let Some(exit) = observed.record.exit
    {
        return Ok(Reply::Ended { exit });
    }
    observed.state.after(event).map_err(|refusal| Error::refused(format!("{}: {refusal}", failed())))?;
    match ask_present(site, store, spec.uuid, request, deadline).map_err(|error| error.context(failed()))? {
        Some(Reply::Failed { failure }) => Err(Error::from(failure).context(failed())),
        Some(reply) => Ok(reply),
        None => Err(Error::refused(failed())
            .source(Error::failed("no supervisor watches it"))
            .hint(format!("type it again: a new one takes over; `v vm stop --force {}` cuts its power", spec.name))),
    }
}

/// How long a supervisor that does not listen is waited for: it is about to, or about to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks the supervisor, if there is one. One that ends meanwhile, with the run, leaves the answer
/// in the record.
fn ask_present(site: &Site, store: &Store, vm: Uuid, request: &Request, deadline: Duration) -> Result<Option<Reply>> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(reply) = control::ask(&site.control_socket(vm), request, deadline)? {
            return Ok(Some(reply));
        }
        let Some(record) = store.get(vm)? else { return Err(Error::not_found("it was deleted meanwhile")) };
        match is_supervised(site, &record)? {
            true if Instant::now() < until => host::pause(Duration::from_millis(10)),
            false if !record.state.is_live() => {
                return Ok(record.exit.map(|exit| Reply::Ended { exit }));
            }
            _ => return Ok(None),
        }
    }
}

/// Cuts the power: through the supervisor, or, when there is none, by killing the hypervisor that
/// the record names.
pub fn force_stop(site: &Site, store: &mut Store, vm: Uuid, intent: Intent) -> Result<Exit> {
    let Some(record) = store.get(vm)? else {
        return Err(Error::not_found("the VM is gone"));
    };
    let observed = reconcile(site, store, record)?;
    let name = observed.record.spec.name.clone();
    let failed = || format!("cannot stop `{name}`");
    observed.state.after(&Event::Stop).map_err(|refusal| Error::refused(format!("{}: {refusal}", failed())))?;
    let asked = ask_present(site, store, vm, &Request::ForceStop { intent }, FORCE_DEADLINE);
    match asked.map_err(|error| error.context(failed()))? {
        Some(Reply::Ended { exit }) => Ok(exit),
        Some(Reply::Failed { failure }) => Err(Error::from(failure).context(failed())),
        Some(reply) => Err(unexpected(&reply)),
        None => kill_unwatched(site, store, vm).map_err(|error| error.context(failed())),
    }
}

fn kill_unwatched(site: &Site, store: &mut Store, vm: Uuid) -> Result<Exit> {
    let deadline = Instant::now() + FORCE_DEADLINE;
    loop {
        let Some(record) = store.get(vm)? else { return Ok(Exit::Forced) };
        if !record.state.is_live() {
            return Ok(record.exit.unwrap_or(Exit::Forced));
        }
        let hypervisor = record.runtime.as_ref().and_then(|runtime| runtime.hypervisor);
        if let Some(hypervisor) = hypervisor {
            hypervisor.signal(Signal::KILL).or_failed(|| format!("cannot kill process {}", hypervisor.pid))?;
        }
        if !hypervisor.is_some_and(|handle| handle.is_alive()) {
            end_unseen(site, store, &record.spec, Some(Exit::Forced))?;
        }
        if Instant::now() > deadline {
            return Err(Error::failed("its hypervisor does not end"));
        }
        host::pause(Duration::from_millis(20));
    }
}
