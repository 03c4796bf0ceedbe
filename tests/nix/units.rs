//! What the module makes of the host: its units, users, folders, firewall and switch.

use std::fs;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::case;
use crate::trials;
use crate::world::{Outcome, World, run, v};

pub fn trials() -> Vec<Trial> {
    trials![
        no_guest_ends_for_a_new_system,
        a_new_config_is_applied,
        what_would_change_is_printed,
        the_build_checks_the_config,
        folders_and_users,
        another_user,
        dpdk_and_hugepages,
        the_firewall_opens_what_is_served,
    ]
}

/// Where the package's program would be.
const PROGRAM: &str = "/nix/store/virshle/bin/v";
const VM: &str = "\
    [[template.vm]]\nname = 'xs'\nvcpu = 1\nvram = 1\ndisk = [{ name = 'os', size = 1 }]\n\
    [[vm]]\nname = 'a'\ntemplate = 'xs'\n";

fn no_guest_ends_for_a_new_system() -> Outcome {
    let host = case("vhost")?;
    let services = host["services"].as_object().expect("services");
    let running = ["virshle-vm@", "virshle-network@", "virshle@", "virshle-shutdown", "virshle-autostart"];
    for name in running.iter().chain(&["ovsdb", "ovs-vswitchd"]) {
        assert_eq!(services[*name]["restartIfChanged"], false, "{name}");
        assert_eq!(services[*name]["stopIfChanged"], false, "{name}");
    }
    // Each that is laid over a unit of the package meets one there.
    let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    for (name, unit) in services {
        if unit["overrideStrategy"] == "asDropin" {
            assert!(packaged.join(format!("{name}.service")).is_file(), "{name}");
            assert_eq!(unit["environment"]["PATH"], "/run/current-system/sw/bin", "{name}");
        }
    }
    assert_eq!(host["sockets"]["virshle"]["wantedBy"], json!(["sockets.target"]));
    assert_eq!(services["virshle-autostart"]["wantedBy"], json!(["multi-user.target"]));
    assert_eq!(case("off")?["services"], json!({}), "a host without Virshle");
    Ok(())
}

fn a_new_config_is_applied() -> Outcome {
    let (before, after) = (case("whole")?, case("changed")?);
    let apply = |host: &Value| host["services"]["virshle-apply"].clone();
    assert_eq!(apply(before)["wantedBy"], json!(["multi-user.target"]));
    assert_eq!(apply(before)["restartIfChanged"], true);
    assert_eq!(apply(before)["restartTriggers"], json!([before["etc"]["virshle/config.toml"]]));
    assert_ne!(apply(before)["restartTriggers"], apply(after)["restartTriggers"], "one label is another");
    // All else of the system is as it was: no other unit is started anew.
    let others = |host: &Value| {
        let mut services = host["services"].clone();
        services.as_object_mut().expect("services").remove("virshle-apply");
        services
    };
    assert_eq!(others(before), others(after));
    for none in ["empty", "other-user"] {
        let unit = apply(case(none)?);
        assert_eq!(unit["restartIfChanged"], false, "{none}: nothing new is applied");
        assert_eq!((&unit["wantedBy"], &unit["restartTriggers"]), (&json!([]), &json!([])), "{none}");
    }
    Ok(())
}

fn what_would_change_is_printed() -> Outcome {
    let host = case("whole")?;
    let script = &host["activationScripts"]["virshle-plan"];
    assert_eq!(script["supportsDryActivation"], true);
    let text = script["text"].as_str().expect("a script");
    let config = host["etc"]["virshle/config.toml"].as_str().expect("a path");
    assert!(text.contains("[ \"$NIXOS_ACTION\" = dry-activate ]"), "{text}");
    assert!(text.contains(&format!("/bin/v plan --config {config}")), "the new one, not the one in force: {text}");
    assert_eq!(case("other-user")?["activationScripts"], json!({}));

    // As the system's activation runs it, with `v` and with files that are here.
    let world = World::new();
    let new = world.file("new.toml", VM);
    let text = text.replace(config, new.to_str().expect("a path")).replace(PROGRAM, v().to_str().expect("a path"));
    let activated = |action: &str| {
        let mut shell = world.other("sh", ["-eu", "-c", &text]);
        shell.env("NIXOS_ACTION", action);
        run(shell, Duration::from_secs(60)).ok()
    };
    let plan = activated("dry-activate");
    assert!(plan.stdout.contains("create"), "{plan:?}");
    assert_eq!(activated("switch").stdout, "", "a switch applies, and does not plan");
    world.assert_empty();
    Ok(())
}

fn the_build_checks_the_config() -> Outcome {
    let script = case("whole")?["script"].as_str().expect("a script");
    let check = "/bin/v --root \"$PWD\" config check \"$rendered\"\n";
    assert!(script.contains(check), "{script}");

    // As the builder runs it, in a folder of its own.
    let world = World::new();
    let (rendered, out) = (world.dir().join("rendered.toml"), world.dir().join("out.toml"));
    let build = |text: &str| {
        fs::write(&rendered, text).expect("a file");
        let script = script.replace(PROGRAM, v().to_str().expect("a path"));
        let mut shell = world.other("sh", ["-e", "-c", &script]);
        shell.current_dir(world.home()).env_remove("VIRSHLE_ROOT").env("rendered", &rendered).env("out", &out);
        run(shell, Duration::from_secs(60))
    };
    let wrong = build(&VM.replace("template = 'xs'", "template = 'xl'"));
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("`xl`") && !out.exists(), "{wrong:?}");
    build(VM).ok();
    assert_eq!(fs::read_to_string(&out).expect("the config"), VM);
    Ok(())
}

fn folders_and_users() -> Outcome {
    let host = case("merged")?;
    for folder in ["/var/lib/virshle", "/run/virshle"] {
        assert_eq!(
            host["tmpfiles"]["10-virshle"][folder]["d"],
            json!({ "mode": "0711", "user": "root", "group": "root" })
        );
    }
    assert_eq!(host["users"]["virshle-vm"]["group"], "virshle-vm");
    assert_eq!(host["users"]["virshle-vm"]["isSystemUser"], true);
    assert_eq!(host["groups"]["virshle"]["members"], json!([]), "hypervisors are no members");
    // As the package has them elsewhere.
    let tmpfiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/tmpfiles.d/virshle.conf");
    let tmpfiles = fs::read_to_string(tmpfiles).expect("the package's own");
    let folders = tmpfiles.lines().filter_map(|line| line.strip_prefix("d ")).map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words[0].to_owned(), words[1].to_owned())
    });
    let ours = host["tmpfiles"]["10-virshle"].as_object().expect("folders");
    let folders: Vec<_> = folders.collect();
    assert_eq!(folders.len(), ours.len());
    for (folder, mode) in folders {
        assert_eq!(ours[&folder]["d"]["mode"], mode, "{folder}");
    }
    let programs = host["packages"].as_array().expect("packages");
    for program in ["virshle", "cloud-hypervisor", "OVMF-cloud-hypervisor", "qemu_kvm", "dnsmasq", "nftables", "passt"]
    {
        assert!(programs.contains(&json!(program)), "{program}: {programs:?}");
    }
    Ok(())
}

fn another_user() -> Outcome {
    let host = case("other-user")?;
    assert_eq!(host["settings"]["node"]["user"], "vmm");
    assert_eq!(host["users"], json!({}), "it is the site's");
    assert_eq!(host["groups"]["virshle"]["members"], json!(["alice"]));
    let programs = host["packages"].as_array().expect("packages");
    assert!(!programs.contains(&json!("cloud-hypervisor")) && programs.contains(&json!("qemu_kvm")), "{programs:?}");
    assert!(case("merged")?["settings"].get("node").is_none(), "what is the default is not said");
    Ok(())
}

fn dpdk_and_hugepages() -> Outcome {
    let host = case("vhost")?;
    assert_eq!(host["vswitch"], json!({ "enable": true, "package": "openvswitch-dpdk" }));
    assert_eq!(host["sysctl"], json!({ "vm.nr_hugepages": 512 }));
    let unit = &host["services"]["virshle-openvswitch"];
    let start = unit["serviceConfig"]["ExecStart"].as_str().expect("a command line");
    for told in ["dpdk-init=\\\"true\\\"", "dpdk-socket-mem=\\\"512,256\\\"", "pmd-cpu-mask=\\\"0x6\\\""] {
        assert!(start.contains(&format!("set Open_vSwitch . \"other_config:{told}\"")), "{told}: {start}");
    }
    assert_eq!(unit["before"], json!(["ovs-vswitchd.service"]));
    assert_eq!(unit["serviceConfig"]["ProtectSystem"], "strict");

    let large = case("vhost-large")?;
    assert_eq!(large["kernelParams"], json!(["hugepagesz=1G", "hugepages=4"]));
    let start =
        large["services"]["virshle-openvswitch"]["serviceConfig"]["ExecStart"].as_str().expect("a command line");
    assert!(start.contains("remove Open_vSwitch . other_config pmd-cpu-mask"), "what is said no more goes: {start}");
    let plain = case("firewall")?;
    assert_eq!(plain["vswitch"], json!({ "enable": true, "package": "openvswitch" }), "without DPDK");
    assert!(plain["services"].get("virshle-openvswitch").is_none());
    Ok(())
}

fn the_firewall_opens_what_is_served() -> Outcome {
    let firewall = &case("firewall")?["firewall"];
    let served = json!({ "allowedTCPPorts": [53], "allowedUDPPorts": [53, 67, 547] });
    assert_eq!(firewall["interfaces"], json!({ "br0": served, "vsbr0.7": served }), "the site's own bridge is not");
    // A forward of a bridge is the kernel's; 127.0.0.1 is nobody's from outside.
    assert_eq!(firewall["allowedTCPPorts"], json!([8080]));
    assert_eq!(firewall["allowedUDPPorts"], json!([5353]));
    let forward = firewall["extraForwardRules"].as_str().expect("rules");
    assert_eq!(forward, "iifname \"br0\" accept\niifname \"vsbr0.7\" accept\n");
    assert_eq!(case("whole")?["firewall"]["interfaces"], json!({}), "closed unless it is asked for");
    Ok(())
}
