//! Against the real QEMU, under TCG. Skipped, and said so, where it is not installed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::sample::{self, LINE, Then};
use super::{Qemu, version};
use crate::error::Error;
use crate::host::{ExitStatus, Gate, find_program};
use crate::hypervisor::{Driver, Launch, Machine, MachineEvent, Vsock};
use crate::spec::{Boot, Link, Size, VmSpec};

#[path = "resize_tests.rs"]
mod resize;

const PATIENCE: Duration = Duration::from_secs(60);

/// The folders and the program of one launch. Their names hold all that QEMU's options split at.
struct Bench {
    dir: tempfile::TempDir,
    program: PathBuf,
    ssh: Option<SocketAddrV4>,
    vsock: bool,
    deadline: Duration,
}

impl Bench {
    fn new() -> Option<Self> {
        let Some(program) = find_program("qemu-system-x86_64").filter(|_| cfg!(target_arch = "x86_64")) else {
            eprintln!("skipped: `qemu-system-x86_64` is not installed");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("a,b c=é%'\"").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("r,n")).unwrap();
        Some(Self { dir, program, ssh: None, vsock: false, deadline: PATIENCE })
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn spec(&self, then: Then) -> VmSpec {
        let kernel = self.path("kernel,=.elf");
        std::fs::write(&kernel, sample::payload(then)).unwrap();
        sample::spec(sample::kernel(kernel))
    }

    fn program(&mut self, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.program = self.path("program");
        std::fs::write(&self.program, script).unwrap();
        std::fs::set_permissions(&self.program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    async fn launch(&self, spec: &VmSpec) -> Result<Box<dyn Machine>, Error> {
        let (run, log) = (self.path("r,n"), self.path("launch.log"));
        Qemu.launch(self.plan(spec, &run, &log), &|_| Ok(())).await
    }

    fn plan<'a>(&'a self, spec: &'a VmSpec, run: &'a Path, log: &'a Path) -> Launch<'a> {
        Launch {
            spec,
            program: &self.program,
            dir: self.dir.path(),
            run,
            gate: Gate::of_tests(),
            landlock: false,
            taps: Vec::new(),
            ssh: self.ssh,
            vsock: self.vsock.then_some(Vsock::Program),
            log,
            deadline: self.deadline,
        }
    }

    async fn refused(&self, spec: &VmSpec) -> Error {
        let error = self.launch(spec).await.map(|machine| format!("{machine:?}")).unwrap_err();
        assert_eq!(self.processes(), [0; 0], "the process of a failed launch is gone");
        error
    }

    /// The processes that have this bench's folder in their arguments, however it is escaped there.
    fn processes(&self) -> Vec<i32> {
        let plain = |text: &str| text.replace([',', '\\'], "");
        let folder = plain(self.dir.path().to_str().unwrap());
        let of = |entry: std::fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let cmdline = std::fs::read(entry.path().join("cmdline")).ok()?;
            plain(&String::from_utf8_lossy(&cmdline)).contains(&folder).then_some(pid)
        };
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| of(entry.ok()?)).collect()
    }

    async fn serial(&self) -> UnixStream {
        UnixStream::connect(self.path("r,n/serial.sock")).await.unwrap()
    }
}

/// A test that fails leaves no process either.
impl Drop for Bench {
    fn drop(&mut self) {
        for pid in self.processes().into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

async fn next(machine: &mut Box<dyn Machine>) -> MachineEvent {
    timeout(PATIENCE, machine.next_event()).await.expect("an event")
}

async fn read_until(stream: &mut UnixStream, expected: &str) {
    let mut seen = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&seen).contains(expected) {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
        }
    };
    if timeout(PATIENCE, read).await.is_err() {
        panic!("no {expected:?} in {:?}", String::from_utf8_lossy(&seen));
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_life_with_console_pause_and_kill() {
    let Some(mut bench) = Bench::new() else { return };
    let ports = [free_port(), free_port()];
    bench.ssh = Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, ports[0]));
    let mut spec = bench.spec(Then::Halt);
    spec.nics = vec![sample::nic(spec.uuid, 0, Link::User), sample::nic(spec.uuid, 1, Link::User)];
    spec.nics[1].forwards = vec![format!("127.0.0.1:{}:80", ports[1]).parse().unwrap()];
    spec.disks = vec![sample::disk("os", false), sample::disk("a-name-of-more-than-twenty-bytes", true)];
    spec.seed = true;
    for file in ["os.raw", "a-name-of-more-than-twenty-bytes.raw", VmSpec::SEED] {
        std::fs::write(bench.path(file), vec![0; 1 << 20]).unwrap();
    }

    let mut machine = bench.launch(&spec).await.unwrap();
    assert!(machine.handle().is_alive());
    assert_eq!(bench.processes(), [machine.handle().pid]);
    let script = Qemu.script(&bench.plan(&spec, &bench.path("r,n"), Path::new(""))).unwrap();
    let cmdline = std::fs::read_to_string(format!("/proc/{}/cmdline", machine.handle().pid)).unwrap();
    assert_eq!(cmdline.trim_end_matches('\0').split('\0').collect::<Vec<_>>(), script.argv, "the script is what runs");
    let calls: Vec<&str> = script.calls.iter().map(|call| call.request.as_str()).collect();
    assert_eq!(calls, ["qmp_capabilities", "cont"]);
    let mut serial = bench.serial().await;
    assert!(timeout(Duration::from_millis(300), serial.read_u8()).await.is_err(), "the guest does not run yet");
    machine.boot().await.unwrap();
    read_until(&mut serial, LINE).await;
    assert_eq!(next(&mut machine).await, MachineEvent::Booted);
    for port in ports {
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
    machine.pause().await.unwrap();
    machine.resume().await.unwrap();
    assert_eq!(next(&mut machine).await, MachineEvent::Paused);
    assert_eq!(next(&mut machine).await, MachineEvent::Resumed);
    machine.power_button().await.unwrap();
    let quiet = timeout(Duration::from_millis(200), machine.next_event()).await;
    assert!(quiet.is_err(), "a guest that does not heed the button goes on: {quiet:?}");
    machine.kill().await.unwrap();
    assert!(!machine.handle().is_alive());
    assert_eq!(next(&mut machine).await, MachineEvent::Ended(ExitStatus::Code(0)));
    assert_eq!(next(&mut machine).await, MachineEvent::Ended(ExitStatus::Code(0)), "and nothing after it");
    machine.kill().await.unwrap();
    assert_eq!(bench.processes(), [0; 0]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_power_off_from_inside_is_told_before_the_end() {
    let Some(bench) = Bench::new() else { return };
    let spec = bench.spec(Then::PowerOff);
    let mut machine = bench.launch(&spec).await.unwrap();
    machine.boot().await.unwrap();
    let events = [next(&mut machine).await, next(&mut machine).await, next(&mut machine).await];
    let expected = [MachineEvent::Booted, MachineEvent::PoweredOff, MachineEvent::Ended(ExitStatus::Code(0))];
    assert_eq!(events, expected);
}

#[tokio::test(flavor = "current_thread")]
async fn a_reboot_from_inside_goes_on() {
    let Some(bench) = Bench::new() else { return };
    let spec = bench.spec(Then::Reset);
    let mut machine = bench.launch(&spec).await.unwrap();
    let mut serial = bench.serial().await;
    machine.boot().await.unwrap();
    assert_eq!(next(&mut machine).await, MachineEvent::Booted);
    assert_eq!(next(&mut machine).await, MachineEvent::Rebooted);
    read_until(&mut serial, &format!("{LINE}{LINE}")).await;
    machine.kill().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn an_end_by_signal_is_seen_as_one() {
    let Some(bench) = Bench::new() else { return };
    let spec = bench.spec(Then::Halt);
    let mut machine = bench.launch(&spec).await.unwrap();
    machine.boot().await.unwrap();
    assert_eq!(next(&mut machine).await, MachineEvent::Booted);
    assert!(machine.handle().signal(Signal::KILL).unwrap());
    assert_eq!(next(&mut machine).await, MachineEvent::Ended(ExitStatus::Signal(9)));
}

#[tokio::test(flavor = "current_thread")]
async fn a_hung_process_is_killed_all_the_same() {
    let Some(bench) = Bench::new() else { return };
    let spec = bench.spec(Then::Halt);
    let mut machine = bench.launch(&spec).await.unwrap();
    machine.handle().signal(Signal::STOP).unwrap();
    let started = Instant::now();
    machine.kill().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(next(&mut machine).await, MachineEvent::Ended(ExitStatus::Signal(9)));
}

#[tokio::test(flavor = "current_thread")]
async fn a_failed_boot_leaves_no_process() {
    let Some(mut bench) = Bench::new() else { return };
    bench.deadline = Duration::from_secs(20);
    let spec = bench.spec(Then::Halt);
    let mut machine = bench.launch(&spec).await.unwrap();
    machine.handle().signal(Signal::KILL).unwrap();
    let error = machine.boot().await.unwrap_err();
    assert_eq!(error.message(), "QEMU ended while booting the VM (signal 9)");
    assert_eq!(next(&mut machine).await, MachineEvent::Ended(ExitStatus::Signal(9)));
}

#[tokio::test(flavor = "current_thread")]
async fn a_dropped_launch_leaves_no_process() {
    let Some(mut bench) = Bench::new() else { return };
    bench.program("#!/bin/sh\nexec tail -f \"$0\" >/dev/null\n");
    let spec = bench.spec(Then::Halt);
    {
        let mut launch = std::pin::pin!(bench.launch(&spec));
        while bench.processes().is_empty() {
            assert!(timeout(Duration::from_millis(20), &mut launch).await.is_err());
        }
    }
    let started = Instant::now();
    while !bench.processes().is_empty() {
        assert!(started.elapsed() < PATIENCE, "still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn refusals_carry_the_words_of_qemu() {
    let Some(mut bench) = Bench::new() else { return };
    std::fs::write(bench.path("launch.log"), "an older launch\n").unwrap();
    let mut spec = bench.spec(Then::Halt);
    spec.disks = vec![sample::disk("os", false)];
    let error = bench.refused(&spec).await;
    assert_eq!(error.message(), "QEMU could not start the VM (exit code 1)");
    let words = error.chain()[1..].join("\n");
    assert!(words.contains("os.raw") && words.contains("No such file or directory"), "{words}");
    assert!(!words.contains("older"), "{words}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = taken.local_addr().unwrap().to_string().parse().unwrap();
    bench.ssh = Some(host);
    std::fs::remove_file(bench.path("r,n/api.sock")).unwrap();
    spec.disks.clear();
    spec.nics = vec![sample::nic(spec.uuid, 0, Link::User)];
    let error = bench.refused(&spec).await;
    assert_eq!(error.hint_text(), Some("a forwarded port is taken by another program"), "{error:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_disk_in_use_is_not_opened_twice() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec(Then::Halt);
    spec.disks = vec![sample::disk("os", false)];
    std::fs::write(bench.path("os.raw"), vec![0; 1 << 20]).unwrap();
    let mut machine = bench.launch(&spec).await.unwrap();
    std::fs::remove_file(bench.path("r,n/api.sock")).unwrap();
    let error = bench.launch(&spec).await.map(|_| ()).unwrap_err();
    assert_eq!(error.hint_text(), Some("another process has the disk open; stop it first"), "{error:?}");
    machine.kill().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn programs_that_are_no_qemu() {
    let Some(mut bench) = Bench::new() else { return };
    let spec = bench.spec(Then::Halt);
    bench.deadline = Duration::from_secs(30);
    let rows = [
        ("#!/bin/sh\nexit 1\n", "QEMU could not start the VM (exit code 1)"),
        (
            "#!/bin/sh\ncase $1 in --version) echo 'QEMU emulator version 5.0.0';; *) exit 1;; esac\n",
            "QEMU 5.0.0 is too old",
        ),
        ("#!/bin/sh\nkill -SEGV $$\n", "QEMU could not start the VM (signal 11)"),
    ];
    for (script, message) in rows {
        bench.program(script);
        let started = Instant::now();
        let error = bench.refused(&spec).await;
        assert!(started.elapsed() < Duration::from_secs(15), "seen at once: {:?}", started.elapsed());
        assert_eq!(error.message(), message);
        std::fs::remove_file(bench.path("r,n/api.sock")).unwrap();
    }
    bench.program = "/no/such/qemu".into();
    assert_eq!(bench.refused(&spec).await.message(), "cannot run `/no/such/qemu`");
}

#[tokio::test(flavor = "current_thread")]
async fn a_program_that_never_answers_meets_the_deadline() {
    let Some(mut bench) = Bench::new() else { return };
    bench.program("#!/bin/sh\necho 'some last words' >&2\nexec tail -f \"$0\" >/dev/null\n");
    bench.deadline = Duration::from_secs(1);
    let spec = bench.spec(Then::Halt);
    let error = bench.refused(&spec).await;
    assert_eq!(error.chain(), ["QEMU did not answer in 1 s", "some last words"]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_switch_is_waited_for_and_named_when_it_does_not_come() {
    let Some(mut bench) = Bench::new() else { return };
    let mut spec = bench.spec(Then::Halt);
    spec.nics = vec![sample::nic(spec.uuid, 0, sample::vhost()), sample::nic(spec.uuid, 1, sample::vhost())];
    bench.deadline = Duration::from_secs(2);
    let error = bench.refused(&spec).await;
    assert_eq!(error.message(), "QEMU did not answer in 2 s");
    let hint = error.hint_text().unwrap();
    assert!(hint.contains("r,n/n0.sock` and `") && hint.contains("r,n/n1.sock`"), "{hint}");

    let run = bench.path("r,n");
    for file in std::fs::read_dir(&run).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    bench.deadline = PATIENCE;
    // The later socket first: both are there before QEMU waits for either.
    let switch = std::thread::spawn(move || ["n1.sock", "n0.sock"].map(|socket| backend(&run.join(socket))));
    let mut machine = bench.launch(&spec).await.unwrap();
    machine.boot().await.unwrap();
    assert_eq!(next(&mut machine).await, MachineEvent::Booted);
    machine.kill().await.unwrap();
    for backend in switch.join().unwrap() {
        assert!(backend.join().unwrap() > 0, "QEMU has spoken vhost-user");
    }
}

/// The least that QEMU takes for a vhost-user switch. Ends with the connection; gives the number of
/// messages it has read.
fn backend(socket: &Path) -> std::thread::JoinHandle<usize> {
    const GET_FEATURES: u32 = 1;
    const GET_PROTOCOL_FEATURES: u32 = 15;
    const IS_REPLY: u32 = 0b101;
    let started = Instant::now();
    let mut stream = loop {
        match StdUnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    std::thread::spawn(move || {
        let mut messages = 0;
        let mut header = [0; 12];
        while stream.read_exact(&mut header).is_ok() {
            let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
            let mut body = vec![0; field(8) as usize];
            stream.read_exact(&mut body).unwrap();
            messages += 1;
            let features: u64 = match field(0) {
                GET_FEATURES => 1 << 32 | 1 << 30,
                GET_PROTOCOL_FEATURES => 0,
                _ => continue,
            };
            let mut reply: Vec<u8> = [field(0), IS_REPLY, 8].iter().flat_map(|field| field.to_le_bytes()).collect();
            reply.extend(features.to_le_bytes());
            stream.write_all(&reply).unwrap();
        }
        messages
    })
}

#[tokio::test(flavor = "current_thread")]
async fn firmware_runs_with_variables_of_its_own() {
    let Some(bench) = Bench::new() else { return };
    let Ok(boot @ Boot::Firmware { .. }) = super::firmware(None, None) else {
        eprintln!("skipped: no UEFI firmware is installed");
        return;
    };
    let Boot::Firmware { vars: Some(vars), .. } = &boot else { panic!("no variables: {boot:?}") };
    std::fs::copy(vars, bench.path(VmSpec::EFI_VARS)).unwrap();
    let pristine = std::fs::read(vars).unwrap();
    let mut spec = sample::spec(boot);
    spec.vram = Size::mib(256);
    spec.disks = vec![sample::disk("os", false)];
    std::fs::write(bench.path("os.raw"), vec![0; 1 << 20]).unwrap();
    let mut machine = bench.launch(&spec).await.unwrap();
    let mut serial = bench.serial().await;
    machine.boot().await.unwrap();
    read_until(&mut serial, "BdsDxe: ").await;
    machine.kill().await.unwrap();
    assert_ne!(std::fs::read(bench.path(VmSpec::EFI_VARS)).unwrap(), pristine, "the VM's own copy is written");
}

#[test]
fn the_installed_version_is_read() {
    let Some(bench) = Bench::new() else { return };
    assert!(version(&bench.program).unwrap() >= super::Version { major: 6, minor: 2, micro: 0 });
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
