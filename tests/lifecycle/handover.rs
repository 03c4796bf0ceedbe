//! A supervisor becomes the program that an upgrade has put in its place.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::Signal;

use super::again::{kept, runs_again};
use super::ends::attach;
use super::{Stage, Test, alive, kill};
use crate::fixtures::payload::Variant;
use crate::world::{Outcome, eventually, need_program, v};

pub const TESTS: &[(&str, Test)] = &[
    ("a_hangup_changes_the_program_and_nothing_else", a_hangup_changes_the_program_and_nothing_else),
    ("a_wait_for_the_next_attempt_is_handed_over", a_wait_for_the_next_attempt_is_handed_over),
    ("an_upgrade_goes_on_with_the_new_program", an_upgrade_goes_on_with_the_new_program),
    ("a_newer_database_waits_for_its_program", a_newer_database_waits_for_its_program),
];

const LIMIT: Duration = Duration::from_secs(20);

fn supervisor_log(stage: &Stage, name: &str) -> String {
    stage.world.v(["vm", "log", "--supervisor", name]).stdout
}

/// Sends SIGHUP, and waits until the guest is adopted once more.
fn hang_up(stage: &Stage, name: &str) {
    let adopted = || supervisor_log(stage, name).matches("adopted").count();
    let before = adopted();
    kill(stage.pid(name, "supervisor_pid"), Signal::HUP);
    eventually("it is adopted", LIMIT, || adopted() > before);
}

fn a_hangup_changes_the_program_and_nothing_else(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("echo", "a");
    stage.start("a");
    eventually("the guest writes", LIMIT, || stage.log("a").contains("virshle payload"));
    let pids = || (stage.pid("a", "supervisor_pid"), stage.pid("a", "hypervisor_pid"));
    let (before, since) = (pids(), world.row("a")["up_since"].clone());
    for round in 1..=2 {
        hang_up(stage, "a");
        assert_eq!(pids(), before, "the same processes");
        assert_eq!(world.row("a")["up_since"], since);
        let typed = format!("round-{round}");
        attach(stage, "a").write_all(typed.as_bytes()).expect("it is typed");
        eventually("the console works", LIMIT, || stage.log("a").contains(&typed));
    }
    assert_eq!(stage.log("a").matches("virshle payload").count(), 1, "nothing is logged twice");
    // Whoever comes just then is served: by the one or by the other.
    for _ in 0..3 {
        kill(before.0, Signal::HUP);
        world.v(["vm", "pause", "a"]).ok();
        kill(before.0, Signal::HUP);
        world.v(["vm", "resume", "a"]).ok();
        world.v(["vm", "start", "a"]).fails(4, &["already running"]);
    }
    assert_eq!(pids(), before);
    // Its hypervisor is still its child, whose end it sees.
    kill(before.1, Signal::KILL);
    eventually("it is seen", LIMIT, || world.state_of("a") == "crashed");
    let exit = &world.row("a")["last_exit"];
    assert_eq!((&exit["reason"], &exit["signal"]), (&"killed".into(), &9.into()));

    stage.start("a");
    hang_up(stage, "a");
    world.v(["vm", "stop", "a"]).ok();
    assert_eq!(world.row("a")["last_exit"]["reason"], "stopped");
    Ok(())
}

fn a_wait_for_the_next_attempt_is_handed_over(stage: &Stage) -> Outcome {
    kept(stage, Variant::Button, "on-crash", "a");
    stage.start("a");
    kill(stage.pid("a", "hypervisor_pid"), Signal::KILL);
    let second = runs_again(stage, "a", 1);
    let supervisor = stage.pid("a", "supervisor_pid");
    kill(second, Signal::KILL);
    eventually("it waits", LIMIT, || stage.world.state_of("a") == "restarting");
    let due = stage.world.row("a")["retries"].clone();
    kill(supervisor, Signal::HUP);
    runs_again(stage, "a", 2);
    assert_eq!(stage.world.row("a")["retries"], due, "the attempt that was due");
    assert_eq!(stage.pid("a", "supervisor_pid"), supervisor);
    stage.world.v(["vm", "stop", "a"]).ok();
    assert_eq!(stage.world.state_of("a"), "stopped");
    Ok(())
}

/// A copy of `v`, which every command and supervisor of the world is from now on.
fn installed(stage: &mut Stage) -> PathBuf {
    let program = stage.world.dir().join("v");
    fs::copy(v(), &program).expect("a copy of v");
    stage.world.use_program(&program);
    program
}

/// Puts a script in the program's place, as an upgrade does: under another name first. It becomes
/// the real one after `before`, which only a supervisor does.
fn replace(program: &Path, before: &str) {
    let new = program.with_extension("new");
    let text = format!("#!/bin/sh\ncase \"$*\" in *supervise*) {before};; esac\nexec {} \"$@\"\n", v().display());
    fs::write(&new, text).expect("a script");
    fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("it may run");
    fs::rename(&new, program).expect("it takes its place");
}

fn an_upgrade_goes_on_with_the_new_program(stage: &Stage) -> Outcome {
    let mut stage = Stage::new(stage.kind)?;
    let program = installed(&mut stage);
    stage.create("button", "a");
    stage.start("a");
    stage.world.use_program(&v());
    let world = &stage.world;
    let pids = || (stage.pid("a", "supervisor_pid"), stage.pid("a", "hypervisor_pid"));
    let before = pids();
    let running = || fs::read_link(format!("/proc/{}/exe", before.0)).expect("it runs");
    assert_eq!(running(), program);

    // What is no program is not handed over to.
    fs::rename(&program, program.with_extension("old")).expect("it is moved");
    fs::write(&program, "nothing that runs").expect("a file");
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it may run");
    kill(before.0, Signal::HUP);
    eventually("it is told", LIMIT, || supervisor_log(&stage, "a").contains("not handed over"));
    assert!(alive(before.0));
    world.v(["vm", "pause", "a"]).ok();
    world.v(["vm", "resume", "a"]).ok();

    let mark = world.dir().join("mark");
    replace(&program, &format!("echo \"$*\" >> {}", mark.display()));
    hang_up(&stage, "a");
    assert!(fs::read_to_string(&mark).expect("the new program ran").contains("--adopt"));
    assert_eq!(running(), v(), "what the script became");
    assert_eq!(pids(), before);
    world.v(["vm", "stop", "a"]).ok();
    assert_eq!(world.row("a")["last_exit"]["reason"], "stopped");
    Ok(())
}

fn a_newer_database_waits_for_its_program(stage: &Stage) -> Outcome {
    need_program("sqlite3")?;
    let mut stage = Stage::new(stage.kind)?;
    let program = installed(&mut stage);
    let world = &stage.world;
    let database = world.state().join("virshle.sqlite");
    let version = |to: Option<i32>| -> i32 {
        let connection = Connection::open(&database).expect("the database opens");
        connection.busy_timeout(LIMIT).expect("a deadline");
        if let Some(to) = to {
            connection.pragma_update(None, "user_version", to).expect("it is changed");
        }
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("it is read")
    };
    stage.create("button", "a");
    stage.start("a");
    let before = version(None);

    // The end comes while this program can no longer record it, and no other is there.
    let (supervisor, hypervisor) = (stage.pid("a", "supervisor_pid"), stage.pid("a", "hypervisor_pid"));
    let log = |words: &str| {
        let path = world.state().join("vm").join(uuid_of(world)).join("supervisor.log");
        fs::read_to_string(path).expect("its log").contains(words)
    };
    version(Some(99));
    kill(hypervisor, Signal::KILL);
    eventually("it cannot be recorded", LIMIT, || log("the end is not recorded yet"));
    assert!(alive(supervisor), "it is not lost");
    // Then the program is there which can: here, one that knows the schema again.
    let restore = format!("sqlite3 {} 'PRAGMA user_version = {before}'", database.display());
    replace(&program, &restore);
    eventually("it is recorded", LIMIT, || version(None) == before && world.state_of("a") == "crashed");
    let exit = &world.row("a")["last_exit"];
    assert_eq!((&exit["reason"], &exit["signal"]), (&"killed".into(), &9.into()));
    eventually("the supervisor ends", LIMIT, || !alive(supervisor));
    Ok(())
}

/// Read without `v`: its database may be another's just now.
fn uuid_of(world: &crate::world::World) -> String {
    let mut vms = fs::read_dir(world.state().join("vm")).expect("the VMs' folders");
    vms.next().expect("one VM").expect("an entry").file_name().to_string_lossy().into_owned()
}
