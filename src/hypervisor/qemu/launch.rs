//! From nothing to a QEMU that answers: everything that can fail before the guest runs.

use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::argv::{self, QMP_FD, VSOCK_FD, tap_fd};
use super::machine::{QemuMachine, ended_text, put_down};
use super::qmp::{Qmp, QmpError};
use super::remedy::explain;
use super::version::version;
use crate::error::{Error, OrFailed, Result};
use crate::host::{Child, ExitStatus, Handle, Spawn};
use crate::hypervisor::launch_log::LaunchLog;
use crate::hypervisor::{Launch, Spawned, Vsock};
use crate::spec::{Link, Nic};

pub(super) async fn launch(mut launch: Launch<'_>, spawned: &Spawned<'_>) -> Result<QemuMachine> {
    let args = argv::argv(&launch)?;
    let fds = descriptors(&mut launch)?;
    let (listener, stream) = qmp_socket(&launch).await?;
    let (log, file) = LaunchLog::open(launch.log)?;

    let mut spawn = Spawn::new(launch.program).args(args).log(file).detached().fd(listener.into(), QMP_FD);
    for (fd, number) in fds {
        spawn = spawn.fd(fd, number);
    }
    let cannot_run = || format!("cannot run `{}`", launch.program.display());
    let gated = spawn.start_at(&launch.gate).or_failed(cannot_run)?;
    spawned(gated.handle())?;
    let child = gated.open().map_err(|source| {
        Error::failed(cannot_run()).source(source).hint("is QEMU installed? `v doctor` looks for it")
    })?;

    let mut qmp = Qmp::new(stream);
    let greeted = tokio::select! {
        biased;
        greeted = timeout(launch.deadline, qmp.handshake(launch.deadline)) => greeted,
        _ = child.wait() => Ok(Err(QmpError::Closed)),
    };
    let error = match greeted {
        Ok(Ok(version)) => version.check().err(),
        Ok(Err(QmpError::Closed)) => Some(ended_while_starting(&launch, &child).await),
        Ok(Err(error)) => Some(Error::failed("cannot launch QEMU").source(error)),
        Err(_) => Some(silent(&launch)),
    };
    if let Some(error) = error {
        put_down(&child).await?;
        return Err(explain(&log, error));
    }
    Ok(QemuMachine::new(child, qmp, log, launch.deadline))
}

/// Takes over a QEMU that an earlier supervisor launched: it listens for the next client of its QMP
/// socket by itself.
pub(super) async fn adopt(launch: &Launch<'_>, process: Handle) -> Result<QemuMachine> {
    let failed = || format!("cannot watch QEMU (process {})", process.pid);
    let child =
        Child::adopt(process).or_failed(failed)?.ok_or_else(|| Error::failed(failed()).source("it has ended"))?;
    let greeted = async {
        let stream = UnixStream::connect(launch.api_socket()).await.or_failed(failed)?;
        let mut qmp = Qmp::new(stream);
        qmp.handshake(launch.deadline).await.or_failed(failed)?;
        Ok(qmp)
    };
    match timeout(launch.deadline, greeted).await.unwrap_or_else(|_| Err(silent(launch))) {
        Ok(qmp) => Ok(QemuMachine::adopted(child, qmp, LaunchLog::of_running(launch.log), launch.deadline)),
        Err(error) => {
            // It is not ours to end: the guest may be well.
            child.leave();
            Err(error)
        }
    }
}

/// The taps and the kernel's vsock under their numbers. Each tap NIC must have one.
fn descriptors(launch: &mut Launch<'_>) -> Result<Vec<(OwnedFd, i32)>> {
    let is_tap = |nic: &&Nic| matches!(nic.link, Link::Tap { .. });
    for nic in launch.spec.nics.iter().filter(is_tap) {
        if !launch.taps.iter().any(|tap| tap.nic == nic.index) {
            return Err(Error::failed(format!("the tap of NIC {} of `{}` is not open", nic.index, launch.spec.name)));
        }
    }
    let line = match &mut launch.vsock {
        Some(Vsock::Kernel(fd)) => Some(fd.take().ok_or_else(|| Error::failed("`/dev/vhost-vsock` is not open"))?),
        _ => None,
    };
    let taps = launch.taps.drain(..).map(|tap| (tap.fd, tap_fd(tap.nic)));
    Ok(taps.chain(line.map(|fd| (fd, VSOCK_FD))).collect())
}

/// The listening socket, and a connection that waits in its queue until QEMU takes it.
async fn qmp_socket(launch: &Launch<'_>) -> Result<(UnixListener, UnixStream)> {
    let path = launch.api_socket();
    let failed = || format!("cannot make the QMP socket `{}`", path.display());
    let listener = UnixListener::bind(&path).or_failed(failed)?;
    // Whoever may connect has all that the QEMU process has.
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).or_failed(failed)?;
    let stream = UnixStream::connect(&path).await.or_failed(failed)?;
    Ok((listener, stream))
}

async fn ended_while_starting(launch: &Launch<'_>, child: &Child) -> Error {
    // The socket closes a moment before the process is gone.
    let Ok(Ok(status)) = timeout(Duration::from_secs(1), child.wait()).await else {
        return Error::failed("QEMU closed its QMP socket while starting");
    };
    let error = Error::failed(format!("QEMU could not start the VM ({})", ended_text(status)));
    if !matches!(status, ExitStatus::Code(_)) {
        return error;
    }
    // One that is too old stumbles over its arguments long before it can greet.
    match version(launch.program).map(|version| version.check()) {
        Ok(Err(too_old)) => too_old,
        _ => error,
    }
}

fn silent(launch: &Launch<'_>) -> Error {
    let error = Error::failed(format!("QEMU did not answer in {} s", launch.deadline.as_secs_f32()));
    let sockets: Vec<String> = launch
        .spec
        .nics
        .iter()
        .filter(|nic| matches!(nic.link, Link::Vhost { .. }))
        .map(|nic| format!("`{}`", launch.run.join(nic.socket()).display()))
        .collect();
    if sockets.is_empty() {
        return error;
    }
    error.hint(format!(
        "it waits until Open vSwitch has connected to {}; is the port there (`ovs-vsctl show`) and may it open the socket?",
        sockets.join(" and ")
    ))
}
