//! Two minutes in which everything is killed: thirty VMs, supervisors and hypervisors ended by
//! SIGKILL at random, commands started and cut short at the same time. What must hold afterwards:
//! the record says what the kernel says, and one `v repair` leaves nothing over.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::fixtures::netns::in_private_network;
use crate::lifecycle::Stage;
use crate::trials;
use crate::world::{Outcome, eventually, exercised, need_program, need_root, skip};

const VMS: usize = 30;
const STORM: Duration = Duration::from_secs(120);
/// A command that takes longer hangs.
const HANG: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Trial> {
    trials![two_minutes_of_kill_9]
}

fn two_minutes_of_kill_9() -> Outcome {
    need_root()?;
    need_program("ip")?;
    need_program("sqlite3")?;
    let stage = Stage::either()?;
    stage.config("[[network]]\nname = \"lan\"\ntype = \"bridge\"\nbridge = \"br7\"\nsubnet = \"10.77.0.0/24\"\n");
    let config = fs::read_to_string(stage.world.config_file()).expect("the config");
    let more = "vcpu = 1\nstop-timeout = 2\nnet = [{ name = \"lan\" }]\n";
    stage.world.config(&config.replace("vcpu = 1\n", more));
    in_private_network(|| {
        for args in [&["link", "add", "br7", "type", "bridge"][..], &["link", "set", "br7", "up"]] {
            assert!(Command::new("ip").args(args).status().expect("ip runs").success(), "ip {args:?}");
        }
        storm(&stage);
    })
    .or_else(skip)
}

fn storm(stage: &Stage) {
    let world = &stage.world;
    let seed = std::process::id().into();
    exercised("kill storm", &format!("{VMS} VMs, {} s, seed {seed}", STORM.as_secs()));
    for template in ["button", "halt", "echo"] {
        world.v(["vm", "create", "-t", template, "-n", template, "--count", &(VMS / 3).to_string()]).ok();
    }
    let names: Vec<String> = world.ls().iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(names.len(), VMS);
    world.v(["vm", "start", "--all"]).ok();

    let tally = Tally::default();
    let until = Instant::now() + STORM;
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let (tally, names) = (&tally, &names);
            scope.spawn(move || command(stage, names, &Random::new(seed, worker), tally, until));
        }
        scope.spawn(|| kill(stage, &names, &Random::new(seed, 7), &tally, until));
        scope.spawn(|| list(stage, &tally, until));
    });
    exercised("kill storm", &format!("seed {seed}: {}", tally.summary()));
    assert!(tally.count("kill -9 of a hypervisor") > 10 && tally.count("kill -9 of a supervisor") > 10, "no storm");

    after(stage);
}

/// What must hold when the storm is over.
fn after(stage: &Stage) {
    let world = &stage.world;
    // A guest that was asked to shut down and does not gets its time, also of a new supervisor.
    eventually("nothing is under way", HANG, || {
        world.v(["repair"]).ok();
        world.ls().iter().all(|row| matches!(row["state"].as_str(), Some("running" | "paused" | "stopped" | "crashed")))
    });
    let left = world.v(["repair", "--dry-run", "-o", "json"]).ok();
    assert_eq!(left.stdout.trim(), "[]", "the second look finds nothing");

    let rows = world.ls();
    let mut recorded = HashSet::new();
    let mut addresses = HashSet::new();
    for row in &rows {
        let name = row["name"].as_str().expect("a name");
        assert!(addresses.insert(row["address"].to_string()), "`{name}` shares {}", row["address"]);
        let info = world.info(name);
        let pids = ["supervisor_pid", "hypervisor_pid"].map(|which| info[which].as_i64());
        match info["state"].as_str().expect("a state") {
            "running" | "paused" => {
                for pid in pids {
                    let pid = i32::try_from(pid.unwrap_or_else(|| panic!("{info:#}"))).expect("a pid");
                    assert!(crate::lifecycle::alive(pid), "`{name}`: process {pid} is not there");
                    recorded.insert(pid);
                }
                assert_eq!(info["unwatched"], false, "`{name}` is watched");
            }
            "stopped" | "crashed" => assert_eq!(pids, [None, None], "`{name}` has no process"),
            other => panic!("`{name}` is left {other}"),
        }
    }
    let there: HashSet<i32> = processes_below(&world.root()).into_keys().collect();
    assert_eq!(there, recorded, "every process is recorded, and every recorded one is there");
    let running = recorded.len() / 2;
    let links = Command::new("ip").args(["-o", "link", "show", "master", "br7"]).output().expect("ip runs");
    assert_eq!(String::from_utf8_lossy(&links.stdout).lines().count(), running, "a tap for each VM that runs");

    let database = world.state().join("virshle.sqlite");
    let check = Command::new("sqlite3").arg(&database).arg("PRAGMA integrity_check").output().expect("sqlite3 runs");
    assert_eq!(String::from_utf8_lossy(&check.stdout).trim(), "ok");

    // And all of it still works.
    world.v(["vm", "start", "--all"]).ok();
    // One that somebody held still stays so.
    let live = |row: &Value| row["state"] == "running" || row["state"] == "paused";
    assert!(world.ls().iter().all(live), "all run again: {:#?}", world.ls());
    world.v(["vm", "delete", "--force", "--all"]).ok();
    world.assert_empty();
    eventually("every process is gone", HANG, || processes_below(&world.root()).is_empty());
}

/// One random command after the other. Each ends with an exit code of ours, or by our own SIGKILL.
fn command(stage: &Stage, names: &[String], random: &Random, tally: &Tally, until: Instant) {
    while Instant::now() < until {
        let name = &names[random.below(names.len())];
        let template = name.split('-').next().expect("a template's name");
        let argv: Vec<&str> = match random.below(20) {
            0..6 => vec!["vm", "start", name],
            6..9 => vec!["vm", "stop", "--timeout", "2", name],
            9..12 => vec!["vm", "stop", "--timeout", "0", "--force", name],
            12..14 => vec!["vm", "restart", "--timeout", "1", "--force", name],
            14 => vec!["vm", "pause", name],
            15 => vec!["vm", "resume", name],
            16 => vec!["vm", "delete", "--force", name],
            17 | 18 => vec!["vm", "create", "-t", template, "-n", name],
            _ => vec!["vm", "info", name],
        };
        let mut child =
            stage.world.command(&argv).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("v starts");
        // Every fifth is cut short.
        let cut = (random.below(5) == 0).then(|| Duration::from_millis(random.below(60) as u64));
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("it is waited for") {
                break status;
            }
            if cut.is_some_and(|cut| started.elapsed() > cut) {
                child.kill().expect("it is killed");
            }
            assert!(started.elapsed() < HANG, "`v {}` hangs", argv.join(" "));
            std::thread::sleep(Duration::from_millis(2));
        };
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().expect("a pipe"), &mut said).expect("stderr is read");
        assert!(!said.contains("panicked"), "`v {}`: {said}", argv.join(" "));
        match (status.code(), status.signal()) {
            (Some(0), _) => tally.add(&format!("{} done", argv[1])),
            (Some(1 | 3 | 4), _) => tally.add(&format!("{} failed or refused", argv[1])),
            (_, Some(9)) => tally.add("command cut short"),
            _ => panic!("`v {}` ended with {status}: {said}", argv.join(" ")),
        }
    }
}

/// Kills a supervisor or a hypervisor, or both.
fn kill(stage: &Stage, names: &[String], random: &Random, tally: &Tally, until: Instant) {
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50 + random.below(250) as u64));
        let name = &names[random.below(names.len())];
        let info = stage.world.v(["vm", "info", name, "-o", "json"]);
        let Ok(rows) = serde_json::from_str::<Vec<Value>>(&info.stdout) else { continue };
        let which: &[(&str, &str)] = match random.below(5) {
            0 | 1 => &[("supervisor_pid", "kill -9 of a supervisor")],
            2 | 3 => &[("hypervisor_pid", "kill -9 of a hypervisor")],
            _ => &[("supervisor_pid", "kill -9 of a supervisor"), ("hypervisor_pid", "kill -9 of a hypervisor")],
        };
        let ours = processes_below(&stage.world.root());
        for (key, what) in which {
            let pid = rows.first().and_then(|row| row[key].as_i64()).and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid) = pid.filter(|pid| ours.contains_key(pid)) {
                // It may have ended by itself meanwhile.
                let _ = rustix::process::kill_process(
                    rustix::process::Pid::from_raw(pid).expect("a pid"),
                    rustix::process::Signal::KILL,
                );
                tally.add(what);
            }
        }
    }
}

/// `ls` works all the time.
fn list(stage: &Stage, tally: &Tally, until: Instant) {
    while Instant::now() < until {
        let run = stage.world.v(["vm", "ls", "-o", "json"]).ok();
        serde_json::from_str::<Vec<Value>>(&run.stdout).expect("ls prints JSON");
        tally.add("ls");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Long-lived processes that belong to a root: supervisors name it in their arguments, hypervisors
/// write their log below it.
fn processes_below(root: &Path) -> BTreeMap<i32, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(words) = fs::read(entry.path().join("cmdline")) else { continue };
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let log = fs::read_link(entry.path().join("fd/1")).unwrap_or_default();
        if log.starts_with(root) && crate::lifecycle::alive(pid) {
            found.insert(pid, words);
        }
    }
    found
}

#[derive(Default)]
struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    fn add(&self, what: &str) {
        *self.0.lock().expect("no panic holds it").entry(what.to_owned()).or_default() += 1;
    }

    fn count(&self, what: &str) -> u64 {
        self.0.lock().expect("no panic holds it").get(what).copied().unwrap_or_default()
    }

    fn summary(&self) -> String {
        let all = self.0.lock().expect("no panic holds it");
        all.iter().map(|(what, count)| format!("{count} × {what}")).collect::<Vec<_>>().join(", ")
    }
}

/// Splitmix64: the same seed gives the same choices, if not the same races.
pub struct Random(AtomicU64);

impl Random {
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(AtomicU64::new(seed << 8 | stream))
    }

    pub fn below(&self, end: usize) -> usize {
        let mut word = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((word ^ (word >> 31)) % end as u64) as usize
    }
}
