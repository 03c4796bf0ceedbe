//! A guest that hangs is reset by its watchdog, under real QEMU.

use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::Signal;

use super::{kill, template};
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
    // A new program watches over it, and sees how QEMU, still its child, ends.
    let supervisor = world.info("a")["supervisor_pid"].clone();
    let pid = |value: &serde_json::Value| i32::try_from(value.as_i64().expect("a pid")).expect("a pid");
    let log = || world.v(["vm", "log", "--supervisor", "a"]).stdout.contains("adopted");
    kill(pid(&supervisor), Signal::HUP);
    eventually("it is adopted", LIMIT, log);
    let row = world.info("a");
    assert_eq!((&row["supervisor_pid"], &row["hypervisor_pid"]), (&supervisor, &hypervisor));
    kill(pid(&hypervisor), Signal::KILL);
    eventually("it is seen", LIMIT, || world.state_of("a") == "crashed");
    assert_eq!(world.row("a")["last_exit"]["reason"], "killed");
    world.v(["vm", "delete", "--force", "a"]).ok();
    world.assert_empty();
    Ok(())
}

/// How many lines of the history are of this kind.
pub fn noted(world: &World, what: &str) -> i64 {
    counted(world, &format!("SELECT count(*) FROM history WHERE json_extract(happening, '$.what') = '{what}'"))
}

/// One number out of the database.
pub fn counted(world: &World, query: &str) -> i64 {
    let connection = rusqlite::Connection::open(world.state().join("virshle.sqlite")).expect("the database opens");
    connection.busy_timeout(LIMIT).expect("a deadline");
    connection.query_row(query, [], |row| row.get(0)).expect("it is counted")
}
