use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal as ProcessSignal;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::boot::{self, Begun, Booted};
use super::console::Console;
use super::control::{self, Asked};
use super::decide::{self, Decision, decide};
use super::handover::{Handed, Successor};
use super::helpers::Helpers;
use super::life::{Life, tell_giving_up};
use super::ports::Ports;
use super::watch::{End, Run, Told, Waiting, exit_of, watch};
use super::{limits, unit};
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Child, Gate, Handle, Lock, LockError};
use crate::hypervisor::{self, Machine};
use crate::network::ovs::Ovs;
use crate::spec::{
    Actor, Ailment, Event, Exit, Happening, Intent, PortTrouble, Progress, Refusal, Serves, State, Verb, VmSpec,
};
use crate::store::{Record, Retries};
use crate::vm::control::{Failure, Reply, Request};
use crate::vm::{self, Purpose, Site, Steps};

/// How long a lock that is about to be given back, or a record that is about to be written, is
/// waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a process may take to be gone after SIGKILL.
const KILLED: Duration = Duration::from_secs(10);

/// What a supervisor has open, with a terminal attached.
const DESCRIPTORS: usize = 30;

/// Owns the VM until it ends. `ready` gets one line: `null` once it is watched, or why not. `actor`
/// is whose wish it is that the VM runs: its start is noted as theirs, what the supervisor does
/// later of its own accord is not.
pub fn supervise(
    site: &Site,
    vm: Uuid,
    purpose: Purpose,
    actor: &Actor,
    deadline: Duration,
    ready: Option<OwnedFd>,
    handed: Handed,
) -> Result<()> {
    let mut ready = Ready { listener: ready.map(Listener::Pipe), restarts: Vec::new(), said: false };
    let result =
        host::check_descriptors(DESCRIPTORS).and_then(|()| own(site, vm, purpose, actor, deadline, &mut ready, handed));
    match &result {
        Ok(()) => ready.say(None),
        Err(error) => ready.say(Some(error)),
    }
    result
}

fn own(
    site: &Site,
    vm: Uuid,
    mut purpose: Purpose,
    actor: &Actor,
    deadline: Duration,
    ready: &mut Ready,
    handed: Handed,
) -> Result<()> {
    let successor = Successor::find()?;
    let inherited = handed.lock.and_then(|number| Lock::inherited(number, &site.lock(vm)));
    let mut ended = handed.ended;
    let handed = inherited.is_some();
    // A guest that runs is watched whatever has become of the config.
    let config = match purpose {
        Purpose::Start => Some(site.config()?),
        Purpose::Adopt => site.config().ok(),
    };
    let ovs = config.as_ref().map_or_else(|| Ovs::new(None), |config| site.ovs(config));
    let lock = match inherited {
        Some(lock) => lock,
        None => match take_lock(site, vm, purpose)? {
            Some(lock) => lock,
            None => return Ok(()),
        },
    };
    if purpose == Purpose::Start {
        vm::finish_reshape(site, &mut site.store()?, vm)?;
    }
    loop {
        let (task, spec) = loop {
            let (decision, record) = begin(site, vm, purpose, actor)?;
            let spec = record.spec.clone();
            match decision {
                Decision::Nothing => return Ok(()),
                Decision::CutShort(hypervisor) => clear_cut_short(site, &record, hypervisor, ended.take())?,
                Decision::Start if record.intent == Some(Intent::Restart) => break (Task::Start(Verb::Restart), spec),
                Decision::Start => break (Task::Start(Verb::Start), spec),
                Decision::Wait(retries) => break (Task::Again(retries), spec),
                Decision::Adopt(hypervisor) => break (Task::Adopt(Box::new(record), hypervisor), spec),
            }
        };
        let aim = if matches!(task, Task::Adopt(..)) { "watch over" } else { "start" };
        let failed = || format!("cannot {aim} `{}`", spec.name);
        let supervisor =
            Supervisor { site, ovs: ovs.clone(), spec: &spec, actor, deadline, successor: &successor, handed };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_failed(failed)?;
        let tasks = tokio::task::LocalSet::new();
        let life = tasks.block_on(&runtime, supervisor.live(task, ready)).map_err(|error| error.context(failed()))?;
        match life {
            Life::Ended { exit, waiting, failure } => {
                // Before anybody hears of the end: the unit of one who starts it again at once must
                // be a new one.
                host::tell_manager(&format!("STOPPING=1\nSTATUS={exit}"));
                // Answers only now, so that whoever waited finds the record written, the ports free,
                // and can start the VM again at once.
                drop(lock);
                let failure = failure.map(|error| error.context(failed()));
                tasks.block_on(&runtime, async {
                    tell_the_end(waiting, &exit);
                    if let Some(error) = &failure {
                        ready.say(Some(error));
                    }
                    settled().await;
                });
                return failure.map_or(Ok(()), Err);
            }
            Life::HandOver(exit) => {
                tasks.block_on(&runtime, settled());
                drop((tasks, runtime));
                let error = successor.take_over(site, vm, deadline, &lock, exit.as_ref());
                tracing::error!(error = %error.chain().join(": "), "not handed over: this program goes on");
                (purpose, ended) = (Purpose::Adopt, exit);
            }
        }
    }
}

/// The lock; `None` when the guest that should be adopted is watched already. One that is held
/// though the record says that the VM does not run belongs to a supervisor that has just recorded
/// its end, or just begun: it is looked at again.
fn take_lock(site: &Site, vm: Uuid, purpose: Purpose) -> Result<Option<Lock>> {
    let path = site.lock(vm);
    let until = Instant::now() + PATIENCE;
    loop {
        match Lock::try_take(&path) {
            Ok(lock) => return Ok(Some(lock)),
            Err(LockError::Io(error)) => {
                return Err(Error::failed(format!("cannot lock `{}`", path.display())).source(error));
            }
            Err(LockError::Held) => {}
        }
        let late = Instant::now() >= until;
        match purpose {
            // Another command was quicker: its supervisor is there once it listens.
            Purpose::Adopt if late || UnixStream::connect(site.control_socket(vm)).is_ok() => return Ok(None),
            Purpose::Adopt => {}
            Purpose::Start => {
                let Some(record) = site.store()?.get(vm)? else {
                    return Err(Error::not_found("cannot start the VM: it was deleted"));
                };
                let failed = format!("cannot start `{}`", record.spec.name);
                if late && record.owner.is_some_and(|owner| owner.is_alive()) {
                    return Err(Error::refused(format!("{failed}: another command is at work on it")));
                }
                let refusal = record.state.after(&Event::Start).err().or(late.then_some(Refusal::AlreadyRunning));
                if let Some(refusal) = refusal {
                    return Err(Error::refused(format!("{failed}: {refusal}")));
                }
            }
        }
        host::pause(Duration::from_millis(10));
    }
}

pub(super) enum Task {
    /// The start is recorded.
    Start(Verb),
    Adopt(Box<Record>, Handle),
    Again(Retries),
}

/// What there is to do for the holder of the lock, recorded, and the record as it is then.
fn begin(site: &Site, vm: Uuid, purpose: Purpose, actor: &Actor) -> Result<(Decision, Record)> {
    let us = this_process()?;
    let record = |progress: Option<Progress>| {
        site.store()?.acting_as(actor.clone()).update(vm, |record| {
            let failed = format!("cannot start `{}`", record.spec.name);
            let decision = decide(record, purpose, us, Handle::is_alive)
                .map_err(|refusal| Error::refused(format!("{failed}: {refusal}")))?;
            if decision == Decision::Start {
                record.progress = progress;
            }
            Ok((decision, record.clone()))
        })
    };
    match purpose {
        Purpose::Start => vm::opening(Verb::Start, "starting", |progress| record(Some(progress))),
        Purpose::Adopt => record(None),
    }
}

pub(super) fn this_process() -> Result<Handle> {
    Handle::current().or_failed(|| "cannot read this process's start time".to_owned())
}

pub(super) fn tell_the_end(waiting: Vec<Waiting>, exit: &Exit) {
    for one in waiting {
        let _ = one.reply.send(Reply::Ended { exit: exit.clone() });
    }
}

/// How a hypervisor ended that died while this process became another program.
pub(super) fn seen_end(hypervisor: Handle, intent: Option<Intent>) -> Option<Exit> {
    Some(exit_of(Child::ended(hypervisor).ok()??, intent, Told::default(), || false, String::new))
}

/// Ends what a killed supervisor was at work on: the hypervisor, its ports, its folder, the record.
/// `seen`: how the run ended, if somebody knows.
fn clear_cut_short(site: &Site, record: &Record, hypervisor: Option<Handle>, seen: Option<Exit>) -> Result<()> {
    let spec = &record.spec;
    if let Some(hypervisor) = hypervisor {
        let failed = || format!("cannot end process {}, which was to run `{}`", hypervisor.pid, spec.name);
        hypervisor.signal(ProcessSignal::KILL).or_failed(failed)?;
        let until = Instant::now() + KILLED;
        while hypervisor.is_alive() {
            if Instant::now() >= until {
                return Err(Error::failed(failed()));
            }
            host::pause(Duration::from_millis(10));
        }
    }
    let gone = record.runtime.as_ref().and_then(|runtime| runtime.hypervisor).filter(|_| hypervisor.is_none());
    let seen = seen.or_else(|| seen_end(gone?, record.intent));
    vm::clear_run(site, record)?;
    let us = this_process()?;
    let mut store = site.store()?.acting_as(Actor::Supervisor);
    let next = store.update(spec.uuid, |record| Ok(decide::cut_short(record, seen, host::now(), us)?))?;
    vm::networks::settle_after(site, spec);
    tell_giving_up(&mut store, spec, &next);
    let became = if record.state == State::Starting { "undone" } else { "cleared away" };
    vm::told(&mut store, spec, record.progress.as_ref().map(Progress::cut_short), became)
}

/// One VM, and what its owner needs to know.
pub(super) struct Supervisor<'a> {
    pub(super) site: &'a Site,
    pub(super) ovs: Ovs,
    pub(super) spec: &'a VmSpec,
    /// Whose wish the first start was.
    pub(super) actor: &'a Actor,
    /// For the first thing that is to be done: the launching command's.
    pub(super) deadline: Duration,
    pub(super) successor: &'a Successor,
    /// This process was the VM's supervisor before, as another program.
    handed: bool,
}

/// One start of the VM.
pub(super) struct Attempt {
    pub(super) steps: Steps,
    /// For the hypervisor to come up, and again to boot.
    pub(super) deadline: Duration,
    /// Whose wish it is.
    pub(super) by: Actor,
}

/// Where this supervisor is asked.
pub(super) struct Doors {
    pub(super) asked: mpsc::Receiver<Asked>,
    pub(super) terminate: Signal,
    pub(super) hangup: Signal,
}

impl Supervisor<'_> {
    /// The whole run, of the VM as it is recorded by then. An error means that it never came to run.
    pub(super) async fn start(&self, attempt: Attempt, doors: &mut Doors, ready: &mut Ready) -> Result<Run> {
        let spec = &self.recorded()?.spec;
        Supervisor { ovs: self.ovs.clone(), spec, ..*self }.start_recorded(attempt, doors, ready).await
    }

    async fn start_recorded(&self, attempt: Attempt, doors: &mut Doors, ready: &mut Ready) -> Result<Run> {
        limits::apply(self.spec);
        let console = self.open_console_door()?;
        let ports = Ports::new(self.spec, self.ovs.clone());
        let config = self.site.config()?;
        let begun = |process| self.begun(process);
        let booting = boot::boot(self.site, &config, self.spec, &ports, attempt.deadline, &attempt.steps, begun);
        let booted = tokio::select! {
            booted = booting => booted?,
            reply = interrupted(doors) => {
                // Dropping the boot kills what it had begun.
                ready.say(Some(&Error::refused(format!("cannot start `{}`", self.spec.name))
                    .source(Error::failed("it was stopped while it was starting"))));
                let waiting = reply.into_iter().map(|reply| Waiting { reply, restart: false }).collect();
                return Ok(Run::Ended(End { exit: Exit::Forced, intent: None, waiting }));
            }
        };
        self.run(booted, console, attempt, doors, ready).await
    }

    async fn run(
        &self,
        booted: Booted,
        door: UnixListener,
        attempt: Attempt,
        doors: &mut Doors,
        ready: &mut Ready,
    ) -> Result<Run> {
        let Booted { machine, console, helpers, ssh } = booted;
        attempt.steps.closing("running", || {
            self.update_by(&attempt.by, |record| {
                record.apply(&Event::Booted)?;
                record.started_at = Some(host::now());
                record.intent = None;
                record.progress = None;
                Ok(())
            })
        })?;
        drop(attempt);
        tracing::info!(pid = machine.handle().pid, ?ssh, "running");
        ready.say(None);
        // It ends with the run: the next one has a console of its own.
        let mut serving = JoinSet::new();
        serving.spawn_local(console.serve(door));
        let run = watch(self, machine, helpers, doors, None).await;
        settled().await;
        Ok(run)
    }

    /// The rest of a run whose supervisor was killed. An error leaves the guest as it is.
    pub(super) async fn adopt(
        &self,
        record: &Record,
        hypervisor: Handle,
        doors: &mut Doors,
        ready: &mut Ready,
    ) -> Result<Run> {
        let door = self.open_console_door()?;
        let (run, dir) = (self.site.hypervisor_run(self.spec.uuid), self.site.dirs.vm(self.spec.uuid));
        let launch = hypervisor::Launch {
            spec: self.spec,
            // It runs already: its program may have been replaced since.
            program: "".as_ref(),
            dir: &dir,
            run: &run,
            gate: Gate { program: "".into(), runner: None },
            landlock: false,
            taps: Vec::new(),
            ssh: None,
            vsock: None,
            log: &self.site.hypervisor_log(self.spec.uuid),
            deadline: self.deadline,
        };
        let serial = launch.serial_socket();
        let mut machine = hypervisor::driver(self.spec.hypervisor).adopt(launch, hypervisor).await?;
        let console = match self.take_over(machine.as_mut(), &serial).await {
            Ok(console) => console,
            Err(error) => {
                machine.leave();
                return Err(error);
            }
        };
        let (helpers, lost) = Helpers::adopt(record.runtime.as_ref().map_or(&[], |runtime| &runtime.helpers));
        tracing::info!(pid = hypervisor.pid, helpers = ?helpers.pids(), "adopted");
        self.tell(if self.handed { &Happening::HandedOver } else { &Happening::Adopted });
        lost.into_iter().for_each(|serves| self.lost(serves));
        ready.say(None);
        let mut serving = JoinSet::new();
        serving.spawn_local(console.serve(door));
        let run = watch(self, machine, helpers, doors, record.intent).await;
        settled().await;
        Ok(run)
    }

    /// The console, and a record that says who watches now and how the guest was found.
    async fn take_over(&self, machine: &mut dyn Machine, serial: &std::path::Path) -> Result<Console> {
        let supervisor = this_process()?;
        let paused = machine.is_paused().await?;
        let console = Console::connect(serial, &self.site.console_log(self.spec.uuid), machine.handle().pid).await?;
        self.update(|record| {
            match (record.state, paused) {
                (State::Running, true) => record.apply(&Event::Pause)?,
                (State::Paused, false) => record.apply(&Event::Resume)?,
                _ => {}
            }
            if let Some(runtime) = &mut record.runtime {
                runtime.supervisor = supervisor;
            }
            unit::tell_state(self.spec, record.state);
            Ok(())
        })?;
        Ok(console)
    }

    /// The steps of a verb from here on.
    pub(super) fn steps(&self, verb: Verb) -> Steps {
        Steps::of(self.site, verb, self.spec.uuid)
    }

    /// How long the guest gets to shut down.
    pub(super) fn stop_timeout(&self) -> Duration {
        self.recorded().map_or(self.spec.policy.stop_timeout(), |record| record.spec.policy.stop_timeout())
    }

    pub(super) fn release_ports(&self) {
        Ports::new(self.spec, self.ovs.clone()).release();
    }

    /// Takes the place of a supervisor that may have been killed.
    pub(super) fn open_doors(&self) -> Result<Doors> {
        let control = self.site.control_socket(self.spec.uuid);
        // Missing is fine; anything else is told by the bind.
        let _ = fs::remove_file(&control);
        Ok(Doors {
            asked: control::listen(&control)?,
            terminate: signal(SignalKind::terminate()).or_failed(|| "cannot watch for SIGTERM".to_owned())?,
            hangup: signal(SignalKind::hangup()).or_failed(|| "cannot watch for SIGHUP".to_owned())?,
        })
    }

    /// Where one attaches to the console.
    fn open_console_door(&self) -> Result<UnixListener> {
        let console = self.site.console_socket(self.spec.uuid);
        let _ = fs::remove_file(&console);
        UnixListener::bind(&console).or_failed(|| format!("cannot listen on `{}`", console.display()))
    }

    fn begun(&self, process: Begun) -> Result<()> {
        self.update(|record| {
            let Some(runtime) = &mut record.runtime else { return Ok(()) };
            match process {
                Begun::Helper(helper) => runtime.helpers.push(helper),
                Begun::Hypervisor(hypervisor, ssh, line) => {
                    runtime.hypervisor = Some(hypervisor);
                    runtime.ssh = ssh;
                    runtime.vsock = line;
                }
            }
            Ok(())
        })
    }

    /// A helper ended while the guest runs.
    pub(super) fn lost(&self, serves: Serves) {
        tracing::error!("`{}` has ended, and with it {serves}", serves.program());
        self.tell(&Happening::HelperEnded { serves });
        let recorded = self.update(|record| {
            let number = record.spec.number;
            let Some(runtime) = &mut record.runtime else { return Ok(()) };
            runtime.helpers.retain(|helper| helper.serves != serves);
            match serves {
                Serves::Line => runtime.vsock = None,
                Serves::Nic(index) => {
                    let nic = record.spec.nics.iter().find(|nic| nic.index == index);
                    runtime.troubles.extend(nic.map(|nic| PortTrouble {
                        port: nic.port(number),
                        ailment: Ailment::Dead,
                        detail: Some("`passt` has ended; `v vm restart` brings it back".to_owned()),
                    }));
                }
            }
            Ok(())
        });
        if let Err(error) = recorded {
            tracing::warn!(error = %error.chain().join(": "), "not recorded");
        }
    }

    /// A change of the supervisor's own accord.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Record) -> Result<T>) -> Result<T> {
        self.update_by(&Actor::Supervisor, change)
    }

    /// A change that somebody asked for.
    pub(super) fn update_by<T>(&self, actor: &Actor, change: impl FnOnce(&mut Record) -> Result<T>) -> Result<T> {
        let mut state = None;
        let done = self.site.store()?.acting_as(actor.clone()).update(self.spec.uuid, |record| {
            let before = record.state;
            let done = change(record)?;
            state = Some(record.state).filter(|state| *state != before);
            Ok(done)
        })?;
        if let Some(state) = state {
            unit::tell_state(self.spec, state);
        }
        Ok(done)
    }

    /// A line for the history. One that cannot be written is logged, and nothing else waits for it.
    pub(super) fn tell(&self, happening: &Happening) {
        let store = self.site.store().map(|store| store.acting_as(Actor::Supervisor));
        if let Err(error) = store.and_then(|mut store| store.tell(self.spec, happening)) {
            tracing::warn!(?happening, error = %error.chain().join(": "), "not noted");
        }
    }
}

/// Lets the tasks of the connections do what is there to do: an answer to write, the guest's last
/// words to show. Each needs to be run once or twice.
async fn settled() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

/// A start is given up when somebody cuts the power or ends the supervisor; anything else asked
/// meanwhile is refused.
async fn interrupted(doors: &mut Doors) -> Option<oneshot::Sender<Reply>> {
    loop {
        tokio::select! {
            _ = doors.terminate.recv() => return None,
            Some(asked) = doors.asked.recv() => match asked.request {
                Request::ForceStop { .. } | Request::Stop { .. } => return Some(asked.reply),
                Request::Status => {
                    let _ = asked.reply.send(Reply::State { state: State::Starting });
                }
                Request::Pause
                | Request::Resume
                | Request::Resize { .. }
                | Request::GrowDisk { .. }
                | Request::Forwards { .. }
                | Request::StartNow => {
                    let error = Error::refused(Refusal::AlreadyStarting.to_string());
                    let _ = asked.reply.send(Reply::Failed { failure: Failure::from(&error) });
                }
            }
        }
    }
}

/// Whoever waits for a start, and the service manager. They are told once.
pub(super) struct Ready {
    listener: Option<Listener>,
    /// Those who asked for a restart since.
    pub(super) restarts: Vec<oneshot::Sender<Reply>>,
    said: bool,
}

enum Listener {
    /// The command that launched us.
    Pipe(OwnedFd),
    /// One who asked for the next attempt at once.
    Asker(oneshot::Sender<Reply>),
}

impl Ready {
    pub(super) fn ask(&mut self, asker: Option<oneshot::Sender<Reply>>) {
        self.listener = asker.map(Listener::Asker);
    }

    /// An asker who has not been told is told the end, once it is recorded.
    pub(super) fn asker(&mut self) -> Option<oneshot::Sender<Reply>> {
        match self.listener.take() {
            Some(Listener::Asker(reply)) => Some(reply),
            other => {
                self.listener = other;
                None
            }
        }
    }

    pub(super) fn say(&mut self, error: Option<&Error>) {
        if !std::mem::replace(&mut self.said, true) && error.is_none() {
            host::tell_manager("READY=1");
        }
        for restart in self.restarts.drain(..) {
            let _ = restart.send(match error {
                None => Reply::State { state: State::Running },
                Some(error) => Reply::Failed { failure: Failure::from(error) },
            });
        }
        let pipe = match self.listener.take() {
            None => return,
            Some(Listener::Asker(reply)) => {
                let state = State::Running;
                let _ =
                    reply.send(error.map_or(Reply::State { state }, |error| Reply::Failed { failure: error.into() }));
                return;
            }
            Some(Listener::Pipe(pipe)) => pipe,
        };
        let mut line = serde_json::to_vec(&error.map(Failure::from)).unwrap_or_default();
        line.push(b'\n');
        // The command that launched us may be gone; the record says it all.
        let _ = fs::File::from(pipe).write_all(&line);
    }
}
