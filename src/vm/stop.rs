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

/// How long a supervisor that is there may take to listen: it is just beginning, or becoming
/// another program.
const HANDOVER: Duration = Duration::from_secs(10);

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
    let mut observed = reconcile(site, store, record)?;
    let spec = observed.record.spec.clone();
    let failed = || format!("cannot {verb} `{}`", spec.name);
    // Twice, because a supervisor may just be dying when it is looked for.
    for last in [false, true] {
        // A stop that was cut short: finding out has finished it.
        if *event == Event::Stop
            && was_asked
            && !observed.state.is_live()
            && let Some(exit) = observed.record.exit
        {
            return Ok(Reply::Ended { exit });
        }
        observed.state.after(event).map_err(|refusal| Error::refused(format!("{}: {refusal}", failed())))?;
        match answer(site, store, spec.uuid, request, deadline).map_err(|error| error.context(failed()))? {
            Some(Reply::Failed { failure }) => return Err(Error::from(failure).context(failed())),
            Some(reply) => return Ok(reply),
            None if has_ended(&observed.record) => {
                return Err(Error::failed(failed()).source(unrecorded()).hint(log_hint(&observed.record)));
            }
            None => {}
        }
        if !last && let Some(record) = store.get(spec.uuid)? {
            observed = reconcile(site, store, record)?;
        }
    }
    Err(Error::refused(failed())
        .source(Error::failed("no supervisor watches it"))
        .hint(format!("type it again: a new one takes over; `v vm stop --force {}` cuts its power", spec.name)))
}

/// The supervisor's answer; `None` when there is no supervisor. One that is about to become another
/// program has its lock and does not listen: it is asked again, until it has ended the VM meanwhile.
fn answer(site: &Site, store: &Store, vm: Uuid, request: &Request, deadline: Duration) -> Result<Option<Reply>> {
    let until = Instant::now() + HANDOVER;
    loop {
        let answer = control::ask(&site.control_socket(vm), request, deadline)?;
        if !matches!(answer, None | Some(Reply::HandingOver)) {
            return Ok(answer);
        }
        let Some(record) = store.get(vm)? else { return Ok(None) };
        let stops = matches!(request, Request::Stop { .. } | Request::ForceStop { .. });
        if let (true, false, Some(exit)) = (stops, record.state.is_live(), &record.exit) {
            return Ok(Some(Reply::Ended { exit: exit.clone() }));
        }
        if !is_supervised(site, &record)? {
            return Ok(None);
        }
        if Instant::now() >= until {
            return match answer {
                None => Ok(None),
                _ => Err(Error::failed("the VM's supervisor ended before it answered")
                    .hint("look at `v vm ls` and `v vm log --supervisor`")),
            };
        }
        host::pause(Duration::from_millis(20));
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
    let asked = answer(site, store, vm, &Request::ForceStop { intent }, FORCE_DEADLINE);
    match asked.map_err(|error| error.context(failed()))? {
        Some(Reply::Ended { exit }) => Ok(exit),
        Some(Reply::Failed { failure }) => Err(Error::from(failure).context(failed())),
        Some(reply) => Err(unexpected(&reply)),
        None => kill_unwatched(site, store, vm).map_err(|error| error.context(failed())),
    }
}

fn has_ended(record: &Record) -> bool {
    let hypervisor = record.runtime.as_ref().and_then(|runtime| runtime.hypervisor);
    hypervisor.is_some_and(|handle| !handle.is_alive())
}

/// Its supervisor goes on trying.
fn unrecorded() -> Error {
    Error::failed("it has ended, and its supervisor cannot record that yet")
}

fn log_hint(record: &Record) -> String {
    format!("`v vm log --supervisor {}` says why", record.spec.name)
}

/// Kills the hypervisor that the record names, of a VM without a supervisor.
pub fn kill_unwatched(site: &Site, store: &mut Store, vm: Uuid) -> Result<Exit> {
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
            return Err(match hypervisor.is_some_and(|handle| handle.is_alive()) {
                true => Error::failed("its hypervisor does not end"),
                false => unrecorded().hint(log_hint(&record)),
            });
        }
        host::pause(Duration::from_millis(20));
    }
}
