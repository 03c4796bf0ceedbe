//! One cloud-hypervisor process: how it is started, asked, watched and ended.

use std::collections::VecDeque;
use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use tokio::net::unix::pipe::{self, Receiver};
use tokio::time::{Instant, timeout, timeout_at};

use super::client::{CallError, Client, Request};
use super::events::Decoder;
use super::hotplug::NicHotplug;
use super::{API_FD, ARGS, EVENTS_FD, Plan, Version, boot, resize};
use crate::error::{Error, OrFailed, Result};
use crate::host::{Child, ExitStatus, Handle, Server, Spawn, server_state};
use crate::hypervisor::launch_log::LaunchLog;
use crate::hypervisor::{Hotplug, Launch, Machine, MachineEvent, Spawned, line_socket};
use crate::spec::{Forward, Link, Name, Nic, Size};

/// For calls that only flip a switch.
const CALL: Duration = Duration::from_secs(10);
/// How long a quit that was asked for may take before it is forced.
const QUIT: Duration = Duration::from_secs(1);
/// A process that broke off a call is about to end: how long its own last words are waited for.
const DYING: Duration = Duration::from_millis(500);
/// After SIGKILL only a process stuck in the kernel takes longer.
const KILLED: Duration = Duration::from_secs(10);
/// The longest path a unix socket can have, without its closing zero.
const MAX_SOCKET_PATH: usize = 107;

/// Starts the process and tells it the VM. Dropped midway it kills the process.
pub(super) async fn launch(launch: Launch<'_>, spawned: &Spawned<'_>) -> Result<CloudHypervisorMachine> {
    // What can be refused is refused before anything is started.
    Plan::of(&launch, Version::CURRENT)?;
    check_socket_paths(&launch)?;
    let deadline = Instant::now() + launch.deadline;

    let mut machine = start(&launch, spawned)?;
    machine.describe(launch, deadline).await?;
    Ok(machine)
}

fn check_socket_paths(launch: &Launch<'_>) -> Result<()> {
    let sockets = [launch.api_socket(), launch.serial_socket(), line_socket(launch.run)].into_iter();
    for path in sockets.chain(vhost_sockets(launch)) {
        let length = path.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            let message =
                format!("the socket path `{}` has {length} bytes, and {MAX_SOCKET_PATH} is the most", path.display());
            return Err(Error::usage(message).hint("use a root or runtime folder with a shorter path"));
        }
    }
    Ok(())
}

fn vhost_sockets(launch: &Launch<'_>) -> Vec<PathBuf> {
    let nics = launch.spec.nics.iter().filter(|nic| matches!(nic.link, Link::Vhost { .. }));
    nics.map(|nic| launch.run.join(nic.socket())).collect()
}

fn start(launch: &Launch<'_>, spawned: &Spawned<'_>) -> Result<CloudHypervisorMachine> {
    let program = launch.program;
    let cannot_start = || format!("cannot start `{}`", program.display());
    let socket = launch.api_socket();
    let listener = listen(&socket).or_failed(|| format!("cannot listen on `{}`", socket.display()))?;
    let (events, their_events) = event_pipe(&launch.run.join(EVENTS)).or_failed(cannot_start)?;
    let (log, log_file) = LaunchLog::open(launch.log)?;

    let failed = |source: io::Error| {
        let error = Error::failed(cannot_start());
        let error = match source.kind() {
            io::ErrorKind::NotFound => error.hint("install cloud-hypervisor, or name its program in the config"),
            _ => error,
        };
        error.source(source)
    };
    let gated = Spawn::new(program)
        .args(ARGS)
        .fd(OwnedFd::from(listener), API_FD)
        .fd(their_events, EVENTS_FD)
        .log(log_file)
        .detached()
        .start_at(&launch.gate)
        .or_failed(cannot_start)?;
    spawned(gated.handle())?;
    let child = gated.open().map_err(failed)?;
    Ok(CloudHypervisorMachine {
        child,
        client: Client::new(socket),
        events: Some(events),
        decoder: Decoder::default(),
        pending: VecDeque::new(),
        ended: None,
        log,
        boot_deadline: launch.deadline,
        vhost_sockets: vhost_sockets(launch),
    })
}

/// A named pipe for the events. The process holds both its ends, so that what it tells while no
/// supervisor is there waits for the next one.
fn event_pipe(path: &Path) -> io::Result<(Receiver, OwnedFd)> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let theirs = fs::OpenOptions::new().read(true).write(true).open(path)?;
    Ok((pipe::OpenOptions::new().open_receiver(path)?, theirs.into()))
}

/// The pipe of one that runs: it may have been taken over, and its folder is its own.
fn open_events(path: &Path) -> io::Result<Receiver> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    // Checks that it is a pipe.
    Receiver::from_file(fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?)
}

/// Takes over a process that an earlier supervisor launched.
pub(super) async fn adopt(launch: &Launch<'_>, process: Handle) -> Result<CloudHypervisorMachine> {
    let failed = || format!("cannot watch process {}", process.pid);
    let child =
        Child::adopt(process).or_failed(failed)?.ok_or_else(|| Error::failed(failed()).source("it has ended"))?;
    let events = open_events(&launch.run.join(EVENTS)).or_failed(failed);
    let machine = CloudHypervisorMachine {
        child,
        client: Client::new(launch.api_socket()),
        events: None,
        decoder: Decoder::default(),
        pending: VecDeque::new(),
        ended: None,
        log: LaunchLog::of_running(launch.log),
        boot_deadline: launch.deadline,
        vhost_sockets: vhost_sockets(launch),
    };
    match (events, timeout(CALL.min(launch.deadline), machine.client.ping()).await) {
        (Ok(events), Ok(Ok(_))) => Ok(CloudHypervisorMachine { events: Some(events), ..machine }),
        (events, answer) => {
            // It is not ours to end: the guest may be well.
            machine.child.leave();
            Err(match (events, answer) {
                (Err(error), _) => error,
                (_, Ok(Err(cause))) => Error::failed("cloud-hypervisor does not answer").source(cause),
                _ => Error::failed("cloud-hypervisor does not answer"),
            })
        }
    }
}

/// Bound and listening before the process is there: the first call queues instead of being retried.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[derive(Debug)]
pub(super) struct CloudHypervisorMachine {
    child: Child,
    client: Client,
    /// `None` once the other end is closed.
    events: Option<Receiver>,
    decoder: Decoder,
    /// Decoded and not yet told.
    pending: VecDeque<MachineEvent>,
    ended: Option<ExitStatus>,
    log: LaunchLog,
    boot_deadline: Duration,
    /// Where it waits for its switch.
    vhost_sockets: Vec<PathBuf>,
}

#[derive(Debug)]
enum Failure {
    Call(CallError),
    Deadline,
    Died(ExitStatus),
}

impl CloudHypervisorMachine {
    /// From a fresh process to one that could boot.
    async fn describe(&mut self, launch: Launch<'_>, deadline: Instant) -> Result<()> {
        let client = self.client.clone();
        let seconds = launch.deadline;
        let ping = match self.race(client.ping(), deadline).await {
            Ok(ping) => ping,
            Err(failure) => return Err(self.give_up("start", "did not answer", seconds, failure).await),
        };
        let plan = match ready(&ping.version, &ping.build_version).and_then(|version| Plan::of(&launch, version)) {
            Ok(plan) => plan,
            Err(error) => {
                self.end_now().await?;
                return Err(error);
            }
        };
        let refused = |failure| (failure, "create the VM", "did not create the VM");
        let mut taps = launch.taps;
        let mut result = self.race(client.call(&plan.create), deadline).await.map_err(refused);
        for (index, request) in &plan.add_nets {
            if result.is_err() {
                break;
            }
            let Some(at) = taps.iter().position(|tap| tap.nic == *index) else {
                self.end_now().await?;
                return Err(Error::failed(format!("the tap of NIC {index} is missing")));
            };
            let tap = taps.swap_remove(at).fd;
            result = self
                .race(client.call_with(request, tap), deadline)
                .await
                .map_err(|failure| (failure, "plug in a tap", "did not take a tap"));
        }
        match result {
            Ok(_) => Ok(()),
            Err((failure, aim, late)) => Err(self.give_up(aim, late, seconds, failure).await),
        }
    }

    /// A call against the deadline and against the end of the process.
    async fn race<T>(&self, call: impl Future<Output = Result<T, CallError>>, deadline: Instant) -> Result<T, Failure> {
        let outcome = tokio::select! {
            biased;
            outcome = timeout_at(deadline, call) => outcome,
            Ok(status) = self.child.wait() => return Err(Failure::Died(status)),
        };
        match outcome {
            Ok(Ok(reply)) => Ok(reply),
            Err(_) => Err(Failure::Deadline),
            Ok(Err(error @ CallError::Refused(_))) => Err(Failure::Call(error)),
            // A dying process closes its socket a moment before it can be seen to have ended.
            Ok(Err(error)) => match timeout(DYING, self.child.wait()).await {
                Ok(Ok(status)) => Err(Failure::Died(status)),
                _ => Err(Failure::Call(error)),
            },
        }
    }

    /// Ends the process and says what happened, in its own words where it has any.
    async fn give_up(&mut self, aim: &str, late: &str, allowed: Duration, failure: Failure) -> Error {
        if let Err(error) = self.end_now().await {
            return error;
        }
        match failure {
            Failure::Call(cause) => Error::failed(format!("cloud-hypervisor could not {aim}")).source(cause),
            Failure::Deadline => {
                let error = Error::failed(format!("cloud-hypervisor {late} in {} s", allowed.as_secs_f64()));
                if !self.vhost_sockets.is_empty() && aim == BOOT {
                    error.hint("it waits for the switch to connect to its vhost NICs: is Open vSwitch running?")
                } else {
                    error
                }
            }
            Failure::Died(status) => {
                let ended = match status {
                    ExitStatus::Code(code) => format!("exit code {code}"),
                    ExitStatus::Signal(31) => "SIGSYS: a system call its seccomp filter forbids".to_owned(),
                    ExitStatus::Signal(signal) => format!("signal {signal}"),
                    ExitStatus::Unseen => "unseen".to_owned(),
                };
                let error = Error::failed(format!("cloud-hypervisor ended before it could {aim} ({ended})"));
                match last_words(&self.log) {
                    Some(lines) => error.source(lines),
                    None => error,
                }
            }
        }
    }

    /// SIGKILL, and waits until the process is gone.
    async fn end_now(&mut self) -> Result<()> {
        self.child.signal(Signal::KILL).or_failed(|| format!("cannot kill process {}", self.child.pid()))?;
        match timeout(KILLED, self.child.wait()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Error::failed(format!("cannot watch process {}", self.child.pid())).source(error)),
            Err(_) => Err(Error::failed(format!("process {} does not end, though killed", self.child.pid()))
                .hint("it is stuck in the kernel, perhaps on its disk")),
        }
    }

    /// One that waits for its switch can neither be paused nor be told of new memory: that call and
    /// all after it would wait too.
    fn refuse_while_a_nic_waits(&self) -> Result<()> {
        let waits = |path: &&PathBuf| server_state(path).is_ok_and(|server| server == Server::Listening);
        match self.vhost_sockets.iter().find(waits) {
            None => Ok(()),
            Some(socket) => Err(Error::refused(format!("a NIC waits for its switch at `{}`", socket.display()))
                .hint("start Open vSwitch first; `v vm info` says what is wrong with the port")),
        }
    }

    /// A call to the running machine: whatever it says, the process is left as it is.
    async fn ask(&self, route: &'static str, aim: &str) -> Result<()> {
        let request = Request::put(route);
        let message = format!("cloud-hypervisor could not {aim}");
        match timeout(CALL, self.client.call(&request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(cause)) => Err(Error::failed(message).source(cause)),
            Err(_) => Err(Error::failed(message).source(format!("no answer in {} s", CALL.as_secs()))),
        }
    }

    /// What the process left in the pipe when it ended. Read past the runtime, which may not have
    /// seen yet that there is something.
    fn drain_events(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(events) = &self.events {
            match rustix::io::read(events, &mut buffer) {
                Ok(length) if length > 0 => self.pending.extend(self.decoder.feed(&buffer[..length])),
                _ => self.events = None,
            }
        }
    }
}

const BOOT: &str = "boot the VM";
/// The pipe's name in the runtime folder.
const EVENTS: &str = "events";
/// What the program's other errors end with; for a vCPU that failed it says 0.
const CRASHED: ExitStatus = ExitStatus::Code(1);

fn ready(version: &str, build: &str) -> Result<Version> {
    let version = Version::parse(version).or_else(|| Version::parse(build)).ok_or_else(|| {
        Error::failed(format!("cloud-hypervisor says it has the version {version:?}, which cannot be read"))
    })?;
    version.check()?;
    Ok(version)
}

/// Its last lines, without the time, thread and place that it puts before each.
fn last_words(log: &LaunchLog) -> Option<String> {
    let words = log.last_words()?;
    let plain = words.lines().map(|line| match line.starts_with("cloud-hypervisor: ") {
        true => line.split_once(" -- ").map_or(line, |(_, message)| message),
        false => line,
    });
    Some(plain.collect::<Vec<_>>().join("\n"))
}

/// What is written when a vCPU cannot go on. The events and the exit code are those of a power-off.
fn tells_of_a_crash(log: &LaunchLog) -> bool {
    let said = log.tail();
    ["VCPU generated error", "vCPU thread panicked"].iter().any(|words| said.contains(words))
}

#[async_trait(?Send)]
impl Machine for CloudHypervisorMachine {
    fn handle(&self) -> Handle {
        self.child.handle()
    }

    fn last_words(&self) -> Option<String> {
        last_words(&self.log)
    }

    async fn boot(&mut self) -> Result<()> {
        let allowed = self.boot_deadline;
        let request = boot();
        match self.race(self.client.call(&request), Instant::now() + allowed).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(self.give_up(BOOT, "did not boot the VM", allowed, failure).await),
        }
    }

    fn leave(self: Box<Self>) {
        self.child.leave();
    }

    async fn is_paused(&mut self) -> Result<bool> {
        let failed = || "cloud-hypervisor could not say how the VM is".to_owned();
        match timeout(CALL, self.client.info()).await {
            Ok(info) => Ok(info.or_failed(failed)?.state == "Paused"),
            Err(_) => Err(Error::failed(failed()).source(format!("no answer in {} s", CALL.as_secs()))),
        }
    }

    async fn pause(&mut self) -> Result<()> {
        self.refuse_while_a_nic_waits()?;
        self.ask("vm.pause", "pause the VM").await
    }

    async fn resume(&mut self) -> Result<()> {
        self.ask("vm.resume", "resume the VM").await
    }

    async fn power_button(&mut self) -> Result<()> {
        self.ask("vm.power-button", "press the VM's power button").await
    }

    /// After the last event, `Ended` is told again at each further call.
    async fn next_event(&mut self) -> MachineEvent {
        loop {
            match self.pending.pop_front() {
                // A vCPU that failed ends the VM with the same events as a power-off.
                Some(MachineEvent::PoweredOff) if tells_of_a_crash(&self.log) => continue,
                Some(event) => return event,
                None => {}
            }
            if let Some(status) = self.ended {
                return MachineEvent::Ended(status);
            }
            let readable = async {
                match &self.events {
                    Some(events) => events.readable().await,
                    None => std::future::pending().await,
                }
            };
            // Nothing is taken before the last await of either branch, so a drop loses nothing.
            let ended = tokio::select! {
                _ = readable => None,
                status = self.child.wait() => Some(status),
            };
            match ended {
                None => self.read_events(),
                Some(status) => {
                    self.drain_events();
                    self.ended = Some(match status {
                        Ok(ExitStatus::Code(0) | ExitStatus::Unseen) if tells_of_a_crash(&self.log) => CRASHED,
                        Ok(status) => status,
                        // Only when somebody else took the status.
                        Err(_) => ExitStatus::Code(-1),
                    });
                }
            }
        }
    }

    async fn grow_memory(&mut self, to: Size) -> Result<()> {
        self.refuse_while_a_nic_waits()?;
        resize::grow_memory(&self.client, to).await
    }

    async fn add_cpus(&mut self, to: u32) -> Result<()> {
        resize::add_cpus(&self.client, to).await
    }

    async fn grow_disk(&mut self, _: usize, disk: &Name, to: Size) -> Result<()> {
        resize::grow_disk(&self.client, disk, to).await
    }

    async fn forward(&mut self, nic: &Nic, _: &[Forward]) -> Result<()> {
        Err(Error::refused(format!(
            "passt, which serves the NIC of network `{}`, takes its ports when it starts",
            nic.network
        )))
    }

    fn hotplug(&self) -> Option<Box<dyn Hotplug>> {
        Some(Box::new(NicHotplug::new(self.client.clone())))
    }

    async fn kill(&mut self) -> Result<()> {
        let asked = async {
            // An API that hangs, or a process that is already gone, is dealt with below.
            let _ = self.client.call(&Request::put("vmm.shutdown")).await;
            self.child.wait().await
        };
        if timeout(QUIT, asked).await.is_ok_and(|ended| ended.is_ok()) {
            return Ok(());
        }
        self.end_now().await
    }
}

impl CloudHypervisorMachine {
    fn read_events(&mut self) {
        let Some(events) = &self.events else { return };
        let mut buffer = [0; 4096];
        match events.try_read(&mut buffer) {
            Ok(0) => self.events = None,
            Ok(length) => self.pending.extend(self.decoder.feed(&buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.events = None,
        }
    }
}
