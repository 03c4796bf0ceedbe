use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use super::LIMIT;
use crate::lifecycle::{Stage, alive};
use crate::trials;
use crate::world::{Outcome, Run, World, eventually, run};

pub fn trials() -> Vec<Trial> {
    trials![few_descriptors, more_terminals_than_descriptors, terminals_that_come_and_go]
}

/// `v` with at most so many descriptors; what it starts has no more.
fn with_descriptors(world: &World, most: u32, args: &[&str]) -> Run {
    let inner = world.command(args);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -n {most}; exec \"$0\" \"$@\"")])
        .arg(inner.get_program())
        .args(inner.get_args());
    command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(command, Duration::from_secs(60))
}

/// Enough are enough; with fewer each command works or says what is missing, and nothing is left.
fn few_descriptors() -> Outcome {
    let stage = Stage::stand_in()?;
    let world = &stage.world;
    for args in [
        &["vm", "create", "-t", "button", "-n", "web"][..],
        &["vm", "start", "web"],
        &["vm", "ls"],
        &["vm", "pause", "web"],
        &["vm", "resume", "web"],
        &["vm", "stop", "web"],
        &["vm", "delete", "web"],
    ] {
        with_descriptors(world, 32, args).ok();
    }
    world.assert_empty();
    for most in (4..28).step_by(4) {
        for args in [
            &["vm", "create", "-t", "button", "-n", "web"][..],
            &["vm", "start", "web"],
            &["vm", "ls"],
            &["vm", "stop", "--timeout", "5", "web"],
        ] {
            let ran = with_descriptors(world, most, args);
            let told = ran.stderr.contains("error: ") && !ran.stderr.contains("panicked");
            // A program that cannot even be loaded is told by the loader.
            let loaded = !ran.stderr.contains("error while loading") && !ran.stderr.contains("ulimit");
            assert!(ran.code == Some(0) || told || !loaded, "{most} descriptors, {args:?}: {ran:?}");
        }
        // With enough of them again, nothing stands in the way.
        if world.ls().is_empty() {
            stage.create("button", "web");
        }
        let pid = world.info("web")["hypervisor_pid"].as_i64();
        if world.state_of("web") != "running" {
            stage.start("web");
        }
        world.v(["vm", "delete", "--force", "web"]).ok();
        let pid = pid.map(|pid| i32::try_from(pid).expect("a pid"));
        assert!(pid.is_none_or(|pid| !alive(pid)), "{most} descriptors: a process is left");
        world.assert_empty();
    }
    Ok(())
}

fn console(world: &World, name: &str) -> std::path::PathBuf {
    let uuid = world.row(name)["uuid"].as_str().expect("a uuid").to_owned();
    world.root().join("run/virshle/vm").join(uuid).join("console.sock")
}

/// What one who attaches is shown first.
fn attach(socket: &std::path::Path) -> (UnixStream, String) {
    let mut stream = UnixStream::connect(socket).expect("the console listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a deadline");
    let mut buffer = [0; 256];
    let count = stream.read(&mut buffer).expect("it is shown something");
    (stream, String::from_utf8_lossy(&buffer[..count]).into_owned())
}

fn more_terminals_than_descriptors() -> Outcome {
    let stage = Stage::stand_in()?;
    let world = &stage.world;
    stage.create("button", "web");
    with_descriptors(world, 48, &["vm", "start", "web"]).ok();
    eventually("the guest writes", LIMIT, || stage.log("web").contains("virshle payload"));
    let socket = console(world, "web");
    let terminals: Vec<_> = (0..60).map(|_| attach(&socket)).collect();
    let (shown, refused): (Vec<_>, Vec<_>) = terminals.iter().partition(|(_, text)| text.contains("virshle payload"));
    assert!(shown.len() >= 8, "{} are attached", shown.len());
    assert!(refused.iter().all(|(_, text)| text.contains("terminals are attached already")), "{refused:?}");
    assert!(!refused.is_empty());
    // What matters more than a terminal has its descriptors.
    world.v(["vm", "pause", "web"]).ok();
    world.v(["vm", "resume", "web"]).ok();
    world.v(["vm", "stop", "web"]).ok();
    assert_eq!(world.row("web")["last_exit"]["reason"], "stopped");
    drop(terminals);
    Ok(())
}

/// A guest that is silent: nothing is written to those who have left, and yet they are gone.
fn terminals_that_come_and_go() -> Outcome {
    let stage = Stage::stand_in()?;
    let world = &stage.world;
    stage.create("button", "web");
    with_descriptors(world, 40, &["vm", "start", "web"]).ok();
    eventually("the guest writes", LIMIT, || stage.log("web").contains("virshle payload"));
    let socket = console(world, "web");
    // One that has ended its own input, and still wants to see.
    let (listener, _) = attach(&socket);
    listener.shutdown(std::net::Shutdown::Write).expect("its input ends");
    for _ in 0..50 {
        eventually("there is room again", LIMIT, || attach(&socket).1.contains("virshle payload"));
    }
    listener.set_nonblocking(true).expect("it does not wait");
    let error = (&listener).read(&mut [0; 16]).expect_err("it is attached, and nothing comes");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    world.v(["vm", "stop", "web"]).ok();
    Ok(())
}
