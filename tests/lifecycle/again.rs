//! The restart policy: what nobody asked for is followed by another run, what was asked for is not.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::watchdog::{counted, noted};
use super::{Stage, Test, alive, kill, template};
use crate::fixtures::payload::{self, Variant};
use crate::world::{Outcome, eventually};

pub const TESTS: &[(&str, Test)] = &[
    ("a_crash_is_followed_by_another_run", a_crash_is_followed_by_another_run),
    ("what_was_asked_for_is_the_end", what_was_asked_for_is_the_end),
    ("a_power_off_by_the_policy", a_power_off_by_the_policy),
    ("an_attempt_that_fails_is_not_the_last", an_attempt_that_fails_is_not_the_last),
    ("the_next_command_brings_back_what_was_killed", the_next_command_brings_back_what_was_killed),
    ("a_wait_outlives_its_supervisor", a_wait_outlives_its_supervisor),
    ("a_series_has_an_end", a_series_has_an_end),
];

const LIMIT: Duration = Duration::from_secs(30);

/// A VM that is kept so, made but not started.
pub fn kept(stage: &Stage, variant: Variant, restart: &str, name: &str) {
    let kernel = payload::build(stage.world.dir(), variant).expect("a payload");
    stage.config(&format!("{}restart = \"{restart}\"\n", template("kept", &kernel)));
    stage.create("kept", name);
}

fn attempts(row: &Value) -> i64 {
    row["retries"]["attempts"].as_i64().unwrap_or(0)
}

/// Waits until the VM runs in its attempt number `attempt`.
pub fn runs_again(stage: &Stage, name: &str, attempt: i64) -> i32 {
    eventually(&format!("attempt {attempt} runs"), LIMIT, || {
        let row = stage.world.row(name);
        row["state"] == "running" && attempts(&row) == attempt
    });
    stage.pid(name, "hypervisor_pid")
}

fn a_crash_is_followed_by_another_run(stage: &Stage) -> Outcome {
    let world = &stage.world;
    kept(stage, Variant::Button, "on-crash", "a");
    stage.start("a");
    let (supervisor, first) = (stage.pid("a", "supervisor_pid"), stage.pid("a", "hypervisor_pid"));
    kill(first, Signal::KILL);
    let second = runs_again(stage, "a", 1);
    assert!(!alive(first) && alive(second) && first != second);
    assert_eq!(stage.pid("a", "supervisor_pid"), supervisor, "the same one sees to it");
    assert_eq!(world.row("a")["last_exit"]["signal"], 9);
    eventually("the guest of the new run is heard", LIMIT, || stage.log("a").matches("virshle payload").count() == 2);
    let info = world.v(["vm", "info", "a"]).ok().stdout;
    assert!(info.contains("on-crash; 1st attempt"), "{info}");

    // The second attempt comes later; meanwhile it is neither up nor down.
    kill(second, Signal::KILL);
    eventually("it waits", LIMIT, || world.state_of("a") == "restarting");
    let listed = world.v(["vm", "ls"]).ok().stdout;
    assert!(listed.contains("restarting (next try in"), "{listed}");
    assert_eq!(stage.pid("a", "supervisor_pid"), supervisor);
    world.v(["vm", "pause", "a"]).fails(4, &["about to be started again"]);
    world.v(["vm", "delete", "a"]).fails(4, &["it is restarting", "--force"]);
    world.v(["vm", "console", "a"]).fails(4, &["it is restarting"]);
    let third = runs_again(stage, "a", 2);
    let to_wait = "SELECT count(*) FROM history WHERE json_extract(happening, '$.to') = 'restarting' AND \
                   json_extract(happening, '$.exit.reason') = 'killed' AND json_extract(actor, '$.kind') = 'supervisor'";
    assert_eq!(counted(world, to_wait), 2, "why is noted with it");
    assert!(third != second && alive(third));

    // At once, when a person wants it; their start is not part of the series.
    kill(third, Signal::KILL);
    eventually("it waits", LIMIT, || world.state_of("a") == "restarting");
    assert_eq!(attempts(&world.row("a")), 3);
    let started = world.v(["vm", "start", "a"]).ok();
    assert!(started.stderr.contains("started `a`"), "{}", started.stderr);
    let row = world.row("a");
    assert_eq!((&row["state"], &row["retries"]), (&"running".into(), &Value::Null));
    world.v(["vm", "start", "a"]).fails(4, &["already running"]);
    world.v(["vm", "delete", "--force", "a"]).ok();
    world.assert_empty();
    Ok(())
}

/// Nobody is left who could bring it back.
fn stays(stage: &Stage, name: &str, supervisor: i32, state: &str) {
    eventually(&format!("it is {state}"), LIMIT, || stage.world.state_of(name) == state);
    eventually("the supervisor ends", LIMIT, || !alive(supervisor));
    let row = stage.world.row(name);
    assert_eq!((&row["state"], &row["retries"]), (&state.into(), &Value::Null));
}

fn what_was_asked_for_is_the_end(stage: &Stage) -> Outcome {
    let world = &stage.world;
    kept(stage, Variant::Button, "always", "a");
    let waiting = |stage: &Stage| {
        stage.start("a");
        kill(stage.pid("a", "hypervisor_pid"), Signal::KILL);
        eventually("it waits", LIMIT, || world.state_of("a") == "restarting");
        stage.pid("a", "supervisor_pid")
    };
    for (asked, reason) in
        [(&["vm", "stop", "a"][..], "stopped"), (&["vm", "stop", "--force", "--timeout", "0", "a"], "forced")]
    {
        stage.start("a");
        let supervisor = stage.pid("a", "supervisor_pid");
        world.v(asked).ok();
        stays(stage, "a", supervisor, "stopped");
        assert_eq!(world.row("a")["last_exit"]["reason"], reason);

        // The same while it waits; how the last run ended stays told.
        let supervisor = waiting(stage);
        let stopped = world.v(asked).ok();
        assert!(stopped.stderr.contains("stopped `a`"), "{}", stopped.stderr);
        stays(stage, "a", supervisor, "stopped");
        assert_eq!(world.row("a")["last_exit"]["reason"], "killed");
    }
    let supervisor = waiting(stage);
    kill(supervisor, Signal::TERM);
    stays(stage, "a", supervisor, "stopped");
    stage.start("a");
    let supervisor = stage.pid("a", "supervisor_pid");
    kill(supervisor, Signal::TERM);
    stays(stage, "a", supervisor, "stopped");
    waiting(stage);
    world.v(["vm", "restart", "a"]).ok();
    assert_eq!(world.state_of("a"), "running");
    world.v(["vm", "stop", "a"]).ok();
    waiting(stage);
    world.v(["vm", "delete", "--force", "a"]).ok();
    world.assert_empty();
    Ok(())
}

fn a_power_off_by_the_policy(stage: &Stage) -> Outcome {
    let world = &stage.world;
    kept(stage, Variant::Poweroff, "on-crash", "brief");
    stage.start("brief");
    eventually("it is off", LIMIT, || world.state_of("brief") == "stopped");
    assert_eq!(world.row("brief")["last_exit"]["reason"], "powered-off");
    eventually("nothing runs for it", LIMIT, || world.info("brief")["supervisor_pid"].is_null());

    kept(stage, Variant::Poweroff, "always", "ever");
    stage.start("ever");
    eventually("it comes back, and again", LIMIT, || attempts(&world.row("ever")) >= 3);
    let row = world.row("ever");
    assert_eq!(row["last_exit"]["reason"], "powered-off");
    world.v(["vm", "stop", "ever"]).ok();
    assert_eq!(world.state_of("ever"), "stopped");
    Ok(())
}

fn an_attempt_that_fails_is_not_the_last(stage: &Stage) -> Outcome {
    let world = &stage.world;
    kept(stage, Variant::Button, "on-crash", "a");
    let config = std::fs::read_to_string(world.config_file()).expect("the config");
    let dying = world.file("dying", "#!/bin/sh\necho 'no such feature' >&2\nexit 3\n");
    std::fs::set_permissions(&dying, PermissionsExt::from_mode(0o755)).expect("it may run");
    let broken = config.replace(&format!("program = {:?}", stage.program), &format!("program = {dying:?}"));

    // A first start that fails is told, and the end of it.
    world.config(&broken);
    world.v(["vm", "start", "a"]).fails(1, &["cannot start `a`", "no such feature"]);
    let row = world.row("a");
    assert_eq!((&row["state"], &row["retries"]), (&"crashed".into(), &Value::Null));

    world.config(&config);
    stage.start("a");
    world.config(&broken);
    kill(stage.pid("a", "hypervisor_pid"), Signal::KILL);
    eventually("the attempt has failed", LIMIT, || {
        let row = world.row("a");
        row["state"] == "restarting" && attempts(&row) == 2
    });
    assert_eq!(world.row("a")["last_exit"]["reason"], "boot-failed");
    // A person's start in between that fails ends the series.
    world.v(["vm", "start", "a"]).fails(1, &["cannot start `a`", "no such feature"]);
    assert_eq!(world.state_of("a"), "crashed");

    world.config(&config);
    stage.start("a");
    world.config(&broken);
    kill(stage.pid("a", "hypervisor_pid"), Signal::KILL);
    eventually("the attempt has failed", LIMIT, || attempts(&world.row("a")) == 2);
    world.config(&config);
    runs_again(stage, "a", 2);
    world.v(["vm", "delete", "--force", "a"]).ok();
    world.assert_empty();
    Ok(())
}

fn the_next_command_brings_back_what_was_killed(stage: &Stage) -> Outcome {
    let world = &stage.world;
    kept(stage, Variant::Button, "on-crash", "a");
    stage.start("a");
    let killed = |stage: &Stage| {
        let pids = [stage.pid("a", "supervisor_pid"), stage.pid("a", "hypervisor_pid")];
        pids.iter().for_each(|pid| kill(*pid, Signal::KILL));
        eventually("both are gone", LIMIT, || !pids.iter().any(|pid| alive(*pid)));
    };
    killed(stage);
    // Who only looks changes nothing.
    for _ in 0..3 {
        assert_eq!(world.state_of("a"), "crashed");
    }
    assert!(!alive(stage.pid("a", "supervisor_pid")), "the record still names the dead one");
    world.v(["vm", "wait", "a", "--for", "running", "--timeout", "20"]).ok();
    let row = world.row("a");
    assert_eq!((&row["state"], &row["last_exit"]["reason"]), (&"running".into(), &"lost".into()));
    assert_eq!(attempts(&row), 1);

    // A start of it is a start; a stop ends what would have come back.
    killed(stage);
    stage.start("a");
    assert_eq!(world.state_of("a"), "running");
    killed(stage);
    world.v(["vm", "stop", "a"]).ok();
    assert_eq!(world.state_of("a"), "stopped");
    world.v(["vm", "delete", "a"]).ok();
    world.assert_empty();
    Ok(())
}

fn a_wait_outlives_its_supervisor(stage: &Stage) -> Outcome {
    let world = &stage.world;
    kept(stage, Variant::Button, "on-crash", "a");
    stage.start("a");
    for attempt in 1..=2 {
        kill(stage.pid("a", "hypervisor_pid"), Signal::KILL);
        eventually("it waits", LIMIT, || world.state_of("a") == "restarting");
        assert_eq!(attempts(&world.row("a")), attempt);
        let supervisor = stage.pid("a", "supervisor_pid");
        kill(supervisor, Signal::KILL);
        eventually("it is seen", LIMIT, || !alive(supervisor) && world.row("a")["unwatched"] == true);
        let info = world.v(["vm", "info", "a"]).ok().stdout;
        assert!(info.contains("restarting") && info.contains("the next command brings another"), "{info}");
        if attempt == 1 {
            world.v(["vm", "wait", "a", "--for", "running", "--timeout", "20"]).ok();
            assert_eq!(attempts(&world.row("a")), 1, "the same attempt");
        } else {
            stage.start("a");
            assert_eq!(world.state_of("a"), "running");
        }
    }
    world.v(["vm", "delete", "--force", "a"]).ok();
    world.assert_empty();
    Ok(())
}

/// Ten attempts take a quarter of an hour: the record says that nine are over.
fn a_series_has_an_end(stage: &Stage) -> Outcome {
    let world = &stage.world;
    kept(stage, Variant::Button, "on-crash", "a");
    stage.start("a");
    let attempts_so_far = |attempts: u32| {
        let connection = rusqlite::Connection::open(world.state().join("virshle.sqlite")).expect("the database opens");
        connection.busy_timeout(LIMIT).expect("a deadline");
        let retries = format!("{{\"attempts\":{attempts},\"next_at\":\"2026-01-01T00:00:00Z\"}}");
        connection.execute("UPDATE vm SET retries = ?1", [retries]).expect("it is changed");
    };
    attempts_so_far(9);
    kill(stage.pid("a", "hypervisor_pid"), Signal::KILL);
    eventually("the tenth is to come", LIMIT, || world.state_of("a") == "restarting");
    let listed = world.v(["vm", "ls"]).ok().stdout;
    assert!(listed.contains(" s, 10th)"), "{listed}");
    stage.start("a");
    attempts_so_far(10);
    let supervisor = stage.pid("a", "supervisor_pid");
    kill(stage.pid("a", "hypervisor_pid"), Signal::KILL);
    eventually("it has crashed", LIMIT, || world.state_of("a") == "crashed");
    eventually("the supervisor ends", LIMIT, || !alive(supervisor));
    let info = world.v(["vm", "info", "a"]).ok().stdout;
    assert!(info.contains("on-crash; gave up after 10 attempts") && info.contains("SIGKILL"), "{info}");
    assert_eq!(noted(world, "gave-up"), 1);
    // A person begins anew.
    stage.start("a");
    assert_eq!(attempts(&world.row("a")), 0);
    kill(stage.pid("a", "hypervisor_pid"), Signal::KILL);
    runs_again(stage, "a", 1);
    Ok(())
}
