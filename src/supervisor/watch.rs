use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::control::Asked;
use super::owner::{Doors, Supervisor};
use super::switch::Switch;
use crate::error::{Error, Kind, Result};
use crate::host::{self, ExitStatus, OomWatch};
use crate::hypervisor::{Machine, MachineEvent};
use crate::spec::{Actor, Event, Exit, Happening, Intent, State};
use crate::vm::control::{Failure, Reply, Request};

/// What a supervisor that is told to end needs beyond the guest's own time.
const TERM_MARGIN: Duration = Duration::from_secs(30);

/// Those who wait to hear how the run ended.
pub(super) type Waiting = Vec<oneshot::Sender<Reply>>;

/// What became of a run.
#[derive(Debug)]
pub(super) enum Run {
    Ended(Exit, Waiting),
    /// The guest runs, and another program is to watch it.
    HandOver,
}

/// From running to ended: what the hypervisor tells, what commands ask, SIGTERM and SIGHUP. `intent`
/// is what was asked of the run before this supervisor took it over.
pub(super) async fn watch(
    supervisor: &Supervisor<'_>,
    mut machine: Box<dyn Machine>,
    doors: &mut Doors,
    intent: Option<Intent>,
) -> Run {
    let mut oom = OomWatch::of(machine.handle().pid);
    let mut run = Watched { supervisor, intent, told: Told::default(), stop: Vec::new(), end: Vec::new() };
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
            () = at(stop_deadline) => run.stop_timed_out(machine.as_mut()).await,
            _ = doors.terminate.recv() => {
                switch.stopping(supervisor.spec.policy.stop_timeout());
                run.terminate(machine.as_mut()).await;
            }
            _ = doors.hangup.recv() => hand_over = run.hang_up(),
        }
        if hand_over {
            tracing::info!("the guest is handed over");
            machine.leave();
            run.waiting().into_iter().for_each(|reply| drop(reply.send(Reply::HandingOver)));
            return Run::HandOver;
        }
    };
    // Before anything is released: it would be put back.
    switch.close().await;
    let words = || machine.last_words().map(|words| one_line(&words)).unwrap_or_default();
    Run::Ended(exit_of(status, run.intent, run.told, || oom.killed(), words), run.waiting())
}

/// What a hypervisor told of its end before it ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) powered_off: bool,
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
    /// Stops that wait for the guest, with the time at which each gives up.
    stop: Vec<(Instant, Option<oneshot::Sender<Reply>>)>,
    /// Those who wait for an end that is certain.
    end: Waiting,
}

impl Watched<'_> {
    fn waiting(self) -> Waiting {
        self.stop.into_iter().filter_map(|(_, reply)| reply).chain(self.end).collect()
    }

    /// Does what is asked. `true`: it could not, and another program can.
    async fn handle(&mut self, machine: &mut dyn Machine, asked: Asked) -> bool {
        let Asked { request, actor, reply } = asked;
        tracing::info!(?request, %actor, "asked");
        let answer = match request {
            Request::Status => self.state(),
            Request::Pause => self.pause(machine, &actor).await,
            Request::Resume => self.resume(machine, &actor).await,
            Request::Stop { timeout_ms, intent } => match self.press(machine, intent, &actor).await {
                Ok(()) => {
                    self.stop.push((Instant::now() + Duration::from_millis(timeout_ms), Some(reply)));
                    return false;
                }
                Err(error) => Err(error),
            },
            Request::ForceStop { intent } => match self.cut(machine, intent, &actor).await {
                Ok(()) => {
                    self.end.push(reply);
                    return false;
                }
                Err(error) => Err(error),
            },
            Request::StartNow => self.refuse(&Event::Start),
        };
        if answer.is_err() && self.supervisor.is_outdated() {
            self.end.push(reply);
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

    /// The power button. A paused guest could not react, so it is resumed first.
    async fn press(&mut self, machine: &mut dyn Machine, intent: Intent, actor: &Actor) -> Result<()> {
        let before = self.state()?;
        self.intend(intent, actor)?;
        if before == State::Paused {
            machine.resume().await?;
        }
        machine.power_button().await
    }

    async fn cut(&mut self, machine: &mut dyn Machine, intent: Intent, actor: &Actor) -> Result<()> {
        self.intend(Intent::ForceStop, actor)?;
        tracing::info!(?intent, "power cut");
        machine.kill().await
    }

    /// The same where it must be done whether it can be recorded or not.
    async fn cut_at_last(&mut self, machine: &mut dyn Machine) -> Result<()> {
        let Err(error) = self.cut(machine, Intent::ForceStop, &Actor::Supervisor).await else { return Ok(()) };
        tracing::error!(error = %error.chain().join(": "), "power not cut in order");
        self.intent = Some(Intent::ForceStop);
        machine.kill().await
    }

    fn intend(&mut self, intent: Intent, actor: &Actor) -> Result<()> {
        self.supervisor.update_by(actor, |record| {
            record.apply(&Event::Stop).map_err(|refusal| Error::new(Kind::Refused, refusal.to_string()))?;
            record.intent = Some(intent);
            Ok(())
        })?;
        self.intent = Some(intent);
        Ok(())
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
        let late: Vec<(Instant, Option<oneshot::Sender<Reply>>)> = late;
        if self.stop.is_empty() && late.iter().all(|(_, reply)| reply.is_some()) {
            self.give_up_stop();
        }
        for (_, reply) in late {
            match reply {
                Some(reply) => {
                    let _ = reply.send(Reply::StillRunning);
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
        let recorded = self.supervisor.update(|record| {
            record.apply(&Event::StopGivenUp)?;
            record.intent = None;
            Ok(())
        });
        if let Err(error) = recorded {
            tracing::error!(error = %error.chain().join(": "), "the end of a stop was not recorded");
        }
    }

    /// SIGTERM, from a service manager or the host's shutdown: an orderly stop, with a limit.
    async fn terminate(&mut self, machine: &mut dyn Machine) {
        let timeout = self.supervisor.spec.policy.stop_timeout();
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
            let exit = exit_of(status, intent, Told { powered_off }, || out_of_memory, || "last words".to_owned());
            assert_eq!(exit, expected, "{status:?} {intent:?} {powered_off} {out_of_memory}");
        }
    }
}
