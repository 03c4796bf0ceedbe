use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::Signal;

use super::{LIMIT, last_line};
use crate::fixtures::mount::Ballast;
use crate::lifecycle::{Stage, kill};
use crate::trials;
use crate::world::{Outcome, eventually, need_root};

pub fn trials() -> Vec<Trial> {
    trials![an_end_is_not_lost, a_guest_writes_on, every_command_says_so, a_database_that_cannot_be_made]
}

/// What only the supervisor has seen is recorded as soon as there is room for it.
fn an_end_is_not_lost() -> Outcome {
    need_root()?;
    let mut stage = Stage::either()?;
    stage.world.mount_state("8m")?;
    let world = &stage.world;
    stage.create("halt", "web");
    stage.start("web");
    let full = Ballast::fill(&world.state());
    kill(stage.pid("web", "hypervisor_pid"), Signal::KILL);
    eventually("it is no longer said to run", LIMIT, || world.state_of("web") == "stopping");
    for verb in ["start", "stop"] {
        world.v(["vm", verb, "web"]).fails(1, &["no space left", "free some space"]);
    }
    // It is tried more than once.
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(world.state_of("web"), "stopping");
    drop(full);
    eventually("it is recorded", LIMIT, || world.state_of("web") == "crashed");
    let exit = world.row("web")["last_exit"].clone();
    assert_eq!((&exit["reason"], &exit["signal"]), (&"killed".into(), &9.into()), "as it was: {exit}");
    assert_eq!(last_line(world, "web")["actor"]["kind"], "supervisor");
    stage.start("web");
    world.v(["vm", "delete", "--force", "web"]).ok();
    world.assert_empty();
    Ok(())
}

fn a_guest_writes_on() -> Outcome {
    need_root()?;
    let mut stage = Stage::either()?;
    stage.world.mount_state("8m")?;
    let world = &stage.world;
    stage.create("echo", "parrot");
    stage.start("parrot");
    eventually("the guest writes", LIMIT, || stage.log("parrot").contains("virshle payload"));
    let uuid = world.row("parrot")["uuid"].as_str().expect("a uuid").to_owned();
    let socket = world.root().join("run/virshle/vm").join(&uuid).join("console.sock");
    // The supervisor's own log ends with its page, so that not one more line fits.
    let log = world.state().join("vm").join(uuid).join("supervisor.log");
    let size = fs::metadata(&log).expect("its log").len();
    let mut log = fs::OpenOptions::new().append(true).open(log).expect("its log");
    log.write_all(&vec![b'\n'; 4096 - (size % 4096) as usize]).expect("it is padded");
    let mut console = UnixStream::connect(&socket).expect("the console listens");
    console.set_read_timeout(Some(LIMIT)).expect("a deadline");
    let mut say = |word: &str| {
        console.write_all(word.as_bytes()).expect("it is typed");
        let mut seen = String::new();
        let mut buffer = [0; 256];
        while !seen.contains(word) {
            let count = console.read(&mut buffer).unwrap_or_else(|error| panic!("{error}; seen: {seen:?}"));
            assert_ne!(count, 0, "the console ended; seen: {seen:?}");
            seen += &String::from_utf8_lossy(&buffer[..count]);
        }
    };
    say("before");
    let full = Ballast::fill(&world.state());
    // More than a page, so that none of it is in the file already.
    for line in 0..300 {
        say(&format!("while the disk is full {line}."));
    }
    assert_eq!(world.state_of("parrot"), "running");
    drop(full);
    say("after");
    eventually("the log goes on", LIMIT, || stage.log("parrot").contains("after"));
    assert!(stage.log("parrot").contains("before"));
    let log = world.v(["vm", "log", "--supervisor", "parrot"]).ok().stdout;
    assert!(log.matches("console log not written").count() <= 1, "told once at most:\n{log}");
    assert!(log.contains("console log written again"), "{log}");
    world.v(["vm", "stop", "parrot"]).ok();
    Ok(())
}

fn every_command_says_so() -> Outcome {
    need_root()?;
    let mut stage = Stage::either()?;
    stage.world.mount_state("8m")?;
    let world = &stage.world;
    stage.create("button", "runs");
    stage.create("button", "rests");
    stage.start("runs");
    let before = world.v(["events", "-o", "json"]).ok().stdout;
    let changes: [&[&str]; 6] = [
        &["vm", "create", "-t", "button", "-n", "new"],
        &["vm", "start", "rests"],
        &["vm", "pause", "runs"],
        &["vm", "stop", "runs"],
        &["vm", "stop", "--force", "--timeout", "0", "runs"],
        &["vm", "delete", "rests"],
    ];
    let full = Ballast::fill(&world.state());
    for args in changes {
        world.v(args).fails(1, &["no space left", "free some space"]);
    }
    for args in [&["vm", "ls"][..], &["vm", "info", "runs"], &["vm", "history", "runs"], &["vm", "log", "runs"]] {
        world.v(args).ok();
    }
    assert_eq!((world.state_of("runs").as_str(), world.state_of("rests").as_str()), ("running", "stopped"));
    drop(full);
    assert_eq!(world.v(["events", "-o", "json"]).ok().stdout, before, "nothing was changed");
    assert_eq!(fs::read_dir(world.state().join("vm")).expect("folders").count(), 2, "nothing is left");
    for args in &changes[..4] {
        world.v(*args).ok();
    }
    for (name, expected) in [("new", "stopped"), ("rests", "running"), ("runs", "stopped")] {
        assert_eq!(world.state_of(name), expected, "{name}");
    }
    world.v(["vm", "delete", "--force", "--all"]).ok();
    world.assert_empty();
    Ok(())
}

fn a_database_that_cannot_be_made() -> Outcome {
    need_root()?;
    let mut stage = Stage::either()?;
    stage.world.mount_state("4m")?;
    let world = &stage.world;
    let full = Ballast::fill(&world.state());
    world
        .v(["vm", "create", "-t", "button", "-n", "web"])
        .fails(1, &["virshle.sqlite", "no space left", "free some space"]);
    world.v(["vm", "ls"]).ok();
    drop(full);
    stage.create("button", "web");
    stage.start("web");
    world.v(["vm", "delete", "--force", "web"]).ok();
    world.assert_empty();
    Ok(())
}
