use std::collections::HashSet;

use super::{Stage, Test, alive};
use crate::world::Outcome;

pub const TESTS: &[(&str, Test)] = &[("fifty_at_once", fifty_at_once)];

fn fifty_at_once(stage: &Stage) -> Outcome {
    let world = &stage.world;
    world.v(["vm", "create", "-t", "button", "--count", "50", "-n", "many"]).ok();
    world.v(["vm", "start", "--all"]).ok();
    let rows = world.ls();
    assert_eq!(rows.len(), 50);
    assert!(rows.iter().all(|row| row["state"] == "running"), "{rows:#?}");
    let pids: HashSet<i32> =
        rows.iter().map(|row| stage.pid(row["name"].as_str().expect("a name"), "hypervisor_pid")).collect();
    assert_eq!(pids.len(), 50, "each has a process of its own");
    assert!(pids.iter().all(|pid| alive(*pid)));
    world.v(["vm", "start", "--all"]).ok();
    world.v(["vm", "stop", "many-7", "many-8", "9"]).ok();
    assert_eq!(world.v(["vm", "ls", "--state", "stopped", "-o", "json"]).ok().stdout.matches("\"uuid\"").count(), 3);
    world.v(["vm", "stop", "--all"]).ok();
    assert!(world.ls().iter().all(|row| row["state"] == "stopped"), "all are stopped");
    assert!(pids.iter().all(|pid| !alive(*pid)));
    world.v(["vm", "delete", "--all"]).ok();
    world.assert_empty();
    Ok(())
}
