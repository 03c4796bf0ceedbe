//! Whoever is killed at whatever point of a change: the rules are the old ones or the new ones.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use super::child::{command, run};
use super::lab::{as_host, nft};
use crate::trials;
use crate::world::{Outcome, exercised, need_program};

pub fn trials() -> Vec<Trial> {
    trials![killed_at_any_time, killed_at_certain_points]
}

const THEIRS: &str = "add table inet theirs; add chain inet theirs c; add rule inet theirs c counter drop";

/// The rules as they are; what they counted is left out.
fn rules() -> String {
    nft(&["-s", "list", "ruleset"])
}

/// `[old, new]`, from whole changes.
fn both() -> [String; 2] {
    nft(&[THEIRS]);
    let both = ["old", "new"].map(|which| {
        run(&format!("apply {which}"), None).expect("it is applied");
        assert_eq!(rules(), rules());
        rules()
    });
    assert!(both[0] != both[1] && both.iter().all(|rules| rules.contains("table inet theirs")));
    // A state does not depend on the one before.
    run("apply old", None).expect("it is applied");
    assert_eq!(rules(), both[0]);
    both
}

/// Until nobody of its process group is left, who might still be at it.
fn end(mut child: Child) {
    let group = Pid::from_child(&child);
    child.wait().expect("it ends");
    let started = Instant::now();
    while test_kill_process_group(group) != Err(Errno::SRCH) {
        assert!(started.elapsed() < Duration::from_secs(30), "somebody of it lives on");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn killed_at_any_time() -> Outcome {
    as_host(|| {
        let both = both();
        let started = Instant::now();
        run("apply new", None).expect("it is applied");
        let whole = started.elapsed();
        let mut counts = [0; 2];
        const TIMES: u32 = 20;
        for time in 0..=TIMES {
            // Its `nft` with it, or left to end by itself.
            for with_nft in [true, false] {
                let before = usize::from(rules() == both[1]);
                let target = ["new", "old"][before];
                let mut child = command(&format!("apply {target}"), None)
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("it runs");
                std::thread::sleep(whole * time * 5 / (4 * TIMES));
                if with_nft {
                    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                } else {
                    let _ = child.kill();
                }
                end(child);
                let after = rules();
                assert!(both.contains(&after), "neither the old nor the new rules:\n{after}");
                counts[usize::from(after != both[before])] += 1;
            }
        }
        exercised(
            "firewall changes killed",
            &format!("{} stayed the old rules, {} became the new", counts[0], counts[1]),
        );
        assert!(counts[0] > 0, "none was killed in time");
        run("apply new", None).expect("nothing is in the way of the next");
        assert_eq!(rules(), both[1]);
    })
}

/// Programs named `nft` that do a certain thing before or after the real one has done its work.
fn killed_at_certain_points() -> Outcome {
    let real = need_program("nft")?;
    let dir = tempfile::tempdir().expect("a folder");
    let real = real.display().to_string();
    let rows = [
        ("dies before it reads", "kill -9 $$".to_owned(), Some(0)),
        ("dies with its input half read", "head -c 1000 >/dev/null; kill -9 $$".to_owned(), Some(0)),
        ("dies after the change", format!("{real} \"$@\"; kill -9 $$"), Some(1)),
        // The one that would have fed it is gone: it must not take a part for the whole.
        ("outlives the one who asks", format!("kill -9 $PPID; exec {real} \"$@\""), Some(1)),
        ("outlives the one who asks for a while", format!("kill -9 $PPID; sleep 0.2; exec {real} \"$@\""), Some(1)),
        ("only checks, then dies", format!("{real} -c \"$@\"; kill -9 $$"), Some(0)),
    ];
    let path = dir.path().to_owned();
    as_host(move || {
        let both = both();
        for (what, script, expected) in rows {
            run("apply old", None).expect("the old rules");
            program(&path, "nft", &script);
            let child = command("apply new", Some(&path)).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            end(child.expect("it runs"));
            let after = both.iter().position(|rules| *rules == self::rules());
            assert_eq!(after, expected, "{what}");
        }
    })
}

pub fn program(dir: &Path, name: &str, script: &str) {
    let path = dir.join(name);
    // Another name first: a file that is open for writing cannot be run.
    let new = dir.join(format!("{name}.new"));
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).expect("a program");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("it may be run");
    fs::rename(new, path).expect("it is there");
}
