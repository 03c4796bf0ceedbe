//! Hypervisors that run as another user when root starts them: what they have left, what is theirs,
//! and that a VM's whole life goes on as before.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use super::{Stage, Test, alive, kill};
use crate::fixtures::kvm::with_kvm_of;
use crate::fixtures::netns::in_private_network;
use crate::fixtures::payload::{self, Variant};
use crate::world::{Outcome, Skip, eventually, exercised, need_program, need_root};

pub const TESTS: &[(&str, Test)] = &[
    ("a_hypervisor_runs_as_its_user", a_hypervisor_runs_as_its_user),
    ("a_tap_reaches_a_hypervisor_without_rights", a_tap_reaches_a_hypervisor_without_rights),
    ("what_its_user_may_not_open_is_told", what_its_user_may_not_open_is_told),
    ("vms_made_before_the_user_was_named", vms_made_before_the_user_was_named),
    ("a_supervisor_killed_before_the_record_leaves_no_hypervisor", killed_before_the_record),
];

const LIMIT: Duration = Duration::from_secs(20);
/// `nobody`: on every Linux.
const NOBODY: u32 = 65534;
/// A group that nobody is in.
const GROUP: u32 = 4242;

/// The program where every user may run it.
fn public_program(stage: &Stage) -> PathBuf {
    let program = stage.world.dir().join("hypervisor");
    if !program.exists() {
        fs::copy(&stage.program, &program).expect("a copy");
    }
    program
}

/// A template `disked` with a disk and the echo payload; hypervisors run as `user`.
fn config(stage: &Stage, user: &str) {
    fs::set_permissions(stage.world.dir(), Permissions::from_mode(0o711)).expect("others pass through");
    let kernel = payload::build(stage.world.dir(), Variant::Echo).expect("the payload is built");
    let image = stage.world.image("os.img", 4);
    let more = format!("{}[[template.vm.disk]]\nname = \"os\"\npath = {image:?}\n", super::template("disked", &kernel));
    stage.config(&more);
    let text = fs::read_to_string(stage.world.config_file()).expect("the config");
    let text = text.replace(&format!("{:?}", stage.program), &format!("{:?}", public_program(stage)));
    stage.world.config(&text.replacen("[node]\n", &format!("[node]\n{user}\n"), 1));
}

fn folder(stage: &Stage, name: &str) -> PathBuf {
    PathBuf::from(stage.world.info(name)["folder"].as_str().expect("a folder"))
}

fn run_folder(stage: &Stage, name: &str) -> PathBuf {
    let uuid = stage.world.row(name)["uuid"].as_str().expect("a uuid").to_owned();
    stage.world.root().join("run/virshle/vm").join(uuid)
}

/// Owner and mode.
fn of(path: &Path) -> (u32, u32) {
    let meta = path.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (meta.uid(), meta.mode() & 0o7777)
}

fn status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("the field");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_real(stage: &Stage) -> bool {
    !stage.program.ends_with("examples/cloud-hypervisor")
}

fn a_hypervisor_runs_as_its_user(stage: &Stage) -> Outcome {
    need_root()?;
    config(stage, "user = \"nobody\"");
    with_kvm_of(stage.world.dir(), GROUP, "0660", || life(stage)).map_err(Skip)
}

fn life(stage: &Stage) {
    exercised("privileges", "root, with hypervisors that run as another user");
    let world = &stage.world;
    stage.create("disked", "a");
    // As an earlier version left it.
    fs::create_dir(world.state().join("cache")).expect("a folder");
    let dir = folder(stage, "a");
    assert_eq!(of(&dir.join("os.raw")), (NOBODY, 0o600));
    assert_eq!(of(&dir.join("seed.img")), (NOBODY, 0o600));

    stage.start("a");
    let pid = stage.pid("a", "hypervisor_pid");
    what_it_has(stage, pid);
    what_is_whose(stage, &dir);
    assert_eq!(world.info("a")["hypervisor_user"], "nobody");
    let info = world.v(["-v", "vm", "info", "a"]).ok().stdout;
    assert!(info.contains("runs as") && info.contains("nobody"), "{info}");
    let doctor = world.v(["doctor"]).stdout;
    assert!(doctor.contains("`nobody` (uid 65534)"), "{doctor}");
    if is_real(stage) {
        it_sees_its_own_files_only(stage, &run_folder(stage, "a").join("hv/api.sock"));
    }

    // The console, before and after the guest has rebooted, which makes its socket anew.
    eventually("the guest writes", LIMIT, || stage.log("a").contains("virshle payload"));
    let mut console = UnixStream::connect(run_folder(stage, "a").join("console.sock")).expect("the console");
    console.write_all(b"one?").expect("it is typed");
    eventually("it comes back", LIMIT, || stage.log("a").contains("one?"));
    console.write_all(b"\x12").expect("the key that reboots");
    eventually("it has rebooted", LIMIT, || stage.log("a").matches("virshle payload").count() == 2);
    eventually("and is heard again", LIMIT, || {
        console.write_all(b"two?").expect("it is typed");
        stage.log("a").contains("two?")
    });
    assert_eq!(stage.pid("a", "hypervisor_pid"), pid, "the same process");

    // Its supervisor is killed: another takes over, with nothing but what it finds.
    kill(stage.pid("a", "supervisor_pid"), Signal::KILL);
    eventually("it is seen", LIMIT, || world.row("a")["unwatched"] == true);
    world.v(["vm", "pause", "a"]).ok();
    world.v(["vm", "resume", "a"]).ok();
    assert_eq!(stage.pid("a", "hypervisor_pid"), pid);
    world.v(["vm", "stop", "--force", "--timeout", "0", "a"]).ok();
    assert!(!alive(pid));
    assert!(!run_folder(stage, "a").exists(), "its folder is gone");
    stage.start("a");
    world.v(["vm", "delete", "--force", "a"]).ok();
    world.assert_empty();

    // Whoever asks for root gets root, and is told.
    config(stage, "user = \"root\"");
    stage.create("disked", "r");
    stage.start("r");
    let pid = stage.pid("r", "hypervisor_pid");
    assert_eq!((status(pid, "Uid"), status(pid, "NoNewPrivs")), ("0 0 0 0".to_owned(), "1".to_owned()));
    assert_eq!(of(&folder(stage, "r").join("os.raw")), (0, 0o600));
    let doctor = world.v(["doctor"]).stdout;
    assert!(doctor.contains("as root"), "{doctor}");
}

fn what_it_has(stage: &Stage, pid: i32) {
    for (field, expected) in [
        ("Uid", "65534 65534 65534 65534".to_owned()),
        ("Gid", "65534 65534 65534 65534".to_owned()),
        ("Groups", GROUP.to_string()),
        ("CapInh", "0".repeat(16)),
        ("CapPrm", "0".repeat(16)),
        ("CapEff", "0".repeat(16)),
        ("CapBnd", "0".repeat(16)),
        ("CapAmb", "0".repeat(16)),
        ("NoNewPrivs", "1".to_owned()),
    ] {
        assert_eq!(status(pid, field), expected, "{field}");
    }
    if is_real(stage) {
        // A filter for each thread; the first one only waits for the others.
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
        let tids = threads.map(|entry| entry.expect("an entry").file_name().into_string().expect("a number"));
        let tids: Vec<i32> = tids.map(|tid| tid.parse().expect("a number")).filter(|tid| *tid != pid).collect();
        let filtered = tids.iter().filter(|tid| status(**tid, "Seccomp") == "2").count();
        assert!(filtered >= 3, "{filtered} of {} threads are under seccomp", tids.len());
        assert!(tids.iter().any(|tid| status(*tid, "Name") == "vcpu0" && status(*tid, "Seccomp") == "2"));
    }
    assert_eq!(fs::read(format!("/proc/{pid}/environ")).expect("its environment"), b"", "an empty environment");
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors") {
        let leads = fs::read_link(entry.expect("an entry").path()).unwrap_or_default();
        let leads = leads.to_string_lossy();
        assert!(!leads.contains("sqlite") && !leads.ends_with("/lock"), "it holds {leads}");
    }
}

fn what_is_whose(stage: &Stage, dir: &Path) {
    let run = run_folder(stage, "a");
    for path in [dir, dir.parent().expect("vm"), &stage.world.state(), &run, run.parent().expect("vm")] {
        assert_eq!(of(path), (0, 0o711), "{}", path.display());
    }
    assert_eq!(of(&run.join("hv")), (NOBODY, 0o700));
    assert_eq!(of(&stage.world.state().join("cache")), (0, 0o700), "images are nobody's business");
    for private in ["lock", "hypervisor.log", "supervisor.log", "console.log"] {
        assert_eq!(of(&dir.join(private)), (0, 0o600), "{private}");
    }
    assert_eq!(of(&stage.world.state().join("virshle.sqlite")), (0, 0o600));
    for socket in ["control.sock", "console.sock"] {
        let (uid, mode) = of(&run.join(socket));
        assert_eq!((uid, mode & 0o077), (0, 0), "{socket}");
    }
}

/// Landlock: whoever has the API still cannot make it open another file, though it is world-readable.
fn it_sees_its_own_files_only(stage: &Stage, api: &Path) {
    let doctor = stage.world.v(["doctor"]).stdout;
    if doctor.contains("no Landlock") {
        return;
    }
    exercised("privileges", "Landlock");
    let body = r#"{"id":"stolen","path":"/etc/passwd","readonly":true,"image_type":"Raw"}"#;
    let mut stream = UnixStream::connect(api).expect("the API listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a deadline");
    let request = format!(
        "PUT /api/v1/vm.add-disk HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("it is asked");
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).expect("it answers");
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert!(answer.contains("ermission denied"), "{answer}");
}

/// Root makes the tap and plugs it in; the hypervisor has but its descriptor.
fn a_tap_reaches_a_hypervisor_without_rights(stage: &Stage) -> Outcome {
    need_root()?;
    need_program("ip")?;
    config(stage, "user = \"nobody\"");
    let text = fs::read_to_string(stage.world.config_file()).expect("the config");
    stage.world.config(&format!(
        "{text}[[template.vm.net]]\nname = \"lan\"\ntype = \"tap\"\n\
         [[network]]\nname = \"lan\"\ntype = \"bridge\"\nbridge = \"br7\"\ncreate = true\n"
    ));
    let done = in_private_network(|| {
        with_kvm_of(stage.world.dir(), GROUP, "0660", || {
            stage.create("disked", "tapped");
            stage.start("tapped");
            assert_eq!(stage.world.info("tapped")["hypervisor_user"], "nobody");
            eventually("the guest writes", LIMIT, || stage.log("tapped").contains("virshle payload"));
            stage.world.v(["vm", "delete", "--force", "tapped"]).ok();
        })
    });
    done.map_err(Skip)?.map_err(Skip)
}

fn what_its_user_may_not_open_is_told(stage: &Stage) -> Outcome {
    need_root()?;
    let world = &stage.world;
    config(stage, "user = \"no-such-user\"");
    world
        .v(["vm", "create", "-t", "disked", "-n", "a"])
        .fails(1, &["`no-such-user`", "does not exist", "useradd --system"]);
    world.assert_empty();
    assert!(world.v(["doctor"]).stdout.contains("useradd"));

    config(stage, "user = \"nobody\"");
    stage.create("disked", "a");
    let start = || world.v(["vm", "start", "a"]);
    let denied = |path: &Path, words: &[&str]| {
        let mode = of(path).1;
        // Root still runs the program.
        fs::set_permissions(path, Permissions::from_mode(0o700)).expect("it is closed");
        let shown = path.display().to_string();
        start().fails(1, &[&["cannot start `a`", "`nobody`", shown.as_str()], words].concat());
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is opened");
    };
    let refusals = with_kvm_of(world.dir(), GROUP, "0660", || {
        let kernel = payload::build(world.dir(), Variant::Echo).expect("the payload");
        denied(&kernel, &["may not open", "0700", "chmod o+r"]);
        denied(&public_program(stage), &["may not run", "0700"]);
        denied(world.dir(), &["0700", "chmod o+x"]);
        assert_eq!(of(&folder(stage, "a").join("os.raw")), (NOBODY, 0o600));
        stage.start("a");
        world.v(["vm", "stop", "--force", "--timeout", "0", "a"]).ok();
    });
    refusals.map_err(Skip)?;
    with_kvm_of(&world.dir().join("closed"), 0, "0600", || {
        start().fails(1, &["`nobody`", "/dev/kvm", "0600", "udev", "chmod 0660 /dev/kvm"]);
    })
    .map_err(Skip)
}

fn vms_made_before_the_user_was_named(stage: &Stage) -> Outcome {
    need_root()?;
    let world = &stage.world;
    config(stage, "");
    for name in ["a", "b"] {
        stage.create("disked", name);
    }
    let disk = |name: &str| folder(stage, name).join("os.raw");
    assert_eq!(of(&disk("a")), (0, 0o600));
    config(stage, "user = \"nobody\"");
    let secret = world.file("secret", "nobody's business");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("it is private");
    let done = with_kvm_of(world.dir(), GROUP, "0666", || {
        stage.start("a");
        let pid = stage.pid("a", "hypervisor_pid");
        assert_eq!((of(&disk("a")), status(pid, "Groups")), ((NOBODY, 0o600), String::new()), "everybody opens kvm");

        // What was put in the place of a disk is not given away.
        let (kept, other) = (disk("b").with_extension("kept"), disk("b"));
        fs::rename(&other, &kept).expect("it is moved");
        let refused = |words: &[&str]| {
            world.v(["vm", "start", "b"]).fails(1, &[&["cannot start `b`", "os.raw"], words].concat());
            fs::remove_file(&other).expect("it goes");
            assert_eq!(of(&secret), (0, 0o600));
        };
        symlink(&secret, &other).expect("a link");
        refused(&["is a link"]);
        fs::hard_link(&secret, &other).expect("a second name");
        refused(&["2 names"]);
        rustix::fs::mknodat(rustix::fs::CWD, &other, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
        refused(&["a named pipe"]);
        fs::rename(&kept, &other).expect("it is put back");
        let log = folder(stage, "b").join("console.log");
        symlink(&secret, &log).expect("a link");
        world.v(["vm", "start", "b"]).fails(1, &["cannot start `b`", "console.log"]);
        assert_eq!(fs::read(&secret).expect("the secret"), b"nobody's business", "nothing was written");
        fs::remove_file(&log).expect("it goes");
        stage.start("b");
    });
    done.map_err(Skip)
}

/// The window between a process and its record: the database is kept locked while the process
/// waits at its gate, and the supervisor is killed there.
fn killed_before_the_record(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("button", "a");
    let ran = world.dir().join("ran");
    let config = fs::read_to_string(world.config_file()).expect("the config");
    let program = world.file("hypervisor-that-tells", format!("#!/bin/sh\necho > {}\nexec sleep 600\n", ran.display()));
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("it may run");
    world.config(&config.replace(&format!("program = {:?}", stage.program), &format!("program = {program:?}")));
    let database = rusqlite::Connection::open(world.state().join("virshle.sqlite")).expect("the database");
    let mut hit = false;
    for _ in 0..20 {
        let mut command = world.command(["vm", "start", "a"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("v starts");
        let starting = || database.query_row("SELECT state FROM vm WHERE state = 'starting'", [], |_| Ok(())).is_ok();
        let began = std::time::Instant::now();
        while !starting() {
            assert!(began.elapsed() < LIMIT, "it does not come to start");
        }
        database.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        let supervisor = stage.pid("a", "supervisor_pid");
        let recorded = world.info("a")["hypervisor_pid"].is_i64();
        let children =
            || fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap_or_default();
        if !recorded {
            eventually("the process waits at its gate", LIMIT, || !children().trim().is_empty());
        }
        let gates: Vec<i32> = children().split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
        kill(supervisor, Signal::KILL);
        child.wait().expect("v ends");
        if !recorded {
            for gate in gates {
                eventually("the gate ends", LIMIT, || !alive(gate));
            }
            assert!(!ran.exists(), "no hypervisor came to be");
            hit = true;
        }
        database.execute_batch("ROLLBACK").expect("the lock is given back");
        world.v(["vm", "stop", "--force", "--timeout", "0", "a"]);
        let _ = fs::remove_file(&ran);
        if hit {
            break;
        }
    }
    assert!(hit, "the record was always quicker than the lock");
    world.config(&config);
    stage.start("a");
    Ok(())
}
