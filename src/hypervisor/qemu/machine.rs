//! One running QEMU: what is asked of it, what it tells, and its end.
//!
//! The end of the process is the last event, after everything that QMP still holds: a guest that
//! powers off says so right before.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::qmp::{Qmp, QmpError, QmpEvent};
use super::remedy::{explain, remedy};
use super::{argv, forwards, resize};
use crate::error::{Error, OrFailed, Result};
use crate::host::{Child, ExitStatus, Handle};
use crate::hypervisor::launch_log::LaunchLog;
use crate::hypervisor::{Hotplug, Machine, MachineEvent};
use crate::spec::{Forward, Name, Nic, Size};

/// What starts the vCPUs.
pub(super) const BOOT: &str = "cont";

/// For a call to a QEMU that runs.
pub(super) const CALL: Duration = Duration::from_secs(10);
/// For an orderly end before SIGKILL.
const QUIT: Duration = Duration::from_secs(1);
/// For the end after SIGKILL: only a process stuck in the kernel takes long.
const GONE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct QemuMachine {
    child: Child,
    qmp: Qmp,
    log: LaunchLog,
    /// For the boot.
    deadline: Duration,
    booted: bool,
    ended: Option<ExitStatus>,
}

impl QemuMachine {
    pub(super) fn new(child: Child, qmp: Qmp, log: LaunchLog, deadline: Duration) -> Self {
        Self { child, qmp, log, deadline, booted: false, ended: None }
    }

    /// One that has booted long ago.
    pub(super) fn adopted(child: Child, qmp: Qmp, log: LaunchLog, deadline: Duration) -> Self {
        Self { booted: true, ..Self::new(child, qmp, log, deadline) }
    }

    async fn call(&mut self, command: &str) -> Result<()> {
        self.qmp.execute(command, None, CALL).await.map_err(|error| {
            let broken = matches!(error, QmpError::Deadline { .. });
            let error = Error::failed(format!("QEMU did not do `{command}`")).source(error);
            if broken { error.hint("it hangs; `v vm stop --force` ends it") } else { error }
        })?;
        Ok(())
    }

    /// Returns once the vCPUs run, or have run: a guest may be gone again before anybody asks.
    async fn start_vcpus(&mut self) -> Result<(), QmpError> {
        let started = Instant::now();
        self.qmp.execute(BOOT, None, self.deadline).await?;
        loop {
            if self.qmp.has_queued("RESUME") {
                return Ok(());
            }
            let left = self.deadline.saturating_sub(started.elapsed());
            let status = self.qmp.execute("query-status", None, left).await?;
            if status["running"] == Value::Bool(true) {
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn translate(&mut self, event: &QmpEvent) -> Option<MachineEvent> {
        let by_guest = event.data["guest"] == Value::Bool(true);
        match event.event.as_str() {
            "RESUME" if !self.booted => {
                self.booted = true;
                Some(MachineEvent::Booted)
            }
            "RESUME" => Some(MachineEvent::Resumed),
            "STOP" if self.booted => Some(MachineEvent::Paused),
            "WATCHDOG" => Some(MachineEvent::WatchdogFired),
            "RESET" if by_guest => Some(MachineEvent::Rebooted),
            "SHUTDOWN" if by_guest && event.data["reason"] == "guest-shutdown" => Some(MachineEvent::PoweredOff),
            _ => None,
        }
    }
}

#[async_trait(?Send)]
impl Machine for QemuMachine {
    fn handle(&self) -> Handle {
        self.child.handle()
    }

    fn last_words(&self) -> Option<String> {
        self.log.last_words()
    }

    async fn boot(&mut self) -> Result<()> {
        let Err(failure) = self.start_vcpus().await else { return Ok(()) };
        // The socket closes a moment before the process is gone.
        let ended = match failure {
            QmpError::Closed | QmpError::Io(_) => timeout(QUIT, end_of(&self.child)).await.ok(),
            _ => None,
        };
        let error = match ended {
            Some(status) => Error::failed(format!("QEMU ended while booting the VM ({})", ended_text(status))),
            None => Error::failed("QEMU could not boot the VM").source(failure),
        };
        put_down(&self.child).await?;
        Err(explain(&self.log, error))
    }

    fn leave(self: Box<Self>) {
        self.child.leave();
    }

    async fn is_paused(&mut self) -> Result<bool> {
        let status = self.qmp.execute("query-status", None, CALL).await;
        Ok(status.or_failed(|| "QEMU could not say how the VM is".to_owned())?["status"] == "paused")
    }

    async fn pause(&mut self) -> Result<()> {
        self.call("stop").await
    }

    async fn resume(&mut self) -> Result<()> {
        self.call("cont").await
    }

    async fn power_button(&mut self) -> Result<()> {
        self.call("system_powerdown").await
    }

    async fn next_event(&mut self) -> MachineEvent {
        loop {
            while let Some(event) = self.qmp.queued() {
                if let Some(event) = self.translate(&event) {
                    return event;
                }
            }
            if let Some(status) = self.ended {
                return MachineEvent::Ended(status);
            }
            if self.qmp.is_closed() {
                self.ended = Some(end_of(&self.child).await);
                continue;
            }
            tokio::select! {
                biased;
                () = self.qmp.fill() => {}
                status = end_of(&self.child) => {
                    // All it ever said is in the socket; the limit is for one that handed it on.
                    let _ = timeout(QUIT, self.qmp.drain()).await;
                    self.ended = Some(status);
                }
            }
        }
    }

    async fn grow_memory(&mut self, to: Size) -> Result<()> {
        in_time("give the guest more memory", resize::grow_memory(&mut self.qmp, to)).await
    }

    async fn add_cpus(&mut self, to: u32) -> Result<()> {
        in_time("give the guest more vCPUs", resize::add_cpus(&mut self.qmp, to)).await
    }

    async fn grow_disk(&mut self, position: usize, disk: &Name, to: Size) -> Result<()> {
        in_time(&format!("grow the disk `{disk}`"), resize::grow_disk(&mut self.qmp, position, to)).await
    }

    async fn forward(&mut self, nic: &Nic, forwards: &[Forward]) -> Result<()> {
        let netdev = argv::netdev(nic.index);
        in_time("change the forwarded ports", forwards::set(&mut self.qmp, &netdev, forwards)).await
    }

    /// Never needed: a vhost-user socket goes on listening whatever has become of its client.
    fn hotplug(&self) -> Option<Box<dyn Hotplug>> {
        None
    }

    async fn kill(&mut self) -> Result<()> {
        let quit = async {
            // It may be gone before its reply is read.
            if let Ok(_) | Err(QmpError::Closed) = self.qmp.execute("quit", None, QUIT).await {
                end_of(&self.child).await;
            }
        };
        let _ = timeout(QUIT, quit).await;
        put_down(&self.child).await
    }
}

/// All calls of one change to a running guest.
async fn in_time<E: std::error::Error + Send + Sync + 'static>(
    aim: &str,
    work: impl Future<Output = Result<(), E>>,
) -> Result<()> {
    let failed = || Error::failed(format!("QEMU could not {aim}"));
    match timeout(CALL, work).await {
        Ok(done) => done.map_err(|error| match remedy(&error.to_string()) {
            Some(remedy) => failed().hint(remedy).source(error),
            None => failed().source(error),
        }),
        Err(_) => Err(failed().source(format!("no answer in {} s", CALL.as_secs()))),
    }
}

/// SIGKILL, and the end awaited. Nothing is done to a process that is gone.
pub(super) async fn put_down(child: &Child) -> Result<()> {
    let failed = || format!("cannot kill QEMU (process {})", child.pid());
    child.signal(Signal::KILL).map_err(|source| Error::failed(failed()).source(source))?;
    match timeout(GONE, end_of(child)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::failed(failed())
            .source(format!("it is still there {} s after SIGKILL", GONE.as_secs()))
            .hint("it hangs in the kernel: is the storage below its disks reachable?")),
    }
}

/// Waits for the end of the process. A process that somebody else has reaped has no known status.
async fn end_of(child: &Child) -> ExitStatus {
    loop {
        match child.wait().await {
            Ok(status) => return status,
            Err(error) if !child.handle().is_alive() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "QEMU's exit status is lost");
                return ExitStatus::Code(-1);
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

pub(super) fn ended_text(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exit code {code}"),
        ExitStatus::Signal(signal) => format!("signal {signal}"),
        ExitStatus::Unseen => "unseen".to_owned(),
    }
}
