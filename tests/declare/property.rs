//! For random declared states A and B: B after A is B from scratch, but for who its VMs are; a second
//! apply has nothing to do; and what nobody declared is as it was, to the last byte.
//!
//! `VIRSHLE_SEED=N` runs the cases of a seed that a failure has told again.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use super::Planned;
use super::same::{Essence, Untouched, essences};
use super::states::{Pair, State, Things, name, pair};
use crate::fixtures::netns::in_private_network;
use crate::fixtures::payload::{self, Variant};
use crate::lifecycle::Stage;
use crate::network::lan::on_a_host;
use crate::trials;
use crate::world::{Outcome, Skip, World, exercised, need_root};

pub fn trials() -> Vec<Trial> {
    trials![b_after_a_is_b, b_after_a_is_b_while_they_run]
}

/// So many cases on a host that has much else to do.
const AT_LEAST: u32 = 3;
/// No more begin after so long.
const STILL: Duration = Duration::from_secs(50);
const RUNNING: Duration = Duration::from_secs(30);

fn b_after_a_is_b() -> Outcome {
    need_root()?;
    cases("that do not run", STILL, false)
}

fn b_after_a_is_b_while_they_run() -> Outcome {
    // What is missing for a network is told before the first case.
    on_a_host(&World::new(), || ())?;
    cases("that run", RUNNING, true)
}

fn cases(which: &str, limit: Duration, runs: bool) -> Outcome {
    // Its guest takes no notice of more memory; of the real program, a payload takes it for the power button.
    let stage = if runs { Stage::stand_in()? } else { Stage::either()? };
    let things = things(&stage);
    let seed: u64 = match std::env::var("VIRSHLE_SEED") {
        Ok(seed) => seed.parse().expect("VIRSHLE_SEED is a number"),
        Err(_) => uuid::Uuid::new_v4().as_u64_pair().0,
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: 1000, failure_persistence: None, max_shrink_time: 40_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let (begin, count, failed) = (Instant::now(), Cell::new(0_u32), Cell::new(false));
    let exchanged = Cell::new(0);
    let result = runner.run(&pair(runs), |pair| {
        if begin.elapsed() > limit && count.get() >= AT_LEAST && !failed.get() {
            return Ok(());
        }
        failed.set(true);
        case(&things, &pair, runs);
        failed.set(false);
        count.set(count.get() + 1);
        exchanged.set(exchanged.get() + pair.exchanged);
        Ok(())
    });
    exercised(
        "declared states at random",
        &format!("{} pairs of VMs {which}, {} VMs exchanged their NICs", count.get(), exchanged.get()),
    );
    result.unwrap_or_else(|error| panic!("VIRSHLE_SEED={seed}, case {}: {error}", count.get() + 1));
    assert!(count.get() >= AT_LEAST);
    Ok(())
}

fn things(stage: &Stage) -> Things {
    let world = &stage.world;
    let kernel = payload::build(world.dir(), Variant::Button).expect("the payload is built");
    let text = |number: usize| format!("#cloud-config\nhostname: h{number}\n");
    Things {
        node: format!(
            "[node]\nhypervisor = \"cloud-hypervisor\"\naccel = \"kvm\"\n[node.cloud-hypervisor]\nprogram = {:?}\n",
            stage.program
        ),
        kernel,
        images: [1, 2].map(|mib| world.image(&format!("{mib}.img"), mib)).to_vec(),
        user_data: [1, 2].map(|number| world.file(&format!("{number}.yaml"), text(number))).to_vec(),
    }
}

fn case(things: &Things, pair: &Pair, runs: bool) {
    let [grown, made] = [altered, afresh].map(|way| {
        let (world, mut told) = (World::new(), Told::default());
        let work = || told = way(&world, things, pair, runs);
        // What this host has of networks is no matter here.
        let done = if runs { on_a_host(&world, work) } else { in_private_network(work).map_err(Skip) };
        done.expect("a host of its own");
        told
    });
    assert_eq!(grown.1, made.1, "what declares them");
    for (grown, made) in grown.0.into_iter().zip(made.0) {
        assert_eq!(grown, made, "as it became, and as it is made");
    }
}

/// What is the same of the VMs, and what declares them.
type Told = (Vec<Essence>, String);

/// B after A.
fn altered(world: &World, things: &Things, Pair { a, b, .. }: &Pair, runs: bool) -> Told {
    world.config(&a.config(things));
    let hand = ["vm", "create", "-t", "t0", "-n", "by-hand", "--label", "kept=yes"];
    world.v(if runs { [&hand[..], &["--start"]].concat() } else { hand.to_vec() }).ok();
    let before = Untouched::of(world, "by-hand");
    world.apply(&[]).ok();
    world.assert_settled();
    before.still_holds(world, "by-hand", "nobody declared it");

    world.config(&b.config(things));
    let (were, plan) = (processes(world), world.plan(&["--restart"]));
    let flags = wishes(world, &plan);
    world.apply(&flags.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    world.assert_in_order();
    before.still_holds(world, "by-hand", "nobody declared it");
    let are = processes(world);
    for (vm, process) in were {
        let disturbed = |row: &Value| row["change"] != "live";
        if !plan.of(&vm).any(disturbed) {
            assert_eq!(are.get(&vm), Some(&process), "`{vm}` runs on: {:#?}", plan.lines());
        }
    }
    let rows = world.ls();
    for (number, vm) in a.vms.iter().filter(|(number, _)| !b.vms.contains_key(number)) {
        let left = rows.iter().find(|row| row["name"] == name(*number));
        match (vm.on_remove, left) {
            ("delete", left) => assert_eq!(left, None, "deleted with its declaration"),
            ("stop", left) => assert_eq!(left.expect("it is kept")["state"], "stopped"),
            (_, left) => drop(left.expect("it is kept")),
        }
    }
    told(world, things, b)
}

/// B, and nothing before it.
fn afresh(world: &World, things: &Things, Pair { b, .. }: &Pair, _: bool) -> Told {
    world.config(&b.config(things));
    world.apply(&[]).ok();
    world.assert_in_order();
    told(world, things, b)
}

fn told(world: &World, things: &Things, state: &State) -> Told {
    let vms: Vec<_> = state.vms.iter().map(|(number, vm)| (name(*number), vm.running != "\"leave\"")).collect();
    essences(world, &state.config(things), &vms)
}

/// All that has to be said for a plan to leave nothing undone.
fn wishes(world: &World, plan: &Planned) -> Vec<String> {
    let mut flags = vec!["--restart".to_owned()];
    let asked: BTreeSet<&str> = plan.rows.iter().filter_map(|row| row["needs"].as_str()).collect();
    for need in asked {
        let (flag, vm) = need.split_once(' ').unwrap_or_else(|| panic!("`--restart` is said: {:#?}", plan.lines()));
        assert_eq!(flag, "--replace");
        // A VM that is protected is so until somebody says otherwise.
        world.v(["vm", "protect", "--off", vm]).ok();
        flags.extend([flag.to_owned(), vm.to_owned()]);
    }
    flags
}

/// The hypervisors of those that run, by name.
fn processes(world: &World) -> BTreeMap<String, Value> {
    let rows = world.ls();
    let names = rows.iter().filter(|row| row["state"] == "running").map(|row| row["name"].as_str().expect("a name"));
    names.map(|name| (name.to_owned(), world.info(name)["hypervisor_pid"].clone())).collect()
}
