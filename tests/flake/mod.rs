//! The flake, as far as it can be held without its nixpkgs: the form of every Nix file, the lock, and what the outputs
//! come to when only the `lib` of a nixpkgs is at hand. That lies in the folder which `VIRSHLE_NIXPKGS_LIB` names.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::world::{Skip, exercised, need_program, run, skip};

mod lock;
mod machines;
mod outputs;
mod sources;

pub fn trials() -> Vec<Trial> {
    [lock::trials(), machines::trials(), outputs::trials(), sources::trials()].into_iter().flatten().collect()
}

fn root() -> &'static Path {
    env!("CARGO_MANIFEST_DIR").as_ref()
}

/// The value of an expression. The store is none: nothing is written, and nothing is built.
fn evaluate(arguments: &[&str]) -> Result<Value, Skip> {
    let mut command = Command::new(need_program("nix-instantiate")?);
    command.args(["--eval", "--strict", "--json", "--store", "dummy://", "--show-trace"]).args(arguments);
    command.current_dir(root());
    Ok(serde_json::from_str(&run(command, Duration::from_secs(120)).ok().stdout).expect("JSON"))
}

/// What a file below the project comes to, which is a function of nixpkgs' `lib`.
fn with_lib(file: &str) -> Result<Value, Skip> {
    let Some(lib) = std::env::var_os("VIRSHLE_NIXPKGS_LIB").map(PathBuf::from) else {
        return skip("no `lib` of nixpkgs: name its folder in `VIRSHLE_NIXPKGS_LIB`");
    };
    if !lib.join("default.nix").is_file() {
        return skip(format!("`VIRSHLE_NIXPKGS_LIB` is `{}`, where no `default.nix` is", lib.display()));
    }
    let value = evaluate(&[file, "--arg", "lib", &format!("import (/. + {:?})", lib.to_str().expect("UTF-8"))])?;
    exercised("Nix files", &format!("{file} evaluated with nixpkgs' lib"));
    Ok(value)
}
