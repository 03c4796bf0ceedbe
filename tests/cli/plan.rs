//! `v plan` itself; what plans come to is in `tests/golden/plans`.

use std::fs;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use super::{config, hang_switch, world};
use crate::trials;
use crate::world::{Outcome, World, skip};

pub fn trials() -> Vec<Trial> {
    trials![
        what_would_be_done_is_told_and_nothing_is_done,
        a_vm_made_by_hand,
        a_wrong_config_changes_nothing,
        a_config_file_that_is_lost_stops_no_vm,
        several_names_in_one_option,
        what_a_network_tells_its_guests,
        what_the_node_says_of_its_vms,
    ]
}

const RESTING: &str = "[[vm]]\nname = 'web'\ntemplate = 'xs'\nrunning = false\n";

/// Everything below the root, with what is in it.
fn files(world: &World) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![world.root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                found.push((path.clone(), fs::read(&path).expect("a file")));
            }
        }
    }
    found.sort();
    found
}

fn rows(world: &World, code: i32, options: &[&str]) -> Vec<Value> {
    let run = world.v(["plan", "-o", "json"].iter().chain(options)).fails(code, &[]);
    assert_eq!(run.stderr, "");
    serde_json::from_str(&run.stdout).expect("rows")
}

fn what_would_be_done_is_told_and_nothing_is_done() -> Outcome {
    let world = world();
    world.config(&config(&world, RESTING));
    let before = files(&world);
    let run = world.v(["plan"]).fails(10, &["1 VM to create"]);
    assert!(run.stdout.contains("xs: 1 vCPU, 512MiB, disk os 16MiB, net main"), "{}", run.stdout);
    assert!(!run.stderr.contains("error"), "{}", run.stderr);
    assert_eq!(rows(&world, 10, &[])[0]["change"], "create");
    assert_eq!(files(&world), before, "a plan is only told");

    world.v(["apply", "--yes"]).ok();
    let run = world.v(["plan"]).ok();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", "nothing to do\n"));
    assert_eq!(rows(&world, 0, &[]), Vec::<Value>::new());

    // The switch is not asked.
    let switch = hang_switch(&world);
    let folder = world.info("web")["folder"].as_str().expect("a folder").to_owned();
    fs::rename(format!("{folder}/os.raw"), world.dir().join("aside.raw")).expect("the disk is taken away");
    let before = files(&world);
    let run = world.v(["plan"]).fails(10, &["1 change of `web` waits for `--replace web`"]);
    assert!(run.stdout.contains("missing"), "{}", run.stdout);
    assert!(run.took < Duration::from_secs(5), "{:?}", run.took);
    assert!(!switch.is_asked(), "a plan starts no program");
    assert_eq!(files(&world), before, "nor is it done when something is wrong");
    world.v(["plan", "--replace", "wbe"]).fails(2, &["did you mean `web`?"]);
    Ok(())
}

fn a_vm_made_by_hand() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    world.v(["vm", "create", "-t", "xs", "-n", "lab"]).ok();
    world.config(&config(&world, &format!("{RESTING}vcpu = 2\n")));
    world.v(["plan"]).fails(4, &["refused: `web`: a VM that was made by hand", "hint: `v apply --adopt web`"]);
    let refused = rows(&world, 4, &[]);
    assert_eq!((refused.len(), &refused[0]["change"]), (1, &Value::from("refused")), "{refused:?}");
    let adopted = rows(&world, 10, &["--adopt", "web"]);
    let fields: Vec<_> = adopted.iter().map(|row| row["field"].as_str().expect("a field")).collect();
    assert_eq!(fields, ["declared", "vcpu"], "what nobody declares is nobody's business");
    Ok(())
}

fn a_wrong_config_changes_nothing() -> Outcome {
    let world = world();
    world.config(&config(&world, RESTING));
    world.v(["apply", "--yes"]).ok();
    let before = world.ls();
    world.config(&config(&world, &RESTING.replace("'xs'", "'sx'")));
    for verb in [&["plan"][..], &["apply", "--yes"]] {
        let run = world.v(verb).fails(2, &["there is no such `[[template.vm]]`", "did you mean `xs`?"]);
        assert_eq!(run.stdout, "");
    }
    assert_eq!(world.ls(), before, "what was applied is in force");
    Ok(())
}

fn a_config_file_that_is_lost_stops_no_vm() -> Outcome {
    let world = world();
    let main = world.config_file();
    let drop_ins = main.with_file_name("config.d");
    fs::create_dir_all(&drop_ins).expect("a folder");
    fs::write(drop_ins.join("10.toml"), config(&world, &RESTING.replace("'web'", "'kept'"))).expect("a drop-in");
    world.config(&format!("{RESTING}{}", RESTING.replace("'web'", "'db'")));
    world.v(["apply", "--yes"]).ok();
    let before = world.ls();
    assert_eq!(before.len(), 3);

    fs::remove_file(&main).expect("it is lost");
    for verb in [&["plan"][..], &["apply", "--yes"], &["plan", "--replace", "web"]] {
        let gone = format!("there is no config file `{}`", main.display());
        let run = world.v(verb).fails(2, &[&gone, "no drop-in declares `web` or `db`", "put it back", "an empty"]);
        assert_eq!(run.stdout, "");
    }
    assert_eq!(world.ls(), before, "nothing was done");
    let empty = world.file("empty.toml", "");
    world.v(["plan", "--config", empty.to_str().expect("a path")]).fails(10, &["2 VMs to let go"]);
    // What needs no plan goes on.
    world.v(["vm", "create", "-t", "xs", "-n", "lab"]).ok();
    // With the drop-ins gone too there is nothing to compare with.
    let aside = drop_ins.with_file_name("aside.d");
    fs::rename(&drop_ins, &aside).expect("they are lost, too");
    world.v(["plan"]).fails(2, &["there is no config file"]);
    world.v(["apply", "--yes"]).fails(2, &["there is no config file"]);
    fs::rename(&aside, &drop_ins).expect("they are back");

    world.config("");
    world.v(["apply", "--yes"]).ok();
    assert_eq!((&world.row("web")["declared"], &world.row("kept")["declared"]), (&false.into(), &true.into()));
    // Who never had one misses nothing.
    fs::remove_file(&main).expect("it goes");
    world.v(["plan"]).ok();
    Ok(())
}

fn several_names_in_one_option() -> Outcome {
    let world = world();
    let names = ["web", "db", "mail"];
    for name in names {
        world.v(["vm", "create", "-t", "xs", "-n", name]).ok();
    }
    world.config(&config(&world, &names.map(|name| RESTING.replace("'web'", &format!("'{name}'"))).concat()));
    let adopted = rows(&world, 10, &["--adopt", "web,db", "--adopt", "mail"]);
    assert!(adopted.len() == 3 && adopted.iter().all(|row| row["field"] == "declared"), "{adopted:?}");
    for wrong in ["web,", "web,,db", ",", "web, db"] {
        world.v(["plan", "--adopt", wrong]).fails(2, &["--adopt"]);
    }
    world.v(["plan", "--adopt", "web,nobody"]).fails(2, &["`--adopt nobody`"]);
    world.v(["apply", "--yes", "--adopt", "web,db,mail"]).ok();
    let replaced = rows(&world, 10, &["--replace", "web,mail"]);
    let vms: Vec<_> = replaced.iter().map(|row| row["vm"].as_str().expect("a name")).collect();
    assert_eq!(vms, ["web", "mail"]);
    Ok(())
}

fn what_a_network_tells_its_guests() -> Outcome {
    let world = world();
    let lan = |keys: &str| {
        let more = format!("subnet = \"10.44.0.0/24\"\n{keys}");
        world.config(&config(&world, RESTING).replace("subnet = \"10.44.0.0/24\"\n", &more));
    };
    world.config(&config(&world, RESTING));
    world.v(["apply", "--yes"]).ok();
    let address = || world.info("web")["spec"]["nics"][0]["address"].clone();
    let (before, has_ipv6) = (address(), !address()["ip6"].is_null());
    for (keys, key, value, differs) in [
        ("domain = 'lab'", "domain", Value::from("lab"), true),
        ("domain = 'lab'\nsubnet6 = 'fd00:1::/64'", "ip6", Value::from("fd00:1::2/64"), has_ipv6),
        ("domain = 'lab'\nsubnet6 = false", "ip6", Value::Null, has_ipv6),
        ("domain = 'lab'", "ip6", before["ip6"].clone(), has_ipv6),
        ("", "domain", before["domain"].clone(), true),
    ] {
        lan(keys);
        let fields: Vec<Value> = match differs {
            true => rows(&world, 10, &[]).iter().map(|row| row["field"].clone()).collect(),
            false => rows(&world, 0, &[]),
        };
        assert_eq!(fields, if differs { vec![Value::from("net.0.address")] } else { vec![] }, "{keys}");
        world.v(["apply", "--yes"]).ok();
        assert!(!differs || address()[key] == value, "{keys}: {}", address());
        assert_eq!(rows(&world, 0, &[]), Vec::<Value>::new(), "{keys}");
    }
    assert_eq!(address(), before);
    Ok(())
}

fn what_the_node_says_of_its_vms() -> Outcome {
    let world = world();
    let right = config(&world, RESTING);
    world.config(&right);
    world.v(["apply", "--yes"]).ok();
    let spec = || world.info("web")["spec"].clone();
    let changed = |text: &str, field: &str| {
        world.config(text);
        let rows: Vec<Value> = rows(&world, 10, &[]).iter().map(|row| row["field"].clone()).collect();
        assert_eq!(rows, [field]);
        world.v(["apply", "--yes"]).ok();
        world.v(["plan"]).ok();
    };
    let other = world.file("other.fd", [2; 4096]);
    changed(&right.replace("vars.fd", "other.fd"), "firmware");
    assert_eq!(spec()["boot"]["vars"], other.to_str().expect("a path"));
    let own = format!("{}/efivars.fd", world.info("web")["folder"].as_str().expect("a folder"));
    assert_eq!(fs::read(own).expect("its variables")[..], [1; 4096], "it goes on with its own");

    changed(&right, "firmware");
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return skip("`/dev/kvm` does not open");
    }
    let was = spec()["accel"].clone();
    for word in if was == "tcg" { ["kvm", "tcg"] } else { ["tcg", "kvm"] } {
        changed(&right.replace("[node]\n", &format!("[node]\naccel = \"{word}\"\n")), "accel");
        assert_eq!(spec()["accel"], word);
    }
    // Left to Virshle again it stays.
    world.config(&right);
    world.v(["plan"]).ok();
    Ok(())
}
