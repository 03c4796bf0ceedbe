//! Applies of one state and the other in turn, each killed at any time: the last one, which is not,
//! brings all to what is declared then.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use super::killed::{Mixed, WISHES, in_order};
use crate::lifecycle::Stage;
use crate::storm::Random;
use crate::trials;
use crate::world::{Outcome, exercised};

pub fn trials() -> Vec<Trial> {
    trials![applies_killed_at_any_time]
}

const STORM: Duration = Duration::from_secs(20);
/// It goes on until so many are killed, where all is slow.
const KILLED: u32 = 6;
const LIMIT: Duration = Duration::from_secs(200);

fn applies_killed_at_any_time() -> Outcome {
    let stage = Stage::either()?;
    let (world, mixed) = (&stage.world, Mixed::new(&stage));
    let seed = u64::from(std::process::id());
    let random = Random::new(seed, 0);
    let states = [false, true].map(|after| {
        mixed.configure(&stage, after);
        fs::read_to_string(world.config_file()).expect("the config")
    });
    let (begin, mut killed, mut ended) = (Instant::now(), 0, 0);
    while begin.elapsed() < STORM || killed < KILLED {
        assert!(begin.elapsed() < LIMIT, "no storm: {killed} killed, {ended} not; seed {seed}");
        world.config(&states[random.below(2)]);
        let known = world.ls().iter().any(|row| row["name"] == "reshaped");
        let flags = if known { WISHES } else { &WISHES[..1] };
        let mut command = world.command([&["apply", "--yes"], flags].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("v starts");
        let until = Instant::now() + Duration::from_millis(random.below(900) as u64);
        while child.try_wait().expect("it is waited for").is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        // It may have ended by itself meanwhile.
        let _ = child.kill();
        let status = child.wait().expect("it is waited for");
        match status.code() {
            None => killed += 1,
            // A VM that is still on its way is refused.
            Some(0 | 1 | 4) => ended += 1,
            Some(_) => panic!("`v apply` ended with {status}, seed {seed}"),
        }
    }
    exercised("applies killed at any time", &format!("{killed} killed, {ended} not; seed {seed}"));
    for after in [false, true] {
        mixed.configure(&stage, after);
        let last = world.apply(WISHES);
        assert_eq!(last.code, Some(0), "seed {seed}: {}", last.stderr);
        in_order(&stage).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        for (name, runs) in Mixed::vms(after) {
            assert_eq!(world.state_of(name), if runs { "running" } else { "stopped" }, "`{name}`, seed {seed}");
        }
        assert_eq!(world.ls().len(), 4, "{:#?}", world.ls());
    }
    Ok(())
}
