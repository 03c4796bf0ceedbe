//! A guest that runs is given more, in the same run: by its hypervisor's own account.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;
use virshle::error::{Error, Kind};
use virshle::host::Dirs;
use virshle::spec::{Forward, Size, VmSpec};
use virshle::store::{Record, Store};
use virshle::vm::{self, Site};

use super::{Stage, Test, alive, kill, vcpu_threads};
use crate::fixtures::ovs::PrivateOvs;
use crate::fixtures::payload::{self, Variant};
use crate::fixtures::ports::free_port;
use crate::world::{Outcome, World, eventually, exercised, need_program, skip, trial};

pub const TESTS: &[(&str, Test)] = &[
    ("memory_and_vcpus_are_added", memory_and_vcpus_are_added),
    ("what_cannot_be_added_is_refused", what_cannot_be_added_is_refused),
    ("a_new_supervisor_gives_more", a_new_supervisor_gives_more),
    ("the_next_run_has_what_was_added", the_next_run_has_what_was_added),
    ("a_disk_grows", a_disk_grows),
    ("a_switch_is_told_of_new_memory", a_switch_is_told_of_new_memory),
];

const LIMIT: Duration = Duration::from_secs(20);

/// Under real QEMU, without hardware virtualisation.
pub fn qemu() -> Vec<Trial> {
    type Test = fn(&World) -> Outcome;
    let tests: [(&str, Test); 2] = [("all_of_it", qemu_gives_all_of_it), ("forwarded_ports", forwarded_ports)];
    let trials = tests.map(|(name, test)| {
        trial(format!("lifecycle::grow::{name} [qemu]"), move || {
            need_program("qemu-system-x86_64")?;
            let world = World::new();
            let kernel = payload::build(world.dir(), Variant::Halt).or_else(skip)?;
            exercised("grown while it runs", "QEMU (TCG)");
            world.config(&format!(
                "[node]\nhypervisor = \"qemu\"\naccel = \"tcg\"\n{}[[template.vm.net]]\nname = \"slirp\"\ntype = \"user\"\n",
                roomy(&kernel.display().to_string())
            ));
            world.v(["vm", "create", "-t", "roomy", "-n", "a", "--start"]).ok();
            test(&world)
        })
    });
    trials.into()
}

/// 64 MiB and a vCPU, with room for two more vCPUs and nine modules of memory; a disk of 1 MiB.
fn roomy(kernel: &str) -> String {
    format!(
        "[[template.vm]]\nname = \"roomy\"\nvcpu = 1\nvcpu-max = 3\nvram = \"64MiB\"\nvram-max = \"1216MiB\"\n\
         kernel = {kernel:?}\nrestart = \"on-crash\"\n[[template.vm.disk]]\nname = \"data\"\nsize = \"1MiB\"\n"
    )
}

fn running(stage: &Stage) -> Vm<'_> {
    let kernel = payload::build(stage.world.dir(), Variant::Halt).expect("the payload is built");
    stage.config(&roomy(&kernel.display().to_string()));
    stage.create("roomy", "a");
    stage.start("a");
    exercised("grown while it runs", stage.kind.label());
    Vm::of(&stage.world)
}

/// The only VM of a world, as the verbs see it.
struct Vm<'a> {
    world: &'a World,
    site: Site,
}

impl<'a> Vm<'a> {
    fn of(world: &'a World) -> Self {
        Self { world, site: Site::new(Dirs::find(Some(&world.root())).expect("the folders")) }
    }

    fn store(&self) -> Store {
        self.site.store().expect("the store opens")
    }

    fn record(&self) -> Record {
        self.store().list().expect("the VMs are listed").remove(0)
    }

    fn spec(&self) -> VmSpec {
        self.record().spec
    }

    fn pids(&self) -> [Value; 2] {
        let info = self.world.info("a");
        ["supervisor_pid", "hypervisor_pid"].map(|which| info[which].clone())
    }

    fn pid(&self, which: usize) -> i32 {
        i32::try_from(self.pids()[which].as_i64().expect("a pid")).expect("a pid")
    }

    fn resize(&self, vcpu: Option<u32>, mib: Option<u64>) -> Result<(), Error> {
        vm::resize(&self.site, &mut self.store(), self.spec().uuid, vcpu, mib.map(Size::mib))
    }

    fn grow_disk(&self, mib: u64) -> Result<(), Error> {
        let disk = "data".parse().expect("a name");
        vm::grow_disk(&self.site, &mut self.store(), self.spec().uuid, &disk, Size::mib(mib))
    }

    fn disk(&self) -> PathBuf {
        self.site.dirs.vm(self.spec().uuid).join("data.raw")
    }

    /// What is recorded: vCPUs and MiB.
    fn recorded(&self) -> (u32, u64) {
        let spec = self.spec();
        (spec.vcpu, spec.vram.bytes() >> 20)
    }

    /// What cloud-hypervisor says: vCPUs and MiB.
    fn has(&self) -> (u32, u64) {
        let socket = self.site.hypervisor_run(self.spec().uuid).join("api.sock");
        let mut stream = UnixStream::connect(socket).expect("its API");
        stream.write_all(b"GET /api/v1/vm.info HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is asked");
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line).expect("a heading") > 2 {
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("an answer");
        let info: Value = serde_json::from_slice(&body).expect("JSON");
        let number = |value: &Value| value.as_u64().expect("a number");
        let vcpus = number(&info["config"]["cpus"]["boot_vcpus"]);
        (u32::try_from(vcpus).expect("a few"), number(&info["memory_actual_size"]) >> 20)
    }
}

/// All that an error says, its hint too.
fn words(refused: Result<(), Error>) -> (Kind, String) {
    let error = refused.expect_err("it is refused");
    (error.kind(), format!("{} [{}]", error.chain().join(": "), error.hint_text().unwrap_or_default()))
}

fn memory_and_vcpus_are_added(stage: &Stage) -> Outcome {
    let vm = running(stage);
    assert_eq!((vm.has(), vm.recorded()), ((1, 64), (1, 64)));
    let pids = vm.pids();
    for (vcpu, mib, expected) in [
        (None, Some(192), (1, 192)),
        (Some(2), None, (2, 192)),
        (Some(3), Some(448), (3, 448)),
        (Some(3), Some(448), (3, 448)),
    ] {
        vm.resize(vcpu, mib).expect("it is given more");
        assert_eq!((vm.has(), vm.recorded()), (expected, expected));
        assert_eq!(vm.pids(), pids, "the same run");
    }
    assert_eq!(stage.world.state_of("a"), "running");
    Ok(())
}

fn what_cannot_be_added_is_refused(stage: &Stage) -> Outcome {
    let vm = running(stage);
    let rows = [
        (Some(4), None, "can come to 3 vCPUs"),
        (None, Some(2048), "can come to 1216MiB"),
        (Some(2), Some(100), "multiples of 128MiB"),
        (None, Some(32), "none can be taken"),
    ];
    for (vcpu, mib, expected) in rows {
        let (kind, said) = words(vm.resize(vcpu, mib));
        assert_eq!(kind, Kind::Refused, "{said}");
        assert!(said.starts_with("cannot resize `a`: ") && said.contains(expected), "{said}");
        assert!(said.contains("--restart"), "{said}");
    }
    assert_eq!((vm.has(), vm.recorded()), ((1, 64), (1, 64)), "nothing of it was done or recorded");

    stage.world.v(["vm", "pause", "a"]).ok();
    for refused in [vm.resize(Some(2), Some(192)), vm.grow_disk(2)] {
        let (kind, said) = words(refused);
        assert!(kind == Kind::Refused && said.contains("it is paused [`v vm resume a`"), "{said}");
    }
    stage.world.v(["vm", "resume", "a"]).ok();

    // One slot for each module, for as long as it runs.
    for module in 1..=8 {
        vm.resize(None, Some(64 + module * 128)).expect("a slot");
    }
    let (kind, said) = words(vm.resize(Some(2), Some(64 + 9 * 128)));
    assert_eq!(kind, Kind::Failed);
    assert!(said.contains("No ACPI slot available [`v apply --restart`"), "{said}");
    assert_eq!((vm.has(), vm.recorded()), ((1, 1088), (1, 1088)));

    stage.world.v(["vm", "stop", "--force", "--timeout", "0", "a"]).ok();
    let (kind, said) = words(vm.resize(Some(2), None));
    assert_eq!((kind, said.as_str()), (Kind::Refused, "cannot resize `a`: it is not running []"));
    Ok(())
}

fn a_new_supervisor_gives_more(stage: &Stage) -> Outcome {
    let vm = running(stage);
    vm.resize(Some(2), Some(192)).expect("it is given more");
    let (supervisor, hypervisor) = (vm.pid(0), vm.pid(1));
    kill(supervisor, Signal::KILL);
    eventually("it is gone", LIMIT, || !alive(supervisor));
    // The next command finds a new one for it.
    stage.world.v(["vm", "pause", "a"]).ok();
    stage.world.v(["vm", "resume", "a"]).ok();
    vm.resize(Some(3), Some(320)).expect("it is given more");
    vm.grow_disk(4).expect("it grows");
    assert_eq!((vm.has(), vm.recorded()), ((3, 320), (3, 320)));
    assert_eq!(vm.pid(1), hypervisor);

    // What was done and not recorded is found done.
    let uuid = vm.spec().uuid;
    let forgotten = |record: &mut Record| {
        (record.spec.vcpu, record.spec.vram) = (2, Size::mib(192));
        Ok(())
    };
    vm.store().update(uuid, forgotten).expect("it is forgotten");
    vm.resize(Some(3), Some(320)).expect("it has it");
    assert_eq!((vm.has(), vm.recorded()), ((3, 320), (3, 320)));
    Ok(())
}

fn the_next_run_has_what_was_added(stage: &Stage) -> Outcome {
    let vm = running(stage);
    vm.resize(Some(2), Some(192)).expect("it is given more");
    // Started again by the supervisor that saw its end, and by another.
    let first = vm.pid(1);
    kill(first, Signal::KILL);
    eventually("it runs again", LIMIT, || stage.runs_anew("a", first));
    assert_eq!((vm.has(), vm.recorded()), ((2, 192), (2, 192)));
    vm.resize(Some(3), Some(320)).expect("there is room as before");
    // Nothing runs that could be given anything, for minutes: it is late in its series.
    let late = |record: &mut Record| {
        record.retries.as_mut().expect("a series").attempts = 7;
        Ok(())
    };
    vm.store().update(vm.spec().uuid, late).expect("it is noted");
    kill(vm.pid(1), Signal::KILL);
    eventually("it waits", LIMIT, || stage.world.state_of("a") == "restarting");
    for refused in [vm.resize(Some(3), None), vm.grow_disk(2)] {
        let (kind, said) = words(refused);
        assert!(kind == Kind::Refused && said.contains("about to be started again"), "{said}");
    }
    stage.world.v(["vm", "stop", "--force", "--timeout", "0", "a"]).ok();
    stage.start("a");
    assert_eq!((vm.has(), vm.recorded()), ((3, 320), (3, 320)));
    Ok(())
}

fn a_disk_grows(stage: &Stage) -> Outcome {
    let vm = running(stage);
    let (length, recorded) = (|| vm.disk().metadata().expect("a disk").len() >> 20, || vm.spec().disks[0].size);
    assert_eq!(length(), 1);
    let pids = vm.pids();
    vm.grow_disk(4).expect("it grows");
    vm.grow_disk(4).expect("it is as large");
    assert_eq!((length(), recorded(), vm.pids()), (4, Some(Size::mib(4)), pids));
    // A file that somebody else made larger counts, and is never made smaller.
    std::fs::File::options().write(true).open(vm.disk()).expect("it opens").set_len(8 << 20).expect("it grows");
    vm.grow_disk(6).expect("it is larger");
    assert_eq!((length(), recorded()), (8, Some(Size::mib(6))));
    let none = "none".parse().expect("a name");
    let (kind, said) = words(vm::grow_disk(&vm.site, &mut vm.store(), vm.spec().uuid, &none, Size::mib(9)));
    assert!(kind == Kind::NotFound && said.contains("`a` has no disk `none`"), "{said}");

    stage.world.v(["vm", "stop", "--force", "--timeout", "0", "a"]).ok();
    for (mib, expected) in [(16, 16), (12, 16)] {
        vm.grow_disk(mib).expect("it grows at rest");
        assert_eq!((length(), recorded()), (expected, Some(Size::mib(mib))));
    }
    stage.start("a");
    Ok(())
}

/// It maps all of it. One that hangs holds nothing up for long.
fn a_switch_is_told_of_new_memory(stage: &Stage) -> Outcome {
    let ovs = match PrivateOvs::start(true) {
        Ok(ovs) => ovs,
        Err(reason) => return skip(reason),
    };
    exercised("switch", "Open vSwitch with DPDK (vhost)");
    let kernel = payload::build(stage.world.dir(), Variant::Halt).expect("the payload is built");
    stage.config(&format!(
        "{}[[template.vm.net]]\nname = \"lan\"\ntype = \"vhost\"\n[[network]]\nname = \"lan\"\nbridge = \"vsbr0\"\ncreate = true\n",
        roomy(&kernel.display().to_string())
    ));
    let config = std::fs::read_to_string(stage.world.config_file()).expect("the config");
    stage.world.config(&config.replacen("[node]\n", &format!("[node]\novs-db = \"{}\"\n", ovs.db), 1));
    stage.create("roomy", "a");
    stage.start("a");
    let vm = Vm::of(&stage.world);
    for (mib, expected) in [(192, (1, 192)), (448, (1, 448))] {
        vm.resize(None, Some(mib)).expect("it is given more");
        assert_eq!((vm.has(), vm.recorded()), (expected, expected));
    }
    assert_eq!(stage.world.row("a")["troubles"], serde_json::json!([]));

    ovs.freeze_switch();
    let asked = Instant::now();
    let done = vm.resize(None, Some(576));
    let took = asked.elapsed();
    let stopped = stage.world.v(["vm", "stop", "--force", "--timeout", "0", "a"]);
    ovs.thaw_switch();
    assert!(took < LIMIT, "{took:?}");
    assert_eq!(vm.recorded().1, if done.is_ok() { 576 } else { 448 }, "{done:?}");
    assert!(stopped.ok().took < LIMIT);
    stage.world.v(["vm", "delete", "a"]).ok();
    Ok(())
}

fn qemu_gives_all_of_it(world: &World) -> Outcome {
    let vm = Vm::of(world);
    let hypervisor = vm.pid(1);
    vm.resize(Some(2), Some(192)).expect("it is given more");
    vm.grow_disk(4).expect("it grows");
    assert_eq!(vm.recorded(), (2, 192));
    let supervisor = vm.pid(0);
    kill(supervisor, Signal::KILL);
    eventually("it is gone", LIMIT, || !alive(supervisor));
    world.v(["vm", "pause", "a"]).ok();
    let (kind, said) = words(vm.resize(Some(3), None));
    assert!(kind == Kind::Refused && said.contains("it is paused"), "{said}");
    world.v(["vm", "resume", "a"]).ok();
    vm.resize(Some(3), Some(64 + 8 * 128)).expect("it is given more");
    vm.grow_disk(8).expect("it grows");
    assert_eq!((vm.recorded(), vm.pid(1)), ((3, 64 + 8 * 128), hypervisor));
    assert_eq!(vm.disk().metadata().expect("a disk").len(), 8 << 20);
    // Two modules, one after the other: QEMU says itself what it has.
    let (kind, said) = words(vm.resize(Some(4), None));
    assert!(kind == Kind::Refused && said.contains("can come to 3 vCPUs"), "{said}");
    assert_eq!(vcpu_threads(hypervisor.into()), 3);
    Ok(())
}

fn forwarded_ports(world: &World) -> Outcome {
    let vm = Vm::of(world);
    let uuid = vm.spec().uuid;
    let set = |ports: &[Forward]| vm::live_forwards(&vm.site, &mut vm.store(), uuid, 0, ports);
    let open = |port: u16| TcpStream::connect(("127.0.0.1", port)).is_ok();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let [one, two] = [(); 2].map(|()| free_port());
    let forward = |port: u16| format!("127.0.0.1:{port}:80").parse::<Forward>().expect("a forward");
    let ssh = world.row("a")["address"]
        .as_str()
        .expect("an address")
        .rsplit(':')
        .next()
        .map(|port| port.parse().expect("a port"));
    let ssh: u16 = ssh.expect("a port");
    assert!(open(ssh) && !open(one));
    set(&[forward(one), forward(two)]).expect("they come");
    assert!(open(ssh) && open(one) && open(two));
    set(&[forward(two)]).expect("one goes");
    assert!(open(ssh) && !open(one) && open(two));
    let (kind, said) = words(set(&[forward(taken.local_addr().expect("a port").port())]));
    assert!(kind == Kind::Failed && said.contains("taken by another program"), "{said}");
    assert!(open(two), "they are what they were");
    world.v(["vm", "pause", "a"]).ok();
    set(&[]).expect("also while it is paused");
    assert!(open(ssh) && !open(two));
    let (kind, said) = words(vm::live_forwards(&vm.site, &mut vm.store(), uuid, 1, &[]));
    assert!(kind == Kind::NotFound && said.contains("no `user` NIC 1"), "{said}");
    Ok(())
}
