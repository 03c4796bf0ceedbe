use std::fs::{self, DirEntry};
use std::io;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use super::console::Console;
use super::helpers::Helpers;
use super::ports::Ports;
use crate::config::Config;
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Gate, Handle, Runner};
use crate::hypervisor::{self, Launch, Machine};
use crate::network;
use crate::spec::{Link, Serves, VmSpec};
use crate::store::{Helper, Line};
use crate::vm::{self, Site, Steps};

/// A VM that runs.
#[derive(Debug)]
pub(super) struct Booted {
    pub(super) machine: Box<dyn Machine>,
    pub(super) console: Console,
    pub(super) helpers: Helpers,
    pub(super) ssh: Option<SocketAddrV4>,
}

/// A process of the run that waits at its gate.
#[derive(Debug)]
pub(super) enum Begun {
    Helper(Helper),
    /// With how the guest is reached.
    Hypervisor(Handle, Option<SocketAddrV4>, Option<Line>),
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

/// Refuses forwards that the hypervisor may not serve, before anything is started.
fn check_forwards(spec: &VmSpec, runner: Option<&Runner>) -> Result<()> {
    if runner.is_none() {
        return Ok(());
    }
    let mut nics = spec.nics.iter().filter(|nic| matches!(nic.link, Link::User));
    nics.try_for_each(|nic| network::check_privilege(&nic.forwards))
}

/// From a spec to a running guest. `begun` is told each process as soon as it is there, so that the
/// record names it even if this process is killed a moment later.
pub(super) async fn boot(
    site: &Site,
    config: &Config,
    spec: &VmSpec,
    ports: &Ports<'_>,
    deadline: Duration,
    steps: &Steps,
    begun: impl Fn(Begun) -> Result<()>,
) -> Result<Booted> {
    let run = site.hypervisor_run(spec.uuid);
    let hosts = vm::hosts(config);
    let program = hosts.program(spec.hypervisor).ok_or_else(|| {
        Error::failed(format!("`{}` is not installed", spec.hypervisor)).hint("`v doctor` says what is missing")
    })?;
    let runner = vm::runner_of(site, config, spec)?;
    prepare(site, spec, program, runner.as_ref())?;
    check_forwards(spec, runner.as_ref())?;
    // Claimed until the guest runs: by then it is in use.
    let claimed = match spec.has_user_network() {
        true => Some(network::free_port(vm::preferred_ssh(spec))?),
        false => None,
    };
    let ssh = claimed.as_ref().map(|port| port.address);
    steps.step("networks", || vm::networks::ensure(site, spec))?;
    let taps = steps.step("ports", || ports.prepare())?;
    let vsock = vm::line(spec);
    if spec.vsock.is_some() && vsock.is_none() {
        tracing::warn!(
            "the guest has no vsock: this host has neither /dev/vhost-vsock nor `{}`",
            Serves::Line.program()
        );
    }
    let line = vm::line_end(spec, vsock.as_ref(), &run);
    // They need no group of the hypervisor's.
    let beside = runner.clone().map(|runner| Runner { groups: Vec::new(), ..runner });
    let plans = vm::helpers(spec, &run, ssh, vsock.as_ref())?;
    let gate = Gate { program: OURSELVES.into(), runner: beside };
    let note = |helper| begun(Begun::Helper(helper));
    let helpers = Helpers::start(site, spec, &plans, &gate, deadline, steps, note).await?;
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
        ssh,
        vsock,
        log: &hypervisor_log,
        deadline,
    };
    let start = async {
        let driver = hypervisor::driver(spec.hypervisor);
        let spawned = |process| steps.step("process", || begun(Begun::Hypervisor(process, ssh, line.clone())));
        let mut machine = steps.wait("launch", driver.launch(launch, &spawned)).await?;
        let pid = machine.handle().pid;
        let console = steps.wait("console", Console::connect(&serial, &console_log, pid)).await?;
        steps.wait("boot", machine.boot()).await?;
        Ok((machine, console))
    };
    // Some hypervisors block until their vhost-user sockets are connected: both go on together.
    let ((machine, console), ()) = tokio::try_join!(start, ports.connect(&run, deadline, steps))?;
    drop(claimed);
    Ok(Booted { machine, console, helpers, ssh })
}
