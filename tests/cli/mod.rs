//! Every command as a person types it, on VMs that need not run.

mod create;
mod faults;
mod help;
mod history;
mod output;

use libtest_mimic::Trial;

use crate::world::World;

pub fn trials() -> Vec<Trial> {
    [create::trials(), faults::trials(), help::trials(), history::trials(), output::trials()]
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
