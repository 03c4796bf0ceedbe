//! What a host may do to VMs that run: a disk that fills up, a database that is taken away, pids and
//! descriptors that run out. Each fault is told with what to do, loses nothing, and once it is gone
//! the same command succeeds. (Faults that need no running VM: `cli/faults.rs`; of the hypervisor:
//! `lifecycle/faults.rs`.)

mod database;
mod full_disk;
mod limits;
mod output;
mod pids;

use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::world::{World, run};

pub fn trials() -> Vec<Trial> {
    let parts = [database::trials(), full_disk::trials(), limits::trials(), output::trials(), pids::trials()];
    parts.into_iter().flatten().collect()
}

const LIMIT: Duration = Duration::from_secs(30);

/// The last line of a VM's history.
fn last_line(world: &World, name: &str) -> Value {
    let rows = world.v(["vm", "history", name, "-n", "1", "-o", "json"]).ok();
    let rows: Vec<Value> = serde_json::from_str(&rows.stdout).expect("JSON");
    rows[0].clone()
}

/// Changes the database behind the program's back.
fn sql(world: &World, statements: &str) {
    let mut sqlite = Command::new("sqlite3");
    sqlite.arg("-cmd").arg(".timeout 10000").arg(world.state().join("virshle.sqlite")).arg(statements);
    run(sqlite, LIMIT).ok();
}
