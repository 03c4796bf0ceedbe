use libtest_mimic::Trial;
use serde_json::Value;

use super::world;
use crate::trials;
use crate::world::Outcome;

pub fn trials() -> Vec<Trial> {
    trials![ls_as_a_table, ls_as_data, ls_of_nothing, show_launch, doctor, template]
}

fn ls_as_a_table() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    world.v(["vm", "create", "-t", "xs", "-n", "database", "--vram", "1G"]).ok();
    let table = world.v(["vm", "ls"]).ok();
    assert_eq!(
        table.stdout,
        "ID   NAME       TEMPLATE   STATE     VCPU      RAM   ADDRESS     UP SINCE\n \
         1   web        xs         stopped      1   512MiB   10.44.0.2   -\n \
         2   database   xs         stopped      1     1GiB   10.44.0.3   -\n"
    );
    let wide = world.v(["vm", "ls", "-v"]).ok().stdout;
    let uuid = world.row("web")["uuid"].as_str().expect("a uuid").to_owned();
    for word in ["DISKS", "os 16MiB", "PORTS", "main:v1n0", "HYPERVISOR", "qemu", "UUID", &uuid] {
        assert!(wide.contains(word), "{word} in\n{wide}");
    }
    assert!(!table.stdout.contains('\u{1b}'), "no colour when it is not a terminal");
    let running = world.v(["vm", "ls", "--state", "running", "-o", "json"]).ok();
    assert_eq!(running.stdout.trim(), "[]");
    world.v(["vm", "ls", "--state", "asleep"]).fails(2, &["running"]);
    Ok(())
}

fn ls_as_data() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "--count", "2", "-n", "a"]).ok();
    let json: Vec<Value> = serde_json::from_str(&world.v(["vm", "ls", "-o", "json"]).ok().stdout).expect("JSON");
    let yaml: Vec<Value> = serde_yaml_ng::from_str(&world.v(["vm", "ls", "-o", "yaml"]).ok().stdout).expect("YAML");
    assert_eq!(json, yaml, "the same rows");
    let keys: Vec<_> = json[0].as_object().expect("an object").keys().cloned().collect();
    assert_eq!(
        keys,
        [
            "number",
            "name",
            "template",
            "state",
            "unwatched",
            "vcpu",
            "vram_bytes",
            "address",
            "up_since",
            "hypervisor",
            "last_exit",
            "retries",
            "disks",
            "nics",
            "troubles",
            "uuid",
            "created_at",
            "labels",
            "protected",
            "declared"
        ],
        "scripts rely on these"
    );
    Ok(())
}

fn ls_of_nothing() -> Outcome {
    let world = world();
    let table = world.v(["vm", "ls"]).ok();
    assert_eq!(table.stdout, "");
    assert!(table.stderr.contains("v vm create"), "{}", table.stderr);
    assert_eq!(world.v(["vm", "ls", "-o", "json"]).ok().stdout.trim(), "[]");
    assert!(!world.state().exists(), "looking makes nothing");
    Ok(())
}

fn show_launch() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    let json: Value =
        serde_json::from_str(&world.v(["vm", "show-launch", "web", "-o", "json"]).ok().stdout).expect("JSON");
    assert_eq!(json["argv"][0], "/bin/true");
    assert!(json["argv"].to_string().contains("os.raw"), "{json}");
    let text = world.v(["vm", "show-launch", "web"]).ok().stdout;
    assert!(text.contains("seed.img"), "{text}");
    Ok(())
}

fn doctor() -> Outcome {
    let world = world();
    let report = world.v(["doctor", "-o", "json"]);
    let findings: Vec<Value> = serde_json::from_str(&report.stdout).expect("JSON");
    for what in ["config", "kvm", "cloud-hypervisor", "qemu", "open vswitch", "hugepages", "taps", "state", "ssh"] {
        let finding = findings.iter().find(|finding| finding["what"] == what).unwrap_or_else(|| panic!("{what}"));
        assert!(finding["health"] == "ok" || finding["hint"].is_string(), "what is missing has a hint: {finding}");
    }
    Ok(())
}

fn template() -> Outcome {
    let world = world();
    let table = world.v(["template", "ls"]).ok().stdout;
    assert_eq!(table, "NAME   VCPU      RAM   DISKS      NETWORKS\nxs        1   512MiB   os 16MiB   main (tap)\n");
    let shown = world.v(["template", "show", "xs"]).ok().stdout;
    assert!(shown.contains("10.44.0.0/24") && shown.contains("qemu"), "{shown}");
    let json: Vec<Value> = serde_json::from_str(&world.v(["template", "ls", "-o", "json"]).ok().stdout).expect("JSON");
    assert_eq!(json[0]["name"], "xs");
    Ok(())
}
