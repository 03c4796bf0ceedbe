use std::fs::File;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::cli::world;
use crate::lifecycle::kill;
use crate::trials;
use crate::world::{Outcome, World};

pub fn trials() -> Vec<Trial> {
    trials![a_reader_that_went_away, a_full_disk_is_no_reader, nobody_to_talk_to, killed_in_the_middle]
}

/// A pipe whose other end is closed already.
fn broken_pipe() -> Stdio {
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("/dev/full").into()
}

const DATA: [&[&str]; 9] = [
    &["vm", "ls"],
    &["vm", "ls", "-o", "json"],
    &["vm", "history", "web"],
    &["events"],
    &["events", "--follow"],
    &["vm", "info", "web"],
    &["template", "ls"],
    &["config", "schema"],
    &["completions", "bash"],
];

fn end(mut command: Command) -> (Option<i32>, String) {
    let output = command.spawn().expect("v starts").wait_with_output().expect("v ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn a_world() -> World {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    world
}

fn a_reader_that_went_away() -> Outcome {
    let world = a_world();
    for args in DATA {
        let mut command = world.command(args);
        command.stdout(broken_pipe()).stderr(Stdio::piped());
        assert_eq!(end(command), (Some(0), String::new()), "{args:?}");
    }
    // What was asked for is done all the same.
    let mut create = world.command(["vm", "create", "-t", "xs", "-n", "db"]);
    create.stdout(broken_pipe()).stderr(Stdio::piped());
    assert_eq!(end(create).0, Some(0));
    assert_eq!(world.state_of("db"), "stopped");
    // The shell's `>&-`.
    for args in DATA.iter().filter(|args| !args.contains(&"--follow")) {
        let inner = world.command(*args);
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$0\" \"$@\" >&- 2>&-"]).arg(inner.get_program()).args(inner.get_args());
        shell.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        assert_eq!(end(shell).0, Some(0), "{args:?}");
    }
    Ok(())
}

fn a_full_disk_is_no_reader() -> Outcome {
    let world = a_world();
    for args in DATA {
        let mut command = world.command(args);
        command.stdout(full()).stderr(Stdio::piped());
        let (code, told) = end(command);
        assert_eq!(code, Some(1), "{args:?}: {told}");
        assert!(told.contains("cannot write to standard output") && told.contains("No space left"), "{args:?}: {told}");
    }
    Ok(())
}

/// The exit code tells, where words cannot.
fn nobody_to_talk_to() -> Outcome {
    let world = a_world();
    for stderr in [broken_pipe as fn() -> Stdio, full] {
        for (args, expected) in [
            (&["vm", "create", "-t", "xs", "--count", "2"][..], 0),
            (&["vm", "info", "nobody"], 3),
            (&["vm", "stop", "web"], 4),
            (&["vm", "ls", "-o", "json"], 0),
            (&["vm", "create", "-t", "xs", "-vv"], 0),
            (&["vm", "fly"], 2),
        ] {
            let mut command = world.command(args);
            command.stdout(Stdio::null()).stderr(stderr());
            assert_eq!(end(command).0, Some(expected), "{args:?}");
        }
    }
    Ok(())
}

/// `kill -9` while it prints: the next one finds everything as it should be.
fn killed_in_the_middle() -> Outcome {
    let world = a_world();
    for _ in 0..5 {
        for args in [&["events", "--follow", "-o", "json"][..], &["config", "schema"], &["vm", "create", "-t", "xs"]] {
            let mut child = world.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("v starts");
            let mut first = [0];
            let _ = std::io::Read::read(child.stdout.as_mut().expect("a pipe"), &mut first);
            kill(child.id().cast_signed(), Signal::KILL);
            child.wait().expect("v ends");
        }
    }
    world.v(["vm", "create", "-t", "xs", "-n", "last"]).ok();
    assert!(world.ls().iter().all(|row| row["state"] == "stopped"));
    world.v(["doctor", "-o", "json"]);
    world.v(["vm", "delete", "--all"]).ok();
    world.assert_empty();
    Ok(())
}
