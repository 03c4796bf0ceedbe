use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::{Stage, Test, alive, kill};
use crate::fixtures::netns::in_private_network;
use crate::fixtures::ovs::PrivateOvs;
use crate::fixtures::payload::{self, Variant};
use crate::world::{Outcome, Skip, World, eventually, exercised, need_root};

pub const TESTS: &[(&str, Test)] = &[
    ("a_guest_that_nobody_watches_is_watched_again", a_guest_that_nobody_watches_is_watched_again),
    ("a_run_that_is_over_unseen_is_recorded", a_run_that_is_over_unseen_is_recorded),
    ("a_start_cut_short_is_undone", a_start_cut_short_is_undone),
    ("a_restart_that_waits_is_taken_over", a_restart_that_waits_is_taken_over),
    ("ports_of_vms_that_do_not_run", ports_of_vms_that_do_not_run),
    ("a_running_vm_is_renamed", a_running_vm_is_renamed),
];

const LIMIT: Duration = Duration::from_secs(20);

/// What a dry run lists, as `kind vm: action`.
fn listed(world: &World) -> Vec<String> {
    let rows: Vec<Value> =
        serde_json::from_str(&world.v(["repair", "--dry-run", "-o", "json"]).ok().stdout).expect("JSON");
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or("-").to_owned();
    rows.iter().map(|row| format!("{} {}: {}", text(row, "kind"), text(row, "vm"), text(row, "action"))).collect()
}

fn assert_in_order(world: &World) {
    let run = world.v(["repair", "--dry-run"]).ok();
    assert_eq!(run.stderr, "nothing to repair\n", "{}", run.stdout);
}

/// Kills these processes of the VM, and waits until that is seen.
fn kill_all(stage: &Stage, name: &str, which: &[&str]) {
    for pid in which.iter().map(|which| stage.pid(name, which)).collect::<Vec<_>>() {
        kill(pid, Signal::KILL);
        eventually("it is gone", LIMIT, || !alive(pid));
    }
}

fn a_guest_that_nobody_watches_is_watched_again(stage: &Stage) -> Outcome {
    let world = &stage.world;
    for name in ["a", "watched"] {
        stage.create("button", name);
        stage.start(name);
    }
    assert_in_order(world);
    let [supervisor, hypervisor] = ["supervisor_pid", "hypervisor_pid"].map(|which| stage.pid("a", which));
    let other = stage.pid("watched", "supervisor_pid");
    kill_all(stage, "a", &["supervisor_pid"]);
    assert_eq!(listed(world), ["unwatched-guest a: watch"]);
    assert_eq!(world.row("a")["unwatched"], true, "a dry run changes nothing");
    world.v(["repair"]).ok();
    assert_in_order(world);
    assert_eq!(world.row("a")["unwatched"], false);
    assert_eq!(stage.pid("a", "hypervisor_pid"), hypervisor, "the same guest");
    assert_ne!(stage.pid("a", "supervisor_pid"), supervisor);
    assert_eq!(stage.pid("watched", "supervisor_pid"), other, "who lives is not touched");
    world.v(["vm", "stop", "a"]).ok();

    // One that hangs: nobody can watch over it, which is told, and it goes on.
    stage.start("a");
    let hypervisor = stage.pid("a", "hypervisor_pid");
    // In this order: the kernel hangs up on a stopped process whose parent ends.
    kill_all(stage, "a", &["supervisor_pid"]);
    kill(hypervisor, Signal::STOP);
    world.v(["repair"]).fails(1, &["cannot repair unwatched-guest of `a`", "put 0 of 1"]);
    assert!(alive(hypervisor));
    kill(hypervisor, Signal::CONT);
    world.v(["repair"]).ok();
    assert_in_order(world);
    Ok(())
}

fn a_run_that_is_over_unseen_is_recorded(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("button", "a");
    stage.start("a");
    let run = world.root().join("run/virshle/vm").join(world.row("a")["uuid"].as_str().expect("a uuid"));
    kill_all(stage, "a", &["supervisor_pid", "hypervisor_pid"]);
    assert_eq!(listed(world), ["lost-run a: record-end", "runtime-folder a: remove"]);
    assert!(run.join("control.sock").exists());
    assert!(stage.pid("a", "hypervisor_pid") > 0, "a dry run changes nothing");
    let repaired = world.v(["repair"]).ok();
    assert!(repaired.stderr.contains("put 2 of 2"), "{}", repaired.stderr);
    assert_in_order(world);
    assert!(!run.exists());
    let row = world.row("a");
    assert_eq!((&row["state"], &row["last_exit"]["reason"]), (&"crashed".into(), &"lost".into()));
    assert!(world.info("a")["hypervisor_pid"].is_null());
    stage.start("a");
    Ok(())
}

fn a_start_cut_short_is_undone(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("button", "a");
    let config = fs::read_to_string(world.config_file()).expect("the config");
    let hanging = world.file("hanging", "#!/bin/sh\nexec sleep 600\n");
    fs::set_permissions(&hanging, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it may run");
    world.config(&config.replace(&format!("program = {:?}", stage.program), &format!("program = {hanging:?}")));
    let mut command = world.command(["vm", "start", "a"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("v starts");
    eventually("it has begun", LIMIT, || world.info("a")["hypervisor_pid"].is_i64());
    assert_eq!(listed(world), Vec::<String>::new(), "who starts it is at work");
    let hypervisor = stage.pid("a", "hypervisor_pid");
    kill_all(stage, "a", &["supervisor_pid"]);
    child.wait().expect("v ends");
    assert_eq!(listed(world), ["half-started a: undo"]);
    world.v(["repair"]).ok();
    eventually("what was begun is ended", LIMIT, || !alive(hypervisor));
    // Its sockets are a left-over once it is known not to run.
    world.v(["repair"]).ok();
    assert_in_order(world);
    assert_eq!(world.row("a")["last_exit"]["reason"], "boot-failed");
    Ok(())
}

/// Whatever becomes of it: it is not left waiting for nobody.
fn a_restart_that_waits_is_taken_over(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("button", "a");
    let database = rusqlite::Connection::open(world.state().join("virshle.sqlite")).expect("the database");
    database.execute("UPDATE vm SET state = 'restarting'", ()).expect("as a killed supervisor leaves it");
    drop(database);
    assert_eq!(listed(world), ["stalled-restart a: watch"]);
    world.v(["repair"]).ok();
    assert_in_order(world);
    Ok(())
}

/// A switch, in a network of its own, and a template `tapped` whose guest is plugged into it.
fn with_switch(stage: &Stage, test: impl FnOnce(&PrivateOvs) + Send) -> Outcome {
    need_root()?;
    let kernel = payload::build(stage.world.dir(), Variant::Button).expect("a payload");
    stage.config(&format!(
        "{}[[template.vm.net]]\nname = \"lan\"\ntype = \"tap\"\n\
         [[network]]\nname = \"lan\"\ntype = \"ovs\"\nbridge = \"vsbr0\"\n",
        super::template("tapped", &kernel)
    ));
    let done = in_private_network(|| {
        let ovs = PrivateOvs::start(false)?;
        ovs.add_bridge("vsbr0")?;
        exercised("switch", "Open vSwitch (tap)");
        let config = fs::read_to_string(stage.world.config_file()).expect("the config");
        stage.world.config(&config.replacen("[node]\n", &format!("[node]\novs-db = \"{}\"\n", ovs.db), 1));
        test(&ovs);
        Ok(())
    });
    done.and_then(|done| done).map_err(Skip)
}

fn ports_of_vms_that_do_not_run(stage: &Stage) -> Outcome {
    with_switch(stage, |ovs| {
        let world = &stage.world;
        let vsctl = |args: &[&str]| ovs.vsctl(args).expect("ovs-vsctl").trim().trim_matches('"').to_owned();
        for name in ["dead", "alive"] {
            stage.create("tapped", name);
            stage.start(name);
        }
        let state = world.state().display().to_string();
        assert_eq!(vsctl(&["get", "Port", "v1n0", "external_ids:virshle-state"]), state);
        assert_eq!(listed(world), Vec::<String>::new(), "ports of guests that run");
        kill_all(stage, "dead", &["supervisor_pid", "hypervisor_pid"]);

        let dead = world.row("dead")["uuid"].as_str().expect("a uuid").to_owned();
        let add = |port: &str, ids: &[(&str, &str)]| {
            let mut args = vec!["add-port", "vsbr0", port].into_iter().map(str::to_owned).collect::<Vec<_>>();
            args.extend(ids.iter().map(|(key, value)| format!("external_ids:virshle-{key}=\"{value}\"")));
            args.extend(["--", "set", "Interface", port, "type=internal"].map(str::to_owned));
            vsctl(&args.iter().map(String::as_str).collect::<Vec<_>>());
        };
        let row = |port: &str, vm: &str, state: Option<&str>| {
            let mut ids = vec![("vm", vm)];
            ids.extend(state.map(|state| ("state", state)));
            add(port, &ids);
        };
        let unknown = "6f1b0a1e-91a7-4d2c-9d52-0123456789ab";
        // Of an earlier version, which did not say whose the port is: known by its VM.
        row("old0", &dead, None);
        // Of a VM that this store has forgotten, and of which nothing lives: no device behind it.
        vsctl(&[
            "--no-wait",
            "add-port",
            "vsbr0",
            "gone0",
            "--",
            "set",
            "Port",
            "gone0",
            &format!("external_ids:virshle-vm={unknown}"),
            &format!("external_ids:virshle-state=\"{state}\""),
        ]);
        // Somebody else's, or in use.
        row("other0", unknown, Some("/var/lib/other"));
        row("other1", &dead, Some("/var/lib/other"));
        row("other2", unknown, None);
        row("used0", unknown, Some(&state));
        add("plain0", &[]);

        let unknown_port = format!("switch-port {unknown}: remove");
        let used_port = format!("switch-port {unknown}: leave-alone");
        let mut expected = vec![
            "lost-run dead: record-end",
            "runtime-folder dead: remove",
            "switch-port dead: remove",
            "switch-port dead: remove",
            &unknown_port,
            &used_port,
        ];
        let mut found = listed(world);
        found.sort();
        expected.sort_unstable();
        assert_eq!(found, expected);
        let ports = || vsctl(&["list-ports", "vsbr0"]).lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(ports().len(), 9, "a dry run changes nothing: {:?}", ports());
        world.v(["repair"]).ok();
        assert_eq!(ports(), ["other0", "other1", "other2", "plain0", "used0", "v2n0"]);
        assert_in_order(world);
        assert_eq!(world.state_of("alive"), "running");

        // A switch that cannot be asked is told, and keeps nothing else from being put in order.
        kill_all(stage, "alive", &["supervisor_pid", "hypervisor_pid"]);
        ovs.stop_database();
        let said = world.v(["repair"]).ok();
        assert!(said.stdout.contains("could not look at the switch") && said.stdout.contains(&ovs.db), "{said:?}");
        assert_eq!(listed(world), ["unseen -: leave-alone"]);
        assert_in_order(world);
        ovs.start_database().expect("the database");
        eventually("the port is found", LIMIT, || listed(world).contains(&"switch-port alive: remove".to_owned()));
        world.v(["repair"]).ok();
        assert_in_order(world);

        // A deleted VM whose port could not be removed then.
        stage.start("alive");
        kill_all(stage, "alive", &["supervisor_pid", "hypervisor_pid"]);
        ovs.stop_database();
        world.v(["vm", "delete", "alive"]).ok();
        ovs.start_database().expect("the database");
        eventually("the port is found", LIMIT, || listed(world).iter().any(|line| line.ends_with(": remove")));
        world.v(["repair"]).ok();
        assert_in_order(world);
        assert_eq!(ports(), ["other0", "other1", "other2", "plain0", "used0"]);
    })
}

fn a_running_vm_is_renamed(stage: &Stage) -> Outcome {
    with_switch(stage, |ovs| {
        let world = &stage.world;
        stage.create("tapped", "web");
        stage.start("web");
        let (supervisor, hypervisor) = (stage.pid("web", "supervisor_pid"), stage.pid("web", "hypervisor_pid"));
        let said = world.v(["vm", "rename", "web", "db"]).ok().stderr;
        assert!(said.contains("renamed `web` to `db`") && said.contains("started again"), "{said}");
        for table in ["Port", "Interface"] {
            let name = ovs.vsctl(&["get", table, "v1n0", "external_ids:virshle-name"]).expect("ovs-vsctl");
            assert_eq!(name.trim(), "db", "{table}");
        }
        assert_eq!(world.state_of("db"), "running");
        assert_eq!((stage.pid("db", "supervisor_pid"), stage.pid("db", "hypervisor_pid")), (supervisor, hypervisor));
        // Its doors open to the new name.
        world.v(["vm", "console", "web"]).fails(3, &["`web`"]);
        world.v(["vm", "ssh", "web"]).fails(3, &["`web`"]);
        world.v(["vm", "ssh", "db"]).fails(255, &["`db`", "vsock"]);
        let mut command = world.command(["vm", "console", "db"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("v starts");
        child.stdin.take().expect("a pipe").write_all(b"\x1d").expect("the key that leaves");
        let output = child.wait_with_output().expect("v ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("attached to `db`"), "{said}");
        stage.create("tapped", "web");
        stage.start("web");
        world.v(["vm", "stop", "db", "web"]).ok();
        assert_eq!(world.row("db")["last_exit"]["reason"], "stopped");
        stage.start("db");
        let name = ovs.vsctl(&["get", "Port", "v1n0", "external_ids:virshle-name"]).expect("ovs-vsctl");
        assert_eq!(name.trim(), "db");
        assert_in_order(world);
        world.v(["vm", "delete", "--force", "--all"]).ok();
        world.assert_empty();
    })
}
