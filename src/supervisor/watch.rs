use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::control::Asked;
use super::owner::Supervisor;
use crate::error::{Error, Kind, Result};
use crate::host::ExitStatus;
use crate::hypervisor::{Machine, MachineEvent};
use crate::spec::{Event, Exit, Intent, State, Verb};
use crate::vm::control::{Failure, Reply, Request};
use crate::vm::{self, Mark, Steps};

/// How long a guest gets to shut down when the supervisor itself is told to end.
const TERM_TIMEOUT: Duration = Duration::from_secs(60);

/// One who waits to hear how the run ended, or, after a restart, that it runs again.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) reply: oneshot::Sender<Reply>,
    pub(super) restart: bool,
}

/// How a run ended, and what is to be told and done after it.
#[derive(Debug)]
pub(super) struct End {
    pub(super) exit: Exit,
    /// What was asked of the run.
    pub(super) intent: Option<Intent>,
    pub(super) waiting: Vec<Waiting>,
}

impl End {
    /// Nothing follows a start that failed.
    pub(super) fn of_a_failed_start(error: &Error) -> Self {
        let exit = Exit::BootFailed { detail: error.chain().join(": ") };
        Self { exit, intent: None, waiting: Vec::new() }
    }
}

/// From running to ended: what the hypervisor tells, what commands ask, SIGTERM. `intent` is what
/// was asked of the run before this supervisor took it over: it is done.
pub(super) async fn watch(
    supervisor: &Supervisor<'_>,
    mut machine: Box<dyn Machine>,
    mut asked: mpsc::Receiver<Asked>,
    mut terminate: Signal,
    intent: Option<Intent>,
) -> End {
    let mut run =
        Run { supervisor, intent, forced: false, ending: None, powered_off: false, stop: Vec::new(), end: Vec::new() };
    run.take_up(machine.as_mut()).await;
    let status = loop {
        let stop_deadline = run.stop.iter().map(|(deadline, _)| *deadline).min();
        tokio::select! {
            event = machine.next_event() => match event {
                MachineEvent::Ended(status) => break status,
                MachineEvent::PoweredOff => run.powered_off = true,
                event => tracing::info!(?event, "hypervisor"),
            },
            Some(asked) = asked.recv() => run.handle(machine.as_mut(), asked).await,
            () = at(stop_deadline) => run.stop_timed_out(machine.as_mut()).await,
            _ = terminate.recv() => run.terminate(machine.as_mut()).await,
        }
    };
    if let Some((steps, end)) = run.ending.take() {
        steps.done(end);
    }
    let exit = run.classify(status, machine.as_ref());
    End {
        exit,
        intent: run.intent,
        waiting: run.stop.into_iter().filter_map(|(_, waiting)| waiting).chain(run.end).collect(),
    }
}

/// A run that is watched.
struct Run<'a> {
    supervisor: &'a Supervisor<'a>,
    intent: Option<Intent>,
    /// The power was cut.
    forced: bool,
    /// An end that was asked for, and is awaited.
    ending: Option<(Steps, Mark)>,
    powered_off: bool,
    /// Stops that wait for the guest, with the time at which each gives up.
    stop: Vec<(Instant, Option<Waiting>)>,
    /// Those who wait for an end that is certain.
    end: Vec<Waiting>,
}

impl Run<'_> {
    async fn handle(&mut self, machine: &mut dyn Machine, asked: Asked) {
        let Asked { request, reply } = asked;
        tracing::info!(?request, "asked");
        let answer = match request {
            Request::Status => self.state(),
            Request::Pause => self.pause(machine).await,
            Request::Resume => self.resume(machine).await,
            Request::Stop { timeout_ms, intent } => match self.press(machine, intent).await {
                Ok(()) => {
                    let waiting = Waiting { reply, restart: intent == Intent::Restart };
                    self.stop.push((Instant::now() + Duration::from_millis(timeout_ms), Some(waiting)));
                    return;
                }
                Err(error) => Err(error),
            },
            Request::ForceStop { intent } => match self.cut(machine, intent).await {
                Ok(()) => {
                    self.end.push(Waiting { reply, restart: intent == Intent::Restart });
                    return;
                }
                Err(error) => Err(error),
            },
        };
        let answer = answer
            .map_or_else(|error| Reply::Failed { failure: Failure::from(&error) }, |state| Reply::State { state });
        let _ = reply.send(answer);
    }

    fn state(&self) -> Result<State> {
        self.supervisor.update(|record| Ok(record.state))
    }

    /// Refused before the hypervisor is asked, recorded after it has done it.
    async fn pause(&self, machine: &mut dyn Machine) -> Result<State> {
        self.refuse(&Event::Pause)?;
        machine.pause().await?;
        self.record(&Event::Pause)
    }

    async fn resume(&self, machine: &mut dyn Machine) -> Result<State> {
        self.refuse(&Event::Resume)?;
        machine.resume().await?;
        self.record(&Event::Resume)
    }

    /// Goes on with what was asked of the run when its supervisor was killed. The one who asked is
    /// gone, and it may not have come to more than the wish.
    async fn take_up(&mut self, machine: &mut dyn Machine) {
        let Some(intent) = self.intent else { return };
        tracing::info!(?intent, "was asked already");
        let done = match intent {
            Intent::ForceStop => self.cut(machine, intent).await,
            intent => {
                let (reply, _) = oneshot::channel();
                let give_up = Instant::now() + self.supervisor.spec.policy.stop_timeout();
                self.stop.push((give_up, Some(Waiting { reply, restart: false })));
                self.press(machine, intent).await
            }
        };
        if let Err(error) = done {
            tracing::error!(error = %error.chain().join(": "), "a stop could not be gone on with");
        }
    }

    /// The power button. A paused guest could not react, so it is resumed first.
    async fn press(&mut self, machine: &mut dyn Machine, intent: Intent) -> Result<()> {
        let before = self.state()?;
        let steps = self.intend(intent)?;
        let paused = before == State::Paused || before == State::Stopping && machine.is_paused().await?;
        let press = async {
            if paused {
                machine.resume().await?;
            }
            machine.power_button().await
        };
        let pressed = steps.wait("button", press).await;
        match &pressed {
            // Nothing will come of it: the VM is what it was.
            Err(_) if self.stop.is_empty() => self.give_up_stop(),
            _ => self.await_end(steps),
        }
        pressed
    }

    async fn cut(&mut self, machine: &mut dyn Machine, intent: Intent) -> Result<()> {
        // Only a restart has a sequel that must be known whoever finds the VM ended.
        let recorded = if intent == Intent::Restart { intent } else { Intent::ForceStop };
        let steps = self.intend(recorded)?;
        self.forced = true;
        tracing::info!(?intent, "power cut");
        let cut = steps.wait("power cut", machine.kill()).await;
        self.await_end(steps);
        cut
    }

    fn intend(&mut self, intent: Intent) -> Result<Steps> {
        let verb = if intent == Intent::Restart { Verb::Restart } else { Verb::Stop };
        vm::opening(verb, "intent", |progress| {
            self.supervisor.update(|record| {
                record.apply(&Event::Stop).map_err(|refusal| Error::new(Kind::Refused, refusal.to_string()))?;
                record.intent = Some(intent);
                record.progress = Some(progress);
                Ok(())
            })
        })?;
        self.intent = Some(intent);
        Ok(self.supervisor.steps(verb))
    }

    fn await_end(&mut self, steps: Steps) {
        let end = steps.begin("end");
        self.ending = Some((steps, end));
    }

    fn refuse(&self, event: &Event) -> Result<State> {
        let state = self.state()?;
        state.after(event).map_err(|refusal| Error::refused(refusal.to_string()))
    }

    fn record(&self, event: &Event) -> Result<State> {
        self.supervisor.update(|record| {
            record.apply(event)?;
            Ok(record.state)
        })
    }

    async fn stop_timed_out(&mut self, machine: &mut dyn Machine) {
        let now = Instant::now();
        let (late, waiting) = std::mem::take(&mut self.stop).into_iter().partition(|(deadline, _)| *deadline <= now);
        self.stop = waiting;
        let late: Vec<(Instant, Option<Waiting>)> = late;
        if self.stop.is_empty() && late.iter().all(|(_, waiting)| waiting.is_some()) {
            self.give_up_stop();
        }
        for (_, waiting) in late {
            match waiting {
                Some(waiting) => {
                    let _ = waiting.reply.send(Reply::StillRunning);
                }
                // Our own end was asked for, and the guest had its time.
                None => {
                    if let Err(error) = self.cut(machine, Intent::ForceStop).await {
                        tracing::error!(error = %error.chain().join(": "), "power not cut");
                    }
                }
            }
        }
    }

    /// Nobody waits any more: the VM is running again, for whoever wants to look why.
    fn give_up_stop(&mut self) {
        self.intent = None;
        self.ending = None;
        let recorded = self.supervisor.update(|record| {
            record.apply(&Event::StopGivenUp)?;
            record.intent = None;
            record.progress = None;
            Ok(())
        });
        if let Err(error) = recorded {
            tracing::error!(error = %error.chain().join(": "), "the end of a stop was not recorded");
        }
    }

    /// SIGTERM, from a service manager or the host's shutdown: an orderly stop, with a limit.
    async fn terminate(&mut self, machine: &mut dyn Machine) {
        tracing::info!("SIGTERM: the guest is asked to shut down");
        if let Err(error) = self.press(machine, Intent::Stop).await {
            tracing::error!(error = %error.chain().join(": "), "power button not pressed");
        }
        self.stop.push((Instant::now() + TERM_TIMEOUT, None));
    }

    fn classify(&self, status: ExitStatus, machine: &dyn Machine) -> Exit {
        match (status, self.intent) {
            _ if self.forced => Exit::Forced,
            (ExitStatus::Signal(signal), _) => Exit::Killed { signal },
            // How an adopted process ends cannot be seen; what it told before can.
            (ExitStatus::Unseen, _) if !self.powered_off => Exit::Unseen,
            (ExitStatus::Code(0) | ExitStatus::Unseen, Some(_)) => Exit::Stopped,
            (ExitStatus::Code(0) | ExitStatus::Unseen, None) => {
                if !self.powered_off {
                    tracing::warn!("the hypervisor ended without a word of why; taken for a power-off");
                }
                Exit::PoweredOff
            }
            (ExitStatus::Code(code), _) => {
                Exit::Failed { code, detail: machine.last_words().map(|words| one_line(&words)).unwrap_or_default() }
            }
        }
    }
}

/// For a table's cell: lines joined, one that announces the next by a space.
fn one_line(words: &str) -> String {
    words.replace(":\n", ": ").replace('\n', "; ")
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
