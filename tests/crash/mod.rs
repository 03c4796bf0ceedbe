//! Every verb, killed at every point of its steps: `v repair` brings the host to order, finds nothing
//! more to mend, the verb then succeeds, and nothing is left behind.
//!
//! The points are found by a run that traces them, and held against `points.txt`, so that a step
//! that comes or goes is seen in a review. Each run in which one kills is a line of a table.

pub mod left;
mod matrix;
mod verbs;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use libtest_mimic::Trial;

use crate::lifecycle::Kind;
use crate::trials;
use crate::world::{Outcome, trial, v};

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![the_shipped_program_has_no_failpoints];
    for kind in [Kind::Real, Kind::Fake] {
        let name = format!("crash::every_point_of_every_verb [{}]", kind.label());
        trials.push(trial(name, move || matrix::run(kind)));
        let name = format!("crash::a_start_goes_on_with_a_reshape [{}]", kind.label());
        trials.push(trial(name, move || matrix::start_after_reshape(kind)));
    }
    trials
}

/// `v` with failpoints, made of the present source.
pub fn program() -> PathBuf {
    let path = v().parent().expect("its folder").join("examples/v-failpoints");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let built = fs::metadata(&path).and_then(|found| found.modified());
    assert!(
        built.is_ok_and(|built| built >= newest(&source)),
        "{} is missing or old: `cargo build --features failpoints --example v-failpoints`",
        path.display()
    );
    path
}

fn newest(path: &Path) -> SystemTime {
    let below = fs::read_dir(path).into_iter().flatten().map(|entry| newest(&entry.expect("an entry").path()));
    match path.extension().is_some_and(|extension| ["rs", "sh", "sql"].iter().any(|part| extension == *part)) {
        true => fs::metadata(path).and_then(|source| source.modified()).expect("a time"),
        // A snapshot, say, is not part of a program.
        false => below.max().unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

fn the_shipped_program_has_no_failpoints() -> Outcome {
    let has = |path: PathBuf| {
        let bytes = fs::read(path).expect("the program is read");
        bytes.windows(WORD.len()).any(|window| window == WORD)
    };
    const WORD: &[u8] = b"VIRSHLE_FAILPOINT";
    assert!(has(program()), "the word is what to look for");
    assert!(!has(v()), "the program that ships knows no failpoints");
    Ok(())
}
