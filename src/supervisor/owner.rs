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

use super::boot::{self, Booted};
use super::console::Console;
use super::control::{self, Asked};
use super::ports::Ports;
use super::watch::{Waiting, watch};
use crate::config::Config;
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Gate, Handle, Lock, LockError};
use crate::hypervisor::{self, Machine};
use crate::network::ovs::Ovs;
use crate::spec::{Event, Exit, Refusal, State, VmSpec};
use crate::store::{Record, Runtime};
use crate::vm::control::{Failure, Reply, Request};
use crate::vm::{Purpose, Site};

/// How long a lock that is about to be given back, or a record that is about to be written, is
/// waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a process may take to be gone after SIGKILL.
const KILLED: Duration = Duration::from_secs(10);

/// Owns the VM until it ends. `ready` gets one line: `null` once it is watched, or why not.
pub fn supervise(site: &Site, vm: Uuid, purpose: Purpose, deadline: Duration, ready: Option<OwnedFd>) -> Result<()> {
    let mut ready = Ready(ready);
    let result = own(site, vm, purpose, deadline, &mut ready);
    match &result {
        Ok(()) => ready.say(None),
        Err(error) => ready.say(Some(error)),
    }
    result
}

fn own(site: &Site, vm: Uuid, purpose: Purpose, deadline: Duration, ready: &mut Ready) -> Result<()> {
    // A guest that runs is watched whatever has become of the config.
    let config = match purpose {
        Purpose::Start => Some(site.config()?),
        Purpose::Adopt => site.config().ok(),
    };
    let ovs = config.as_ref().map_or_else(|| Ovs::new(None), |config| site.ovs(config));
    let Some(lock) = take_lock(site, vm, purpose)? else { return Ok(()) };
    let (task, spec) = loop {
        match begin(site, vm, purpose)? {
            Begin::Nothing => return Ok(()),
            Begin::Unfinished(spec, hypervisor) => undo_unfinished(site, &spec, hypervisor, &ovs)?,
            Begin::Start(spec) => break (Task::Start, spec),
            Begin::Adopt(record, hypervisor) => {
                let spec = record.spec.clone();
                break (Task::Adopt(record, hypervisor), spec);
            }
        }
    };
    let failed = || match task {
        Task::Start => format!("cannot start `{}`", spec.name),
        Task::Adopt(..) => format!("cannot watch over `{}`", spec.name),
    };
    let supervisor = Supervisor { site, config: config.as_ref(), ovs, spec: &spec, deadline };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_failed(failed)?;
    let tasks = tokio::task::LocalSet::new();
    let outcome = match &task {
        Task::Start => tasks.block_on(&runtime, supervisor.start(ready)),
        Task::Adopt(record, hypervisor) => tasks.block_on(&runtime, supervisor.adopt(record, *hypervisor, ready)),
    };
    let (exit, waiting) = match (outcome, &task) {
        (Ok(end), _) => end,
        // A run that never began has ended; a guest that could not be adopted has not.
        (Err(error), Task::Start) => {
            supervisor.end(&Exit::BootFailed { detail: error.chain().join(": ") })?;
            return Err(error.context(failed()));
        }
        (Err(error), Task::Adopt(..)) => return Err(error.context(failed())),
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

/// What there is to do for the holder of the lock.
enum Begin {
    /// The start is recorded.
    Start(VmSpec),
    Adopt(Box<Record>, Handle),
    /// A supervisor was killed while it was starting the VM, and its hypervisor is still there.
    Unfinished(VmSpec, Handle),
    Nothing,
}

enum Task {
    Start,
    Adopt(Box<Record>, Handle),
}

fn begin(site: &Site, vm: Uuid, purpose: Purpose) -> Result<Begin> {
    let supervisor = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    site.store()?.update(vm, |record| {
        let hypervisor = record.runtime.as_ref().and_then(|runtime| runtime.hypervisor);
        match hypervisor.filter(|handle| record.state.is_live() && handle.is_alive()) {
            // A boot is never taken up in the middle.
            Some(hypervisor) if record.state == State::Starting => {
                return Ok(Begin::Unfinished(record.spec.clone(), hypervisor));
            }
            Some(hypervisor) if purpose == Purpose::Adopt => {
                return Ok(Begin::Adopt(Box::new(record.clone()), hypervisor));
            }
            Some(_) => {
                let refusal = Refusal::AlreadyRunning;
                return Err(Error::refused(format!("cannot start `{}`: {refusal}", record.spec.name)));
            }
            None if record.state.is_live() => record.end(Exit::Lost)?,
            None => {}
        }
        if purpose == Purpose::Adopt {
            return Ok(Begin::Nothing);
        }
        record
            .apply(&Event::Start)
            .map_err(|refusal| Error::refused(format!("cannot start `{}`: {refusal}", record.spec.name)))?;
        record.runtime = Some(Runtime { supervisor, hypervisor: None, ssh: None, troubles: Vec::new() });
        record.intent = None;
        Ok(Begin::Start(record.spec.clone()))
    })
}

/// Ends what a killed supervisor had begun to start: the hypervisor, its ports, the record.
fn undo_unfinished(site: &Site, spec: &VmSpec, hypervisor: Handle, ovs: &Ovs) -> Result<()> {
    let failed = || format!("cannot end process {}, which was to run `{}`", hypervisor.pid, spec.name);
    hypervisor.signal(ProcessSignal::KILL).or_failed(failed)?;
    let until = Instant::now() + KILLED;
    while hypervisor.is_alive() {
        if Instant::now() >= until {
            return Err(Error::failed(failed()));
        }
        host::pause(Duration::from_millis(10));
    }
    Ports::new(spec, ovs.clone()).release();
    let detail = "its supervisor was killed while it was starting".to_owned();
    site.store()?.update(spec.uuid, |record| Ok(record.end(Exit::BootFailed { detail })?))
}

/// One VM, and what its owner needs to know.
pub(super) struct Supervisor<'a> {
    pub(super) site: &'a Site,
    config: Option<&'a Config>,
    pub(super) ovs: Ovs,
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
    async fn start(&self, ready: &mut Ready) -> Result<(Exit, Waiting)> {
        boot::fresh_runtime_folder(self.site, self.spec.uuid)?;
        let mut doors = self.open_doors()?;
        let ports = Ports::new(self.spec, self.ovs.clone());
        let config = self.config.ok_or_else(|| Error::failed("there is no config"))?;
        let booting =
            boot::boot(self.site, config, self.spec, &ports, self.deadline, |handle, ssh| self.launched(handle, ssh));
        let booted = tokio::select! {
            booted = booting => booted,
            reply = interrupted(&mut doors) => {
                // Dropping the boot kills what it had begun.
                ports.release();
                ready.say(Some(&Error::refused(format!("cannot start `{}`", self.spec.name))
                    .source(Error::failed("it was stopped while it was starting"))));
                return Ok((Exit::Forced, reply.into_iter().collect()));
            }
        };
        let end = match booted {
            Ok(booted) => self.run(booted, doors, ready).await,
            Err(error) => Err(error),
        };
        ports.release();
        end
    }

    async fn run(&self, booted: Booted, doors: Doors, ready: &mut Ready) -> Result<(Exit, Waiting)> {
        let Booted { machine, console, ssh } = booted;
        self.update(|record| {
            record.apply(&Event::Booted)?;
            record.started_at = Some(host::now());
            Ok(())
        })?;
        tracing::info!(pid = machine.handle().pid, ?ssh, "running");
        ready.say(None);
        tokio::task::spawn_local(console.serve(doors.console));
        Ok(watch(self, machine, doors.asked, doors.terminate, None).await)
    }

    /// The rest of a run whose supervisor was killed. An error leaves the guest as it is.
    async fn adopt(&self, record: &Record, hypervisor: Handle, ready: &mut Ready) -> Result<(Exit, Waiting)> {
        let doors = self.open_doors()?;
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
        tokio::task::spawn_local(console.serve(doors.console));
        let end = watch(self, machine, doors.asked, doors.terminate, record.intent).await;
        Ports::new(self.spec, self.ovs.clone()).release();
        Ok(end)
    }

    /// The console, and a record that says who watches now and how the guest was found.
    async fn take_over(&self, machine: &mut dyn Machine, serial: &std::path::Path) -> Result<Console> {
        let supervisor = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
        let paused = machine.is_paused().await?;
        let log = self.site.console_log(self.spec.uuid);
        let console = Console::connect(serial, &log, machine.handle().pid).await?;
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

    /// The last word on this run: nothing of it is left on the host.
    fn end(&self, exit: &Exit) -> Result<()> {
        let run = self.site.dirs.run(self.spec.uuid);
        if let Err(error) = fs::remove_dir_all(&run) {
            tracing::warn!(%error, "runtime folder not removed");
        }
        self.update(|record| Ok(record.end(exit.clone())?))
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
