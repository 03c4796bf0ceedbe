//! The whole life of VMs on cloud-hypervisor, against real processes: the real program when it is on
//! `PATH`, and always the stand-in that speaks the same API, so that the two are held to one contract.
//! What boots is a payload of a few hundred bytes, which runs even where no Linux guest could.

mod again;
mod ends;
mod faults;
mod grow;
mod handover;
mod helpers;
mod history;
mod life;
mod many;
mod ports;
mod privilege;
mod repair;
mod restart;
mod watchdog;

use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::fixtures::payload::{self, Variant};
use crate::world::{Outcome, Skip, World, exercised, need_program, skip, trial};

type Test = fn(&Stage) -> Outcome;

pub fn trials() -> Vec<Trial> {
    let tests: Vec<(&str, Test)> = [
        life::TESTS,
        again::TESTS,
        ends::TESTS,
        faults::TESTS,
        grow::TESTS,
        handover::TESTS,
        helpers::TESTS,
        history::TESTS,
        many::TESTS,
        ports::TESTS,
        privilege::TESTS,
        repair::TESTS,
        restart::TESTS,
    ]
    .concat();
    let mut trials = Vec::new();
    for (name, test) in tests {
        for kind in [Kind::Real, Kind::Fake] {
            trials.push(trial(format!("lifecycle::{name} [{}]", kind.label()), move || test(&Stage::new(kind)?)));
        }
    }
    trials.extend(watchdog::trials());
    trials.extend(grow::qemu());
    trials
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Real,
    Fake,
}

impl Kind {
    pub fn label(self) -> &'static str {
        if matches!(self, Kind::Real) { "cloud-hypervisor" } else { "stand-in" }
    }
}

/// A world with a hypervisor.
pub struct Stage {
    pub world: World,
    pub program: PathBuf,
    pub kind: Kind,
}

impl Stage {
    /// For what depends on how many descriptors a hypervisor needs.
    pub fn stand_in() -> Result<Self, Skip> {
        Self::new(Kind::Fake)
    }

    /// The real program where it can run, else the stand-in: for what is about neither.
    pub fn either() -> Result<Self, Skip> {
        Self::new(Kind::Real).or_else(|_| Self::new(Kind::Fake))
    }

    pub fn new(kind: Kind) -> Result<Self, Skip> {
        let program = match kind {
            Kind::Real => {
                let program = need_program("cloud-hypervisor")?;
                if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
                    return skip("/dev/kvm cannot be opened");
                }
                program
            }
            Kind::Fake => crate::world::v().parent().expect("its folder").join("examples/cloud-hypervisor"),
        };
        assert!(program.is_file(), "{} is built by `cargo build --examples`", program.display());
        let real = matches!(kind, Kind::Real);
        let version = std::process::Command::new(&program).arg("--version").output().expect("it says its version");
        let version = String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
        exercised("hypervisor", if real { &version } else { "stand-in for cloud-hypervisor" });
        let world = World::new();
        let stage = Self { world, program, kind };
        stage.config("");
        Ok(stage)
    }

    /// A template for each payload, named like it: `halt`, `poweroff`, `button`, `echo`, `crash`.
    pub fn config(&self, more: &str) {
        let mut text = format!(
            "[node]\nhypervisor = \"cloud-hypervisor\"\naccel = \"kvm\"\n[node.cloud-hypervisor]\nprogram = {:?}\n",
            self.program
        );
        for (name, variant) in [
            ("halt", Variant::Halt),
            ("poweroff", Variant::Poweroff),
            ("button", Variant::Button),
            ("echo", Variant::Echo),
            ("crash", Variant::Crash),
        ] {
            let kernel = payload::build(self.world.dir(), variant).expect("the payload is built");
            text += &template(name, &kernel);
        }
        self.world.config(&(text + more));
    }

    pub fn create(&self, template: &str, name: &str) {
        self.world.v(["vm", "create", "-t", template, "-n", name]).ok();
    }

    pub fn start(&self, name: &str) {
        self.world.v(["vm", "start", name]).ok();
    }

    pub fn pid(&self, name: &str, which: &str) -> i32 {
        i32::try_from(self.world.info(name)[which].as_i64().unwrap_or_else(|| panic!("`{name}` has no {which}")))
            .expect("a pid")
    }

    /// Whether it runs by now in another process than that: one look, as between two it may end.
    pub fn runs_anew(&self, name: &str, before: i32) -> bool {
        let info = self.world.info(name);
        info["state"] == "running" && info["hypervisor_pid"].as_i64().is_some_and(|pid| pid != i64::from(before))
    }

    pub fn log(&self, name: &str) -> String {
        self.world.v(["vm", "log", name]).stdout
    }
}

pub fn template(name: &str, kernel: &Path) -> String {
    format!("[[template.vm]]\nname = \"{name}\"\nvcpu = 1\nvram = \"64MiB\"\nkernel = {kernel:?}\n")
}

pub fn kill(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).expect("a pid"), signal)
        .expect("the signal is sent");
}

/// Whether the process is there: its first thread may be a zombie while others have not ended yet.
pub fn alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let threads: u32 = fields[17].parse().expect("a number of threads");
    !matches!(fields[0], "Z" | "X") || threads > 1
}

/// How many threads of QEMU run a vCPU.
pub fn vcpu_threads(pid: i64) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("CPU ")).count()
}
