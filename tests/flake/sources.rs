//! Every Nix file parses, has the form of the flake's formatter, and names nothing that it does not use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use super::root;
use crate::trials;
use crate::world::{Outcome, exercised, need_program, run};

pub fn trials() -> Vec<Trial> {
    trials![every_file_parses, every_file_is_formatted, nothing_is_unused]
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "nix") {
            found.push(path);
        }
    }
}

fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    below(root(), &mut found);
    found.sort();
    assert!(found.len() > 1, "{found:?}");
    found
}

/// Runs a checker of all files; what it says of a bad one is the failure.
fn holds(program: &str, args: &[&str], bad: &str) -> Outcome {
    let program = need_program(program)?;
    let check = |files: &[PathBuf]| {
        let mut command = Command::new(&program);
        command.args(args).args(files).env("NO_COLOR", "1");
        run(command, Duration::from_secs(60))
    };
    let dir = tempfile::tempdir().expect("a folder");
    let wrong = dir.path().join("wrong.nix");
    fs::write(&wrong, bad).expect("a file");
    assert_ne!(check(&[wrong]).code, Some(0), "{program:?} finds nothing wrong with {bad:?}");
    check(&files()).ok();
    exercised("Nix files", &program.file_name().expect("a name").to_string_lossy());
    Ok(())
}

fn every_file_parses() -> Outcome {
    holds("nix-instantiate", &["--store", "dummy://", "--parse"], "{ a = 1 }\n")
}

fn every_file_is_formatted() -> Outcome {
    holds("nixfmt", &["--check"], "{ a=1; }\n")
}

fn nothing_is_unused() -> Outcome {
    holds("deadnix", &["--fail"], "{ used, unused }: used\n")
}
