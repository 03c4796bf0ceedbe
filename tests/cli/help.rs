use libtest_mimic::Trial;

use crate::trials;
use crate::world::{Outcome, World, need_program, run};

pub fn trials() -> Vec<Trial> {
    trials![every_command_has_help, bad_usage, completions_know_the_names, manual_pages]
}

/// The commands, from the program's own help.
fn commands(world: &World, path: &[&str], found: &mut Vec<Vec<String>>) {
    let help = world.v(path.iter().copied().chain(["--help"])).ok().stdout;
    found.push(path.iter().map(|word| (*word).to_owned()).collect());
    let listed = help.split("Commands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default();
    for line in listed.lines() {
        let Some(name) = line.strip_prefix("  ").and_then(|line| line.split(' ').next()) else { continue };
        if !name.is_empty() && name != "help" {
            commands(world, &[path, &[name]].concat(), found);
        }
    }
}

fn every_command_has_help() -> Outcome {
    let world = World::new();
    let mut found = Vec::new();
    commands(&world, &[], &mut found);
    let names: Vec<String> = found.iter().map(|path| path.join(" ")).collect();
    for wanted in [
        "vm create",
        "vm ls",
        "vm info",
        "vm start",
        "vm stop",
        "vm restart",
        "vm rename",
        "vm protect",
        "vm export",
        "vm autostart",
        "vm pause",
        "vm resume",
        "vm delete",
        "vm console",
        "vm log",
        "vm history",
        "vm ssh",
        "vm wait",
        "vm show-launch",
        "template ls",
        "template show",
        "config check",
        "config schema",
        "plan",
        "apply",
        "events",
        "doctor",
        "repair",
        "completions",
        "man",
        "units",
        "relay",
    ] {
        assert!(names.iter().any(|name| name == wanted), "`v {wanted}` is missing in {names:?}");
    }
    for path in &found {
        let help = world.v(path.iter().map(String::as_str).chain(["-h"])).ok().stdout;
        assert!(!help.starts_with("Usage"), "`v {}` says what it does:\n{help}", path.join(" "));
    }
    assert!(!world.v(["--help"]).ok().stdout.contains("supervise"), "what is internal is not offered");
    assert!(world.v(["--version"]).ok().stdout.starts_with("v "));
    Ok(())
}

fn bad_usage() -> Outcome {
    let world = World::new();
    for args in [&["vm", "strat"][..], &["vm", "create"], &["vm", "start"], &["--no-such"]] {
        world.v(args).fails(2, &["Usage"]);
    }
    world.v(["vm", "strat"]).fails(2, &["start"]);
    world.v(["vm", "ls", "-o", "xml"]).fails(2, &["table, json, yaml"]);
    world.v(["vm", "start", "--all", "a"]).fails(2, &["--all"]);
    Ok(())
}

fn completions_know_the_names() -> Outcome {
    let world = super::world();
    world.v(["vm", "create", "-t", "xs", "-n", "webserver", "--label", "role=web"]).ok();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.v(["completions", shell]).ok().stdout;
        assert!(script.contains("COMPLETE"), "{shell}:\n{script}");
    }
    let bash = need_program("bash")?;
    // What bash does when Tab is pressed behind `v vm start `, and behind `v vm create -t `.
    for (line, word, expected) in [
        ("v vm start ", "", "webserver"),
        ("v vm history ", "", "webserver"),
        ("v vm create -t ", "", "xs"),
        ("v vm sta", "sta", "start"),
        ("v vm rename ", "", "webserver"),
        ("v apply --adopt ", "", "webserver"),
        ("v vm ls --label ", "", "role"),
    ] {
        let mut words: Vec<&str> = line.split(' ').collect();
        if words.last() != Some(&word) {
            words.push(word);
        }
        let script = format!(
            "{}\nCOMP_WORDS=({})\nCOMP_CWORD={}\nCOMP_TYPE=9\n_clap_complete_v v '{word}' x\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            world.v(["completions", "bash"]).ok().stdout,
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1,
        );
        let file = world.file("complete.bash", script);
        let mut command = std::process::Command::new(&bash);
        command.env_clear().env("VIRSHLE_ROOT", world.root()).env("HOME", world.home());
        let dir = crate::world::v().parent().expect("its folder").display().to_string();
        command.env("PATH", format!("{dir}:/usr/bin:/bin")).arg("--norc").arg(file);
        let offered = run(command, std::time::Duration::from_secs(20)).ok();
        assert!(offered.stdout.lines().any(|offer| offer.starts_with(expected)), "{line}: {offered:?}");
    }
    Ok(())
}

fn manual_pages() -> Outcome {
    let world = World::new();
    let page = world.v(["man"]).ok().stdout;
    assert!(page.contains(".TH v 1"), "{page}");
    let dir = world.dir().join("man");
    world.v(["man", "--dir", dir.to_str().expect("a path")]).ok();
    for page in ["v.1", "v-vm.1", "v-vm-create.1", "v-config-schema.1"] {
        assert!(dir.join(page).is_file(), "{page}");
    }
    assert!(!dir.join("v-supervise.1").exists());
    Ok(())
}
