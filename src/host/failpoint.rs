//! For the crash tests: a place where this process may be killed as by `kill -9`.
//!
//! `VIRSHLE_FAILPOINT="create/disk os/before"` kills at the first arrival at that point, and
//! `…/before#2` at the second. `VIRSHLE_FAILPOINT_TRACE=FILE` appends each point that is reached.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

use rustix::process::{Signal, getpid, kill_process};

/// How often each point was reached.
static REACHED: LazyLock<Mutex<HashMap<String, u32>>> = LazyLock::new(Mutex::default);

pub fn failpoint(point: &str) {
    let times = {
        let mut reached = REACHED.lock().unwrap_or_else(PoisonError::into_inner);
        let times = reached.entry(point.to_owned()).or_default();
        *times += 1;
        *times
    };
    let name = if times == 1 { point.to_owned() } else { format!("{point}#{times}") };
    if let Some(trace) = std::env::var_os("VIRSHLE_FAILPOINT_TRACE") {
        let role = if std::env::args().any(|word| word == "supervise") { "supervisor" } else { "command" };
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&trace)
            .and_then(|mut file| file.write_all(format!("{role}\t{name}\n").as_bytes()));
        assert!(written.is_ok(), "the trace is written: {written:?}");
    }
    if std::env::var("VIRSHLE_FAILPOINT").is_ok_and(|wanted| wanted == name) {
        let sent = kill_process(getpid(), Signal::KILL);
        unreachable!("killed: {sent:?}");
    }
}
