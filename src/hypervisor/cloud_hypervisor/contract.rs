//! What the driver relies on, held against the real program and against the stand-in
//! (`cargo build --example cloud-hypervisor`): one list, so that the two stay alike.

use std::collections::HashSet;
use std::fs;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::client::{Client, Request};
use super::{CloudHypervisor, Version, version};
use crate::error::{Error, Result};
use crate::host::{ExitStatus, Gate, Spawn, find_program, landlock_version};
use crate::hypervisor::{Driver, Launch, Machine, MachineEvent, Tap, Vsock};
use crate::network::passt::Passt;
use crate::spec::{Boot, Disk, Link, Nic, Size, Switch, VmSpec};

#[path = "../../../tests/fixtures/payload.rs"]
mod payload;
#[path = "resize_contract.rs"]
mod resize;
use payload::Variant;

const SOON: Duration = Duration::from_secs(20);

type Promise = for<'a> fn(&'a Bench) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

const CONTRACT: &[(&str, Promise)] = &[
    ("boots, prints from the first byte, is told to quit", |bench| Box::pin(boots(bench))),
    ("pauses and resumes, and refuses a second time", |bench| Box::pin(pauses(bench))),
    ("a power-off from inside ends the process", |bench| Box::pin(powers_off(bench))),
    ("the power button reaches the guest", |bench| Box::pin(button(bench))),
    ("the console is two-way, and made anew at a reboot", |bench| Box::pin(echo_and_reboot(bench))),
    ("a vCPU that fails is not taken for a power-off", |bench| Box::pin(crash(bench))),
    ("a kill from outside is seen", |bench| Box::pin(killed(bench))),
    ("boots with disks and seed, though one is read-only", |bench| Box::pin(disks(bench))),
    ("a missing disk is told in the program's words", |bench| Box::pin(missing_disk(bench))),
    ("a stale serial socket is refused at launch", |bench| Box::pin(stale_serial(bench))),
    ("a vhost NIC without a switch: the deadline ends it", |bench| Box::pin(no_switch(bench))),
    ("a boot that hangs can be dropped and killed", |bench| Box::pin(kill_in_boot(bench))),
    ("a launch that is dropped leaves no process", |bench| Box::pin(dropped_launch(bench))),
    ("no word of the configuration is lost", |bench| Box::pin(read_back(bench))),
    ("a tap's descriptor arrives", |bench| Box::pin(tap(bench))),
    ("the line is there, and says at once that nobody listens", |bench| Box::pin(line_to_the_guest(bench))),
    ("memory and vCPUs are added, and what is refused changes nothing", |bench| {
        Box::pin(resize::memory_and_cpus(bench))
    }),
    ("memory is added eight times", |bench| Box::pin(resize::slots(bench))),
    ("a guest without room for more goes on as it is", |bench| Box::pin(resize::no_room(bench))),
    ("a disk grows, for the guest and on the host", |bench| Box::pin(resize::disks(bench))),
    ("passt serves a NIC, also after a reboot", |bench| Box::pin(passt(bench))),
];

struct Bench {
    program: PathBuf,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(program: PathBuf) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("v-ch-").tempdir().map_err(|error| error.to_string())?;
        Ok(Self { program, dir })
    }

    fn spec(&self, variant: Variant) -> VmSpec {
        let kernel = payload::build(self.dir.path(), variant).unwrap();
        VmSpec { boot: Boot::Kernel { kernel, initramfs: None, cmdline: "console=ttyS0".into() }, ..bare() }
    }

    fn nic(spec: &VmSpec, link: Link) -> Nic {
        Nic::new(spec.uuid, 0, "main".parse().unwrap(), link)
    }

    fn vhost(spec: &VmSpec) -> Nic {
        Self::nic(spec, Link::Vhost { bridge: "vsbr0".into(), create: false })
    }

    /// A fresh runtime folder; its VM's folder is the bench's.
    fn run(&self, spec: &VmSpec) -> PathBuf {
        let run = self.dir.path().join(&spec.uuid.to_string()[..8]);
        fs::create_dir_all(&run).unwrap();
        run
    }

    fn launch<'a>(&'a self, spec: &'a VmSpec, run: &'a Path, log: &'a Path, deadline: Duration) -> Launch<'a> {
        Launch {
            spec,
            program: &self.program,
            dir: self.dir.path(),
            run,
            gate: Gate::of_tests(),
            landlock: landlock_version().is_some_and(|version| version >= 3),
            taps: Vec::new(),
            ssh: None,
            vsock: spec.vsock.map(|_| Vsock::Own),
            log,
            deadline,
        }
    }

    async fn start(&self, spec: &VmSpec, deadline: Duration) -> Result<Box<dyn Machine>> {
        let run = self.run(spec);
        CloudHypervisor.launch(self.launch(spec, &run, &run.join("launch.log"), deadline), &|_| Ok(())).await
    }

    /// Launched, its console connected, booted.
    async fn boot(&self, variant: Variant) -> (Box<dyn Machine>, UnixStream, PathBuf) {
        let spec = self.spec(variant);
        let mut machine = self.start(&spec, SOON).await.unwrap();
        let serial = self.run(&spec).join("serial.sock");
        let console = UnixStream::connect(&serial).await.unwrap();
        machine.boot().await.unwrap();
        assert_eq!(event(machine.as_mut()).await, MachineEvent::Booted);
        (machine, console, serial)
    }
}

async fn event(machine: &mut dyn Machine) -> MachineEvent {
    timeout(SOON, machine.next_event()).await.expect("an event in time")
}

async fn line(console: &mut UnixStream, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    timeout(SOON, console.read_exact(&mut bytes)).await.expect("output in time").unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), expected);
}

/// Whether the process behind an API socket is gone: nobody listens any more.
async fn nobody_listens(run: &Path) -> bool {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        if UnixStream::connect(run.join("api.sock")).await.is_err() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

async fn info(run: &Path) -> Value {
    let reply = Client::new(run.join("api.sock")).call(&Request::get("vm.info")).await.unwrap();
    serde_json::from_slice(&reply).unwrap()
}

fn last(error: &Error) -> String {
    error.chain().pop().unwrap()
}

async fn boots(bench: &Bench) {
    let (mut machine, mut console, _) = bench.boot(Variant::Halt).await;
    line(&mut console, payload::LINE).await;
    assert!(machine.handle().is_alive());
    machine.kill().await.unwrap();
    assert!(!machine.handle().is_alive());
    let ended = loop {
        if let MachineEvent::Ended(status) = event(machine.as_mut()).await {
            break status;
        }
    };
    assert_eq!(ended, ExitStatus::Code(0), "it was asked, not killed");
    machine.kill().await.unwrap();
}

async fn pauses(bench: &Bench) {
    let (mut machine, _console, serial) = bench.boot(Variant::Halt).await;
    let run = serial.parent().unwrap();
    machine.pause().await.unwrap();
    assert_eq!(event(machine.as_mut()).await, MachineEvent::Paused);
    assert_eq!(info(run).await["state"], "Paused");
    let error = machine.pause().await.unwrap_err();
    assert_eq!(error.message(), "cloud-hypervisor could not pause the VM");
    assert!(last(&error).contains("Paused"), "{:?}", error.chain());
    machine.resume().await.unwrap();
    assert_eq!(event(machine.as_mut()).await, MachineEvent::Resumed);
    assert_eq!(info(run).await["state"], "Running");
    machine.kill().await.unwrap();
}

async fn powers_off(bench: &Bench) {
    let spec = bench.spec(Variant::Poweroff);
    let mut machine = bench.start(&spec, SOON).await.unwrap();
    let mut console = UnixStream::connect(bench.run(&spec).join("serial.sock")).await.unwrap();
    machine.boot().await.unwrap();
    assert_eq!(event(machine.as_mut()).await, MachineEvent::Booted);
    assert_eq!(event(machine.as_mut()).await, MachineEvent::PoweredOff);
    for time in ["once", "again"] {
        assert_eq!(event(machine.as_mut()).await, MachineEvent::Ended(ExitStatus::Code(0)), "{time}");
    }
    line(&mut console, payload::LINE).await;
    assert!(machine.pause().await.is_err(), "it has ended");
}

async fn button(bench: &Bench) {
    let (mut machine, mut console, _) = bench.boot(Variant::Button).await;
    line(&mut console, payload::LINE).await;
    // A call that is dropped loses nothing.
    assert!(timeout(Duration::from_millis(50), machine.next_event()).await.is_err());
    machine.power_button().await.unwrap();
    line(&mut console, payload::PRESSED).await;
    assert_eq!(event(machine.as_mut()).await, MachineEvent::PoweredOff);
    assert_eq!(event(machine.as_mut()).await, MachineEvent::Ended(ExitStatus::Code(0)));
}

async fn echo_and_reboot(bench: &Bench) {
    let (mut machine, mut console, serial) = bench.boot(Variant::Echo).await;
    line(&mut console, payload::LINE).await;
    console.write_all(b"hello").await.unwrap();
    line(&mut console, "hello").await;
    let before = machine.handle();
    console.write_all(&[payload::CTRL_R]).await.unwrap();
    assert_eq!(event(machine.as_mut()).await, MachineEvent::Rebooted);
    assert_eq!(timeout(SOON, console.read(&mut [0; 1])).await.unwrap().unwrap(), 0, "the old console ends");
    let mut console = UnixStream::connect(&serial).await.unwrap();
    line(&mut console, payload::LINE).await;
    assert_eq!(machine.handle(), before, "the process is the same");
    machine.kill().await.unwrap();
}

async fn crash(bench: &Bench) {
    let (mut machine, _console, _) = bench.boot(Variant::Crash).await;
    assert_eq!(event(machine.as_mut()).await, MachineEvent::Ended(ExitStatus::Code(1)));
}

async fn killed(bench: &Bench) {
    let (mut machine, _console, _) = bench.boot(Variant::Halt).await;
    assert!(machine.handle().signal(rustix::process::Signal::KILL).unwrap());
    assert_eq!(event(machine.as_mut()).await, MachineEvent::Ended(ExitStatus::Signal(9)));
}

async fn disks(bench: &Bench) {
    let mut spec = bench.spec(Variant::Halt);
    spec.vcpu = 2;
    for (name, readonly) in [("os", false), ("tools", true)] {
        let disk = Disk { name: name.parse().unwrap(), source: None, size: None, readonly };
        let file = fs::File::create(bench.dir.path().join(disk.file())).unwrap();
        file.set_len(1 << 20).unwrap();
        spec.disks.push(disk);
    }
    fs::write(bench.dir.path().join(VmSpec::SEED), [0; 4096]).unwrap();
    spec.seed = true;
    let mut machine = bench.start(&spec, SOON).await.unwrap();
    machine.boot().await.unwrap();
    machine.kill().await.unwrap();
}

async fn missing_disk(bench: &Bench) {
    let mut spec = bench.spec(Variant::Halt);
    spec.disks.push(Disk { name: "gone".parse().unwrap(), source: None, size: None, readonly: false });
    let mut machine = bench.start(&spec, SOON).await.unwrap();
    let error = machine.boot().await.unwrap_err();
    assert_eq!(error.message(), "cloud-hypervisor could not boot the VM");
    let chain = error.chain();
    assert_eq!(last(&error), "No such file or directory (os error 2)", "{chain:?}");
    assert!(chain.iter().any(|cause| cause.contains("gone.raw")), "{chain:?}");
    assert!(!machine.handle().is_alive());
    assert_eq!(event(machine.as_mut()).await, MachineEvent::Ended(ExitStatus::Signal(9)));
}

async fn stale_serial(bench: &Bench) {
    let spec = bench.spec(Variant::Halt);
    let run = bench.run(&spec);
    fs::write(run.join("serial.sock"), "").unwrap();
    let error = bench.start(&spec, SOON).await.unwrap_err();
    assert_eq!(error.message(), "cloud-hypervisor could not create the VM");
    assert!(last(&error).contains("Address already in use"), "{:?}", error.chain());
    assert!(nobody_listens(&run).await);
}

async fn no_switch(bench: &Bench) {
    let mut spec = bench.spec(Variant::Halt);
    spec.nics.push(Bench::vhost(&spec));
    let mut machine = bench.start(&spec, Duration::from_secs(1)).await.unwrap();
    let started = Instant::now();
    let error = machine.boot().await.unwrap_err();
    assert_eq!(error.message(), "cloud-hypervisor did not boot the VM in 1 s");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("Open vSwitch")), "{error:?}");
    assert!(started.elapsed() >= Duration::from_secs(1) && started.elapsed() < Duration::from_secs(5));
    assert!(bench.run(&spec).join("n0.sock").exists(), "it was listening");
    assert!(!machine.handle().is_alive());
}

async fn kill_in_boot(bench: &Bench) {
    let mut spec = bench.spec(Variant::Halt);
    spec.nics.push(Bench::vhost(&spec));
    let mut machine = bench.start(&spec, SOON).await.unwrap();
    assert!(timeout(Duration::from_millis(300), machine.boot()).await.is_err());
    assert!(machine.handle().is_alive());
    let started = Instant::now();
    machine.kill().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(!machine.handle().is_alive());
}

async fn dropped_launch(bench: &Bench) {
    for microseconds in [0, 500, 2_000, 5_000, 20_000] {
        let spec = bench.spec(Variant::Halt);
        let launched = timeout(Duration::from_micros(microseconds), bench.start(&spec, SOON)).await;
        if let Ok(machine) = launched {
            machine.unwrap().kill().await.unwrap();
        }
        assert!(nobody_listens(&bench.run(&spec)).await, "dropped after {microseconds} µs");
    }
}

async fn line_to_the_guest(bench: &Bench) {
    let mut spec = bench.spec(Variant::Halt);
    spec.vsock = Some(VmSpec::cid(spec.uuid));
    let mut machine = bench.start(&spec, SOON).await.unwrap();
    machine.boot().await.unwrap();
    let mut client = UnixStream::connect(bench.run(&spec).join("vsock.sock")).await.unwrap();
    client.write_all(b"CONNECT 22\n").await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(1), client.read_to_end(&mut answer)).await;
    // A guest without a driver says nothing at all; `vm::reach` waits no longer than this.
    assert!(read.is_err() || answer.is_empty(), "{answer:?}");
    machine.kill().await.unwrap();
}

/// passt itself is the real one.
async fn passt(bench: &Bench) {
    let Ok(program) = Passt::find().program().map_err(|error| eprintln!("skipped: {error}")) else { return };
    let mut spec = bench.spec(Variant::Echo);
    spec.nics.push(Bench::nic(&spec, Link::User));
    let run = bench.run(&spec);
    let socket = run.join(spec.nics[0].socket());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let forwards = [format!("127.0.0.1:{port}:22").parse().unwrap()];
    let log = fs::File::create(run.join("passt.log")).unwrap();
    let args = crate::network::passt::args(0, &socket, &forwards).unwrap();
    let spawn = Spawn::new(program).args(args).log(log);
    let served = spawn.start_at(&Gate::of_tests()).unwrap().open().unwrap();
    let said = || fs::read_to_string(run.join("passt.log")).unwrap();
    let started = Instant::now();
    while !socket.exists() {
        assert!(served.handle().is_alive() && started.elapsed() < SOON, "{}", said());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut machine = bench.start(&spec, SOON).await.unwrap();
    let mut console = UnixStream::connect(run.join("serial.sock")).await.unwrap();
    machine.boot().await.unwrap();
    line(&mut console, payload::LINE).await;
    assert_eq!(event(machine.as_mut()).await, MachineEvent::Booted);
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    console.write_all(&[payload::CTRL_R]).await.unwrap();
    assert_eq!(event(machine.as_mut()).await, MachineEvent::Rebooted);
    assert_eq!(timeout(SOON, console.read(&mut [0; 1])).await.unwrap().unwrap(), 0, "the old console ends");
    let mut console = UnixStream::connect(run.join("serial.sock")).await.unwrap();
    line(&mut console, payload::LINE).await;
    assert!(served.handle().is_alive(), "it serves the guest's next life too: {}", said());
    assert!(machine.handle().is_alive());
    machine.kill().await.unwrap();
}

async fn read_back(bench: &Bench) {
    let mut spec = bench.spec(Variant::Halt);
    spec.vcpu = 2;
    spec.vcpu_max = Some(4);
    spec.vram_max = Some(Size::mib(64 + 256));
    spec.disks.push(Disk { name: "os".parse().unwrap(), source: None, size: None, readonly: false });
    spec.seed = true;
    spec.policy.watchdog = true;
    spec.nics.push(Bench::vhost(&spec));
    spec.vsock = Some(VmSpec::cid(spec.uuid));
    let run = bench.run(&spec);
    let log = run.join("launch.log");
    let script = CloudHypervisor.script(&bench.launch(&spec, &run, &log, SOON)).unwrap();
    let mut machine = bench.start(&spec, SOON).await.unwrap();
    let sent = script.calls[1].body.clone().unwrap();
    let seen = info(&run).await;
    assert_eq!(seen["state"], "Created");
    let mut lost = HashSet::new();
    missing(&sent, &seen["config"], "config", &mut lost);
    assert!(lost.is_empty(), "{lost:?}\n{seen}");
    machine.kill().await.unwrap();
}

/// The paths of what `sent` holds and `seen` does not.
fn missing(sent: &Value, seen: &Value, path: &str, lost: &mut HashSet<String>) {
    match (sent, seen) {
        (Value::Object(fields), _) => {
            for (name, value) in fields {
                missing(value, &seen[name], &format!("{path}.{name}"), lost);
            }
        }
        (Value::Array(items), _) => {
            for (index, item) in items.iter().enumerate() {
                missing(item, &seen[index], &format!("{path}[{index}]"), lost);
            }
        }
        _ if sent == seen => {}
        _ => {
            lost.insert(format!("{path}: {sent} became {seen}"));
        }
    }
}

async fn tap(bench: &Bench) {
    let mut spec = bench.spec(Variant::Halt);
    spec.nics.push(Bench::nic(&spec, Link::Tap { bridge: "br0".into(), switch: Switch::Bridge, create: false }));
    let run = bench.run(&spec);
    let log = run.join("launch.log");
    let without = bench.start(&spec, SOON).await.unwrap_err();
    assert_eq!(without.message(), "the tap of NIC 0 is missing");
    assert!(nobody_listens(&run).await);

    fs::remove_dir_all(&run).unwrap();
    fs::create_dir(&run).unwrap();
    let mut launch = bench.launch(&spec, &run, &log, SOON);
    launch.taps.push(Tap { nic: 0, fd: OwnedFd::from(fs::File::open("/dev/null").unwrap()), offload: true });
    let mut machine = CloudHypervisor.launch(launch, &|_| Ok(())).await.unwrap();
    let net = &info(&run).await["config"]["net"][0];
    assert_eq!(net["id"], "net0");
    assert_eq!(net["mac"], spec.nics[0].mac.to_string());
    assert_eq!(net["fds"].as_array().map(Vec::len), Some(1), "{net}");
    machine.kill().await.unwrap();
}

fn keep(program: PathBuf) {
    let bench = Bench::new(program).unwrap();
    if let Err(reason) = payload::build(bench.dir.path(), Variant::Halt) {
        eprintln!("skipped: {reason}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (promise, check) in CONTRACT {
        eprintln!("{}: {promise}", bench.program.display());
        runtime.block_on(check(&bench));
    }
}

fn stand_in() -> Option<PathBuf> {
    let path = std::env::current_exe().unwrap().parent()?.parent()?.join("examples/cloud-hypervisor");
    if !path.exists() {
        eprintln!("skipped: `cargo build --example cloud-hypervisor` has not made {}", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn the_real_program_keeps_the_contract() {
    let Some(program) = find_program("cloud-hypervisor") else {
        eprintln!("skipped: cloud-hypervisor is not on PATH");
        return;
    };
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        eprintln!("skipped: /dev/kvm: {error}");
        return;
    }
    keep(program);
}

#[test]
fn the_stand_in_keeps_the_contract() {
    if let Some(program) = stand_in() {
        keep(program);
    }
}

#[test]
fn a_version_that_is_too_old_is_refused_and_ended() {
    let Some(program) = stand_in() else { return };
    let mut bench = Bench::new(program.clone()).unwrap();
    if let Err(reason) = payload::build(bench.dir.path(), Variant::Halt) {
        eprintln!("skipped: {reason}");
        return;
    }
    bench.program = bench.dir.path().join("cloud-hypervisor");
    std::os::unix::fs::symlink(program, &bench.program).unwrap();
    fs::write(bench.dir.path().join("cloud-hypervisor.version"), "51.1.0").unwrap();
    assert_eq!(version(&bench.program).unwrap(), Version { major: 51, minor: 1, patch: 0 });

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let spec = bench.spec(Variant::Halt);
        let error = bench.start(&spec, SOON).await.unwrap_err();
        assert_eq!(error.message(), "cloud-hypervisor 51.1.0 is too old");
        assert!(nobody_listens(&bench.run(&spec)).await);

        fs::write(bench.dir.path().join("cloud-hypervisor.version"), "52.0.0").unwrap();
        let spec = bench.spec(Variant::Halt);
        let mut machine = bench.start(&spec, SOON).await.unwrap();
        let platform = &info(&bench.run(&spec)).await["config"]["platform"];
        assert_eq!(platform["uuid"], spec.uuid.to_string(), "the names that version 52 reads");
        machine.kill().await.unwrap();
    });
}

/// Programs that end at once, in time measured against a deadline that is far away.
#[test]
fn a_program_that_dies_at_once_is_seen_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rows = [("/bin/false", "exit code 1", None), ("/bin/ls", "exit code 2", Some("unrecognized option"))];
    for (program, ended, words) in rows {
        let bench = Bench::new(program.into()).unwrap();
        let spec = bare();
        let log = bench.run(&spec).join("launch.log");
        fs::write(&log, "words of an earlier launch\n").unwrap();
        let started = Instant::now();
        let error = runtime.block_on(bench.start(&spec, Duration::from_secs(60))).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(5), "{program}: {:?}", started.elapsed());
        assert_eq!(error.message(), format!("cloud-hypervisor ended before it could start ({ended})"), "{program}");
        let causes = error.chain()[1..].join("\n");
        assert!(!causes.contains("earlier"), "{program}: {causes}");
        match words {
            Some(words) => assert!(causes.contains(words), "{program}: {causes}"),
            None => assert!(causes.is_empty(), "{program}: {causes}"),
        }
    }
}

#[test]
fn a_program_that_is_not_there_and_a_path_that_is_too_long() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = Bench::new("/no/such/cloud-hypervisor".into()).unwrap();
    let spec = bare();
    let error = runtime.block_on(bench.start(&spec, SOON)).unwrap_err();
    assert_eq!(error.message(), "cannot start `/no/such/cloud-hypervisor`");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("install")));

    let run = bench.dir.path().join("x".repeat(100));
    let log = run.join("launch.log");
    let launch = bench.launch(&spec, &run, &log, SOON);
    let error = runtime.block_on(CloudHypervisor.launch(launch, &|_| Ok(()))).unwrap_err();
    assert!(error.message().contains("107 is the most"), "{error}");
}

/// A spec for programs that never get to read it.
fn bare() -> VmSpec {
    VmSpec::sample(uuid::Uuid::new_v4())
}
