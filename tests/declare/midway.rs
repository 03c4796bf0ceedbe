//! Applies that end, or fail, while a VM is between two states.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::Signal;

use super::vm;
use crate::lifecycle::{Stage, alive, kill};
use crate::network::lan::{LAN, on_a_host};
use crate::trials;
use crate::world::{Outcome, World, eventually, run};

pub fn trials() -> Vec<Trial> {
    trials![
        a_stop_that_a_killed_apply_began_is_waited_for,
        a_stop_that_takes_longer_is_left_alone,
        a_start_that_a_killed_apply_began_is_waited_for,
        who_is_slow_to_shut_down_is_told,
        what_could_not_be_made_anew_runs_again,
        what_is_made_anew_runs_as_it_did,
        those_that_exchange_are_shut_down_together,
        what_exchanges_and_is_made_anew_can_run_whenever_that_ends,
    ]
}

const LIMIT: Duration = Duration::from_secs(20);

/// An apply that is killed as soon as the VM is in this state.
fn killed(world: &World, name: &str, state: &str) {
    let mut command = world.command(["apply", "--yes"]);
    let mut apply = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("v starts");
    eventually("it is at work", LIMIT, || world.state_of(name) == state);
    apply.kill().expect("kill -9");
    apply.wait().expect("it ends");
    assert_eq!(world.state_of(name), state, "its supervisor goes on");
}

/// An apply, and the first thing that it says.
fn begun(world: &World) -> (Child, String, BufReader<ChildStderr>) {
    let mut command = world.command(["apply", "--yes"]);
    let mut apply = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("v starts");
    let (mut said, mut line) = (BufReader::new(apply.stderr.take().expect("a pipe")), String::new());
    said.read_line(&mut line).expect("it is heard");
    (apply, line, said)
}

fn ends_well((mut apply, _, mut said): (Child, String, BufReader<ChildStderr>)) {
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("it is heard");
    assert_eq!(apply.wait().expect("it ends").code(), Some(0), "{rest}");
}

fn a_stop_that_a_killed_apply_began_is_waited_for() -> Outcome {
    let stage = Stage::either()?;
    let world = &stage.world;
    // It hears no button.
    let declare = |running: bool| stage.config(&vm("slow", "halt", &format!("stop-timeout = 60\nrunning = {running}")));
    for unwatched in [false, true] {
        declare(true);
        world.apply(&[]).ok();
        let supervisor = stage.pid("slow", "supervisor_pid");
        declare(false);
        killed(world, "slow", "stopping");
        if unwatched {
            kill(supervisor, Signal::KILL);
            eventually("nobody watches it", LIMIT, || !alive(supervisor));
        }
        let next = begun(world);
        assert_eq!(next.1, "waiting for `slow` to shut down (at most 60 s)\n", "unwatched: {unwatched}");
        world.v(["vm", "stop", "--force", "--timeout", "0", "slow"]).ok();
        ends_well(next);
        assert_eq!(world.state_of("slow"), "stopped");
        world.assert_in_order();
    }
    Ok(())
}

/// Somebody gives its guest more time than the config does.
fn a_stop_that_takes_longer_is_left_alone() -> Outcome {
    let stage = Stage::either()?;
    let world = &stage.world;
    let declare = |more: &str| stage.config(&vm("slow", "halt", &format!("stop-timeout = 5\n{more}")));
    declare("");
    world.apply(&[]).ok();
    let mut command = world.command(["vm", "stop", "--timeout", "600", "slow"]);
    let mut stop = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("v starts");
    eventually("it is stopping", LIMIT, || world.state_of("slow") == "stopping");
    declare("labels.role = \"front\"");
    world.apply(&[]).fails(4, &["waiting for `slow` to shut down (at most 5 s)", "it is stopping"]);
    world.v(["vm", "stop", "--force", "--timeout", "0", "slow"]).ok();
    stop.wait().expect("it ends");
    world.apply(&[]).ok();
    world.assert_in_order();
    Ok(())
}

fn a_start_that_a_killed_apply_began_is_waited_for() -> Outcome {
    let mut stage = Stage::either()?;
    stage.config(&vm("slow", "button", "running = false"));
    stage.world.apply(&[]).ok();
    let hangs = stage.world.file("hangs", "#!/bin/sh\nexec sleep 600\n");
    std::fs::set_permissions(&hangs, PermissionsExt::from_mode(0o755)).expect("it may run");
    let program = std::mem::replace(&mut stage.program, hangs);
    stage.config(&vm("slow", "button", ""));
    killed(&stage.world, "slow", "starting");
    stage.program = program;
    stage.config(&vm("slow", "button", "labels.role = \"front\""));
    let world = &stage.world;
    let next = begun(world);
    assert_eq!(next.1, "waiting for `slow` to start (at most 60 s)\n");
    world.v(["vm", "stop", "--force", "--timeout", "0", "slow"]).ok();
    ends_well(next);
    assert_eq!(world.state_of("slow"), "running");
    assert_eq!(world.info("slow")["labels"]["role"], "front");
    world.assert_in_order();
    Ok(())
}

/// Both hear no button.
fn who_is_slow_to_shut_down_is_told() -> Outcome {
    let stage = Stage::either()?;
    let world = &stage.world;
    let declare = |more: &str| {
        let deaf = |name| vm(name, "halt", &format!("stop-timeout = 5\n{more}"));
        stage.config(&(deaf("deaf") + &deaf("mute")));
    };
    declare("");
    world.apply(&[]).ok();
    let told = |flags: &[&str]| -> Vec<String> {
        let failed = world.apply(flags).fails(1, &["`deaf` has not shut down in 5 s", "`mute` has not"]);
        let lines = failed.stderr.lines().filter(|line| line.starts_with("waiting"));
        lines.map(str::to_owned).collect()
    };
    declare("cmdline = \"quiet\"");
    let one = |name: &str| format!("waiting for `{name}` to shut down (at most 5 s)");
    assert_eq!(told(&["--restart"]), [one("deaf"), one("mute")], "one after the other");
    declare("running = false");
    assert_eq!(told(&[]), ["waiting for `deaf`, `mute` to shut down (at most 5 s)"]);
    Ok(())
}

/// Whether it runs is up to a person, who had started it. In every state that a killed apply leaves it in, but
/// for the moment between the old one and the new one, it is known that it ran.
fn what_is_made_anew_runs_as_it_did() -> Outcome {
    let mut stage = Stage::either()?;
    stage.world.use_program(&crate::crash::program());
    let world = &stage.world;
    stage.config(&vm("web", "button", "running = \"leave\""));
    world.apply(&[]).ok();
    for point in ["delete/deleting/before", "delete/deleting/after", "delete/row/before", "create/rows/after"] {
        if world.state_of("web") == "stopped" {
            stage.start("web");
        }
        let before = stage.pid("web", "hypervisor_pid");
        let mut command = world.command(["apply", "--yes", "--replace", "web"]);
        command.env("VIRSHLE_FAILPOINT", point);
        let killed = run(command, Duration::from_secs(60));
        assert_eq!((killed.code, alive(before)), (None, false), "{point}: {}", killed.stderr);
        let wishes: &[&str] = if world.state_of("web") == "stopped" { &["--replace", "web"] } else { &[] };
        world.apply(wishes).ok();
        assert_eq!(world.state_of("web"), "running", "killed at {point}");
        world.assert_in_order();
    }
    Ok(())
}

/// Its address is to be given up by another VM of the plan, which cannot be changed.
fn what_could_not_be_made_anew_runs_again() -> Outcome {
    let stage = Stage::either()?;
    let world = &stage.world;
    let declare = |web: &str, holder: &str| {
        let lan = "[[network]]\nname = \"lan\"\ntype = \"bridge\"\nbridge = \"vt0\"\nsubnet = \"10.44.0.0/24\"\n";
        let holder = format!("running = false\n{holder}");
        stage.config(&(lan.to_owned() + &vm("web", "button", web) + &vm("holder", "button", &holder)));
    };
    let at = |ip: u8| format!("net = [{{ name = \"lan\", address = \"10.44.0.{ip}\" }}]\n");
    declare("running = \"leave\"", &at(71));
    world.apply(&[]).ok();
    stage.start("web");
    let uuid = world.row("web")["uuid"].clone();
    let missing = "disk = [{ name = \"os\", path = \"/nowhere/os.img\" }]\n";
    for (running, state) in [("true", "running"), ("\"leave\"", "running"), ("false", "stopped")] {
        let before = stage.pid("web", "hypervisor_pid");
        declare(&format!("running = {running}\n{}", at(71)), &(at(72) + missing));
        let run = world.apply(&["--replace", "web"]).fails(1, &["stopped `web`", "cannot create `web`", "10.44.0.71"]);
        assert!(!alive(before), "{}", run.stderr);
        assert_eq!((world.state_of("web").as_str(), &world.row("web")["uuid"]), (state, &uuid), "{}", run.stderr);
        assert_eq!(run.stderr.contains("started `web`"), state == "running", "{}", run.stderr);
    }
    Ok(())
}

/// Two hear no button, one does: what cannot be changed with the others is started as it was.
fn those_that_exchange_are_shut_down_together() -> Outcome {
    let stage = Stage::either()?;
    let world = &stage.world;
    let all = ["deaf", "mute", "web"];
    let declare = |after: usize| {
        let vms = all.iter().enumerate().map(|(at, name)| {
            let guest = if *name == "web" { "button" } else { "halt" };
            let address = 50 + (at + after) % all.len();
            let net = format!("net = [{{ name = \"lan\", address = \"10.44.0.{address}\" }}]");
            vm(name, guest, &format!("stop-timeout = {}\n{net}", if *name == "web" { 60 } else { 5 }))
        });
        stage.config(&(LAN.to_owned() + &vms.collect::<String>()));
    };
    declare(0);
    on_a_host(world, || {
        world.apply(&[]).ok();
        let before = all.map(|name| stage.pid(name, "hypervisor_pid"));
        declare(1);
        let errors =
            ["cannot change `deaf`", "`deaf` has not shut down in 5 s", "cannot change `mute`", "`mute` has not"];
        let failed = world.apply(&["--restart"]).fails(1, &errors);
        let waits: Vec<&str> = failed.stderr.lines().filter(|line| line.starts_with("waiting")).collect();
        // A slow host tells of `web` too.
        assert!(waits.len() == 1 && waits[0].starts_with("waiting for `deaf`, `mute`"), "{}", failed.stderr);
        let after = all.map(|name| stage.pid(name, "hypervisor_pid"));
        assert_eq!(after[..2], before[..2], "they run on");
        assert!(after[2] != before[2] && world.state_of("web") == "running", "it runs again: {}", failed.stderr);
        for (at, name) in all.iter().enumerate() {
            let address = world.info(name)["spec"]["nics"][0]["address"].to_string();
            assert!(address.contains(&format!("10.44.0.{}", 50 + at)), "as it was: {address}");
        }
    })
}

/// One of two that exchange addresses is made anew for its disk.
fn what_exchanges_and_is_made_anew_can_run_whenever_that_ends() -> Outcome {
    let mut stage = Stage::either()?;
    stage.world.use_program(&crate::crash::program());
    let world = &stage.world;
    let images = [1, 2].map(|mib| world.image(&format!("{mib}.img"), mib));
    let declare = |after: usize| {
        let net =
            |at: usize| format!("net = [{{ name = \"lan\", address = \"10.44.0.{}\" }}]\n", 50 + (at + after) % 2);
        let disk = format!("disk = [{{ name = \"os\", path = {:?} }}]\n", images[after % 2]);
        stage.config(&(LAN.to_owned() + &vm("web", "button", &net(0)) + &vm("db", "button", &(net(1) + &disk))));
    };
    let addresses = || {
        ["web", "db"].map(|name| {
            let address = world.info(name)["spec"]["nics"][0]["address"].to_string();
            ["10.44.0.50", "10.44.0.51"].iter().position(|one| address.contains(one))
        })
    };
    let told = |after: usize| [Some(after % 2), Some((after + 1) % 2)];
    declare(0);
    on_a_host(world, || {
        world.apply(&[]).ok();
        let points = ["recorded/before", "recorded/after", "reshaped/after"].map(|step| format!("reshape/{step}"));
        for (at, point) in points.iter().map(String::as_str).chain(["delete/deleting/before"]).enumerate() {
            declare(at + 1);
            let mut command = world.command(["apply", "--yes", "--restart", "--replace", "db"]);
            command.env("VIRSHLE_FAILPOINT", point);
            let killed = run(command, Duration::from_secs(60));
            assert_eq!(killed.code, None, "{point}: {}", killed.stderr);
            world.apply(&[]).ok();
            assert_eq!(["web", "db"].map(|name| world.state_of(name)), ["running", "running"], "killed at {point}");
            assert_eq!(addresses(), told(at + 1), "at rest, and killed at {point}");
            world.apply(&["--restart", "--replace", "db"]).ok();
            assert_eq!(addresses(), told(at + 1), "finished after {point}");
            world.assert_in_order();
        }
    })
}
