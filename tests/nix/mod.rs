//! The NixOS module, evaluated without NixOS: by `nix-instantiate` with the `lib` of a nixpkgs, whose
//! folder `VIRSHLE_NIXPKGS_LIB` names, against NixOS's own options as nixos.nix has them: by name and type.
//!
//! What is not shown by it: that NixOS builds and switches such a system. That is for the machine
//! tests in tests/nixos.

mod contract;
mod refused;
mod rendered;
mod units;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::world::{Skip, exercised, need_program, run, skip};

pub fn trials() -> Vec<Trial> {
    [contract::trials(), refused::trials(), rendered::trials(), units::trials()].into_iter().flatten().collect()
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nix")
}

fn writes_golden() -> bool {
    std::env::var_os("GOLDEN").is_some_and(|value| value == "write")
}

/// All cases and all options, evaluated once.
fn evaluated() -> Result<&'static Value, Skip> {
    static EVALUATED: OnceLock<Value> = OnceLock::new();
    let program = need_program("nix-instantiate")?;
    let Some(lib) = std::env::var_os("VIRSHLE_NIXPKGS_LIB").map(PathBuf::from) else {
        return skip("no `lib` of nixpkgs: name its folder in `VIRSHLE_NIXPKGS_LIB`");
    };
    if !lib.join("default.nix").is_file() {
        return skip(format!("`VIRSHLE_NIXPKGS_LIB` is `{}`, where no `default.nix` is", lib.display()));
    }
    Ok(EVALUATED.get_or_init(|| {
        let mut command = Command::new(program);
        // The store that is none: nothing is written, and nothing is built.
        command.args(["--eval", "--strict", "--json", "--store", "dummy://", "--show-trace"]);
        command.arg(here()).arg("--arg").arg("lib").arg(format!("import (/. + {:?})", lib.to_str().expect("UTF-8")));
        let evaluated = run(command, Duration::from_secs(120)).ok();
        exercised("NixOS module", "evaluated with nixpkgs' lib");
        serde_json::from_str(&evaluated.stdout).expect("JSON")
    }))
}

/// What the host of that name in cases.nix comes to.
fn case(name: &str) -> Result<&'static Value, Skip> {
    let case = &evaluated()?["cases"][name];
    assert!(case.is_object(), "there is a case `{name}` in cases.nix");
    Ok(case)
}
