use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use virshle::host::Lock;

use super::{hang_switch, world};
use crate::trials;
use crate::world::{Outcome, World, eventually, exercised, need_program, need_root, run, v};

pub fn trials() -> Vec<Trial> {
    trials![
        nothing_to_repair,
        a_killed_create,
        a_killed_delete,
        a_create_in_progress_is_not_touched,
        folders_of_vms,
        sockets_of_vms,
        half_made_files,
        units_of_vms_that_are_gone,
        what_cannot_be_repaired_is_told_and_the_rest_is_done,
    ]
}

const STRANGE: &str = "6f1b0a1e-91a7-4d2c-9d52-0123456789ab";

/// What a dry run lists, as `kind: file or name`; it changes nothing, so a second one lists the same.
fn listed(world: &World) -> Vec<String> {
    let list = || -> Vec<String> {
        let rows: Vec<Value> =
            serde_json::from_str(&world.v(["repair", "--dry-run", "-o", "json"]).ok().stdout).expect("JSON");
        rows.iter()
            .map(|row| {
                let place = row["where"].as_str().expect("a place").rsplit('/').next().expect("its end");
                let [kind, action] = ["kind", "action"].map(|key| row[key].as_str().expect(key));
                format!("{kind} {place}: {action}")
            })
            .collect()
    };
    let first = list();
    assert_eq!(first, list(), "looking changes nothing");
    first
}

fn assert_in_order(world: &World) {
    let run = world.v(["repair", "--dry-run"]).ok();
    assert_eq!(run.stderr, "nothing to repair\n", "{}", run.stdout);
    let report: Vec<Value> = serde_json::from_str(&world.v(["doctor", "-o", "json"]).stdout).expect("JSON");
    let row = report.iter().find(|row| row["what"] == "left-overs").expect("a row");
    assert_eq!(row["health"], "ok", "{row}");
}

fn nothing_to_repair() -> Outcome {
    let world = World::new();
    for args in [&["repair"][..], &["repair", "--dry-run"], &["repair", "-n", "-o", "json"]] {
        let run = world.v(args).ok();
        assert_eq!(run.stderr, "nothing to repair\n");
        assert_eq!(run.stdout, if args.len() > 2 { "[]\n" } else { "" });
    }
    assert!(!world.state().exists(), "looking makes nothing");
    let world = super::world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    assert_in_order(&world);
    assert_eq!(world.v(["repair"]).ok().stderr, "nothing to repair\n");
    Ok(())
}

/// A create of so many VMs that it is seen at work.
fn creating(world: &World) -> Child {
    let mut command = world.command(["vm", "create", "-t", "xs", "-n", "many", "--count", "150"]);
    let create = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("v starts");
    eventually("it is seen", Duration::from_secs(60), || {
        fs::read_dir(world.state().join("vm")).is_ok_and(|found| found.count() > 2)
    });
    create
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).expect("a pid")
}

fn a_killed_create() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    let mut create = creating(&world);
    create.kill().expect("kill -9");
    create.wait().expect("it ends");
    assert_eq!(world.state_of("many-150"), "creating", "it was killed in time");
    let listed = listed(&world);
    assert_eq!(listed.len(), 150);
    assert!(listed.iter().all(|line| line.starts_with("half-created") && line.ends_with("undo")), "{listed:?}");
    let report: Vec<Value> = serde_json::from_str(&world.v(["doctor", "-o", "json"]).stdout).expect("JSON");
    let row = report.iter().find(|row| row["what"] == "left-overs").expect("a row");
    assert_eq!((&row["health"], &row["detail"]), (&"untidy".into(), &"killed processes left 150 things".into()));
    assert!(row["hint"].as_str().expect("a hint").contains("`v repair`"));

    let run = world.v(["repair"]).ok();
    assert!(run.stderr.contains("put 150 of 150 left-overs in order"), "{}", run.stderr);
    assert_eq!(run.stdout.matches("done").count(), 150);
    assert_in_order(&world);
    assert_eq!(world.ls().len(), 1, "what was whole stays");
    assert_eq!(fs::read_dir(world.state().join("vm")).expect("the folder").count(), 1);
    exercised("killed", "a create");
    Ok(())
}

fn a_create_in_progress_is_not_touched() -> Outcome {
    let world = world();
    let mut create = creating(&world);
    kill_process(pid(&create), Signal::STOP).expect("it stands still");
    assert_eq!(world.state_of("many-150"), "creating");
    assert_eq!(listed(&world), Vec::<String>::new());
    assert_eq!(world.v(["repair"]).ok().stderr, "nothing to repair\n");
    kill_process(pid(&create), Signal::CONT).expect("it goes on");
    assert!(create.wait().expect("it ends").success());
    assert!(world.ls().iter().all(|row| row["state"] == "stopped"));
    assert_in_order(&world);
    Ok(())
}

fn a_killed_delete() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    let uuid = world.row("web")["uuid"].as_str().expect("a uuid").to_owned();
    let switch = hang_switch(&world);
    let mut delete = world.command(["vm", "delete", "web"]).spawn().expect("v starts");
    eventually("it asks the switch", Duration::from_secs(20), || switch.is_asked());
    world.v(["vm", "rename", "web", "db"]).fails(4, &["being deleted"]);
    delete.kill().expect("kill -9");
    delete.wait().expect("it ends");
    drop(switch);
    assert_eq!(listed(&world), [format!("half-deleted {uuid}: finish")]);
    world.v(["repair"]).ok();
    assert_in_order(&world);
    world.assert_empty();
    exercised("killed", "a delete");
    Ok(())
}

fn plant(dir: &Path, files: &[&str]) -> PathBuf {
    fs::create_dir_all(dir).expect("a folder");
    for file in files {
        fs::write(dir.join(file), "planted").expect("a file");
    }
    dir.to_owned()
}

fn folders_of_vms() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "gone"]).ok();
    world.v(["vm", "create", "-t", "xs", "-n", "stays"]).ok();
    let gone = world.row("gone")["uuid"].as_str().expect("a uuid").to_owned();
    world.v(["vm", "delete", "gone"]).ok();
    let vms = world.state().join("vm");
    let [a, b, c] = ["1", "2", "3"].map(|end| format!("{}{end}", &STRANGE[..35]));

    let of_a_deleted_vm = plant(&vms.join(&gone), &["os.raw", "seed.img", "lock"]);
    let half_made = plant(&vms.join(&a), &["os.raw.partial", "supervisor.log"]);
    let elsewhere = world.dir().join("elsewhere");
    plant(&elsewhere, &["precious"]);
    symlink(&elsewhere, half_made.join("link.partial")).expect("a link");
    symlink(elsewhere.join("precious"), of_a_deleted_vm.join("link")).expect("a link");
    fs::remove_file(half_made.join("link.partial")).expect("it goes");
    // What is not touched: disks that this store never knew, one that a process holds, other names, links.
    plant(&vms.join(STRANGE), &["os.raw"]);
    let held = plant(&vms.join(&b), &["os.raw.partial"]);
    let lock = Lock::try_take(&held.join("lock")).expect("the lock");
    plant(&vms.join("mine"), &["os.raw.partial"]);
    symlink(&elsewhere, vms.join(&c)).expect("a link");
    fs::write(vms.join("notes"), "").expect("a file");

    let mut left_alone = [STRANGE, &b, &c, "mine", "notes"].map(|name| format!("vm-folder {name}: leave-alone"));
    let mut all: Vec<String> = [&a, &gone].map(|name| format!("vm-folder {name}: remove")).to_vec();
    all.extend(left_alone.clone());
    all.sort();
    left_alone.sort();
    let sorted = || {
        let mut found = listed(&world);
        found.sort();
        found
    };
    assert_eq!(sorted(), all);
    let run = world.v(["repair"]).ok();
    assert!(run.stderr.contains("put 2 of 2 left-overs in order"), "{}", run.stderr);
    assert!(run.stdout.contains("not ours, left alone"), "{}", run.stdout);
    assert_eq!(sorted(), left_alone);
    assert_in_order(&world);
    assert!(!of_a_deleted_vm.exists() && !half_made.exists());
    for file in [elsewhere.join("precious"), vms.join(STRANGE).join("os.raw"), vms.join("mine/os.raw.partial")] {
        assert_eq!(fs::read(&file).expect("it is there"), b"planted", "{}", file.display());
    }
    assert!(vms.join(&c).is_symlink() && vms.join("notes").exists() && held.join("os.raw.partial").exists());
    assert_eq!(world.state_of("stays"), "stopped");
    drop(lock);
    assert_eq!(sorted().iter().filter(|line| line.ends_with("remove")).count(), 1, "its holder is gone");
    Ok(())
}

fn sockets_of_vms() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    world.v(["vm", "create", "-t", "xs", "-n", "held"]).ok();
    let uuid = |name: &str| world.row(name)["uuid"].as_str().expect("a uuid").to_owned();
    let (web, held) = (uuid("web"), uuid("held"));
    let run = world.root().join("run/virshle/vm");
    let [a, b] = ["1", "2"].map(|end| format!("{}{end}", &STRANGE[..35]));
    let bind = |path: PathBuf| {
        fs::create_dir_all(path.parent().expect("its folder")).expect("a folder");
        UnixListener::bind(path).expect("a socket")
    };
    // Of VMs that do not run: their sockets, and the one on which a launcher waited.
    for dead in [run.join(&web).join("control.sock"), run.join(STRANGE).join("hv/api.sock")] {
        drop(bind(dead));
    }
    drop(bind(run.join(format!("{web}.start"))));
    // In use: a supervisor's lock, another store's guest, a launcher that waits.
    fs::create_dir_all(run.join(&held)).expect("a folder");
    let lock = Lock::try_take(&world.state().join("vm").join(&held).join("lock")).expect("the lock");
    let listeners = [bind(run.join(&a).join("control.sock")), bind(run.join(format!("{b}.start")))];
    plant(&run.join("mine"), &["x"]);

    let mut expected = [&web, STRANGE, &format!("{web}.start")].map(|name| format!("runtime-folder {name}: remove"));
    expected.sort();
    let mut found = listed(&world);
    found.retain(|line| line != "runtime-folder mine: leave-alone");
    found.sort();
    assert_eq!(found, expected);
    world.v(["repair"]).ok();
    assert_in_order(&world);
    let mut left: Vec<String> = fs::read_dir(&run)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    let mut stays = vec![held, a, format!("{b}.start"), "mine".to_owned()];
    stays.sort();
    assert_eq!(left, stays);
    drop((lock, listeners));
    assert_eq!(listed(&world).iter().filter(|line| line.ends_with("remove")).count(), 3, "nobody uses them now");
    world.v(["repair"]).ok();
    assert_in_order(&world);
    Ok(())
}

fn half_made_files() -> Outcome {
    let world = world();
    let cache = plant(&world.state().join("cache"), &["index.json", "mine.raw.partial"]);
    let [dead, alive] = ["ab", "cd"].map(|byte| cache.join(format!("{}.raw.partial", byte.repeat(32))));
    for file in [&dead, &alive, &alive.with_extension("")] {
        fs::write(file, "planted").expect("a file");
    }
    let lock = Lock::try_take(&cache.join(format!("{}.lock", "cd".repeat(32)))).expect("the lock");
    // Before there is a database, and beside one.
    for _ in 0..2 {
        fs::write(&dead, "planted").expect("a file");
        for file in ["virshle.sqlite.new", "virshle.sqlite.new-journal"] {
            fs::write(world.state().join(file), "planted").expect("a file");
        }
        assert_eq!(
            listed(&world),
            [
                format!("cache-file {}: remove", dead.file_name().expect("a name").display()),
                "database-file virshle.sqlite.new: remove".to_owned(),
                "database-file virshle.sqlite.new-journal: remove".to_owned(),
            ]
        );
        world.v(["repair"]).ok();
        assert_in_order(&world);
        assert!(!dead.exists() && !world.state().join("virshle.sqlite.new").exists());
        world.v(["vm", "create", "-t", "xs"]).ok();
    }
    for file in [alive.clone(), alive.with_extension(""), cache.join("index.json"), cache.join("mine.raw.partial")] {
        assert!(file.exists(), "{}", file.display());
    }
    drop(lock);
    assert_eq!(listed(&world).len(), 1, "its maker is gone");
    Ok(())
}

fn what_cannot_be_repaired_is_told_and_the_rest_is_done() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    let switch = hang_switch(&world);
    let mut rename = world.command(["vm", "rename", "web", "db"]).spawn().expect("v starts");
    eventually("it asks the switch", Duration::from_secs(20), || switch.is_asked());
    rename.kill().expect("kill -9");
    rename.wait().expect("it ends");
    drop(switch);
    let seed = world.state().join("vm").join(world.row("db")["uuid"].as_str().expect("a uuid")).join("seed.img");
    let whole = fs::read(&seed).expect("the volume");
    fs::write(&seed, "damaged").expect("it is written");
    let half_made = plant(&world.state().join("vm").join(STRANGE), &["os.raw.partial"]);

    let run = world.v(["repair"]).fails(1, &["cannot repair half-renamed of `db`", "seed.img", "put 1 of 2"]);
    assert!(run.stdout.contains("failed") && run.stdout.contains("done"), "{}", run.stdout);
    assert!(!half_made.exists());
    fs::write(&seed, whole).expect("it is put back");
    world.v(["repair"]).ok();
    assert_in_order(&world);
    Ok(())
}

/// In system mode, on a host of a mount namespace of its own, with a `systemctl` that keeps its
/// units in a file.
fn units_of_vms_that_are_gone() -> Outcome {
    need_root()?;
    let unshare = need_program("unshare")?;
    let mut world = World::new();
    let programs = plant(&world.dir().join("bin"), &[]);
    let (units, log) = (world.dir().join("units"), world.dir().join("log"));
    let systemctl = format!(
        "#!/bin/sh\nfor name; do :; done\ncase $1 in\n\
         list-units) case $name in *\\*) cat {units};; *) grep -F \"$name\" {units}; true;; esac;;\n\
         *) echo \"$1 $name\" >>{log}; grep -vF \"$name\" {units} >{units}.new; mv {units}.new {units};;\nesac\n",
        units = units.display(),
        log = log.display()
    );
    fs::write(programs.join("systemctl"), systemctl).expect("a script");
    fs::set_permissions(programs.join("systemctl"), PermissionsExt::from_mode(0o755)).expect("it may run");
    world.prepend_path(&programs);
    let [failed, active, loaded] = ["1", "2", "3"].map(|end| format!("virshle-vm@{}{end}.service", &STRANGE[..35]));
    let before = format!(
        "{failed} loaded failed failed A VM\n{active} loaded active running A VM\n{loaded} loaded inactive dead A VM\n\
         virshle-vm@other.service loaded active running Not a uuid\n"
    );
    fs::write(&units, &before).expect("the units");

    let v = v();
    let system = |args: &str| {
        let script = format!(
            "mount -t tmpfs t /var/lib && mount -t tmpfs t /run && mkdir -p /run/systemd/system && exec {} {args}",
            v.display()
        );
        let mut command = Command::new(&unshare);
        command.args(["--mount", "sh", "-c", &script]).env_clear();
        command.env("PATH", world.path()).env("HOME", world.home()).stdin(Stdio::null());
        run(command, Duration::from_secs(60))
    };
    let listed = system("repair --dry-run").ok();
    assert!(listed.stderr.contains("2 left-overs;"), "{listed:?}");
    for (unit, action) in [(&failed, "reset"), (&active, "stop")] {
        let line = listed.stdout.lines().find(|line| line.contains(unit.as_str())).expect("its line");
        assert!(line.starts_with("unit ") && line.ends_with(action), "{line}");
    }
    assert_eq!(fs::read_to_string(&units).expect("the units"), before, "a dry run changes nothing");
    let repaired = system("repair").ok();
    assert!(repaired.stderr.contains("put 2 of 2"), "{repaired:?}");
    let after = fs::read_to_string(&units).expect("the units");
    assert!(!after.contains(&failed) && !after.contains(&active) && after.lines().count() == 2, "{after}");
    let log = fs::read_to_string(&log).expect("the log");
    for unit in [&failed, &active] {
        assert!(log.contains(&format!("stop {unit}\nreset-failed {unit}\n")), "{log}");
    }
    assert!(system("repair -n").ok().stderr.contains("nothing to repair"));
    Ok(())
}
