use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use libtest_mimic::Trial;
use rustix::process::Signal;

use super::{LIMIT, sql};
use crate::lifecycle::{Stage, alive, kill};
use crate::trials;
use crate::world::{Outcome, eventually, need_program, need_root};

pub fn trials() -> Vec<Trial> {
    trials![one_that_is_locked, one_that_is_taken_away, one_that_is_damaged, one_that_belongs_to_another]
}

/// Another process that holds the write lock.
struct Holder(Child, ChildStdin);

impl Holder {
    fn of(database: &Path) -> Self {
        let mut sqlite = Command::new("sqlite3");
        sqlite.arg(database).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = sqlite.spawn().expect("sqlite3 starts");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(b"BEGIN IMMEDIATE;\nSELECT 1;\n").expect("it is told");
        let mut answer = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut answer).expect("it answers");
        Self(child, input)
    }

    fn let_go(self) {
        let Self(mut child, input) = self;
        drop(input);
        child.wait().expect("sqlite3 ends");
    }
}

fn one_that_is_locked() -> Outcome {
    need_program("sqlite3")?;
    let stage = Stage::either()?;
    let world = &stage.world;
    for name in ["a", "b"] {
        stage.create("button", name);
        stage.start(name);
    }
    let pid = stage.pid("b", "hypervisor_pid");
    let holder = Holder::of(&world.state().join("virshle.sqlite"));
    kill(stage.pid("a", "hypervisor_pid"), Signal::KILL);
    world.v(["vm", "stop", "b"]).fails(1, &["cannot stop `b`", "is locked by another process", "fuser -v"]);
    assert!(alive(pid), "a stop that cannot be recorded is none");
    assert_eq!(world.state_of("a"), "stopping", "it is not said to run, and not yet known how it ended");
    world.v(["vm", "stop", "a"]).fails(1, &["has ended", "cannot record that yet", "v vm log --supervisor a"]);
    holder.let_go();
    eventually("its end is recorded", LIMIT, || world.state_of("a") == "crashed");
    assert_eq!(world.row("a")["last_exit"]["reason"], "killed");
    world.v(["vm", "stop", "b"]).ok();
    Ok(())
}

fn one_that_is_taken_away() -> Outcome {
    let stage = Stage::either()?;
    let world = &stage.world;
    stage.create("button", "web");
    stage.start("web");
    let pid = stage.pid("web", "hypervisor_pid");
    let (database, aside) = (world.state().join("virshle.sqlite"), world.dir().join("aside"));
    fs::rename(&database, &aside).expect("it goes");
    for args in [&["vm", "ls"][..], &["vm", "stop", "web"], &["vm", "create", "-t", "button"], &["events"]] {
        world.v(args).fails(1, &["virshle.sqlite` is missing", "from a backup"]);
    }
    assert!(!database.exists(), "it is not made anew");
    assert!(alive(pid));
    fs::rename(&aside, &database).expect("it comes back");
    assert_eq!(world.state_of("web"), "running");

    // And the guest ends while it is away.
    fs::rename(&database, &aside).expect("it goes");
    kill(pid, Signal::KILL);
    eventually("it is gone", LIMIT, || !alive(pid));
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!database.exists(), "it is not made anew");
    fs::rename(&aside, &database).expect("it comes back");
    eventually("its end is recorded", LIMIT, || world.state_of("web") == "crashed");
    assert_eq!(world.row("web")["last_exit"]["reason"], "killed");
    stage.start("web");
    Ok(())
}

fn one_that_is_damaged() -> Outcome {
    need_program("sqlite3")?;
    let stage = Stage::either()?;
    let world = &stage.world;
    stage.create("button", "web");
    stage.start("web");
    let pid = stage.pid("web", "hypervisor_pid");
    let database = world.state().join("virshle.sqlite");
    // Those who only look leave a log behind.
    sql(world, "PRAGMA wal_checkpoint(TRUNCATE)");
    let good = fs::read(&database).expect("the database");
    for (what, from, to, words) in [
        ("its header", 0, 100, &["is not a database", "from a backup"][..]),
        ("its pages", 4096, good.len(), &["is damaged", "v doctor", "from a backup"]),
        ("its end", good.len() / 2, 0, &["is damaged", "from a backup"]),
    ] {
        let mut bad = good.clone();
        match to {
            0 => bad.truncate(from),
            to => bad[from..to].fill(0xa5),
        }
        fs::write(&database, &bad).expect("damage");
        for args in [&["vm", "ls"][..], &["vm", "stop", "web"], &["vm", "create", "-t", "button"]] {
            world.v(args).fails(1, words);
        }
        assert!(fs::read(&database).expect("the database") == bad, "{what}: left as it is");
        assert!(alive(pid), "{what}");
        for log in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{log}", database.display()));
        }
        fs::write(&database, &good).expect("a backup");
        assert_eq!(world.state_of("web"), "running", "{what}");
    }
    world.v(["vm", "stop", "web"]).ok();
    Ok(())
}

fn one_that_belongs_to_another() -> Outcome {
    need_root()?;
    let mut world = crate::cli::world();
    world.become_user(65534, 65534);
    world.v(["vm", "create", "-t", "xs", "-n", "a"]).ok();
    let database = world.state().join("virshle.sqlite");
    let root = || std::os::unix::fs::chown(&database, Some(0), Some(0)).expect("it becomes root's");
    root();
    for args in [&["vm", "ls"][..], &["vm", "delete", "a"], &["events"]] {
        world.v(args).fails(1, &["cannot open the database", "virshle.sqlite", "check that you may read and write"]);
    }
    fs::set_permissions(&database, PermissionsExt::from_mode(0o644)).expect("readable");
    assert_eq!(world.ls().len(), 1, "who may read may look");
    world.v(["vm", "delete", "a"]).fails(1, &["cannot be written", "--root DIR"]);
    std::os::unix::fs::chown(&database, Some(65534), Some(65534)).expect("it is given back");
    world.v(["vm", "delete", "a"]).ok();
    world.assert_empty();
    Ok(())
}
