use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::boot::{self, Booted};
use super::control::{self, Asked};
use super::ports::Ports;
use crate::config::Config;
use crate::error::{Error, Kind, OrFailed, Result};
use crate::host::{self, ExitStatus, Handle, Lock, LockError};
use crate::hypervisor::{Machine, MachineEvent};
use crate::spec::{Event, Exit, Intent, Refusal, State, VmSpec};
use crate::store::{Record, Runtime};
use crate::vm::Site;
use crate::vm::control::{Failure, Reply, Request};

/// How long a guest gets to shut down when the supervisor itself is told to end.
const TERM_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a lock that is about to be given back, or a record that is about to be written, is
/// waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Owns the VM from its start to its end. `ready` gets one line: `null`, or why it does not run.
pub fn supervise(site: &Site, vm: Uuid, deadline: Duration, ready: Option<OwnedFd>) -> Result<()> {
    let mut ready = Ready(ready);
    let result = own(site, vm, deadline, &mut ready);
    if let Err(error) = &result {
        ready.say(Some(error));
    }
    result
}

fn own(site: &Site, vm: Uuid, deadline: Duration, ready: &mut Ready) -> Result<()> {
    let config = site.config()?;
    let lock = take_lock(site, vm)?;
    let spec = begin(site, vm)?;
    let failed = || format!("cannot start `{}`", spec.name);
    let supervisor = Supervisor { site, config: &config, spec: &spec, deadline };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_failed(failed)?;
    let tasks = tokio::task::LocalSet::new();
    let outcome = tasks.block_on(&runtime, supervisor.run(ready));
    // Records the end even of a run that never began, then lets go of the lock.
    let (exit, waiting) = match outcome {
        Ok(end) => end,
        Err(error) => {
            supervisor.end(&Exit::BootFailed { detail: boot::start_failure(&error) })?;
            return Err(error.context(failed()));
        }
    };
    supervisor.end(&exit)?;
    tracing::info!(%exit, "ended");
    // Answers only now, so that whoever waited finds the record written, the ports free, and can
    // start the VM again at once.
    drop(lock);
    tasks.block_on(&runtime, async {
        for reply in waiting {
            let _ = reply.send(Reply::Ended { exit: exit.clone() });
        }
        // The connections' own tasks write the answers: each needs to be run once.
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    });
    Ok(())
}

/// The lock, or why not. One that is held though the record says that the VM does not run belongs
/// to a supervisor that has just recorded its end, or just begun: it is looked at again.
fn take_lock(site: &Site, vm: Uuid) -> Result<Lock> {
    let path = site.lock(vm);
    let until = std::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match Lock::try_take(&path) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Io(error)) => {
                return Err(Error::failed(format!("cannot lock `{}`", path.display())).source(error));
            }
            Err(LockError::Held) => {}
        }
        let Some(record) = site.store()?.get(vm)? else {
            return Err(Error::not_found("cannot start the VM: it was deleted"));
        };
        let late = std::time::Instant::now() >= until;
        let refusal = record.state.after(&Event::Start).err().or(late.then_some(Refusal::AlreadyRunning));
        if let Some(refusal) = refusal {
            return Err(Error::refused(format!("cannot start `{}`: {refusal}", record.spec.name)));
        }
        host::pause(Duration::from_millis(10));
    }
}

/// Records that the VM starts. Only the holder of the lock comes here.
fn begin(site: &Site, vm: Uuid) -> Result<VmSpec> {
    let supervisor = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    site.store()?.update(vm, |record| {
        let failed = |record: &Record| format!("cannot start `{}`", record.spec.name);
        if record.state.is_live() {
            let hypervisor = record.runtime.as_ref().and_then(|runtime| runtime.hypervisor);
            if hypervisor.is_some_and(|handle| handle.is_alive()) {
                return Err(Error::refused(failed(record))
                    .source(Error::failed("its hypervisor runs without a supervisor"))
                    .hint(format!("end it with `v vm stop --force {}`", record.spec.name)));
            }
            record.apply(&Event::Ended(Exit::Lost))?;
        }
        record.apply(&Event::Start).map_err(|refusal| Error::refused(format!("{}: {refusal}", failed(record))))?;
        record.runtime = Some(Runtime { supervisor, hypervisor: None, ssh: None });
        record.intent = None;
        Ok(record.spec.clone())
    })
}

struct Supervisor<'a> {
    site: &'a Site,
    config: &'a Config,
    spec: &'a VmSpec,
    deadline: Duration,
}

/// Those who wait to hear how the run ended.
type Waiting = Vec<oneshot::Sender<Reply>>;

impl Supervisor<'_> {
    /// The whole run. An error means that it never came to run.
    async fn run(&self, ready: &mut Ready) -> Result<(Exit, Waiting)> {
        let run = self.site.dirs.run(self.spec.uuid);
        boot::fresh_runtime_folder(&run)?;
        let mut asked = control::listen(&self.site.control_socket(self.spec.uuid))?;
        let console_socket = self.site.console_socket(self.spec.uuid);
        let console_listener = UnixListener::bind(&console_socket)
            .or_failed(|| format!("cannot listen on `{}`", console_socket.display()))?;
        let mut terminate = signal(SignalKind::terminate()).or_failed(|| "cannot watch for SIGTERM".to_owned())?;
        let ports = Ports::new(self.spec, self.site.ovs(self.config));

        let booting = boot::boot(self.site, self.config, self.spec, &ports, self.deadline, |handle, ssh| {
            self.launched(handle, ssh)
        });
        let booted = tokio::select! {
            booted = booting => booted,
            reply = interrupted(&mut asked, &mut terminate) => {
                // Dropping the boot kills what it had begun.
                ports.release();
                ready.say(Some(&Error::refused(format!("cannot start `{}`", self.spec.name))
                    .source(Error::failed("it was stopped while it was starting"))));
                return Ok((Exit::Forced, reply.into_iter().collect()));
            }
        };
        let end = match booted {
            Ok(booted) => self.watch(booted, console_listener, asked, terminate, ready).await,
            Err(error) => Err(error),
        };
        ports.release();
        end
    }

    fn launched(&self, hypervisor: Handle, ssh: Option<std::net::SocketAddrV4>) -> Result<()> {
        self.update(|record| {
            if let Some(runtime) = &mut record.runtime {
                runtime.hypervisor = Some(hypervisor);
                runtime.ssh = ssh;
            }
            Ok(())
        })
    }

    /// From running to ended.
    async fn watch(
        &self,
        booted: Booted,
        console_listener: UnixListener,
        mut asked: mpsc::Receiver<Asked>,
        mut terminate: Signal,
        ready: &mut Ready,
    ) -> Result<(Exit, Waiting)> {
        let Booted { mut machine, console, ssh } = booted;
        self.update(|record| {
            record.apply(&Event::Booted)?;
            record.started_at = Some(host::now());
            Ok(())
        })?;
        tracing::info!(pid = machine.handle().pid, ?ssh, "running");
        ready.say(None);
        tokio::task::spawn_local(console.serve(console_listener));

        let mut run = Run { supervisor: self, intent: None, powered_off: false, stop: Vec::new(), end: Vec::new() };
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
        let exit = run.classify(status, machine.as_ref());
        let waiting = run.stop.into_iter().filter_map(|(_, reply)| reply).chain(run.end).collect();
        Ok((exit, waiting))
    }

    fn update<T>(&self, change: impl FnOnce(&mut Record) -> Result<T>) -> Result<T> {
        self.site.store()?.update(self.spec.uuid, change)
    }

    /// The last word on this run: nothing of it is left on the host.
    fn end(&self, exit: &Exit) -> Result<()> {
        let run = self.site.dirs.run(self.spec.uuid);
        if let Err(error) = fs::remove_dir_all(&run) {
            tracing::warn!(%error, "runtime folder not removed");
        }
        self.update(|record| {
            record.apply(&Event::Ended(exit.clone()))?;
            record.exit = Some(exit.clone());
            record.runtime = None;
            record.intent = None;
            record.started_at = None;
            Ok(())
        })
    }
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
            (ExitStatus::Code(0), Some(_)) => Exit::Stopped,
            (ExitStatus::Code(0), None) => {
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

/// A start is given up when somebody cuts the power or ends the supervisor; anything else asked
/// meanwhile is refused.
async fn interrupted(asked: &mut mpsc::Receiver<Asked>, terminate: &mut Signal) -> Option<oneshot::Sender<Reply>> {
    loop {
        tokio::select! {
            _ = terminate.recv() => return None,
            Some(asked) = asked.recv() => match asked.request {
                Request::ForceStop { .. } | Request::Stop { .. } => return Some(asked.reply),
                Request::Status => {
                    let _ = asked.reply.send(Reply::State { state: State::Starting });
                }
                Request::Pause | Request::Resume => {
                    let error = Error::refused(Refusal::AlreadyStarting.to_string());
                    let _ = asked.reply.send(Reply::Failed { failure: Failure::from(&error) });
                }
            }
        }
    }
}

/// The pipe to whoever launched us. It is told once.
struct Ready(Option<OwnedFd>);

impl Ready {
    fn say(&mut self, error: Option<&Error>) {
        let Some(pipe) = self.0.take() else { return };
        let mut line = serde_json::to_vec(&error.map(Failure::from)).unwrap_or_default();
        line.push(b'\n');
        // The command that launched us may be gone; the record says it all.
        let _ = fs::File::from(pipe).write_all(&line);
    }
}
