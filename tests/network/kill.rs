//! A command killed at every step of `up` and of `down`: the next one finishes, or undoes.

use std::fs;

use libtest_mimic::Trial;

use super::lan::{LAN, on_a_host, snapshot};
use crate::trials;
use crate::world::{Outcome, World, run};

pub fn trials() -> Vec<Trial> {
    trials![a_kill_at_every_step_of_up, a_kill_at_every_step_of_down]
}

const SIGKILL: Option<i32> = None;

fn world() -> World {
    let mut world = World::new();
    world.use_program(&crate::crash::program());
    let wire = "[[network]]\nname = \"wire\"\ntype = \"bridge\"\nbridge = \"vtest2\"\nuplink = \"far0\"\n";
    world.config(&format!("{LAN}{wire}"));
    world
}

/// The points that a command comes to.
fn points(world: &World, args: &[&str]) -> Vec<String> {
    let trace = world.dir().join("trace");
    let _ = fs::remove_file(&trace);
    let mut command = world.command(args);
    command.env("VIRSHLE_FAILPOINT_TRACE", &trace);
    run(command, std::time::Duration::from_secs(60)).ok();
    let text = fs::read_to_string(&trace).expect("a trace");
    text.lines().filter_map(|line| Some(line.split_once('\t')?.1.to_owned())).collect()
}

fn killed_at(world: &World, args: &[&str], point: &str) {
    let mut command = world.command(args);
    command.env("VIRSHLE_FAILPOINT", point);
    let run = run(command, std::time::Duration::from_secs(60));
    assert_eq!(run.code, SIGKILL, "{point}: {}", run.stderr);
}

fn a_kill_at_every_step_of_up() -> Outcome {
    let world = world();
    on_a_host(&world, || {
        let before = snapshot();
        for name in ["lan", "wire"] {
            let (up, down) = (["network", "up", name], ["network", "down", name]);
            let points = points(&world, &up);
            assert!(points.len() >= 10, "{points:?}");
            let raised = snapshot();
            world.v(down).ok();
            before.still_holds("after it");
            for point in &points {
                // What the next `up` makes of it is what one that was not killed makes.
                killed_at(&world, &up, point);
                world.v(up).ok();
                assert_eq!(world.network(name)["state"], "up", "{point}");
                snapshot().without_links().is(&raised.without_links(), point);
                world.v(down).ok();
                before.still_holds(point);
                // And `down`, or `repair` and then `down`, leave nothing.
                killed_at(&world, &up, point);
                if point.ends_with("before") {
                    world.v(["repair"]).ok();
                }
                world.v(["network", "down", "--all"]).ok();
                before.still_holds(point);
                world.assert_no_network();
            }
        }
    })
}

fn a_kill_at_every_step_of_down() -> Outcome {
    let world = world();
    on_a_host(&world, || {
        let before = snapshot();
        for name in ["lan", "wire"] {
            let (up, down) = (["network", "up", name], ["network", "down", name]);
            world.v(up).ok();
            let points = points(&world, &down);
            assert!(points.len() >= 6, "{points:?}");
            for point in &points {
                world.v(up).ok();
                killed_at(&world, &down, point);
                let last = point.contains("forgotten/after");
                world.v(["network", "down", "--all"]).ok();
                before.still_holds(point);
                world.assert_no_network();
                if last {
                    continue;
                }
                world.v(up).ok();
                killed_at(&world, &down, point);
                world.v(["repair"]).ok();
                if point.contains("recorded/before") {
                    assert_eq!(world.network(name)["state"], "up");
                    world.v(down).ok();
                }
                before.still_holds(point);
                world.v(up).ok();
                killed_at(&world, &down, point);
                world.v(up).ok();
                assert_eq!(world.network(name)["state"], "up", "{point}");
                world.v(down).ok();
                before.still_holds(point);
            }
        }
    })
}
