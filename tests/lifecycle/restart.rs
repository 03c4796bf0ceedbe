//! A restart is the supervisor's work: nothing that happens to a command loses it.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use super::{Stage, Test, alive, kill, template};
use crate::fixtures::payload::{self, Variant};
use crate::world::{Outcome, eventually};

pub const TESTS: &[(&str, Test)] = &[
    ("a_restart_outlives_its_command", a_restart_outlives_its_command),
    ("a_second_start_that_fails_is_told", a_second_start_that_fails_is_told),
    ("a_restart_can_be_forced", a_restart_can_be_forced),
    ("one_supervisor_restarts_many_times", one_supervisor_restarts_many_times),
];

const LIMIT: Duration = Duration::from_secs(20);

fn a_restart_outlives_its_command(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("halt", "a");
    stage.start("a");
    let first = stage.pid("a", "hypervisor_pid");
    let mut command = world.command(["vm", "restart", "a"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("v starts");
    eventually("it is asked", LIMIT, || world.state_of("a") == "stopping");
    child.kill().expect("it is killed");
    child.wait().expect("v ends");
    // The guest is deaf to the button, so its end comes now.
    kill(first, Signal::KILL);
    eventually("it runs again", LIMIT, || stage.runs_anew("a", first));
    assert!(!alive(first));
    // Killed with the supervisor too: the next command takes it up.
    let mut command = world.command(["vm", "restart", "a"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("v starts");
    eventually("it is asked", LIMIT, || world.state_of("a") == "stopping");
    let second = stage.pid("a", "hypervisor_pid");
    kill(stage.pid("a", "supervisor_pid"), Signal::KILL);
    kill(second, Signal::KILL);
    child.wait().expect("v ends");
    eventually("ls knows", LIMIT, || ["restarting", "running"].contains(&world.state_of("a").as_str()));
    let _ = world.v(["vm", "start", "a"]);
    assert_eq!(world.state_of("a"), "running");
    assert_ne!(stage.pid("a", "hypervisor_pid"), second);
    Ok(())
}

fn a_second_start_that_fails_is_told(stage: &Stage) -> Outcome {
    let world = &stage.world;
    let kernel = payload::build(world.dir(), Variant::Button).expect("the payload");
    let copy = world.file("kernel", std::fs::read(kernel).expect("it is read"));
    stage.config(&template("own", &copy));
    stage.create("own", "a");
    stage.start("a");
    std::fs::remove_file(&copy).expect("the kernel goes");
    world.v(["vm", "restart", "a"]).fails(1, &["cannot restart `a`", "cannot start `a`", "No such file"]);
    let row = world.row("a");
    assert_eq!((&row["state"], &row["last_exit"]["reason"]), (&"crashed".into(), &"boot-failed".into()));
    world.v(["vm", "delete", "a"]).ok();
    world.assert_empty();
    Ok(())
}

fn a_restart_can_be_forced(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("halt", "deaf");
    stage.start("deaf");
    let first = stage.pid("deaf", "hypervisor_pid");
    world.v(["vm", "restart", "deaf", "--timeout", "1"]).fails(1, &["not shut down in 1 s", "--force"]);
    assert_eq!(stage.pid("deaf", "hypervisor_pid"), first, "it goes on as before");
    assert_eq!(world.state_of("deaf"), "running");
    let forced = world.v(["vm", "restart", "deaf", "--timeout", "1", "--force"]).ok();
    assert!(forced.stderr.contains("cutting its power"), "{}", forced.stderr);
    let second = stage.pid("deaf", "hypervisor_pid");
    assert_ne!(second, first);
    // What hangs so that nobody can watch it is restarted by force all the same.
    kill(stage.pid("deaf", "supervisor_pid"), Signal::KILL);
    kill(second, Signal::STOP);
    world.v(["vm", "restart", "deaf", "--timeout", "0", "--force"]).ok();
    eventually("it is gone", LIMIT, || !alive(second));
    assert_eq!(world.state_of("deaf"), "running");
    Ok(())
}

fn one_supervisor_restarts_many_times(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("button", "a");
    stage.start("a");
    let supervisor = stage.pid("a", "supervisor_pid");
    let open = || std::fs::read_dir(format!("/proc/{supervisor}/fd")).expect("its descriptors").count();
    world.v(["vm", "restart", "a"]).ok();
    let descriptors = open();
    for _ in 0..5 {
        world.v(["vm", "restart", "a"]).ok();
        assert_eq!(stage.pid("a", "supervisor_pid"), supervisor, "the same supervisor");
    }
    // An answered connection may still be closing.
    eventually("no descriptor is left of a run", LIMIT, || open() <= descriptors);
    eventually("each run's console is logged", LIMIT, || stage.log("a").matches("virshle payload").count() == 7);
    world.v(["vm", "stop", "a"]).ok();
    assert_eq!(world.state_of("a"), "stopped");
    Ok(())
}
