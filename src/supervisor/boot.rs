use std::fs::{self, DirEntry};
use std::io;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use super::console::Console;
use super::ports::Ports;
use crate::config::Config;
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Gate, Handle, Runner};
use crate::hypervisor::{self, Launch, Machine};
use crate::network;
use crate::spec::VmSpec;
use crate::vm::{self, Site, Steps};

/// A VM that runs.
#[derive(Debug)]
pub(super) struct Booted {
    pub(super) machine: Box<dyn Machine>,
    pub(super) console: Console,
    pub(super) ssh: Option<SocketAddrV4>,
}

/// This very program, also after it was replaced on the disk.
const OURSELVES: &str = "/proc/self/exe";
/// The version of Landlock that cloud-hypervisor insists on.
const LANDLOCK: u32 = 3;

/// A fresh runtime folder: what an earlier life left would make the hypervisor fail to bind. Only
/// `keep` stays as it is.
pub(super) fn fresh_runtime_folder(site: &Site, vm: Uuid, keep: Option<&Path>) -> Result<()> {
    site.check_socket_paths(vm)?;
    let run = &site.dirs.run(vm);
    vm::make_private(run)?;
    let clear = || -> io::Result<()> {
        for entry in fs::read_dir(run)? {
            let entry: DirEntry = entry?;
            if keep == Some(entry.path().as_path()) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    clear().or_failed(|| format!("cannot clear the runtime folder `{}`", run.display()))
}

/// Leaves to the hypervisor what is its own: its folder for sockets, the VM's files, a way to both.
fn prepare(site: &Site, spec: &VmSpec, program: &Path, runner: Option<&Runner>) -> Result<()> {
    vm::check_boot(&spec.boot)?;
    host::give_folder(&site.hypervisor_run(spec.uuid), runner)?;
    vm::hand_over(site, spec, runner)?;
    runner.map_or(Ok(()), |runner| vm::admit(site, spec, program, runner))
}

/// From a spec to a running guest. `launched` is told the hypervisor's process as soon as it is
/// there, so that the record names it even if this process is killed a moment later.
pub(super) async fn boot(
    site: &Site,
    config: &Config,
    spec: &VmSpec,
    ports: &Ports<'_>,
    deadline: Duration,
    steps: &Steps,
    launched: impl Fn(Handle, Option<SocketAddrV4>) -> Result<()>,
) -> Result<Booted> {
    let run = site.hypervisor_run(spec.uuid);
    let hosts = vm::hosts(config);
    let program = hosts.program(spec.hypervisor).ok_or_else(|| {
        Error::failed(format!("`{}` is not installed", spec.hypervisor)).hint("`v doctor` says what is missing")
    })?;
    let runner = vm::runner_of(site, config, spec)?;
    prepare(site, spec, program, runner.as_ref())?;
    let ssh = match spec.has_user_network() {
        true => Some(network::free_port(vm::preferred_ssh(spec))?),
        false => None,
    };
    steps.step("networks", || vm::networks::ensure(site, spec))?;
    let taps = steps.step("ports", || ports.prepare())?;
    let serial = run.join("serial.sock");
    let dir = site.dirs.vm(spec.uuid);
    let console_log = site.console_log(spec.uuid);
    let hypervisor_log = site.hypervisor_log(spec.uuid);
    let launch = Launch {
        spec,
        program,
        dir: &dir,
        run: &run,
        gate: Gate { program: OURSELVES.into(), runner },
        landlock: host::landlock_version().is_some_and(|version| version >= LANDLOCK),
        taps,
        forwards: ssh.map(vm::ssh_forward).into_iter().collect(),
        log: &hypervisor_log,
        deadline,
    };
    let start = async {
        let driver = hypervisor::driver(spec.hypervisor);
        let spawned = |process| steps.step("process", || launched(process, ssh));
        let mut machine = steps.wait("launch", driver.launch(launch, &spawned)).await?;
        let pid = machine.handle().pid;
        let console = steps.wait("console", Console::connect(&serial, &console_log, pid)).await?;
        steps.wait("boot", machine.boot()).await?;
        Ok((machine, console))
    };
    // Some hypervisors block until their vhost-user sockets are connected: both go on together.
    let ((machine, console), ()) = tokio::try_join!(start, ports.connect(&run, deadline, steps))?;
    Ok(Booted { machine, console, ssh })
}
