//! Programs beside the hypervisor: passt, the user network of cloud-hypervisor; and its line to the
//! guest, which it serves itself.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use virshle::host::{Dirs, Handle};
use virshle::network::passt::Passt;
use virshle::spec::Serves;
use virshle::store::{Line, Record, Store};
use virshle::vm::{self, Site};

use super::{Kind, Stage, Test, alive, kill};
use crate::fixtures::ports::free_port;
use crate::world::{Outcome, Skip, World, eventually, exercised};

pub const TESTS: &[(&str, Test)] = &[
    ("passt_lives_and_ends_with_its_vm", passt_lives_and_ends_with_its_vm),
    ("a_new_supervisor_takes_passt_over", a_new_supervisor_takes_passt_over),
    ("the_end_of_passt_is_told", the_end_of_passt_is_told),
    ("ports_lead_to_the_guest_or_are_refused", ports_lead_to_the_guest_or_are_refused),
    ("nothing_is_left_when_all_were_killed", nothing_is_left_when_all_were_killed),
    ("the_line_to_the_guest", the_line_to_the_guest),
];

const LIMIT: Duration = Duration::from_secs(20);

/// A VM `a` on a user network, which runs.
fn running(stage: &Stage) -> Result<Record, Skip> {
    created(stage, "")?;
    stage.start("a");
    Ok(record(&stage.world))
}

fn created(stage: &Stage, more: &str) -> Result<(), Skip> {
    Passt::find().program().map_err(|error| Skip(error.message().to_owned()))?;
    exercised("user network of cloud-hypervisor", "passt");
    let text = "[[template.vm]]\nname = \"user\"\nvcpu = 1\nvram = \"64MiB\"\nkernel = KERNEL\n\
                [[template.vm.net]]\nname = \"slirp\"\ntype = \"user\"\nMORE[[network]]\nname = \"slirp\"\ntype = \"user\"\n";
    let kernel = crate::fixtures::payload::build(stage.world.dir(), crate::fixtures::payload::Variant::Button);
    let kernel = format!("{:?}", kernel.expect("the payload is built"));
    stage.config(&text.replace("KERNEL", &kernel).replace("MORE", more));
    stage.create("user", "a");
    Ok(())
}

fn record(world: &World) -> Record {
    let dirs = Dirs::find(Some(&world.root())).expect("the folders");
    let store = Store::open_read_only(&dirs.database()).expect("the store opens").expect("there is a store");
    store.list().expect("the VMs are listed").into_iter().next().expect("a VM")
}

fn passt(record: &Record) -> Handle {
    let helpers = &record.runtime.as_ref().expect("it runs").helpers;
    assert_eq!(helpers.iter().map(|helper| helper.serves).collect::<Vec<_>>(), [Serves::Nic(0)]);
    helpers[0].process
}

fn gone(process: Handle) {
    eventually("passt is gone", LIMIT, || !alive(process.pid));
}

fn passt_lives_and_ends_with_its_vm(stage: &Stage) -> Outcome {
    let record = running(stage)?;
    let (first, world) = (passt(&record), &stage.world);
    assert!(first.is_alive());
    let ssh = record.runtime.as_ref().and_then(|runtime| runtime.ssh).expect("ssh is forwarded");
    assert_eq!(world.row("a")["address"], ssh.to_string());
    TcpStream::connect(ssh).expect("passt listens there");
    let rights = std::fs::read_to_string(format!("/proc/{}/status", first.pid)).expect("its status");
    let has = |line: &str| rights.lines().any(|found| found.split_ascii_whitespace().eq(line.split(' ')));
    assert!(has("CapEff: 0000000000000000") && has("NoNewPrivs: 1"), "{rights}");

    world.v(["vm", "restart", "a"]).ok();
    gone(first);
    let second = passt(&self::record(world));
    assert!(second.is_alive());
    world.v(["vm", "stop", "a"]).ok();
    gone(second);
    assert!(self::record(world).runtime.is_none());
    stage.start("a");
    let third = passt(&self::record(world));
    kill(stage.pid("a", "hypervisor_pid"), Signal::KILL);
    eventually("its end is recorded", LIMIT, || world.state_of("a") == "crashed");
    gone(third);
    world.v(["vm", "delete", "--force", "a"]).ok();
    world.assert_empty();
    Ok(())
}

fn a_new_supervisor_takes_passt_over(stage: &Stage) -> Outcome {
    let record = running(stage)?;
    let (process, world) = (passt(&record), &stage.world);
    kill(stage.pid("a", "supervisor_pid"), Signal::KILL);
    eventually("somebody watches it again", LIMIT, || {
        world.v(["repair"]).ok();
        world.row("a")["unwatched"] == false
    });
    assert_eq!(passt(&self::record(world)), process);
    assert!(process.is_alive());
    let ssh = record.runtime.and_then(|runtime| runtime.ssh).expect("ssh is forwarded");
    TcpStream::connect(ssh).expect("passt still listens there");
    // The new one watches over it, too.
    kill(process.pid, Signal::KILL);
    told(world);
    world.v(["vm", "stop", "a"]).ok();
    Ok(())
}

fn the_end_of_passt_is_told(stage: &Stage) -> Outcome {
    let record = running(stage)?;
    let world = &stage.world;
    kill(passt(&record).pid, Signal::KILL);
    told(world);
    assert_eq!(world.state_of("a"), "running", "the guest goes on");
    let seen = self::record(world).runtime.expect("it runs");
    assert!(seen.helpers.is_empty());
    assert_eq!(seen.troubles.iter().map(|trouble| trouble.port.as_str()).collect::<Vec<_>>(), ["v1n0"]);
    world.v(["vm", "restart", "a"]).ok();
    let mended = self::record(world);
    assert!(passt(&mended).is_alive() && mended.runtime.expect("it runs").troubles.is_empty());
    world.v(["vm", "stop", "a"]).ok();

    // One that ended while nobody watched is told by the next supervisor.
    stage.start("a");
    let process = passt(&self::record(world));
    for pid in [stage.pid("a", "supervisor_pid"), process.pid] {
        kill(pid, Signal::KILL);
        eventually("it is gone", LIMIT, || !alive(pid));
    }
    world.v(["repair"]).ok();
    assert!(!self::record(world).runtime.expect("it runs").troubles.is_empty());
    world.v(["vm", "stop", "a"]).ok();
    Ok(())
}

fn ports_lead_to_the_guest_or_are_refused(stage: &Stage) -> Outcome {
    let world = &stage.world;
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("a port");
    created(stage, &format!("ports = [\"127.0.0.1:{port}:80\"]\n"))?;
    world.v(["vm", "start", "a"]).fails(4, &[&format!("127.0.0.1:{port}:80/tcp"), "listens at port"]);
    assert_eq!(passts(world), 0, "nothing was started");
    drop(taken);
    stage.start("a");
    TcpStream::connect(("127.0.0.1", port)).expect("passt listens there");
    world.v(["vm", "stop", "a"]).ok();
    TcpStream::connect(("127.0.0.1", port)).expect_err("nobody listens there any more");
    Ok(())
}

/// Those of this world.
fn passts(world: &World) -> usize {
    let here = world.dir().display().to_string();
    let of = |entry: std::fs::DirEntry| {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        (words.contains("--vhost-user") && words.contains(&here)).then_some(())
    };
    std::fs::read_dir("/proc").expect("processes").filter_map(|entry| of(entry.ok()?)).count()
}

fn told(world: &World) {
    eventually("it is told", LIMIT, || world.v(["vm", "history", "a"]).stdout.contains("helper ended"));
    eventually("it is a trouble of the port", LIMIT, || {
        record(world).runtime.is_some_and(|runtime| !runtime.troubles.is_empty())
    });
}

fn nothing_is_left_when_all_were_killed(stage: &Stage) -> Outcome {
    let record = running(stage)?;
    let world = &stage.world;
    let process = passt(&record);
    for pid in ["supervisor_pid", "hypervisor_pid"].map(|which| stage.pid("a", which)) {
        kill(pid, Signal::KILL);
        eventually("it is gone", LIMIT, || !alive(pid));
    }
    world.v(["repair"]).ok();
    gone(process);
    assert_eq!(world.state_of("a"), "crashed");
    Ok(())
}

fn the_line_to_the_guest(stage: &Stage) -> Outcome {
    stage.create("halt", "a");
    stage.start("a");
    let world = &stage.world;
    let running = record(world);
    let uuid = running.spec.uuid;
    assert_eq!(running.spec.vsock, Some(virshle::spec::VmSpec::cid(uuid)));
    let site = Site::new(Dirs::find(Some(&world.root())).expect("the folders"));
    let socket = site.hypervisor_run(uuid).join("vsock.sock");
    assert_eq!(running.runtime.as_ref().and_then(|runtime| runtime.vsock.clone()), Some(Line::Socket(socket)));
    let error = vm::reach(&site, &running, 22, LIMIT).expect_err("nobody listens in a payload");
    assert!(error.chain().join(": ").contains("by vsock"), "{:?}", error.chain());
    if matches!(stage.kind, Kind::Fake) {
        use std::io::{Read, Write};
        // The stand-in's guest sends back what it gets at this port.
        let mut stream = std::os::unix::net::UnixStream::from(vm::reach(&site, &running, 7, LIMIT).expect("a stream"));
        stream.write_all(b"hello").expect("it takes it");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("it answers");
        assert_eq!(&answer, b"hello");
    }
    world.v(["vm", "stop", "--force", "--timeout", "0", "a"]).ok();
    let error = vm::reach(&site, &record(world), 22, LIMIT).expect_err("it is stopped");
    assert_eq!(error.kind(), virshle::error::Kind::Refused);
    Ok(())
}
