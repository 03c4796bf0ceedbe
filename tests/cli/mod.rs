//! Every command as a person types it, on VMs that need not run.

mod apply;
mod create;
mod export;
mod faults;
mod help;
mod malicious;
mod history;
mod output;
mod rename;
mod repair;
mod ssh;

use std::fs;
use std::path::PathBuf;

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::World;

/// A switch that does not answer, until this is dropped.
pub struct HangingSwitch {
    program: PathBuf,
    before: Vec<u8>,
    pid: PathBuf,
}

/// In a world of [`World::switch`]: who asks the switch waits from now on.
pub fn hang_switch(world: &World) -> HangingSwitch {
    let program = world.dir().join("bin/ovs-vsctl");
    let (before, pid) = (fs::read(&program).expect("the script"), world.dir().join("asked"));
    let text = format!("#!/bin/sh\necho $$ > {0}.new && mv {0}.new {0}\nexec sleep 600\n", pid.display());
    fs::write(&program, text).expect("the script");
    HangingSwitch { program, before, pid }
}

impl HangingSwitch {
    pub fn is_asked(&self) -> bool {
        self.pid.exists()
    }
}

impl Drop for HangingSwitch {
    fn drop(&mut self) {
        let _ = fs::write(&self.program, &self.before);
        let asked = fs::read_to_string(&self.pid).unwrap_or_default();
        if let Some(pid) = asked.trim().parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = fs::remove_file(&self.pid);
    }
}

pub fn trials() -> Vec<Trial> {
    [
        apply::trials(),
        create::trials(),
        export::trials(),
        faults::trials(),
        help::trials(),
        history::trials(),
        malicious::trials(),
        output::trials(),
        rename::trials(),
        repair::trials(),
        ssh::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A world with a template `xs` (one 8 MiB disk, a network `main` with addresses to give) whose
/// hypervisor is there but never started.
pub fn world() -> World {
    let mut world = World::new();
    world.switch();
    world.image("os.img", 8);
    world.file("code.fd", [0; 4096]);
    world.file("vars.fd", [1; 4096]);
    world.config(&config(&world, ""));
    world
}

/// The config of [`world`], with more behind it.
pub fn config(world: &World, more: &str) -> String {
    let dir = world.dir().display();
    format!(
        r#"
[node]
hypervisor = "qemu"
[node.qemu]
program = "/bin/true"
firmware = "{dir}/code.fd"
vars = "{dir}/vars.fd"

[[network]]
name = "main"
type = "ovs"
subnet = "10.44.0.0/24"

[[template.vm]]
name = "xs"
vcpu = 1
vram = "512MiB"
[[template.vm.disk]]
name = "os"
path = "{dir}/os.img"
size = "16MiB"
[[template.vm.net]]
name = "main"
type = "tap"
{more}"#
    )
}
