use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use super::Site;
use crate::error::Result;
use crate::host::{Gate, find_program};
use crate::hypervisor::{self, Helper, Launch, Script};
use crate::spec::VmSpec;

/// What a start of this VM would run and send. Nothing is started or looked up at the switch; the
/// port of a forwarded ssh is the one that is tried first.
pub fn show_launch(site: &Site, spec: &VmSpec) -> Result<Script> {
    let config = site.config()?;
    let hosts = super::hosts(&config);
    let program = hosts
        .program(spec.hypervisor)
        .map(PathBuf::from)
        .or_else(|| hypervisor::program_names(spec.hypervisor).iter().find_map(find_program))
        .unwrap_or_else(|| hypervisor::program_names(spec.hypervisor)[0].into());
    let run = site.hypervisor_run(spec.uuid);
    let ssh = spec.has_user_network().then(|| preferred_ssh(spec));
    let vsock = super::line(spec);
    let helpers = super::helpers(spec, &run, ssh, vsock.as_ref())?;
    let script = hypervisor::driver(spec.hypervisor).script(&Launch {
        spec,
        program: &program,
        dir: &site.dirs.vm(spec.uuid),
        run: &run,
        gate: Gate { program: "".into(), runner: None },
        landlock: true,
        taps: Vec::new(),
        ssh,
        vsock,
        log: &site.hypervisor_log(spec.uuid),
        deadline: Duration::from_secs(60),
    })?;
    Ok(Script { helpers: helpers.iter().map(Helper::argv).collect(), ..script })
}

/// The host port that a `user` NIC's ssh is first tried on; a free one is taken when it is not.
pub fn preferred_ssh(spec: &VmSpec) -> SocketAddrV4 {
    let port = 22_000 + u16::try_from(spec.number % 10_000).unwrap_or(0);
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}
