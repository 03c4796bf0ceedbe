use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::control::Asked;
use super::helpers::Helpers;
use super::life::has_ended;
use super::owner::{Doors, Supervisor};
use super::switch::Switch;
use crate::error::{Error, Kind, Result};
use crate::host::{self, ExitStatus, OomWatch};
use crate::hypervisor::{Machine, MachineEvent};
use crate::spec::{Actor, Event, Exit, Happening, Intent, State, Verb};
use crate::vm::control::{Failure, Reply, Request};
use crate::vm::{self, Mark, Steps};

/// What a supervisor that is told to end needs beyond the guest's own time.
const TERM_MARGIN: Duration = Duration::from_secs(30);

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
    /// A run that never began.
    pub(super) fn of_a_failed_start(error: &Error) -> Self {
        let exit = Exit::BootFailed { detail: error.chain().join(": ") };
        Self { exit, intent: None, waiting: Vec::new() }
    }
}

/// What became of a run.
#[derive(Debug)]
pub(super) enum Run {
    Ended(End),
    /// The guest runs, and another program is to watch it.
    HandOver,
}

/// From running to ended: what the hypervisor tells, what commands ask, SIGTERM and SIGHUP. `intent`
/// is what was asked of the run before this supervisor took it over: it is done.
pub(super) async fn watch(
    supervisor: &Supervisor<'_>,
    mut machine: Box<dyn Machine>,
    mut helpers: Helpers,
    doors: &mut Doors,
    intent: Option<Intent>,
) -> Run {
    let mut oom = OomWatch::of(machine.handle().pid);
    let mut run =
        Watched { supervisor, intent, told: Told::default(), ending: None, stop: Vec::new(), end: Vec::new() };
    run.take_up(machine.as_mut()).await;
    let mut switch = Switch::watch(supervisor.site, supervisor.spec, &supervisor.ovs, machine.hotplug());
    let status = loop {
        let stop_deadline = run.stop.iter().map(|(deadline, _)| *deadline).min();
        let mut hand_over = false;
        tokio::select! {
            event = machine.next_event() => {
                switch.tell(&event);
                match event {
                    MachineEvent::Ended(status) => break status,
                    MachineEvent::PoweredOff => run.told.powered_off = true,
                    MachineEvent::Rebooted => supervisor.tell(&Happening::Rebooted),
                    MachineEvent::WatchdogFired => supervisor.tell(&Happening::WatchdogFired),
                    event => tracing::info!(?event, "hypervisor"),
                }
            }
            Some(asked) = doors.asked.recv() => {
                if let Request::Stop { timeout_ms, .. } = asked.request {
                    switch.stopping(Duration::from_millis(timeout_ms));
                }
                hand_over = run.handle(machine.as_mut(), asked).await;
            }
            serves = helpers.ended() => {
                // One that serves a hypervisor which ends may be quicker.
                if !has_ended(machine.handle()).await {
                    supervisor.lost(serves);
                }
            }
            () = at(stop_deadline) => run.stop_timed_out(machine.as_mut()).await,
            _ = doors.terminate.recv() => {
                switch.stopping(supervisor.stop_timeout());
                run.terminate(machine.as_mut()).await;
            }
            _ = doors.hangup.recv() => hand_over = run.hang_up(),
        }
        if hand_over {
            tracing::info!("the guest is handed over");
            machine.leave();
            helpers.leave();
            run.waiting().into_iter().for_each(|one| drop(one.reply.send(Reply::HandingOver)));
            return Run::HandOver;
        }
    };
    // Before anything is released: it would be put back.
    switch.close().await;
    helpers.end().await;
    let words = || machine.last_words().map(|words| one_line(&words)).unwrap_or_default();
    if let Some((steps, end)) = run.ending.take() {
        steps.done(end);
    }
    let exit = exit_of(status, run.intent, run.told, || oom.killed(), words);
    Run::Ended(End { exit, intent: run.intent, waiting: run.waiting() })
}

/// What a hypervisor told of its end before it ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) powered_off: bool,
    /// Its power was cut, whatever was asked of it.
    pub(super) cut: bool,
}

/// What an end comes to. `out_of_memory` and `last_words` are asked only where they matter.
pub(super) fn exit_of(
    status: ExitStatus,
    intent: Option<Intent>,
    told: Told,
    mut out_of_memory: impl FnMut() -> bool,
    last_words: impl FnOnce() -> String,
) -> Exit {
    const SIGKILL: i32 = 9;
    match (status, intent) {
        _ if told.cut => Exit::Forced,
        (_, Some(Intent::ForceStop)) => Exit::Forced,
        (ExitStatus::Signal(SIGKILL), _) if out_of_memory() => Exit::OutOfMemory,
        (ExitStatus::Signal(signal), _) => Exit::Killed { signal },
        // How another process's child ends cannot be seen; what it told before can.
        (ExitStatus::Unseen, _) if !told.powered_off => match out_of_memory() {
            true => Exit::OutOfMemory,
            false => Exit::Unseen,
        },
        (ExitStatus::Code(0) | ExitStatus::Unseen, Some(_)) => Exit::Stopped,
        (ExitStatus::Code(0) | ExitStatus::Unseen, None) => {
            if !told.powered_off {
                tracing::warn!("the hypervisor ended without a word of why; taken for a power-off");
            }
            Exit::PoweredOff
        }
        (ExitStatus::Code(code), _) => Exit::Failed { code, detail: last_words() },
    }
}

/// A run that is watched.
struct Watched<'a> {
    supervisor: &'a Supervisor<'a>,
    intent: Option<Intent>,
    told: Told,
    /// An end that was asked for, and is awaited.
    ending: Option<(Steps, Mark)>,
    /// Stops that wait for the guest, with the time at which each gives up; ours if nobody waits.
    stop: Vec<(Instant, Option<Waiting>)>,
    /// Those who wait for an end that is certain.
    end: Vec<Waiting>,
}

impl Watched<'_> {
    fn waiting(self) -> Vec<Waiting> {
        self.stop.into_iter().filter_map(|(_, waiting)| waiting).chain(self.end).collect()
    }

    /// Does what is asked. `true`: it could not, and another program can.
    async fn handle(&mut self, machine: &mut dyn Machine, asked: Asked) -> bool {
        let Asked { request, actor, reply } = asked;
        tracing::info!(?request, %actor, "asked");
        let answer = match request {
            Request::Status => self.state(),
            Request::Pause => self.pause(machine, &actor).await,
            Request::Resume => self.resume(machine, &actor).await,
            Request::Resize { vcpu, vram } => self.supervisor.resize(machine, vcpu, vram, &actor).await,
            Request::GrowDisk { disk, size } => self.supervisor.grow_disk(machine, &disk, size, &actor).await,
            Request::Forwards { nic, forwards } => self.supervisor.forward(machine, nic, forwards).await,
            Request::Stop { timeout_ms, intent } => match self.press(machine, intent, &actor).await {
                Ok(()) => {
                    let waiting = Waiting { reply, restart: intent == Intent::Restart };
                    self.stop.push((Instant::now() + Duration::from_millis(timeout_ms), Some(waiting)));
                    return false;
                }
                Err(error) => Err(error),
            },
            Request::ForceStop { intent } => match self.cut(machine, intent, &actor).await {
                Ok(()) => {
                    self.end.push(Waiting { reply, restart: intent == Intent::Restart });
                    return false;
                }
                Err(error) => Err(error),
            },
            Request::StartNow => self.refuse(&Event::Start),
        };
        if answer.is_err() && self.supervisor.is_outdated() {
            self.end.push(Waiting { reply, restart: false });
            return true;
        }
        let answer = answer
            .map_or_else(|error| Reply::Failed { failure: Failure::from(&error) }, |state| Reply::State { state });
        let _ = reply.send(answer);
        false
    }

    /// SIGHUP. One that is about to end anyway stays as it is.
    fn hang_up(&self) -> bool {
        if self.stop.iter().any(|(_, reply)| reply.is_none()) {
            tracing::info!("SIGHUP: it is ending already");
            return false;
        }
        match self.supervisor.successor.try_out() {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(error = %error.chain().join(": "), "not handed over");
                false
            }
        }
    }

    fn state(&self) -> Result<State> {
        self.supervisor.update(|record| Ok(record.state))
    }

    /// Refused before the hypervisor is asked, recorded after it has done it. What cannot be
    /// recorded is taken back: a guest that is paused must not be said to run.
    async fn pause(&self, machine: &mut dyn Machine, actor: &Actor) -> Result<State> {
        self.refuse(&Event::Pause)?;
        machine.pause().await?;
        let recorded = self.record(&Event::Pause, actor);
        if recorded.is_err() {
            machine.resume().await?;
        }
        recorded
    }

    async fn resume(&self, machine: &mut dyn Machine, actor: &Actor) -> Result<State> {
        self.refuse(&Event::Resume)?;
        machine.resume().await?;
        let recorded = self.record(&Event::Resume, actor);
        if recorded.is_err() {
            machine.pause().await?;
        }
        recorded
    }

    /// Goes on with what was asked of the run when its supervisor was killed. The one who asked is
    /// gone, and it may not have come to more than the wish.
    async fn take_up(&mut self, machine: &mut dyn Machine) {
        let Some(intent) = self.intent else { return };
        tracing::info!(?intent, "was asked already");
        let done = match intent {
            Intent::ForceStop => self.cut(machine, intent, &Actor::Supervisor).await,
            intent => {
                let (reply, _) = oneshot::channel();
                let give_up = Instant::now() + self.supervisor.stop_timeout();
                self.stop.push((give_up, Some(Waiting { reply, restart: false })));
                self.press(machine, intent, &Actor::Supervisor).await
            }
        };
        if let Err(error) = done {
            tracing::error!(error = %error.chain().join(": "), "a stop could not be gone on with");
        }
    }

    /// The power button. A paused guest could not react, so it is resumed first.
    async fn press(&mut self, machine: &mut dyn Machine, intent: Intent, actor: &Actor) -> Result<()> {
        let before = self.state()?;
        let steps = self.intend(intent, actor)?;
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

    async fn cut(&mut self, machine: &mut dyn Machine, intent: Intent, actor: &Actor) -> Result<()> {
        // Only a restart has a sequel that must be known whoever finds the VM ended.
        let recorded = if intent == Intent::Restart { intent } else { Intent::ForceStop };
        let steps = self.intend(recorded, actor)?;
        self.told.cut = true;
        tracing::info!(?intent, "power cut");
        let cut = steps.wait("power cut", machine.kill()).await;
        self.await_end(steps);
        cut
    }

    /// The same where it must be done whether it can be recorded or not.
    async fn cut_at_last(&mut self, machine: &mut dyn Machine) -> Result<()> {
        let Err(error) = self.cut(machine, Intent::ForceStop, &Actor::Supervisor).await else { return Ok(()) };
        tracing::error!(error = %error.chain().join(": "), "power not cut in order");
        self.intent = Some(Intent::ForceStop);
        machine.kill().await
    }

    fn intend(&mut self, intent: Intent, actor: &Actor) -> Result<Steps> {
        let verb = if intent == Intent::Restart { Verb::Restart } else { Verb::Stop };
        vm::opening(verb, "intent", |progress| {
            self.supervisor.update_by(actor, |record| {
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

    fn record(&self, event: &Event, actor: &Actor) -> Result<State> {
        self.supervisor.update_by(actor, |record| {
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
                    if let Err(error) = self.cut_at_last(machine).await {
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
        let timeout = self.supervisor.stop_timeout();
        tracing::info!(?timeout, "SIGTERM: the guest is asked to shut down");
        host::tell_manager(&format!("EXTEND_TIMEOUT_USEC={}", (timeout + TERM_MARGIN).as_micros()));
        if let Err(error) = self.press(machine, Intent::Stop, &Actor::Supervisor).await {
            tracing::error!(error = %error.chain().join(": "), "power button not pressed");
            // Whatever ends it now, it was asked for.
            self.intent = self.intent.or(Some(Intent::Stop));
        }
        self.stop.push((Instant::now() + timeout, None));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_run_ended() {
        use ExitStatus::{Code, Signal, Unseen};
        use Intent::{ForceStop, Restart, Stop};
        let killed = |signal| Exit::Killed { signal };
        let failed = || Exit::Failed { code: 1, detail: "last words".to_owned() };
        // Status, intent, whether it told of a power-off, whether memory ran out.
        let rows = [
            (Code(0), None, true, false, Exit::PoweredOff),
            (Code(0), None, false, false, Exit::PoweredOff),
            (Code(0), Some(Stop), true, false, Exit::Stopped),
            (Code(0), Some(Restart), true, false, Exit::Stopped),
            (Code(0), Some(ForceStop), false, false, Exit::Forced),
            (Code(1), None, false, false, failed()),
            (Code(1), Some(Stop), true, false, failed()),
            (Signal(9), None, false, false, killed(9)),
            (Signal(9), None, false, true, Exit::OutOfMemory),
            (Signal(9), Some(Stop), false, true, Exit::OutOfMemory),
            (Signal(9), Some(ForceStop), false, true, Exit::Forced),
            (Signal(31), None, false, true, killed(31)),
            (Signal(11), Some(Stop), false, false, killed(11)),
            (Unseen, None, false, false, Exit::Unseen),
            (Unseen, None, false, true, Exit::OutOfMemory),
            (Unseen, None, true, false, Exit::PoweredOff),
            (Unseen, Some(Stop), true, false, Exit::Stopped),
            (Unseen, Some(Stop), false, false, Exit::Unseen),
        ];
        for (status, intent, powered_off, out_of_memory, expected) in rows {
            let exit =
                exit_of(status, intent, Told { cut: false, powered_off }, || out_of_memory, || "last words".to_owned());
            assert_eq!(exit, expected, "{status:?} {intent:?} {powered_off} {out_of_memory}");
        }
    }
}
