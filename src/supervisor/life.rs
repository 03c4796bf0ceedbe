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
use super::decide;
use super::last_word::until_recorded;
use super::owner::{Attempt, Doors, Ready, Supervisor, Task, seen_end, tell_the_end, this_process};
use super::watch::{End, Run, Waiting};
use crate::error::{Error, Result};
use crate::host::{self, Handle};
use crate::spec::{Actor, Event, Exit, Happening, Intent, Refusal, State, Verb};
use crate::store::{Retries, Runtime, Store};
use crate::vm::control::{Failure, Reply, Request};
use crate::vm::{self, Steps};

/// How long the hypervisor may take to come up and boot where no command has said so.
const ATTEMPT: Duration = Duration::from_secs(60);
/// How often what cannot be recorded is tried.
const TRY: Duration = Duration::from_secs(1);

/// What a supervisor's life comes to.
#[derive(Debug)]
pub(super) enum Life {
    Ended {
        exit: Exit,
        waiting: Vec<Waiting>,
        /// Why the first run never began.
        failure: Option<Error>,
    },
    /// Another program goes on; the end of the run is passed on if it could not be recorded.
    HandOver(Option<Exit>),
}

/// What ends a wait for the next attempt.
enum Waited {
    /// The start is recorded. Somebody may want to hear how it goes.
    Begun(Option<oneshot::Sender<Reply>>, Actor),
    /// It is not wanted any more, and recorded as stopped.
    Stopped(Option<oneshot::Sender<Reply>>),
    HandOver,
}

impl Supervisor<'_> {
    /// An error means that there is a guest, or an attempt to come, that nobody could watch.
    pub(super) async fn live(&self, mut task: Task, ready: &mut Ready) -> Result<Life> {
        // Whether somebody waits to hear that it does not start.
        let mut awaited = matches!(task, Task::Start(_));
        let mut steps = match &task {
            Task::Start(verb) => Some(self.steps(*verb)),
            Task::Adopt(..) | Task::Again(_) => None,
        };
        let mut doors = match self.enter(&task, steps.as_ref()) {
            Ok(doors) => doors,
            Err(error) if awaited => {
                let end = End::of_a_failed_start(&error);
                self.end(&end).await?;
                return Ok(Life::Ended { exit: end.exit, waiting: end.waiting, failure: Some(error) });
            }
            Err(error) => return Err(error),
        };
        loop {
            let run = match task {
                Task::Start(verb) => {
                    let attempt = match steps.take() {
                        Some(steps) => Attempt { steps, deadline: self.deadline, by: self.actor.clone() },
                        None => Attempt { steps: self.steps(verb), deadline: ATTEMPT, by: Actor::Supervisor },
                    };
                    self.start(attempt, &mut doors, ready).await
                }
                Task::Adopt(record, hypervisor) => match self.adopt(&record, hypervisor, &mut doors, ready).await {
                    // A guest that could not be adopted lives on, unless its end was the reason.
                    Err(error) if !has_ended(hypervisor).await => return Err(error),
                    Err(_) => {
                        // They were not taken over, and the next run's record will not name them.
                        vm::end_helpers(&record)?;
                        let exit = seen_end(hypervisor, record.intent).unwrap_or(match record.intent {
                            Some(Intent::ForceStop) => Exit::Forced,
                            _ => Exit::Unseen,
                        });
                        Ok(Run::Ended(End { exit, intent: record.intent, waiting: Vec::new() }))
                    }
                    run => run,
                },
                Task::Again(retries) => {
                    ready.say(None);
                    match self.wait(&mut doors, &retries).await {
                        Waited::Begun(asker, by) => {
                            ready.ask(asker);
                            let attempt = Attempt { steps: self.steps(Verb::Start), deadline: ATTEMPT, by };
                            self.start(attempt, &mut doors, ready).await
                        }
                        Waited::Stopped(reply) => {
                            self.leave_runtime_folder();
                            let waiting = reply.into_iter().map(|reply| Waiting { reply, restart: false }).collect();
                            return Ok(Life::Ended { exit: Exit::Stopped, waiting, failure: None });
                        }
                        Waited::HandOver => return Ok(Life::HandOver(None)),
                    }
                }
            };
            let (mut end, failure) = match run {
                Ok(Run::Ended(end)) => (end, None),
                Ok(Run::HandOver) => return Ok(Life::HandOver(None)),
                // A run that never began has ended, too.
                Err(error) => (End::of_a_failed_start(&error), Some(error)),
            };
            end.waiting.extend(ready.asker().map(|reply| Waiting { reply, restart: false }));
            tracing::info!(exit = %end.exit, "ended");
            let next = self.end(&end).await?;
            let End { exit, waiting, .. } = end;
            match next {
                Some(Next::Again(retries)) => {
                    if let Some(error) = failure {
                        tracing::error!(error = %error.chain().join(": "), "not started");
                    }
                    tracing::info!(attempt = retries.attempts, at = %retries.next_at, "it will be started again");
                    tell_the_end(waiting, &exit);
                    task = Task::Again(retries);
                    awaited = false;
                }
                Some(Next::AtOnce) => {
                    let (restarts, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|one| one.restart);
                    ready.restarts.extend(restarts.into_iter().map(|one| one.reply));
                    tell_the_end(others, &exit);
                    self.begin_restart()?;
                    task = Task::Start(Verb::Restart);
                    awaited = true;
                }
                Some(Next::End | Next::GiveUp { .. }) => {
                    return Ok(Life::Ended { exit, waiting, failure: failure.filter(|_| awaited) });
                }
                None => {
                    for one in waiting {
                        let _ = one.reply.send(Reply::HandingOver);
                    }
                    return Ok(Life::HandOver(Some(exit)));
                }
            }
        }
    }

    /// A runtime folder for what is to come, with the control socket in it.
    fn enter(&self, task: &Task, steps: Option<&Steps>) -> Result<Doors> {
        let fresh = || boot::fresh_runtime_folder(self.site, self.spec.uuid, None);
        match (task, steps) {
            (Task::Adopt(..), _) => self.open_doors(),
            (_, Some(steps)) => {
                steps.step("runtime folder", fresh)?;
                steps.step("doors", || self.open_doors())
            }
            (_, None) => {
                fresh()?;
                self.open_doors()
            }
        }
    }

    /// Records that the VM, which is `restarting` because somebody asked for it, starts.
    fn begin_restart(&self) -> Result<()> {
        let us = this_process()?;
        vm::opening(Verb::Restart, "starting", |progress| {
            self.update(|record| {
                decide::start(record, us)?;
                record.progress = Some(progress);
                Ok(())
            })
        })
    }

    /// Serves the control socket until the next attempt is due, and records its start.
    async fn wait(&self, doors: &mut Doors, retries: &Retries) -> Waited {
        let mut due = Instant::now() + again::left(retries, host::now());
        loop {
            let (asked, actor, event) = tokio::select! {
                () = sleep_until(due) => (None, Actor::Supervisor, Event::Start),
                _ = doors.terminate.recv() => (None, Actor::Supervisor, Event::Stop),
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
                        Request::Pause
                        | Request::Resume
                        | Request::Resize { .. }
                        | Request::GrowDisk { .. }
                        | Request::Forwards { .. } => {
                            let error = Error::from(Refusal::Restarting);
                            let _ = asked.reply.send(Reply::Failed { failure: Failure::from(&error) });
                            continue;
                        }
                    };
                    (Some(asked.reply), asked.actor, event)
                }
            };
            let recorded = match event {
                Event::Stop => self.give_up_waiting(&actor),
                _ => self.begin_attempt(&actor, asked.is_some()),
            };
            let Err(error) = recorded else {
                return if event == Event::Stop { Waited::Stopped(asked) } else { Waited::Begun(asked, actor) };
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
    fn begin_attempt(&self, actor: &Actor, asked_for: bool) -> Result<()> {
        let us = this_process()?;
        self.update_by(actor, |record| {
            record.apply(&Event::Start)?;
            record.runtime = Some(Runtime::of(us));
            record.intent = None;
            if asked_for {
                record.retries = None;
            }
            Ok(())
        })
    }

    fn give_up_waiting(&self, actor: &Actor) -> Result<()> {
        tracing::info!("it is not to be started again");
        self.update_by(actor, |record| {
            record.apply(&Event::Stop)?;
            record.runtime = None;
            record.retries = None;
            Ok(())
        })
    }

    /// The last word on a run: nothing of it is left on the host, and what follows it is recorded
    /// with it. `None`: only a newer program can record it.
    async fn end(&self, end: &End) -> Result<Option<Next>> {
        let steps = self.steps(if end.intent == Some(Intent::Restart) { Verb::Restart } else { Verb::Stop });
        steps.step("ports released", || {
            self.release_ports();
            Ok(())
        })?;
        let try_once = || match self.try_end(end, &steps) {
            Ok(next) => Ok(Some(next)),
            Err(_) if self.is_outdated() => Ok(None),
            Err(error) => Err(error),
        };
        until_recorded(try_once).await
    }

    fn try_end(&self, end: &End, steps: &Steps) -> Result<Next> {
        let mut store = self.site.store()?.acting_as(Actor::Supervisor);
        let now = host::now();
        let us = this_process()?;
        let Some(record) = store.get(self.spec.uuid)? else {
            return Err(Error::not_found("the VM is gone"));
        };
        // Whoever finds it ended finds nothing of it; whoever finds it waiting can ask it.
        steps.step("runtime folder removed", || {
            match again::foresee(&record, &end.exit, end.intent, now) {
                Next::Again(_) | Next::AtOnce => {
                    let control = self.site.control_socket(self.spec.uuid);
                    boot::fresh_runtime_folder(self.site, self.spec.uuid, Some(&control))?;
                }
                Next::End | Next::GiveUp { .. } => self.leave_runtime_folder(),
            }
            Ok(())
        })?;
        let next = steps.closing("ended", || {
            store.update(self.spec.uuid, |record| Ok(again::settle(record, end.exit.clone(), end.intent, now, us)?))
        })?;
        vm::networks::settle_after(self.site, self.spec);
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
pub(super) async fn has_ended(process: Handle) -> bool {
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
