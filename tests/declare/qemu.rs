//! The same on real QEMU: what reaches a guest at once, and what waits.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use libtest_mimic::Trial;

use super::vm;
use crate::fixtures::payload::{self, Variant};
use crate::fixtures::ports::free_port;
use crate::lifecycle::{template, vcpu_threads};
use crate::trials;
use crate::world::{Outcome, Skip, World, exercised, need_program};

pub fn trials() -> Vec<Trial> {
    trials![what_reaches_a_guest_of_qemu]
}

fn pid(world: &World, name: &str) -> i64 {
    world.info(name)["hypervisor_pid"].as_i64().expect("a pid")
}

/// A number of `/proc/PID/status`, as the kernel counts it.
fn counted(pid: i64, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect(key);
    line.split_ascii_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

fn what_reaches_a_guest_of_qemu() -> Outcome {
    need_program("qemu-system-x86_64")?;
    let world = World::new();
    let kernel = payload::build(world.dir(), Variant::Button).map_err(Skip)?;
    exercised("declared VMs that run", "QEMU (TCG)");
    let port = free_port();
    let declare = |web: &str, other: &str| {
        world.config(&format!(
            "[node]\nhypervisor = \"qemu\"\naccel = \"tcg\"\n[[network]]\nname = \"slirp\"\ntype = \"user\"\n\
             {}vcpu-max = 3\nvram-max = \"448MiB\"\nstop-timeout = 20\n{}{}",
            template("roomy", &kernel),
            vm("web", "roomy", web),
            vm("other", "roomy", other)
        ));
    };
    let disk = |mib: u32| format!("disk = [{{ name = \"data\", size = \"{mib}MiB\" }}]\n");
    let closed = "net = [{ name = \"slirp\" }]\n";
    declare(&(disk(1) + closed), closed);
    world.apply(&[]).ok();
    let (web, other) = (pid(&world, "web"), pid(&world, "other"));
    let memory = counted(web, "VmSize");
    assert_eq!(vcpu_threads(web), 1);
    TcpStream::connect(("127.0.0.1", port)).expect_err("nobody listens there yet");

    let net = format!("net = [{{ name = \"slirp\", ports = [\"127.0.0.1:{port}:80\"] }}]\n");
    let grown = disk(3) + &net + "vcpu = 3\nvram = \"320MiB\"\nlabels.role = \"front\"";
    declare(&grown, closed);
    let plan = world.plan(&[]);
    assert!(plan.rows.iter().all(|row| row["vm"] == "web" && row["change"] == "live"), "{:#?}", plan.lines());
    let mut fields: Vec<&str> = plan.rows.iter().filter_map(|row| row["field"].as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["disk.data.size", "labels.role", "net.0.ports", "vcpu", "vram"]);
    world.apply(&[]).ok();
    assert_eq!((pid(&world, "web"), pid(&world, "other")), (web, other), "both run on");
    let more = counted(web, "VmSize") - memory;
    assert!(more >= 256 << 10, "{more} KiB more are mapped");
    assert_eq!(vcpu_threads(web), 3, "a thread for each vCPU");
    let folder = world.info("web")["folder"].as_str().expect("a folder").to_owned();
    assert_eq!(fs::metadata(Path::new(&folder).join("data.raw")).expect("the disk").len(), 3 << 20);
    TcpStream::connect(("127.0.0.1", port)).expect("QEMU listens there");
    world.assert_in_order();

    // It is closed again, and another VM has to be started anew for one.
    let grown = grown.replace(&net, closed);
    declare(&grown, &(net.clone() + "stop-timeout = 1\nwatchdog = true"));
    let waits = vec!["other restart watchdog needs --restart".to_owned()];
    world.apply(&[]).ok();
    assert_eq!((world.plan(&[]).code, world.plan(&[]).fields()), (Some(10), waits), "it waits");
    assert_eq!((pid(&world, "web"), pid(&world, "other")), (web, other));
    TcpStream::connect(("127.0.0.1", port)).expect("the other one's QEMU listens there now");
    // This payload hears no button of QEMU's, and no power is cut unasked.
    world.apply(&["--restart"]).fails(1, &["`other`", "has not shut down in 1 s"]);
    assert_eq!((pid(&world, "web"), pid(&world, "other")), (web, other), "it runs on");
    world.v(["vm", "stop", "--force", "--timeout", "0", "other"]).ok();
    assert_eq!(world.plan(&[]).fields(), ["other live watchdog", "other start running"]);
    world.apply(&[]).ok();
    assert_eq!(pid(&world, "web"), web);
    assert_ne!(pid(&world, "other"), other);
    TcpStream::connect(("127.0.0.1", port)).expect("and listens there in its new run");
    assert_eq!(world.row("web")["vram_bytes"], 320 << 20);
    world.assert_in_order();
    Ok(())
}
