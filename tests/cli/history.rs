use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use super::world;
use crate::trials;
use crate::world::{Outcome, World, eventually, need_program, run};

pub fn trials() -> Vec<Trial> {
    trials![
        a_history_is_read_by_people_and_by_scripts,
        a_deleted_vm_is_remembered,
        events_are_followed_from_before_the_first,
        followers_and_many_writers,
        a_clock_that_jumps_changes_no_order,
    ]
}

const LIMIT: Duration = Duration::from_secs(30);

fn json(world: &World, args: &[&str]) -> Vec<Value> {
    serde_json::from_str(&world.v(args.iter().chain(&["-o", "json"])).ok().stdout).expect("JSON")
}

fn words(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["to"].as_str().or(row["what"].as_str()).expect("a word").to_owned()).collect()
}

fn a_history_is_read_by_people_and_by_scripts() -> Outcome {
    let world = world();
    world.v(["vm", "history", "web"]).fails(3, &["there are no VMs", "v vm create"]);
    world.v(["events", "--vm", "web"]).fails(3, &["there are no VMs"]);
    assert_eq!(world.v(["events"]).ok().stdout, "");
    assert_eq!(world.v(["events", "-o", "json"]).ok().stdout, "[]\n");
    assert!(!world.state().exists(), "looking makes nothing");
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    world.v(["vm", "create", "-t", "xs", "-n", "database"]).ok();

    let shown = world.v(["vm", "history", "web"]).ok().stdout;
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["TIME", "AGO", "WHO", "WHAT", "CAUSE"], "{shown}");
    assert_eq!(lines.len(), 3, "{shown}");
    for (line, what) in lines[1..].iter().zip(["creating", "created"]) {
        assert_eq!((line.len(), line[3], line[5]), (6, "s", what), "date, time, 0 s, who, what:\n{shown}");
    }
    let events = world.v(["events", "-n", "3"]).ok().stdout;
    assert_eq!(events.lines().count(), 4, "{events}");
    assert!(events.lines().nth(1).is_some_and(|line| line.contains("   web        ")), "columns line up:\n{events}");

    let rows = json(&world, &["vm", "history", "web"]);
    let keys: Vec<_> = rows[0].as_object().expect("an object").keys().cloned().collect();
    assert_eq!(
        keys,
        ["id", "time", "vm", "name", "actor", "what", "from", "to", "intent", "exit"],
        "scripts rely on these"
    );
    assert_eq!(words(&rows), ["creating", "stopped"]);
    assert_eq!(rows[0]["actor"]["kind"], "user");
    assert_eq!(rows[0]["actor"]["uid"], rustix::process::getuid().as_raw());
    let yaml: Vec<Value> =
        serde_yaml_ng::from_str(&world.v(["vm", "history", "web", "-o", "yaml"]).ok().stdout).expect("YAML");
    assert_eq!(rows, yaml, "the same rows");
    assert_eq!(json(&world, &["vm", "history", "1", "-n", "1"]), rows[1..], "by number, the last one");
    assert_eq!(json(&world, &["events", "--vm", "web"]), rows);
    assert_eq!(json(&world, &["events"]).len(), 4);
    world.v(["vm", "history", "wbe"]).fails(3, &["`wbe`", "`web`"]);
    Ok(())
}

fn a_deleted_vm_is_remembered() -> Outcome {
    let world = world();
    let mut uuids = Vec::new();
    for _ in 0..2 {
        world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
        uuids.push(world.row("web")["uuid"].as_str().expect("a uuid").to_owned());
        world.v(["vm", "delete", "web"]).ok();
    }
    let by_name = world.v(["vm", "history", "web", "-o", "json"]).ok();
    for word in ["`web` is no more", &uuids[1], "1 other VM had that name before", &uuids[0]] {
        assert!(by_name.stderr.contains(word), "{word} in\n{}", by_name.stderr);
    }
    let rows: Vec<Value> = serde_json::from_str(&by_name.stdout).expect("JSON");
    assert_eq!(words(&rows), ["creating", "stopped", "deleting", "deleted"]);
    assert!(rows.iter().all(|row| row["vm"] == uuids[1].as_str()), "the last that had the name");
    let by_uuid = world.v(["vm", "history", &uuids[0][..13], "-o", "json"]).ok();
    assert_eq!(by_uuid.stderr, "", "a uuid leaves no doubt");
    assert_eq!(by_uuid.stdout.matches(&uuids[0]).count(), 4);
    assert_eq!(json(&world, &["events", "--vm", &uuids[0]]).len(), 4);

    // The one that has the name now comes first.
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    let now = world.v(["vm", "history", "web", "-o", "json"]).ok();
    assert!(now.stdout.contains(world.row("web")["uuid"].as_str().expect("a uuid")), "{}", now.stdout);
    assert_eq!(now.stderr, "");
    Ok(())
}

/// `v events --follow`, and what it prints.
struct Follower {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Follower {
    fn start(world: &World, more: &[&str]) -> Self {
        let mut command = world.command(["events", "--follow", "-o", "json"].iter().chain(more));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("v starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    /// The next line; it comes, or the runner's own limit ends the test.
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it is read");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Nobody reads any more: it ends by itself, though nothing happens.
    fn leave(self) {
        let Self { mut child, lines } = self;
        drop(lines);
        eventually("it ends with its reader", LIMIT, || child.try_wait().expect("it is waited for").is_some());
        let output = child.wait_with_output().expect("it ended");
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

fn events_are_followed_from_before_the_first() -> Outcome {
    let world = world();
    let mut follower = Follower::start(&world, &[]);
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    let first: Vec<Value> = (0..2).map(|_| follower.next()).collect();
    assert_eq!(words(&first), ["creating", "stopped"]);
    // One that comes later sees the past first, and only what it asked for.
    let mut of_web = Follower::start(&world, &["--vm", "web", "-n", "1"]);
    assert_eq!(of_web.next(), first[1]);
    let mut only_new = Follower::start(&world, &["-n", "0"]);
    world.v(["vm", "create", "-t", "xs", "-n", "db"]).ok();
    world.v(["vm", "delete", "web"]).ok();
    let later: Vec<Value> = (0..4).map(|_| follower.next()).collect();
    assert_eq!(words(&later), ["creating", "stopped", "deleting", "deleted"]);
    assert_eq!([of_web.next(), of_web.next()], later[2..]);
    // It may have begun only after the first of them.
    let id = only_new.next()["id"].as_i64().expect("an id");
    assert!(id > first[1]["id"].as_i64().expect("an id"), "{id}");
    for follower in [follower, of_web, only_new] {
        follower.leave();
    }
    Ok(())
}

fn followers_and_many_writers() -> Outcome {
    need_program("sqlite3")?;
    let world = world();
    let mut followers: Vec<Follower> = (0..2).map(|_| Follower::start(&world, &[])).collect();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let world = &world;
            scope.spawn(move || {
                for round in 0..3 {
                    let name = format!("vm-{writer}-{round}");
                    world.v(["vm", "create", "-t", "xs", "-n", &name]).ok();
                    // The log is folded into the file under everybody's eyes.
                    let mut fold = std::process::Command::new("sqlite3");
                    fold.arg("-cmd").arg(".timeout 10000").arg(world.state().join("virshle.sqlite"));
                    run(
                        {
                            fold.arg("PRAGMA wal_checkpoint(TRUNCATE);");
                            fold
                        },
                        LIMIT,
                    )
                    .ok();
                    world.v(["vm", "delete", &name]).ok();
                }
            });
        }
    });
    let recorded = json(&world, &["events", "-n", "1000"]);
    assert_eq!(recorded.len(), 4 * 3 * 4);
    for follower in &mut followers {
        let seen: Vec<Value> = recorded.iter().map(|_| follower.next()).collect();
        assert_eq!(seen, recorded, "each line once, in order");
    }
    followers.into_iter().for_each(Follower::leave);
    Ok(())
}

/// Rows that a clock far ahead has written, before it was set right again.
fn a_clock_that_jumps_changes_no_order() -> Outcome {
    need_program("sqlite3")?;
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    let mut future = std::process::Command::new("sqlite3");
    future.arg(world.state().join("virshle.sqlite")).arg(
        "UPDATE history SET time = '2199-01-01T00:00:00Z';
         UPDATE vm SET created_at = '2199-01-01T00:00:00Z', updated_at = '2199-01-01T00:00:00Z';",
    );
    run(future, LIMIT).ok();
    let mut follower = Follower::start(&world, &["-n", "1"]);
    follower.next();
    world.v(["vm", "create", "-t", "xs", "-n", "db"]).ok();
    world.v(["vm", "delete", "web"]).ok();
    assert_eq!(words(&json(&world, &["vm", "history", "web"])), ["creating", "stopped", "deleting", "deleted"]);
    let shown = world.v(["vm", "history", "web"]).ok().stdout;
    assert_eq!(shown.matches("ahead").count(), 2, "no time is negative:\n{shown}");
    let names: Vec<Value> = (0..4).map(|_| follower.next()["name"].clone()).collect();
    assert_eq!(names, ["db", "db", "web", "web"]);
    follower.leave();
    world.v(["vm", "info", "db"]).ok();
    Ok(())
}
