use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::{Stage, Test, kill};
use crate::fixtures::payload::CTRL_R;
use crate::world::{Outcome, eventually, need_root, run};

pub const TESTS: &[(&str, Test)] =
    &[("who_asked_for_what", who_asked_for_what), ("what_nobody_asked_for", what_nobody_asked_for)];

const LIMIT: Duration = Duration::from_secs(20);

/// `WHAT by WHO`, after the lines of the create.
fn history(stage: &Stage, name: &str) -> Vec<String> {
    let run = stage.world.v(["vm", "history", name, "-o", "json"]).ok();
    let rows: Vec<Value> = serde_json::from_str(&run.stdout).expect("JSON");
    let line = |row: &Value| {
        let what = row["to"].as_str().or(row["what"].as_str()).expect("a word");
        let reason = row["exit"]["reason"].as_str().or(row["intent"].as_str()).map(|why| format!(" ({why})"));
        let who = row["actor"]["uid"].as_u64().map_or_else(|| row["actor"]["kind"].to_string(), |uid| uid.to_string());
        format!("{what}{} by {}", reason.unwrap_or_default(), who.trim_matches('"'))
    };
    rows.iter().skip(2).map(line).collect()
}

fn who_asked_for_what(stage: &Stage) -> Outcome {
    need_root()?;
    // The user behind sudo; a user who is not root could not say so.
    let as_user = |uid: &str, args: &[&str]| {
        let mut command = stage.world.command(args);
        run(
            {
                command.env("SUDO_UID", uid);
                command
            },
            LIMIT,
        )
        .ok()
    };
    stage.create("button", "web");
    as_user("1001", &["vm", "start", "web"]);
    as_user("1002", &["vm", "pause", "web"]);
    as_user("1003", &["vm", "resume", "web"]);
    as_user("1004", &["vm", "stop", "web"]);
    stage.start("web");
    as_user("1005", &["vm", "stop", "--force", "--timeout", "0", "web"]);
    assert_eq!(
        history(stage, "web"),
        [
            "starting by 1001",
            "running by 1001",
            "paused by 1002",
            "running by 1003",
            "stopping (stop) by 1004",
            "stopped (stopped) by supervisor",
            "starting by 0",
            "running by 0",
            "stopping (force-stop) by 1005",
            "stopped (forced) by supervisor",
        ]
    );
    Ok(())
}

fn what_nobody_asked_for(stage: &Stage) -> Outcome {
    let own = rustix::process::getuid().as_raw();
    let seen = |what: &str| {
        eventually(what, LIMIT, || history(stage, "web").last().is_some_and(|line| line.starts_with(what)));
    };
    stage.create("echo", "web");
    stage.start("web");
    let uuid = stage.world.row("web")["uuid"].as_str().expect("a uuid").to_owned();
    let console = stage.world.root().join("run/virshle/vm").join(uuid).join("console.sock");
    eventually("the guest listens", LIMIT, || stage.log("web").contains("virshle payload"));
    // It leaves at once; what it typed counts.
    UnixStream::connect(console).and_then(|mut console| console.write_all(&[CTRL_R])).expect("it is typed");
    seen("rebooted");

    kill(stage.pid("web", "supervisor_pid"), Signal::KILL);
    eventually("its supervisor is gone", LIMIT, || stage.world.row("web")["unwatched"] == true);
    // Any command that meets it brings a new one.
    stage.world.v(["vm", "start", "web"]).fails(4, &["already running"]);
    seen("adopted");

    // Both at once: nobody sees how it ends.
    let (supervisor, hypervisor) = (stage.pid("web", "supervisor_pid"), stage.pid("web", "hypervisor_pid"));
    kill(supervisor, Signal::KILL);
    kill(hypervisor, Signal::KILL);
    eventually("both are gone", LIMIT, || stage.world.state_of("web") == "crashed");
    stage.start("web");
    kill(stage.pid("web", "hypervisor_pid"), Signal::KILL);
    seen("crashed");
    let (started, running) = (format!("starting by {own}"), format!("running by {own}"));
    assert_eq!(
        history(stage, "web"),
        [
            started.as_str(),
            &running,
            "rebooted by supervisor",
            "adopted by supervisor",
            "crashed (lost) by unknown",
            &started,
            &running,
            "crashed (killed) by supervisor",
        ]
    );
    Ok(())
}
