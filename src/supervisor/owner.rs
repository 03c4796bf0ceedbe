use std::fs;
use std::io::Write;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal as ProcessSignal;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::again::{self, After};
use super::boot::{self, Booted};
use super::console::Console;
use super::control::{self, Asked};
use super::decide::{self, Decision, decide};
use super::ports::Ports;
use super::watch::{End, Waiting, watch};
use crate::config::Config;
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Handle, Lock, LockError};
use crate::hypervisor::{self, Machine};
use crate::network::ovs::Ovs;
use crate::spec::{Event, Exit, Intent, Progress, Refusal, State, Verb, VmSpec};
use crate::store::Record;
use crate::vm::control::{Failure, Reply, Request};
use crate::vm::{self, Purpose, Site, Steps};

/// How long a lock that is about to be given back, or a record that is about to be written, is
/// waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a process may take to be gone after SIGKILL.
const KILLED: Duration = Duration::from_secs(10);

/// Owns the VM until it ends. `ready` gets one line: `null` once it is watched, or why not.
pub fn supervise(site: &Site, vm: Uuid, purpose: Purpose, deadline: Duration, ready: Option<OwnedFd>) -> Result<()> {
    let mut ready = Ready { pipe: ready, restarts: Vec::new() };
    let result = own(site, vm, purpose, deadline, &mut ready);
    match &result {
        Ok(()) => ready.say(None),
        Err(error) => ready.say(Some(error)),
    }
    result
}

fn own(site: &Site, vm: Uuid, purpose: Purpose, deadline: Duration, ready: &mut Ready) -> Result<()> {
    // A guest that runs is watched whatever has become of the config.
    let mut config = match purpose {
        Purpose::Start => Some(site.config()?),
        Purpose::Adopt => site.config().ok(),
    };
    let Some(lock) = take_lock(site, vm, purpose)? else { return Ok(()) };
    let mut task = loop {
        let (decision, record) = begin(site, vm, purpose)?;
        match decision {
            Decision::Nothing => return Ok(()),
            Decision::CutShort(hypervisor) => clear_cut_short(site, &record, hypervisor)?,
            Decision::Start => break Task::Start(record),
            Decision::Adopt(hypervisor) => break Task::Adopt(record, hypervisor),
        }
    };
    let failed = || "cannot set up the supervisor".to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_failed(failed)?;
    let tasks = tokio::task::LocalSet::new();
    let (exit, waiting) = loop {
        let (Task::Start(record) | Task::Adopt(record, _)) = &task;
        let ovs = config.as_ref().map_or_else(|| Ovs::new(None), |config| site.ovs(config));
        let supervisor = Supervisor { site, config: config.as_ref(), ovs, spec: &record.spec, deadline };
        let outcome = match &task {
            Task::Start(record) => tasks.block_on(&runtime, supervisor.start(record.intent, ready)),
            Task::Adopt(record, hypervisor) => tasks.block_on(&runtime, supervisor.adopt(record, *hypervisor, ready)),
        };
        let end = match (outcome, &task) {
            (Ok(end), _) => end,
            (Err(error), Task::Adopt(record, _)) => {
                return Err(error.context(format!("cannot watch over `{}`", record.spec.name)));
            }
            // A run that never began has ended; a guest that could not be adopted has not.
            (Err(error), Task::Start(record)) => {
                supervisor.end(&End::of_a_failed_start(&error))?;
                let error = error.context(format!("cannot start `{}`", record.spec.name));
                drop(lock);
                tasks.block_on(&runtime, async {
                    ready.say(Some(&error));
                    answers_are_written().await;
                });
                return Err(error);
            }
        };
        let after = supervisor.end(&end)?;
        tracing::info!(exit = %end.exit, ?after, "ended");
        if after == After::End {
            break (end.exit, end.waiting);
        }
        let (restarts, others): (Vec<Waiting>, Vec<Waiting>) = end.waiting.into_iter().partition(|one| one.restart);
        ready.restarts.extend(restarts.into_iter().map(|one| one.reply));
        tasks.block_on(&runtime, tell_the_end(others, &end.exit));
        task = Task::Start(run_again(site, vm)?);
        // What has changed since counts, unless it is wrong: the VM is not to be lost for that.
        config =
            site.config().map_err(|error| tracing::warn!(error = %error.chain().join(": "), "config")).ok().or(config);
    };
    // Answers only now, so that whoever waited finds the record written, the ports free, and can
    // start the VM again at once.
    drop(lock);
    tasks.block_on(&runtime, tell_the_end(waiting, &exit));
    Ok(())
}

async fn tell_the_end(waiting: Vec<Waiting>, exit: &Exit) {
    for one in waiting {
        let _ = one.reply.send(Reply::Ended { exit: exit.clone() });
    }
    answers_are_written().await;
}

/// The connections' own tasks write the answers: each needs to be run once.
async fn answers_are_written() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
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
                let refusal = record.state.after(&Event::Start).err().or(late.then_some(Refusal::AlreadyRunning));
                if let Some(refusal) = refusal {
                    return Err(Error::refused(format!("cannot start `{}`: {refusal}", record.spec.name)));
                }
            }
        }
        host::pause(Duration::from_millis(10));
    }
}

enum Task {
    Start(Record),
    Adopt(Record, Handle),
}

/// What there is to do for the holder of the lock, recorded, and the record as it is then.
fn begin(site: &Site, vm: Uuid, purpose: Purpose) -> Result<(Decision, Record)> {
    let us = this_process()?;
    let record = |progress: Option<Progress>| {
        site.store()?.update(vm, |record| {
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

/// Records that the VM, which is `restarting`, starts.
fn run_again(site: &Site, vm: Uuid) -> Result<Record> {
    let us = this_process()?;
    vm::opening(Verb::Restart, "starting", |progress| {
        site.store()?.update(vm, |record| {
            decide::start(record, us)?;
            record.progress = Some(progress);
            Ok(record.clone())
        })
    })
}

fn this_process() -> Result<Handle> {
    Handle::current().or_failed(|| "cannot read this process's start time".to_owned())
}

/// Ends what a killed supervisor was at work on: the hypervisor, its ports, its folder, the record.
fn clear_cut_short(site: &Site, record: &Record, hypervisor: Option<Handle>) -> Result<()> {
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
    vm::clear_run(site, spec)?;
    let mut store = site.store()?;
    store.update(spec.uuid, |record| Ok(decide::cut_short(record)?))?;
    let became = if record.state == State::Starting { "undone" } else { "cleared away" };
    vm::told(&mut store, spec, record.progress.as_ref().map(Progress::cut_short), became)
}

/// One VM, and what its owner needs to know.
pub(super) struct Supervisor<'a> {
    site: &'a Site,
    config: Option<&'a Config>,
    ovs: Ovs,
    pub(super) spec: &'a VmSpec,
    deadline: Duration,
}

/// Where this supervisor is asked, and where one attaches to the console.
struct Doors {
    asked: mpsc::Receiver<Asked>,
    console: UnixListener,
    terminate: Signal,
}

impl Supervisor<'_> {
    /// The whole run. An error means that it never came to run.
    async fn start(&self, intent: Option<Intent>, ready: &mut Ready) -> Result<End> {
        let verb = if intent == Some(Intent::Restart) { Verb::Restart } else { Verb::Start };
        let steps = self.steps(verb);
        steps.step("runtime folder", || boot::fresh_runtime_folder(&self.site.dirs.run(self.spec.uuid)))?;
        let mut doors = steps.step("doors", || self.open_doors())?;
        let ports = Ports::new(self.spec, self.ovs.clone());
        let loaded;
        let config = match self.config {
            Some(config) => config,
            None => {
                loaded = self.site.config()?;
                &loaded
            }
        };
        let launched = |handle, ssh| self.launched(handle, ssh);
        let booting = boot::boot(self.site, config, self.spec, &ports, self.deadline, &steps, launched);
        let booted = tokio::select! {
            booted = booting => booted?,
            reply = interrupted(&mut doors) => {
                // Dropping the boot kills what it had begun.
                ready.say(Some(&Error::refused(format!("cannot start `{}`", self.spec.name))
                    .source(Error::failed("it was stopped while it was starting"))));
                let waiting = reply.into_iter().map(|reply| Waiting { reply, restart: false }).collect();
                return Ok(End { exit: Exit::Forced, intent: None, waiting });
            }
        };
        self.run(booted, doors, steps, ready).await
    }

    async fn run(&self, booted: Booted, doors: Doors, steps: Steps, ready: &mut Ready) -> Result<End> {
        let Booted { machine, console, ssh } = booted;
        steps.closing("running", || {
            self.update(|record| {
                record.apply(&Event::Booted)?;
                record.started_at = Some(host::now());
                record.intent = None;
                record.progress = None;
                Ok(())
            })
        })?;
        drop(steps);
        tracing::info!(pid = machine.handle().pid, ?ssh, "running");
        ready.say(None);
        Ok(self.watch(machine, console, doors, None).await)
    }

    async fn watch(&self, machine: Box<dyn Machine>, console: Console, doors: Doors, asked: Option<Intent>) -> End {
        let console = tokio::task::spawn_local(console.serve(doors.console));
        let end = watch(self, machine, doors.asked, doors.terminate, asked).await;
        // What the guest wrote last is read, and nobody is left to take the next run's console.
        answers_are_written().await;
        console.abort();
        end
    }

    /// The rest of a run whose supervisor was killed. An error leaves the guest as it is.
    async fn adopt(&self, record: &Record, hypervisor: Handle, ready: &mut Ready) -> Result<End> {
        let doors = self.open_doors()?;
        let (run, dir) = (self.site.dirs.run(self.spec.uuid), self.site.dirs.vm(self.spec.uuid));
        let launch = hypervisor::Launch {
            spec: self.spec,
            // It runs already: its program may have been replaced since.
            program: "".as_ref(),
            dir: &dir,
            run: &run,
            taps: Vec::new(),
            forwards: Vec::new(),
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
        tracing::info!(pid = hypervisor.pid, "adopted");
        ready.say(None);
        Ok(self.watch(machine, console, doors, record.intent).await)
    }

    /// The console, and a record that says who watches now and how the guest was found.
    async fn take_over(&self, machine: &mut dyn Machine, serial: &std::path::Path) -> Result<Console> {
        let supervisor = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
        let paused = machine.is_paused().await?;
        let console = Console::connect(serial, &self.site.console_log(self.spec.uuid)).await?;
        self.update(|record| {
            match (record.state, paused) {
                (State::Running, true) => record.apply(&Event::Pause)?,
                (State::Paused, false) => record.apply(&Event::Resume)?,
                _ => {}
            }
            if let Some(runtime) = &mut record.runtime {
                runtime.supervisor = supervisor;
            }
            Ok(())
        })?;
        Ok(console)
    }

    /// Takes the places of a supervisor that may have been killed.
    fn open_doors(&self) -> Result<Doors> {
        let (control, console) = (self.site.control_socket(self.spec.uuid), self.site.console_socket(self.spec.uuid));
        for stale in [&control, &console] {
            // Missing is fine; anything else is told by the bind.
            let _ = fs::remove_file(stale);
        }
        Ok(Doors {
            asked: control::listen(&control)?,
            console: UnixListener::bind(&console).or_failed(|| format!("cannot listen on `{}`", console.display()))?,
            terminate: signal(SignalKind::terminate()).or_failed(|| "cannot watch for SIGTERM".to_owned())?,
        })
    }

    fn launched(&self, hypervisor: Handle, ssh: Option<SocketAddrV4>) -> Result<()> {
        self.update(|record| {
            if let Some(runtime) = &mut record.runtime {
                runtime.hypervisor = Some(hypervisor);
                runtime.ssh = ssh;
            }
            Ok(())
        })
    }

    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Record) -> Result<T>) -> Result<T> {
        self.site.store()?.update(self.spec.uuid, change)
    }

    /// The steps of a verb from here on.
    pub(super) fn steps(&self, verb: Verb) -> Steps {
        Steps::of(self.site, verb, self.spec.uuid)
    }

    /// The last word on this run: nothing of it is left on the host, and what follows is recorded.
    fn end(&self, end: &End) -> Result<After> {
        let steps = self.steps(verb_of(end.intent));
        let released = steps.step("ports released", || {
            Ports::new(self.spec, self.ovs.clone()).release();
            Ok(())
        });
        let removed = steps.step("runtime folder removed", || vm::remove_tree(&self.site.dirs.run(self.spec.uuid)));
        if let Err(error) = released.and(removed) {
            tracing::warn!(error = %error.chain().join(": "), "runtime folder not removed");
        }
        steps.closing("ended", || self.update(|record| Ok(again::take_in(record, &end.exit, end.intent)?)))
    }
}

fn verb_of(intent: Option<Intent>) -> Verb {
    if intent == Some(Intent::Restart) { Verb::Restart } else { Verb::Stop }
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
                Request::Pause | Request::Resume => {
                    let error = Error::refused(Refusal::AlreadyStarting.to_string());
                    let _ = asked.reply.send(Reply::Failed { failure: Failure::from(&error) });
                }
            }
        }
    }
}

/// Those who wait for the VM to run: whoever launched us, by a pipe, and whoever asked for a
/// restart since. Each is told once.
struct Ready {
    pipe: Option<OwnedFd>,
    restarts: Vec<oneshot::Sender<Reply>>,
}

impl Ready {
    fn say(&mut self, error: Option<&Error>) {
        for restart in self.restarts.drain(..) {
            let _ = restart.send(match error {
                None => Reply::State { state: State::Running },
                Some(error) => Reply::Failed { failure: Failure::from(error) },
            });
        }
        let Some(pipe) = self.pipe.take() else { return };
        let mut line = serde_json::to_vec(&error.map(Failure::from)).unwrap_or_default();
        line.push(b'\n');
        // The command that launched us may be gone; the record says it all.
        let _ = fs::File::from(pipe).write_all(&line);
    }
}
