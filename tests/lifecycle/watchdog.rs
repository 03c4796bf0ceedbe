//! A guest that hangs is reset by its watchdog, under real QEMU.

use std::time::Duration;

use libtest_mimic::Trial;

use super::template;
use crate::fixtures::payload::{self, Variant};
use crate::trials;
use crate::world::{Outcome, World, eventually, exercised, need_program, skip};

pub fn trials() -> Vec<Trial> {
    trials![a_guest_that_hangs_is_reset]
}

const LIMIT: Duration = Duration::from_secs(60);

fn a_guest_that_hangs_is_reset() -> Outcome {
    need_program("qemu-system-x86_64")?;
    let world = World::new();
    let kernel = match payload::build(world.dir(), Variant::Watchdog) {
        Ok(kernel) => kernel,
        Err(reason) => return skip(reason),
    };
    exercised("watchdog", "i6300esb (QEMU, TCG)");
    world.config(&format!(
        "[node]\nhypervisor = \"qemu\"\naccel = \"tcg\"\n{}watchdog = true\n",
        template("hangs", &kernel)
    ));
    world.v(["vm", "create", "-t", "hangs", "-n", "a", "--start"]).ok();
    let hypervisor = world.info("a")["hypervisor_pid"].clone();
    let written = || world.v(["vm", "log", "a"]).stdout.matches("virshle payload").count();
    eventually("it comes up again, and again", LIMIT, || written() >= 3);
    let row = world.info("a");
    assert_eq!((&row["state"], &row["hypervisor_pid"]), (&"running".into(), &hypervisor), "its run goes on");
    eventually("it is noted", LIMIT, || noted(&world, "watchdog-fired") >= 2);
    world.v(["vm", "delete", "--force", "a"]).ok();
    world.assert_empty();
    Ok(())
}

/// How many lines of the history are of this kind.
pub fn noted(world: &World, what: &str) -> i64 {
    let connection = rusqlite::Connection::open(world.state().join("virshle.sqlite")).expect("the database opens");
    connection.busy_timeout(LIMIT).expect("a deadline");
    let count = "SELECT count(*) FROM history WHERE json_extract(happening, '$.what') = ?1";
    connection.query_row(count, [what], |row| row.get(0)).expect("it is counted")
}
