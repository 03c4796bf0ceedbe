//! `v apply` killed at every step that it comes to: the next one with the same words finishes it.
//!
//! The steps are found by a run that traces them. What a supervisor does for it, starts and stops, goes
//! on without it; at any time of that it is killed in the storm.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use super::same::{Essence, essences};
use super::vm;
use crate::crash::left;
use crate::fixtures::payload::{self, Variant};
use crate::lifecycle::{Stage, template};
use crate::network::lan::on_a_host;
use crate::world::{Run, Skip, World, exercised, run, trial};

/// So many tests share the points.
const PARTS: usize = 2;
const LIMIT: Duration = Duration::from_secs(30);

pub fn trials() -> Vec<Trial> {
    let mixed = (0..PARTS).map(|part| {
        let name = format!("declare::killed::at_every_point_of_an_apply [{}/{PARTS}]", part + 1);
        trial(name, move || {
            let stage = stage()?;
            at_every_point(&stage, &Mixed::new(&stage), &["create/", "reshape/", "delete/"], (part, PARTS));
            Ok(())
        })
    });
    let ring = |size: usize| {
        trial(format!("declare::killed::at_every_point_of_an_exchange [{size}]"), move || {
            let stage = stage()?;
            let test = || at_every_point(&stage, &Mixed::ring(&stage, size), &["reshape/recorded"], (0, 1));
            on_a_host(&stage.world, test)
        })
    };
    mixed.chain([2, 3].map(ring)).collect()
}

fn stage() -> Result<Stage, Skip> {
    let mut stage = Stage::either()?;
    stage.world.use_program(&crate::crash::program());
    Ok(stage)
}

/// Two states, with everything between them that an apply can do: VMs come and go, run or do not,
/// and have disks and NICs.
pub struct Mixed {
    before: String,
    after: String,
    /// Those of the second.
    names: Vec<&'static str>,
    /// What an apply needs to go back, with the one VM that is made anew then.
    back: &'static [&'static str],
}

/// What an apply needs to go from either of the two to the other.
pub const WISHES: &[&str] = &["--restart", "--replace", "reshaped"];

impl Mixed {
    fn base(world: &World) -> String {
        let kernel = payload::build(world.dir(), Variant::Button).expect("the payload is built");
        let mut base = template("roomy", &kernel) + "stop-timeout = 10\n";
        for (at, network) in ["lan", "dmz"].iter().enumerate() {
            base += &format!("[[network]]\nname = \"{network}\"\ntype = \"bridge\"\nbridge = \"vt{at}\"\n");
            base += &format!("subnet = \"10.{}.0.0/24\"\n", 44 + at);
        }
        base + &vm("same", "roomy", "")
    }

    /// VMs that exchange what is named for their NICs, all but the last of which run. One is to have a disk
    /// more, and is made anew on the way back.
    fn ring(stage: &Stage, size: usize) -> Self {
        let names = ["same", "one", "two", "three"][..=size].to_vec();
        let state = |after: usize| {
            let vms = names[1..].iter().enumerate().map(|(at, name)| {
                let told = (at + after) % size;
                let net = format!("address = \"10.44.0.{}\", mac = \"02:00:00:00:00:{told:02}\"", 50 + told);
                let disk = if (at, after) == (1, 1) { "disk = [{ name = \"data\", size = \"1MiB\" }]\n" } else { "" };
                let more = format!("running = {}\nnet = [{{ name = \"lan\", {net} }}]\n{disk}", at + 1 < size);
                vm(name, "roomy", &more)
            });
            Self::base(&stage.world) + &vms.collect::<String>()
        };
        Self { before: state(0), after: state(1), names, back: &["--restart", "--replace", "two"] }
    }

    pub fn new(stage: &Stage) -> Self {
        let world = &stage.world;
        let image = world.image("os.img", 1);
        let told = world.file("told.yaml", "#cloud-config\nhostname: told\n");
        let base = Self::base(world);
        let disks = |more: &str| format!("disk = [{{ name = \"os\", path = {image:?}{more} }}");
        let before = vm("restarted", "roomy", "")
            + &vm("reshaped", "roomy", &format!("running = false\nnet = [{{ name = \"lan\" }}]\n{}]", disks("")))
            + &vm("goes", "roomy", &format!("on-remove = \"delete\"\n{}]", disks("")));
        let after = vm("restarted", "roomy", "cmdline = \"quiet\"\nvcpu = 2\nlabels.role = \"front\"")
            + &vm(
                "reshaped",
                "roomy",
                &format!(
                    "running = false\nvcpu = 2\nnet = [{{ name = \"lan\", address = \"10.44.0.77\" }}, {{ name = \"dmz\" }}]\n{}, {{ name = \"data\", size = \"1MiB\" }}]",
                    disks(", size = \"2MiB\"")
                ),
            )
            + &vm("comes", "roomy", &format!("on-remove = \"delete\"\nuser-data = {told:?}\n{}]", disks("")));
        let names = Self::vms(true).map(|(name, _)| name).to_vec();
        Self { before: base.clone() + &before, after: base + &after, names, back: WISHES }
    }

    pub fn configure(&self, stage: &Stage, after: bool) {
        stage.config(if after { &self.after } else { &self.before });
    }

    /// Its VMs: name, and whether it runs.
    pub fn vms(after: bool) -> [(&'static str, bool); 4] {
        let last = if after { "comes" } else { "goes" };
        [("same", true), ("restarted", true), ("reshaped", false), (last, true)]
    }

    /// What there is once `after` is applied.
    fn essences(&self, world: &World) -> Vec<Essence> {
        essences(world, &self.after, &self.names.iter().map(|name| ((*name).to_owned(), true)).collect::<Vec<_>>()).0
    }
}

fn at_every_point(stage: &Stage, mixed: &Mixed, steps: &[&str], (part, parts): (usize, usize)) {
    let world = &stage.world;
    prepare(stage, mixed);
    let same = stage.pid("same", "hypervisor_pid");

    mixed.configure(stage, true);
    let trace = world.dir().join("trace");
    apply(world, &["--restart"], &[("VIRSHLE_FAILPOINT_TRACE", trace.as_os_str())]).ok();
    let wanted = mixed.essences(world);
    in_order(stage).expect("without a crash");
    let text = fs::read_to_string(&trace).expect("the trace");
    // A point of a supervisor is in the matrix of the verbs.
    let mut met = BTreeSet::new();
    let points = text.lines().filter_map(|line| line.strip_prefix("command\t"));
    // One that is come to again is killed the first time.
    let points: Vec<&str> = points.filter(|point| met.insert(*point)).collect();
    for step in steps {
        assert!(points.iter().any(|point| point.starts_with(step)), "no {step} in {points:#?}");
    }
    let ours: Vec<&str> = points.iter().copied().skip(part).step_by(parts).collect();
    assert!(ours.len() > 15, "{points:#?}");

    let mut failed = Vec::new();
    for point in &ours {
        prepare(stage, mixed);
        mixed.configure(stage, true);
        let cut = apply(world, &["--restart"], &[("VIRSHLE_FAILPOINT", OsStr::new(point))]);
        let result = if cut.code.is_none() { finished(stage) } else { Err("it was not reached".to_owned()) };
        let result = result.and_then(|()| {
            let now = mixed.essences(world);
            let wrong: Vec<_> = now.iter().zip(&wanted).filter(|(now, wanted)| now != wanted).collect();
            if wrong.is_empty() { Ok(()) } else { Err(format!("not as without a crash: {wrong:#?}")) }
        });
        if let Err(why) = result {
            failed.push(format!("killed at {point}: {why}\nthe killed one: {}", cut.stderr));
        }
    }
    assert!(failed.is_empty(), "{} of {} points:\n{}", failed.len(), ours.len(), failed.join("\n"));
    assert_eq!(stage.pid("same", "hypervisor_pid"), same, "what does not change runs on through all of it");
    exercised("apply, killed", &format!("at {} of {} points ({}/{parts})", ours.len(), points.len(), part + 1));
}

/// All is as before, whatever there was.
fn prepare(stage: &Stage, mixed: &Mixed) {
    mixed.configure(stage, false);
    let known = stage.world.ls().iter().any(|row| mixed.back.last().is_some_and(|name| row["name"] == *name));
    stage.world.apply(if known { mixed.back } else { &["--restart"] }).ok();
    in_order(stage).expect("prepared");
}

fn apply(world: &World, flags: &[&str], env: &[(&str, &OsStr)]) -> Run {
    let mut command = world.command([&["apply", "--yes"], flags].concat());
    command.envs(env.iter().copied());
    run(command, Duration::from_secs(120))
}

/// One more apply, at once: it waits for what supervisors are bringing to an end for the killed one.
fn finished(stage: &Stage) -> Result<(), String> {
    let world = &stage.world;
    let plan = world.plan(&["--restart"]);
    if plan.rows.iter().any(|row| row["old"] == "missing" || row["change"] == "replace") {
        return Err(format!("something is lost: {:#?}", plan.lines()));
    }
    let next = apply(world, &["--restart"], &[]);
    if next.code != Some(0) {
        return Err(format!("the next apply ends with {:?}: {}{}", next.code, next.stdout, next.stderr));
    }
    in_order(stage)
}

/// Settled, with nothing to repair and nothing left over.
pub fn in_order(stage: &Stage) -> Result<(), String> {
    let world = &stage.world;
    let plan = world.plan(&[]);
    if plan.code != Some(0) || !plan.rows.is_empty() {
        return Err(format!("there is still to do: {:#?}", plan.lines()));
    }
    let repair = world.v(["repair", "--dry-run", "-o", "json"]).ok().stdout;
    if repair.trim() != "[]" {
        return Err(format!("there is still to repair: {repair}"));
    }
    let until = Instant::now() + LIMIT;
    loop {
        let found = left::over(world, None);
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(found.join("; "));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
