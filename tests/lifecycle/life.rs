use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;

use super::{Stage, Test, alive, kill};
use crate::fixtures::netns::in_private_network;
use crate::fixtures::ovs::PrivateOvs;
use crate::fixtures::payload::{self, Variant};
use crate::world::{Outcome, eventually, exercised, skip};

pub const TESTS: &[(&str, Test)] = &[
    ("from_create_to_delete", from_create_to_delete),
    ("a_guest_that_powers_off_ends_as_stopped", a_guest_that_powers_off_ends_as_stopped),
    ("a_killed_hypervisor_ends_as_crashed", a_killed_hypervisor_ends_as_crashed),
    ("an_error_of_the_hypervisor_is_told", an_error_of_the_hypervisor_is_told),
    ("stop_waits_then_forces", stop_waits_then_forces),
    ("restart", restart),
    ("the_console", the_console),
    ("term_is_an_orderly_stop", term_is_an_orderly_stop),
    ("a_killed_supervisor_is_replaced", a_killed_supervisor_is_replaced),
    ("the_end_of_an_adopted_guest_is_seen", the_end_of_an_adopted_guest_is_seen),
    ("a_supervisor_killed_while_starting_leaves_nothing", a_supervisor_killed_while_starting_leaves_nothing),
    ("show_launch_is_what_runs", show_launch_is_what_runs),
    ("a_vhost_port_lives_with_its_vm", a_vhost_port_lives_with_its_vm),
    ("a_tap_is_handed_over", a_tap_is_handed_over),
];

const LIMIT: Duration = Duration::from_secs(20);

fn from_create_to_delete(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("button", "web");
    let started = world.v(["vm", "start", "web"]).ok();
    assert!(started.stderr.contains("started `web`"), "{}", started.stderr);
    let row = world.row("web");
    assert_eq!(row["state"], "running");
    assert!(row["up_since"].is_string());
    assert_eq!(row["unwatched"], false);
    for process in ["supervisor_pid", "hypervisor_pid"] {
        assert!(alive(stage.pid("web", process)), "{process}");
    }
    eventually("the guest writes", LIMIT, || stage.log("web").contains("virshle payload"));

    world.v(["vm", "start", "web"]).fails(4, &["already running"]);
    world.v(["vm", "delete", "web"]).fails(4, &["running", "--force"]);
    world.v(["vm", "resume", "web"]).fails(4, &["not paused"]);
    world.v(["vm", "pause", "web"]).ok();
    assert_eq!(world.state_of("web"), "paused");
    world.v(["vm", "pause", "web"]).fails(4, &["already paused"]);
    world.v(["vm", "resume", "web"]).ok();
    assert_eq!(world.state_of("web"), "running");

    let (supervisor, hypervisor) = (stage.pid("web", "supervisor_pid"), stage.pid("web", "hypervisor_pid"));
    world.v(["vm", "stop", "web"]).ok();
    let row = world.row("web");
    assert_eq!((&row["state"], &row["last_exit"]["reason"]), (&"stopped".into(), &"stopped".into()));
    assert!(row["up_since"].is_null());
    assert!(!alive(hypervisor), "the hypervisor is gone when stop returns");
    eventually("the supervisor ends", LIMIT, || !alive(supervisor));
    let run = world.root().join("run/virshle/vm");
    assert_eq!(fs::read_dir(&run).expect("the runtime folder").count(), 0, "no socket is left");

    // A second life, with what an earlier one could have left lying in the way.
    let uuid = row["uuid"].as_str().expect("a uuid").to_owned();
    fs::create_dir_all(run.join(&uuid)).expect("a folder");
    for stale in ["api.sock", "serial.sock", "control.sock", "console.sock", "n0.sock"] {
        drop(std::os::unix::net::UnixListener::bind(run.join(&uuid).join(stale)).expect("a stale socket"));
    }
    stage.start("web");
    world.v(["vm", "stop", "--force", "--timeout", "0", "web"]).ok();
    assert_eq!(world.row("web")["last_exit"]["reason"], "forced");
    world.v(["vm", "delete", "web"]).ok();
    world.assert_empty();
    Ok(())
}

fn a_guest_that_powers_off_ends_as_stopped(stage: &Stage) -> Outcome {
    stage.create("poweroff", "brief");
    stage.start("brief");
    stage.world.v(["vm", "wait", "brief", "--for", "stopped", "--timeout", "20"]).ok();
    let row = stage.world.row("brief");
    assert_eq!((&row["state"], &row["last_exit"]["reason"]), (&"stopped".into(), &"powered-off".into()));
    assert!(stage.log("brief").contains("virshle payload"), "what it wrote is kept");
    Ok(())
}

fn a_killed_hypervisor_ends_as_crashed(stage: &Stage) -> Outcome {
    stage.create("halt", "victim");
    stage.start("victim");
    kill(stage.pid("victim", "hypervisor_pid"), Signal::KILL);
    eventually("it is seen", LIMIT, || stage.world.state_of("victim") == "crashed");
    let row = stage.world.row("victim");
    assert_eq!((&row["last_exit"]["reason"], &row["last_exit"]["signal"]), (&"killed".into(), &9.into()));
    let info = stage.world.v(["vm", "info", "victim"]).ok().stdout;
    assert!(info.contains("SIGKILL"), "{info}");
    stage.world.v(["vm", "wait", "victim", "--timeout", "5"]).fails(1, &["crashed", "SIGKILL"]);
    stage.start("victim");
    assert_eq!(stage.world.state_of("victim"), "running", "a crash can be started again");
    stage.world.v(["vm", "delete", "--force", "victim"]).ok();
    stage.world.assert_empty();
    Ok(())
}

fn an_error_of_the_hypervisor_is_told(stage: &Stage) -> Outcome {
    stage.create("crash", "bad");
    // It may end before or just after the start is reported.
    let _ = stage.world.v(["vm", "start", "bad"]);
    eventually("it ends", LIMIT, || stage.world.state_of("bad") == "crashed");
    let exit = &stage.world.row("bad")["last_exit"];
    assert!(exit["reason"] == "failed" || exit["reason"] == "boot-failed" || exit["reason"] == "killed", "{exit}");
    stage.world.v(["vm", "delete", "bad"]).ok();
    Ok(())
}

fn stop_waits_then_forces(stage: &Stage) -> Outcome {
    let world = &stage.world;
    // It has interrupts off: the button changes nothing.
    stage.create("halt", "deaf");
    stage.start("deaf");
    world.v(["vm", "stop", "deaf", "--timeout", "1"]).fails(1, &["not shut down in 1 s", "--force"]);
    assert_eq!(world.state_of("deaf"), "running", "it goes on as before");
    assert!(alive(stage.pid("deaf", "hypervisor_pid")), "without --force it is let live");
    let forced = world.v(["vm", "stop", "deaf", "--timeout", "1", "--force"]).ok();
    assert!(forced.stderr.contains("cutting its power"), "{}", forced.stderr);
    assert_eq!(world.row("deaf")["last_exit"]["reason"], "forced");
    Ok(())
}

fn restart(stage: &Stage) -> Outcome {
    stage.create("button", "a");
    stage.world.v(["vm", "restart", "a"]).ok();
    let first = stage.pid("a", "hypervisor_pid");
    stage.world.v(["vm", "restart", "a"]).ok();
    let second = stage.pid("a", "hypervisor_pid");
    assert_ne!(first, second);
    assert!(!alive(first) && alive(second));
    // A VM can be started the moment that stop has returned.
    for _ in 0..10 {
        stage.world.v(["vm", "stop", "a"]).ok();
        stage.start("a");
    }
    Ok(())
}

fn the_console(stage: &Stage) -> Outcome {
    stage.create("echo", "parrot");
    stage.start("parrot");
    eventually("the guest writes", LIMIT, || stage.log("parrot").contains("virshle payload"));
    let uuid = stage.world.row("parrot")["uuid"].as_str().expect("a uuid").to_owned();
    let socket = stage.world.root().join("run/virshle/vm").join(uuid).join("console.sock");
    let attach = || {
        let stream = UnixStream::connect(&socket).expect("the console listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a deadline");
        stream
    };
    let read_until = |stream: &mut UnixStream, word: &str| {
        let mut seen = String::new();
        let mut buffer = [0; 256];
        while !seen.contains(word) {
            let count = stream.read(&mut buffer).unwrap_or_else(|error| panic!("{error}; seen: {seen:?}"));
            assert_ne!(count, 0, "the console ended; seen: {seen:?}");
            seen += &String::from_utf8_lossy(&buffer[..count]);
        }
    };
    let mut one = attach();
    read_until(&mut one, "virshle payload");
    let mut two = attach();
    read_until(&mut two, "virshle payload");
    one.write_all(b"hello?").expect("it is typed");
    read_until(&mut one, "hello?");
    read_until(&mut two, "hello?");
    assert!(stage.log("parrot").contains("hello?"), "and it is logged");

    // The command: history first, then what is typed comes back; Ctrl-] leaves, the guest goes on.
    let mut command = stage.world.command(["vm", "console", "parrot"]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("v starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"typed").expect("it is typed");
    eventually("it arrives", LIMIT, || stage.log("parrot").contains("typed"));
    stdin.write_all(b"\x1d").expect("the key");
    let output = child.wait_with_output().expect("v ends");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("virshle payload"), "{output:?}");
    assert_eq!(stage.world.state_of("parrot"), "running");
    Ok(())
}

fn term_is_an_orderly_stop(stage: &Stage) -> Outcome {
    stage.create("button", "a");
    stage.start("a");
    kill(stage.pid("a", "supervisor_pid"), Signal::TERM);
    eventually("it ends", LIMIT, || stage.world.state_of("a") == "stopped");
    assert_eq!(stage.world.row("a")["last_exit"]["reason"], "stopped");
    Ok(())
}

/// Kills the supervisor, and waits until that is seen.
fn orphan(stage: &Stage, name: &str) -> i32 {
    let hypervisor = stage.pid(name, "hypervisor_pid");
    kill(stage.pid(name, "supervisor_pid"), Signal::KILL);
    eventually("it is seen", LIMIT, || stage.world.row(name)["unwatched"] == true);
    assert!(alive(hypervisor), "the guest runs on");
    assert_eq!(stage.world.state_of(name), "running");
    hypervisor
}

fn a_killed_supervisor_is_replaced(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("echo", "a");
    stage.start("a");
    eventually("the guest writes", LIMIT, || stage.log("a").contains("virshle payload"));
    let since = world.row("a")["up_since"].clone();
    let hypervisor = orphan(stage, "a");
    // Any command that touches it brings a new one, and does its work.
    world.v(["vm", "pause", "a"]).ok();
    assert_eq!(world.state_of("a"), "paused");
    assert_eq!(world.row("a")["unwatched"], false);
    assert_eq!(stage.pid("a", "hypervisor_pid"), hypervisor, "the same guest");
    assert_eq!(world.row("a")["up_since"], since);
    world.v(["vm", "resume", "a"]).ok();
    // The console is logged and served again.
    let mut command = world.command(["vm", "console", "a"]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("v starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"again?").expect("it is typed");
    eventually("it arrives", LIMIT, || stage.log("a").contains("again?"));
    stdin.write_all(b"\x1d").expect("the key");
    child.wait().expect("v ends");
    assert_eq!(stage.log("a").matches("virshle payload").count(), 1, "nothing is logged twice");
    // A start of it is refused, and its supervisor is back all the same.
    orphan(stage, "a");
    world.v(["vm", "start", "a"]).fails(4, &["already running"]);
    assert_eq!(world.row("a")["unwatched"], false);
    orphan(stage, "a");
    world.v(["vm", "stop", "a"]).ok();
    let row = world.row("a");
    assert_eq!((&row["state"], &row["last_exit"]["reason"]), (&"stopped".into(), &"stopped".into()));
    assert!(!alive(hypervisor));

    // Many commands at once: one new supervisor, and all are answered.
    stage.start("a");
    orphan(stage, "a");
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = world.command(["vm", "start", "a"]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().expect("v starts")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("v ends");
        assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(world.row("a")["unwatched"], false);
    world.v(["vm", "delete", "--force", "a"]).ok();
    world.assert_empty();
    Ok(())
}

fn the_end_of_an_adopted_guest_is_seen(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("button", "a");
    stage.start("a");
    let hypervisor = orphan(stage, "a");
    world.v(["vm", "start", "a"]).fails(4, &["already running"]);
    kill(hypervisor, Signal::KILL);
    eventually("it is seen", LIMIT, || world.state_of("a") == "crashed");
    assert_eq!(world.row("a")["last_exit"]["reason"], "unseen");
    // Both gone: found by the next look, recorded by the next command.
    stage.start("a");
    let hypervisor = stage.pid("a", "hypervisor_pid");
    kill(stage.pid("a", "supervisor_pid"), Signal::KILL);
    kill(hypervisor, Signal::KILL);
    eventually("ls knows", LIMIT, || world.state_of("a") == "crashed");
    stage.start("a");
    assert_eq!(world.state_of("a"), "running");
    // What hangs cannot be adopted, and can still be ended.
    let hypervisor = orphan(stage, "a");
    kill(hypervisor, Signal::STOP);
    let began = std::time::Instant::now();
    world.v(["vm", "ls"]).ok();
    assert!(began.elapsed() < Duration::from_secs(5), "a list waits for nobody");
    world.v(["vm", "stop", "--force", "--timeout", "0", "a"]).ok();
    eventually("it is ended", LIMIT, || !alive(hypervisor));
    assert_eq!(world.state_of("a"), "stopped");
    Ok(())
}

fn a_supervisor_killed_while_starting_leaves_nothing(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("button", "a");
    let pid = world.dir().join("pid");
    let config = fs::read_to_string(world.config_file()).expect("the config");
    let hanging = world.file("hanging", format!("#!/bin/sh\necho $$ > {}\nexec sleep 600\n", pid.display()));
    fs::set_permissions(&hanging, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it may run");
    world.config(&config.replace(&format!("program = {:?}", stage.program), &format!("program = {hanging:?}")));
    let mut command = world.command(["vm", "start", "a"]);
    let mut child =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("v starts");
    eventually("it is starting", LIMIT, || world.state_of("a") == "starting" && pid.exists());
    kill(stage.pid("a", "supervisor_pid"), Signal::KILL);
    child.wait().expect("v ends");
    let hanging: i32 = fs::read_to_string(&pid).expect("it ran").trim().parse().expect("a pid");
    assert_eq!(stage.pid("a", "hypervisor_pid"), hanging, "it is known from the beginning");
    world.config(&config);
    world.v(["vm", "start", "a"]).ok();
    assert_eq!(world.state_of("a"), "running");
    assert!(!alive(hanging), "what was begun is ended");
    world.v(["vm", "delete", "--force", "a"]).ok();
    world.assert_empty();
    Ok(())
}

fn show_launch_is_what_runs(stage: &Stage) -> Outcome {
    stage.create("button", "a");
    let shown = stage.world.v(["vm", "show-launch", "a", "-o", "json"]).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
    stage.start("a");
    let cmdline = fs::read(format!("/proc/{}/cmdline", stage.pid("a", "hypervisor_pid"))).expect("its argv");
    let argv: Vec<String> = cmdline
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    assert_eq!(serde_json::to_value(argv).expect("JSON"), shown["argv"]);
    let create = shown["calls"]
        .as_array()
        .expect("calls")
        .iter()
        .find(|call| call["request"].as_str().is_some_and(|request| request.contains("vm.create")));
    let create = create.expect("vm.create is among the calls");
    assert_eq!(create["body"]["memory"]["size"], 64 << 20);
    Ok(())
}

fn a_vhost_port_lives_with_its_vm(stage: &Stage) -> Outcome {
    let ovs = match PrivateOvs::start(true) {
        Ok(ovs) => ovs,
        Err(reason) => return skip(reason),
    };
    exercised("switch", "Open vSwitch with DPDK (vhost)");
    let kernel = payload::build(stage.world.dir(), Variant::Button).expect("a payload");
    ovs.add_bridge("vsbr0").expect("a bridge");
    let vsctl = |args: &[&str]| ovs.vsctl(args).expect("ovs-vsctl").trim().trim_matches('"').to_owned();
    let net = format!(
        "{}[[template.vm.net]]\nname = \"main\"\n[template.vm.net.type.vhost]\n[[network]]\nname = \"main\"\nsubnet = \"10.44.0.0/24\"\ncreate = false\n",
        super::template("vhost", &kernel)
    );
    stage.config(&net);
    let config = fs::read_to_string(stage.world.config_file()).expect("the config");
    stage.world.config(&config.replacen("[node]\n", &format!("[node]\novs-db = \"{}\"\n", ovs.db), 1));
    stage.create("vhost", "plugged");
    assert_eq!(vsctl(&["list-ports", "vsbr0"]), "", "no port before it runs");
    stage.start("plugged");
    assert_eq!(vsctl(&["list-ports", "vsbr0"]), "v1n0");
    let uuid = stage.world.row("plugged")["uuid"].as_str().expect("a uuid").to_owned();
    assert_eq!(vsctl(&["get", "Interface", "v1n0", "external_ids:virshle-vm"]), uuid);
    assert_eq!(stage.world.row("plugged")["address"], "10.44.0.2");
    stage.world.v(["vm", "stop", "plugged"]).ok();
    assert_eq!(vsctl(&["list-ports", "vsbr0"]), "", "none after");

    // The hypervisor dies: the port goes all the same.
    stage.start("plugged");
    kill(stage.pid("plugged", "hypervisor_pid"), Signal::KILL);
    eventually("it is seen", LIMIT, || stage.world.state_of("plugged") == "crashed");
    assert_eq!(vsctl(&["list-ports", "vsbr0"]), "");

    // A port of that name is somebody else's.
    vsctl(&["add-port", "vsbr0", "v1n0", "--", "set", "Interface", "v1n0", "type=internal"]);
    stage.world.v(["vm", "start", "plugged"]).fails(4, &["v1n0"]);
    assert_eq!(vsctl(&["list-ports", "vsbr0"]), "v1n0", "it is left alone");
    vsctl(&["del-port", "vsbr0", "v1n0"]);

    // The bridge is gone; then the switch is.
    vsctl(&["del-br", "vsbr0"]);
    stage.world.v(["vm", "start", "plugged"]).fails(3, &["vsbr0"]);
    assert_eq!(stage.world.state_of("plugged"), "crashed");
    stage.world.v(["vm", "create", "-t", "vhost", "-n", "other"]).fails(3, &["vsbr0", "create = true"]);
    drop(ovs);
    stage.world.v(["vm", "create", "-t", "vhost", "-n", "other"]).fails(1, &["Open vSwitch"]);
    stage.world.v(["vm", "start", "plugged"]).fails(1, &["Open vSwitch"]);
    stage.world.v(["vm", "delete", "plugged"]).ok();
    stage.world.assert_empty();
    Ok(())
}

fn a_tap_is_handed_over(stage: &Stage) -> Outcome {
    crate::world::need_root()?;
    crate::world::need_program("ip")?;
    let kernel = payload::build(stage.world.dir(), Variant::Button).expect("a payload");
    stage.config(&format!(
        "{}[[template.vm.net]]\nname = \"lan\"\ntype = \"tap\"\n\
         [[network]]\nname = \"lan\"\ntype = \"bridge\"\nbridge = \"br7\"\n",
        super::template("tap", &kernel)
    ));
    // In a network of its own: devices of that name may exist outside, and nothing can be left.
    let done = in_private_network(|| {
        exercised("switch", "Linux bridge (tap)");
        let ip = |args: &[&str]| {
            let output = std::process::Command::new("ip").args(args).output().expect("ip runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        stage.world.v(["vm", "create", "-t", "tap", "-n", "early"]).fails(3, &["br7", "create = true"]);
        ip(&["link", "add", "br7", "type", "bridge"]);
        stage.create("tap", "tapped");
        stage.start("tapped");
        let links = ip(&["-o", "link", "show", "master", "br7"]);
        let port = format!("v{}n0", stage.world.row("tapped")["number"]);
        assert!(links.contains(&port), "the tap is on the bridge: {links}");
        stage.world.v(["vm", "stop", "tapped"]).ok();
        assert_eq!(ip(&["-o", "link", "show", "master", "br7"]), "", "the tap is gone");
        stage.world.v(["vm", "delete", "tapped"]).ok();
    });
    done.map_err(crate::world::Skip)
}
