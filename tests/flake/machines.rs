//! The machine tests below tests/nixos, without running one: each host, and the one that the flake's template begins,
//! is what NixOS, the module and `v` take, as far as that is known here; each script is what NixOS's driver takes.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Map, Value, json};

use super::{root, with_lib};
use crate::trials;
use crate::world::{Outcome, Skip, World, need_program, run};

pub fn trials() -> Vec<Trial> {
    trials![every_file_is_run, every_host_is_taken, every_script_is_what_the_driver_takes, the_template_is_taken]
}

fn evaluated() -> Result<&'static Value, Skip> {
    static EVALUATED: OnceLock<Value> = OnceLock::new();
    if let Some(value) = EVALUATED.get() {
        return Ok(value);
    }
    let value = with_lib("tests/flake/machines.nix")?;
    Ok(EVALUATED.get_or_init(|| value))
}

fn tests() -> Result<&'static Map<String, Value>, Skip> {
    Ok(evaluated()?["tests"].as_object().expect("the tests"))
}

/// The module's assertions hold, and `v` has nothing to say against the config.
fn is_taken(name: &str, host: &Value) {
    assert_eq!(host["refused"], Value::Array(Vec::new()), "{name}");
    let world = World::new();
    world.config(&toml::to_string(&host["settings"]).expect("nothing that TOML has not"));
    world.v(["config", "check"]).ok();
}

fn every_file_is_run() -> Outcome {
    let mut files: Vec<String> = fs::read_dir(root().join("tests/nixos"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().trim_end_matches(".nix").to_owned())
        .filter(|name| name != "default" && name != "host")
        .collect();
    files.sort();
    let tests = tests()?;
    assert_eq!(files, tests.keys().map(String::as_str).collect::<Vec<_>>());
    for (name, test) in tests {
        assert_eq!(test["name"], format!("virshle-{name}"));
    }
    Ok(())
}

fn every_host_is_taken() -> Outcome {
    let mut hosts = 0;
    for (name, test) in tests()? {
        for (which, host) in test["hosts"].as_object().expect("its hosts") {
            is_taken(&format!("{name}, {which}"), host);
            hosts += 1;
        }
    }
    // One each, and four specialisations.
    assert_eq!(hosts, 7 + 4);
    Ok(())
}

fn the_template_is_taken() -> Outcome {
    let host = &evaluated()?["template"];
    is_taken("nix/templates/host", host);
    assert_eq!(host["settings"]["vm"][0]["name"], "web");
    assert_eq!(host["firewall"]["interfaces"]["vmbr0"]["allowedTCPPorts"], json!([53]), "its guests may ask for names");
    Ok(())
}

fn every_script_is_what_the_driver_takes() -> Outcome {
    let python = need_program("python3")?;
    let held = |script: &str| {
        let mut command = Command::new(&python);
        command.arg(root().join("tests/flake/script.py")).arg(script);
        run(command, Duration::from_secs(60))
    };
    for (script, wrong) in [
        ("host.suceed('true')", "a machine has no `suceed`"),
        ("host.wait_for_unit('a.service', timout=1)", "`wait_for_unit` takes no `timout`"),
        ("print(json.loads('1'))", "`json` is not there"),
        ("import json", "`json` is not used"),
        ("with subtest('a'):", "IndentationError"),
    ] {
        held(script).fails(1, &[wrong]);
    }
    for (name, test) in tests()? {
        let told = held(test["script"].as_str().expect("a script"));
        assert_eq!(told.code, Some(0), "{name}: {}", told.stderr);
    }
    Ok(())
}
