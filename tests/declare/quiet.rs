//! Looking costs nothing: a plan starts no process and no thread, whatever there is to look at.
//!
//! A process-id namespace counts them: its numbers are given one after the other, to threads too.

use std::time::Duration;

use libtest_mimic::Trial;

use super::vm;
use crate::fixtures::netns::in_private_network;
use crate::lifecycle::Stage;
use crate::trials;
use crate::world::{Outcome, Skip, World, exercised, need_program, need_root, run, skip, v};

pub fn trials() -> Vec<Trial> {
    trials![a_plan_starts_no_process]
}

const LIMIT: Duration = Duration::from_secs(120);

/// What each of these commands has begotten, and its exit code; one after the other, on a host
/// whose processes are theirs alone and end with the last.
fn begotten(world: &World, commands: &[&str]) -> Vec<(i32, i32)> {
    let program = v();
    let program = program.to_str().expect("a path");
    let lines = commands.join("\n");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/begotten.sh");
    let args = ["--pid", "--fork", "--kill-child", "--mount-proc", "bash", script, program, &lines];
    let run = run(world.other("unshare", args), LIMIT).ok();
    let counts: Vec<(i32, i32)> = run
        .stdout
        .lines()
        .map(|line| {
            let (count, code) = line.split_once(' ').expect("two numbers");
            let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{}{}", run.stdout, run.stderr));
            (number(count), number(code))
        })
        .collect();
    assert_eq!(counts.len(), commands.len(), "{}{}", run.stdout, run.stderr);
    counts
}

fn a_plan_starts_no_process() -> Outcome {
    need_root()?;
    need_program("unshare")?;
    need_program("bash")?;
    if !std::path::Path::new("/proc/sys/kernel/ns_last_pid").exists() {
        return skip("this kernel does not tell the last process id");
    }
    exercised("processes started by `v plan`", "counted in a process-id namespace");
    let stage = Stage::either()?;
    // One of its VMs has a network, which the host does not have yet.
    in_private_network(|| counted(&stage)).map_err(Skip)
}

fn counted(stage: &Stage) {
    let world = &stage.world;
    let declared = vm("runs", "button", "") + &vm("lies", "button", "running = \"leave\"");
    let lan = "[[network]]\nname = \"lan\"\ntype = \"bridge\"\nbridge = \"vt0\"\nsubnet = \"10.44.0.0/24\"\n";
    stage.config(&(lan.to_owned() + &declared + &vm("new", "button", "running = false\nnet = [{ name = \"lan\" }]")));
    let plans = ["plan", "plan --restart -o json", "plan --replace runs"];
    let commands = [
        &plans[..1],
        &["apply --yes", "vm start lies", "plan"],
        &plans[1..],
        // A supervisor may beget a thread at any time. It does not each time.
        &plans,
        &plans,
        &["vm delete --force --all"],
    ]
    .concat();
    let counts = begotten(world, &commands);
    let of = |words: &str| -> Vec<(i32, i32)> {
        commands.iter().zip(&counts).filter(|(command, _)| **command == words).map(|(_, found)| *found).collect()
    };
    for plan in plans {
        let least = of(plan).into_iter().map(|(count, _)| count).min();
        assert_eq!(least, Some(0), "`v {plan}`: {:?}", of(plan));
    }
    assert_eq!(of("plan")[0], (0, 10), "of what is not there yet");
    assert_eq!(of("plan").iter().map(|(_, code)| *code).collect::<Vec<_>>(), [10, 0, 0, 0]);
    assert_eq!(of("plan --replace runs")[0].1, 10);
    // The count can tell: a start has its supervisor and its hypervisor.
    let (count, code) = of("vm start lies")[0];
    assert!(count >= 2 && code == 0, "{counts:?}");
}
