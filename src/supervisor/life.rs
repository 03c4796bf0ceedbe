//! From the first run to the end that nothing follows:
//!
//! ```text
//! run ─► ended ─► what now? ─► the end
//!  ▲                 └─► `restarting`: the control socket is served, until the attempt is due
//!  └──────────────────────┘
//! ```
//!
//! The lock is held and the control socket is there from beginning to end. Each run is a fresh one,
//! from the spec.

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::again::{self, Next};
use super::boot;
use super::last_word::until_recorded;
use super::owner::{Doors, Ready, Supervisor, Task, seen_end};
use super::watch::{Run, Waiting};
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Handle};
use crate::spec::{Actor, Event, Exit, Happening, Refusal, State};
use crate::store::{Retries, Runtime, Store};
use crate::vm::control::{Failure, Reply, Request};

/// How often what cannot be recorded is tried.
const TRY: Duration = Duration::from_secs(1);

/// What a supervisor's life comes to.
#[derive(Debug)]
pub(super) enum Life {
    Ended {
        exit: Exit,
        waiting: Waiting,
        /// Why the first run never began.
        failure: Option<Error>,
    },
    /// Another program goes on; the end of the run is passed on if it could not be recorded.
    HandOver(Option<Exit>),
}

/// What ends a wait for the next attempt.
enum Waited {
    /// The start is recorded. Somebody may want to hear how it goes.
    Begun(Option<oneshot::Sender<Reply>>),
    /// It is not wanted any more, and recorded as stopped.
    Stopped(Option<oneshot::Sender<Reply>>),
    HandOver,
}

impl Supervisor<'_> {
    /// An error means that there is a guest, or an attempt to come, that nobody could watch.
    pub(super) async fn live(&self, mut task: Task, ready: &mut Ready) -> Result<Life> {
        let mut first = matches!(task, Task::Start);
        let mut doors = match self.enter(&task) {
            Ok(doors) => doors,
            Err(error) if first => {
                let exit = Exit::BootFailed { detail: error.chain().join(": ") };
                self.end(&exit).await?;
                return Ok(Life::Ended { exit, waiting: Vec::new(), failure: Some(error) });
            }
            Err(error) => return Err(error),
        };
        loop {
            let run = match task {
                Task::Start => self.start(&mut doors, ready).await,
                Task::Adopt(record, hypervisor) => match self.adopt(&record, hypervisor, &mut doors, ready).await {
                    // A guest that could not be adopted lives on, unless its end was the reason.
                    Err(error) if !has_ended(hypervisor).await => return Err(error),
                    Err(_) => {
                        self.release_ports();
                        let exit = seen_end(hypervisor, record.intent).unwrap_or(Exit::Unseen);
                        Ok(Run::Ended(exit, Vec::new()))
                    }
                    run => run,
                },
                Task::Again(retries) => {
                    ready.say(None);
                    match self.wait(&mut doors, &retries).await {
                        Waited::Begun(asker) => {
                            ready.ask(asker);
                            self.start(&mut doors, ready).await
                        }
                        Waited::Stopped(reply) => {
                            self.leave_runtime_folder();
                            let waiting = reply.into_iter().collect();
                            return Ok(Life::Ended { exit: Exit::Stopped, waiting, failure: None });
                        }
                        Waited::HandOver => return Ok(Life::HandOver(None)),
                    }
                }
            };
            let (exit, mut waiting, failure) = match run {
                Ok(Run::Ended(exit, waiting)) => (exit, waiting, None),
                Ok(Run::HandOver) => return Ok(Life::HandOver(None)),
                // A run that never began has ended, too.
                Err(error) => (Exit::BootFailed { detail: error.chain().join(": ") }, Vec::new(), Some(error)),
            };
            waiting.extend(ready.asker());
            tracing::info!(%exit, "ended");
            match self.end(&exit).await? {
                Some(Next::Again(retries)) => {
                    if let Some(error) = failure {
                        tracing::error!(error = %error.chain().join(": "), "not started");
                    }
                    tracing::info!(attempt = retries.attempts, at = %retries.next_at, "it will be started again");
                    for reply in waiting {
                        let _ = reply.send(Reply::Ended { exit: exit.clone() });
                    }
                    task = Task::Again(retries);
                    first = false;
                }
                Some(Next::End | Next::GiveUp { .. }) => {
                    return Ok(Life::Ended { exit, waiting, failure: failure.filter(|_| first) });
                }
                None => {
                    for reply in waiting {
                        let _ = reply.send(Reply::HandingOver);
                    }
                    return Ok(Life::HandOver(Some(exit)));
                }
            }
        }
    }

    /// A runtime folder for what is to come, with the control socket in it.
    fn enter(&self, task: &Task) -> Result<Doors> {
        if !matches!(task, Task::Adopt(..)) {
            boot::fresh_runtime_folder(self.site, self.spec.uuid, None)?;
        }
        self.open_doors()
    }

    /// Serves the control socket until the next attempt is due, and records its start.
    async fn wait(&self, doors: &mut Doors, retries: &Retries) -> Waited {
        let mut due = Instant::now() + again::left(retries, host::now());
        loop {
            let (asked, event) = tokio::select! {
                () = sleep_until(due) => (None, Event::Start),
                _ = doors.terminate.recv() => (None, Event::Stop),
                _ = doors.hangup.recv() => match self.successor.try_out() {
                    Ok(()) => return Waited::HandOver,
                    Err(error) => {
                        tracing::error!(error = %error.chain().join(": "), "not handed over");
                        continue;
                    }
                },
                Some(asked) = doors.asked.recv() => {
                    let event = match asked.request {
                        Request::Stop { .. } | Request::ForceStop { .. } => Event::Stop,
                        Request::StartNow => Event::Start,
                        Request::Status => {
                            let _ = asked.reply.send(Reply::State { state: State::Restarting });
                            continue;
                        }
                        Request::Pause | Request::Resume => {
                            let error = Error::from(Refusal::Restarting);
                            let _ = asked.reply.send(Reply::Failed { failure: Failure::from(&error) });
                            continue;
                        }
                    };
                    (Some(asked.reply), event)
                }
            };
            let recorded = match event {
                Event::Stop => self.give_up_waiting(),
                _ => self.begin_attempt(asked.is_some()),
            };
            let Err(error) = recorded else {
                return if event == Event::Stop { Waited::Stopped(asked) } else { Waited::Begun(asked) };
            };
            if self.is_outdated() {
                if let Some(reply) = asked {
                    let _ = reply.send(Reply::HandingOver);
                }
                return Waited::HandOver;
            }
            tracing::error!(error = %error.chain().join(": "), "not recorded");
            match asked {
                Some(reply) => drop(reply.send(Reply::Failed { failure: Failure::from(&error) })),
                None => due = Instant::now() + TRY,
            }
        }
    }

    /// One that a person wants at once begins no series: if it fails they are told.
    fn begin_attempt(&self, asked_for: bool) -> Result<()> {
        let supervisor = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
        self.update(|record| {
            record.apply(&Event::Start)?;
            record.runtime = Some(Runtime { supervisor, hypervisor: None, ssh: None, troubles: Vec::new() });
            record.intent = None;
            if asked_for {
                record.retries = None;
            }
            Ok(())
        })
    }

    fn give_up_waiting(&self) -> Result<()> {
        tracing::info!("it is not to be started again");
        self.update(|record| {
            record.apply(&Event::Stop)?;
            record.runtime = None;
            record.retries = None;
            Ok(())
        })
    }

    /// The last word on a run: nothing of it is left on the host, and what follows it is recorded
    /// with it. `None`: only a newer program can record it.
    async fn end(&self, exit: &Exit) -> Result<Option<Next>> {
        let try_once = || match self.try_end(exit) {
            Ok(next) => Ok(Some(next)),
            Err(_) if self.is_outdated() => Ok(None),
            Err(error) => Err(error),
        };
        until_recorded(try_once).await
    }

    fn try_end(&self, exit: &Exit) -> Result<Next> {
        let mut store = self.site.store()?.acting_as(Actor::Supervisor);
        let now = host::now();
        let supervisor = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
        let Some(record) = store.get(self.spec.uuid)? else {
            return Err(Error::not_found("the VM is gone"));
        };
        // Whoever finds it ended finds nothing of it; whoever finds it waiting can ask it.
        match again::foresee(&record, exit, now) {
            Next::Again(_) => {
                let control = self.site.control_socket(self.spec.uuid);
                boot::fresh_runtime_folder(self.site, self.spec.uuid, Some(&control))?;
            }
            Next::End | Next::GiveUp { .. } => self.leave_runtime_folder(),
        }
        let next = store.update(self.spec.uuid, |record| Ok(again::settle(record, exit.clone(), now, supervisor)?))?;
        tell_giving_up(&mut store, self.spec, &next);
        Ok(next)
    }

    fn leave_runtime_folder(&self) {
        if let Err(error) = std::fs::remove_dir_all(self.site.dirs.run(self.spec.uuid)) {
            tracing::warn!(%error, "runtime folder not removed");
        }
    }

    /// Whether a newer program has to go on: it has changed the database, and is there.
    pub(super) fn is_outdated(&self) -> bool {
        Store::is_newer(&self.site.dirs.database()) && self.successor.is_another() && self.successor.try_out().is_ok()
    }
}

/// A process that closes its sockets is about to be gone.
async fn has_ended(process: Handle) -> bool {
    const DYING: Duration = Duration::from_millis(500);
    let until = Instant::now() + DYING;
    while process.is_alive() {
        if Instant::now() >= until {
            return false;
        }
        sleep(Duration::from_millis(10)).await;
    }
    true
}

pub(super) fn tell_giving_up(store: &mut Store, spec: &crate::spec::VmSpec, next: &Next) {
    let Next::GiveUp { attempts } = *next else { return };
    tracing::error!(attempts, "it is not started again");
    if let Err(error) = store.tell(spec, &Happening::GaveUp { attempts }) {
        tracing::warn!(error = %error.chain().join(": "), "not noted");
    }
}
