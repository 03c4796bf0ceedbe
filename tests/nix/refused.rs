//! What stops the evaluation, each with a remedy; and what is near it and does not.

use std::collections::BTreeSet;

use libtest_mimic::Trial;

use super::rendered::{named, world};
use super::{case, evaluated};
use crate::trials;
use crate::world::Outcome;

pub fn trials() -> Vec<Trial> {
    trials![
        each_with_its_remedy,
        nothing_else_is,
        v_refuses_it_too,
        a_switch_that_is_not_there,
        what_the_types_do_not_hold
    ]
}

/// The case, and of each of its messages what must be in it: what is wrong, and what to do.
const REFUSED: [(&str, &[[&str; 2]]); 16] = [
    ("bad-two-vms", &[["two VMs are named `a`", "in `vms` or in `settings.vm`"]]),
    ("bad-two-networks", &[["two networks are named `lan`", "Rename one of them"]]),
    ("bad-mac", &[["the VMs `a` and `b` have the MAC `02:00:00:00:00:aa`", "Leave `mac` out"]]),
    (
        "bad-address",
        &[["the VMs `a` and `b` have the address `10.44.0.9` in the network `lan`", "leave `address` out"]],
    ),
    ("bad-ports", &[["the VMs `a` and `b` have the port 8080/tcp of the host", "Give each another port"]]),
    ("bad-ports-of-one-address", &[["(`8080:80`, `127.0.0.1:8080:80`)", "another address of the host"]]),
    ("bad-ports-of-template", &[["the VMs `a` and `b` have the port 8080/tcp", "`ports = [ ]` in a VM empties them"]]),
    (
        "bad-subnets",
        &[[
            "the subnets of the networks `lan` (10.44.0.0/24) and `wide` (10.44.0.128/25) overlap",
            "Give one of them another subnet",
        ]],
    ),
    ("bad-template", &[["the VM `a` names the template `xl`", "Declare it as `templates.xl`, or name another (`xs`)"]]),
    ("bad-network", &[["the VM `a` names the network `wan`", "Declare it as `networks.wan`"]]),
    ("bad-image", &[["the template `xs` names the image `debain`", "or name another (`debian`)"]]),
    (
        "bad-vhost",
        &[
            [
                "`a` has NICs of the type `vhost`, and no hugepages",
                "`services.virshle.openvswitch.hugepages.count = 1024`",
            ],
            ["Open vSwitch is without DPDK", "`services.virshle.openvswitch.dpdk.enable = true`"],
        ],
    ),
    ("bad-protect", &[["`onRemove = \"delete\"` and `protect = true`", "Set `onRemove = \"stop\"`"]]),
    ("bad-memory", &[["come to 7680 MiB of memory together", "(7 GiB). Give them less `vram`"]]),
    ("bad-member", &[["the user `virshle-vm`", "Take it out of `services.virshle.members`"]]),
    ("bad-hypervisor", &[["the VM `a` asks for qemu", "`services.virshle.hypervisors.qemu.enable = true`"]]),
];

fn each_with_its_remedy() -> Outcome {
    for (name, expected) in REFUSED {
        let messages = case(name)?["refused"].as_array().expect("a list");
        assert_eq!(messages.len(), expected.len(), "{name}: {messages:#?}");
        for (message, parts) in messages.iter().zip(expected) {
            let message = message.as_str().expect("a text");
            assert!(message.starts_with("services.virshle: "), "{name}: {message}");
            for part in *parts {
                assert!(message.contains(part), "{name}: {part:?} is missing in: {message}");
            }
        }
    }
    let known: BTreeSet<_> = REFUSED.iter().map(|(name, _)| *name).collect();
    for name in evaluated()?["cases"].as_object().expect("cases").keys().filter(|name| name.starts_with("bad-")) {
        assert!(known.contains(name.as_str()), "`{name}` of cases.nix is in no row here");
    }
    Ok(())
}

/// What only the host knows; all else is a mistake for `v`, too: nothing is forbidden here that it would take.
const OF_THE_HOST: [&str; 4] = ["bad-vhost", "bad-memory", "bad-hypervisor", "bad-member"];

fn v_refuses_it_too() -> Outcome {
    for (name, _) in REFUSED {
        let check = world(&named(&case(name)?["settings"])).v(["config", "check"]);
        let expected = if OF_THE_HOST.contains(&name) { 0 } else { 2 };
        assert_eq!(check.code, Some(expected), "{name}: {}", check.stderr);
    }
    Ok(())
}

fn nothing_else_is() -> Outcome {
    for (name, case) in evaluated()?["cases"].as_object().expect("cases") {
        if !name.starts_with("bad-") {
            assert_eq!(case["refused"].as_array().map(Vec::len), Some(0), "{name}: {}", case["refused"]);
        }
    }
    Ok(())
}

fn a_switch_that_is_not_there() -> Outcome {
    let warnings = &case("warned")?["warnings"];
    let warning = warnings[0].as_str().expect("a warning");
    assert!(warning.contains("the network `fast` is of the type `ovs`"), "{warning}");
    assert!(warning.contains("`services.virshle.openvswitch.enable = true`"), "{warning}");
    for quiet in ["whole", "vhost", "merged", "off"] {
        assert_eq!(case(quiet)?["warnings"].as_array().map(Vec::len), Some(0), "{quiet}");
    }
    Ok(())
}

fn what_the_types_do_not_hold() -> Outcome {
    let mistyped = evaluated()?["mistyped"].as_object().expect("hosts");
    assert!(mistyped.len() >= 10, "{mistyped:?}");
    for (name, taken) in mistyped {
        assert_eq!(*taken, name == "right", "{name}");
    }
    Ok(())
}
