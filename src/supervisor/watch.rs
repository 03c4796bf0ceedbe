use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::control::Asked;
use super::owner::Supervisor;
use super::switch::Switch;
use crate::error::{Error, Kind, Result};
use crate::host::ExitStatus;
use crate::hypervisor::{Machine, MachineEvent};
use crate::spec::{Event, Exit, Intent, State};
use crate::vm::control::{Failure, Reply, Request};

/// How long a guest gets to shut down when the supervisor itself is told to end.
const TERM_TIMEOUT: Duration = Duration::from_secs(60);

/// Those who wait to hear how the run ended.
pub(super) type Waiting = Vec<oneshot::Sender<Reply>>;

/// From running to ended: what the hypervisor tells, what commands ask, SIGTERM. `intent` is what
/// was asked of the run before this supervisor took it over.
pub(super) async fn watch(
    supervisor: &Supervisor<'_>,
    mut machine: Box<dyn Machine>,
    mut asked: mpsc::Receiver<Asked>,
    mut terminate: Signal,
    intent: Option<Intent>,
) -> (Exit, Waiting) {
    let mut run = Run { supervisor, intent, powered_off: false, stop: Vec::new(), end: Vec::new() };
    let mut switch = Switch::watch(supervisor.site, supervisor.spec, &supervisor.ovs, machine.hotplug());
    let status = loop {
        let stop_deadline = run.stop.iter().map(|(deadline, _)| *deadline).min();
        tokio::select! {
            event = machine.next_event() => {
                switch.tell(&event);
                match event {
                    MachineEvent::Ended(status) => break status,
                    MachineEvent::PoweredOff => run.powered_off = true,
                    event => tracing::info!(?event, "hypervisor"),
                }
            }
            Some(asked) = asked.recv() => {
                if let Request::Stop { timeout_ms, .. } = asked.request {
                    switch.stopping(Duration::from_millis(timeout_ms));
                }
                run.handle(machine.as_mut(), asked).await;
            }
            () = at(stop_deadline) => run.stop_timed_out(machine.as_mut()).await,
            _ = terminate.recv() => {
                switch.stopping(TERM_TIMEOUT);
                run.terminate(machine.as_mut()).await;
            }
        }
    };
    // Before anything is released: it would be put back.
    switch.close().await;
    let exit = run.classify(status, machine.as_ref());
    (exit, run.stop.into_iter().filter_map(|(_, reply)| reply).chain(run.end).collect())
}

/// A run that is watched.
struct Run<'a> {
    supervisor: &'a Supervisor<'a>,
    intent: Option<Intent>,
    powered_off: bool,
    /// Stops that wait for the guest, with the time at which each gives up.
    stop: Vec<(Instant, Option<oneshot::Sender<Reply>>)>,
    /// Those who wait for an end that is certain.
    end: Waiting,
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
                    self.stop.push((Instant::now() + Duration::from_millis(timeout_ms), Some(reply)));
                    return;
                }
                Err(error) => Err(error),
            },
            Request::ForceStop { intent } => match self.cut(machine, intent).await {
                Ok(()) => {
                    self.end.push(reply);
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

    /// The power button. A paused guest could not react, so it is resumed first.
    async fn press(&mut self, machine: &mut dyn Machine, intent: Intent) -> Result<()> {
        let before = self.state()?;
        self.intend(intent)?;
        if before == State::Paused {
            machine.resume().await?;
        }
        machine.power_button().await
    }

    async fn cut(&mut self, machine: &mut dyn Machine, intent: Intent) -> Result<()> {
        self.intend(Intent::ForceStop)?;
        tracing::info!(?intent, "power cut");
        machine.kill().await
    }

    fn intend(&mut self, intent: Intent) -> Result<()> {
        self.supervisor.update(|record| {
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
        tracing::info!("SIGTERM: the guest is asked to shut down");
        if let Err(error) = self.press(machine, Intent::Stop).await {
            tracing::error!(error = %error.chain().join(": "), "power button not pressed");
        }
        self.stop.push((Instant::now() + TERM_TIMEOUT, None));
    }

    fn classify(&self, status: ExitStatus, machine: &dyn Machine) -> Exit {
        match (status, self.intent) {
            (_, Some(Intent::ForceStop)) => Exit::Forced,
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
