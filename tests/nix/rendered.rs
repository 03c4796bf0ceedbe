//! From options to the TOML, and what `v` says of it.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{case, evaluated, here, writes_golden};
use crate::trials;
use crate::world::{Outcome, World};

pub fn trials() -> Vec<Trial> {
    trials![
        the_example_is_toml,
        users_become_user_data,
        v_takes_every_config,
        a_vm_of_two_modules,
        an_empty_list_empties,
        settings_are_laid_beside,
    ]
}

fn toml(settings: &Value) -> String {
    toml::to_string_pretty(settings).expect("no null, and nothing else that TOML has not")
}

/// A generated file's path is its name with its content; in a file for people it is the name alone.
fn split(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("/nix/store/")?.split_once(':')
}

pub(super) fn named(settings: &Value) -> Value {
    let mut settings = settings.clone();
    for vm in settings.get_mut("vm").and_then(Value::as_array_mut).into_iter().flatten() {
        for path in vm.get_mut("user-data").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some((name, _)) = split(path.as_str().expect("a path")) {
                *path = json!(format!("/nix/store/{name}"));
            }
        }
    }
    settings
}

/// A world whose config is that, where nothing is run.
pub(super) fn world(settings: &Value) -> World {
    let world = World::new();
    world.config(&toml(settings));
    world
}

fn the_example_is_toml() -> Outcome {
    let example = case("whole")?;
    let file = here().join("example.toml");
    let text =
        format!("# What example.nix becomes. `GOLDEN=write` writes it anew.\n\n{}", toml(&named(&example["settings"])));
    if writes_golden() {
        fs::write(&file, &text).expect("the golden file is written");
    }
    assert_eq!(fs::read_to_string(&file).unwrap_or_default(), text, "not as agreed (`GOLDEN=write` accepts it)");

    let world = world(&named(&example["settings"]));
    world.v(["config", "check"]).ok();
    // The same by the names of the plan: two VMs that are to be made, one of which does not run.
    let other = world.file(
        "other.toml",
        "[[template.vm]]\nname = 'xs'\nvcpu = 1\nvram = 1\ndisk = [{ name = 'os', size = 1 }]\n[[vm]]\nname = 'other'\ntemplate = 'xs'\n",
    );
    let plan = world.v(["plan", "--config", other.to_str().expect("a path"), "-o", "json"]);
    assert_eq!(plan.code, Some(10), "{plan:?}");
    let rows: Value = serde_json::from_str(&plan.stdout).expect("JSON");
    assert_eq!(rows[0]["vm"], "other", "{rows:#}");
    assert!(!plan.stdout.contains("db1"), "the config is not looked at: {}", plan.stdout);
    world.v(["plan", "--config", "/nonexistent.toml"]).fails(2, &["cannot read `/nonexistent.toml`"]);
    Ok(())
}

fn users_become_user_data() -> Outcome {
    let files = &case("whole")?["settings"]["vm"][0]["user-data"];
    let (name, content) = split(files[0].as_str().expect("a path")).expect("a generated file");
    assert_eq!((name, &files[1]), ("db1-users.toml", &json!("/run/secrets/db1.toml")));
    let content: Value = serde_json::from_str(content).expect("JSON");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alice@desk";
    let expected = json!({ "user": [
        { "name": "alice", "shell": "/bin/bash", "ssh": { "authorized_keys": [key] } },
        { "name": "bob", "sudo": false, "ssh": { "authorized_keys": [] } },
    ]});
    assert_eq!(content, expected);

    // `v` reads it as what it is.
    let mut world = World::new();
    world.switch();
    let (code, vars) = (world.file("code.fd", [0; 4096]), world.file("vars.fd", [0; 4096]));
    let users = world.file(name, toml(&content));
    world.config(&format!(
        "node.hypervisor = 'qemu'\nnode.qemu = {{ program = '/bin/true', firmware = {code:?}, vars = {vars:?} }}\n\
         [[template.vm]]\nname = 'xs'\nvcpu = 1\nvram = 1\ndisk = [{{ name = 'blank', size = '1MiB' }}]\n"
    ));
    world.v(["vm", "create", "-t", "xs", "-n", "a", "-u", users.to_str().expect("a path")]).ok();
    Ok(())
}

fn v_takes_every_config() -> Outcome {
    let cases = evaluated()?["cases"].as_object().expect("cases");
    let mut taken = 0;
    for (name, case) in cases.iter().filter(|(name, _)| !name.starts_with("bad-")) {
        let settings = &case["settings"];
        if settings.as_object().expect("a table").is_empty() {
            continue;
        }
        let run = world(&named(settings)).v(["config", "check"]);
        if name == "left-to-v" {
            run.fails(2, &["`vm[0]`", "name"]);
            continue;
        }
        assert_eq!(run.code, Some(0), "{name}: {}\n{}", run.stderr, toml(settings));
        taken += 1;
    }
    assert!(taken >= 10, "{taken}");
    Ok(())
}

fn a_vm_of_two_modules() -> Outcome {
    let vm = &case("merged")?["settings"]["vm"];
    let expected = json!([{
        "name": "a",
        "template": "xs",
        "labels": { "role": "db", "team": "x" },
        "disk": [{ "name": "data", "size": "1G" }, { "name": "os", "size": "10G" }],
        "net": [
            { "name": "lan", "ports": ["8443:443", "8080:80"] },
            { "name": "lan", "mac": "02:00:00:00:00:01" },
        ],
    }]);
    assert_eq!(*vm, expected, "{vm:#}");

    // And `v` knows what is to be done for it.
    let plan = world(&case("merged")?["settings"]).v(["plan", "-o", "json"]);
    assert_eq!(plan.code, Some(10), "{plan:?}");
    let rows: Value = serde_json::from_str(&plan.stdout).expect("JSON");
    assert_eq!((&rows[0]["vm"], &rows[0]["change"]), (&json!("a"), &json!("create")), "{rows:#}");
    Ok(())
}

fn an_empty_list_empties() -> Outcome {
    let settings = &case("emptied")?["settings"];
    assert_eq!(settings["vm"][0], json!({ "name": "a", "template": "xs" }), "what is not said is left out");
    assert_eq!(settings["vm"][1]["net"], json!([{ "name": "lan", "ports": [] }]));
    Ok(())
}

fn settings_are_laid_beside() -> Outcome {
    let settings = &case("settings")?["settings"];
    let names: Vec<_> = settings["network"].as_array().expect("networks").iter().map(|one| &one["name"]).collect();
    assert!(names.contains(&&json!("lan")) && names.contains(&&json!("isle")) && names.len() == 2, "{names:?}");
    assert_eq!(settings["node"], json!({ "hypervisor": "qemu", "accel": "tcg" }));
    assert_eq!(case("off")?["settings"], json!({}), "nothing is said of a host without Virshle");
    assert_eq!(case("off")?["etc"], json!({}));
    assert_eq!(case("empty")?["etc"], json!({}), "a config that says nothing is none");
    Ok(())
}
