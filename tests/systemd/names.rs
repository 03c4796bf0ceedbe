//! Names of VMs on a host with systemd-resolved.

use std::time::Duration;

use libtest_mimic::Trial;

use crate::fixtures::systemd::{Host, template};
use crate::trials;
use crate::world::{Outcome, eventually, exercised, need_program};

pub fn trials() -> Vec<Trial> {
    trials![names_resolve_where_systemd_resolved_runs]
}

const LIMIT: Duration = Duration::from_secs(30);

/// Two networks of one domain, each a unit: a VM that runs on either has a name, for every program.
fn names_resolve_where_systemd_resolved_runs() -> Outcome {
    need_program("cc")?;
    let mut config = String::new();
    for (network, bridge, subnet) in [("lan", "vtest0", "10.44.0.0/24"), ("lab", "vtest1", "10.45.0.0/24")] {
        config += &format!(
            "[[network]]\nname = \"{network}\"\ntype = \"bridge\"\nbridge = \"{bridge}\"\nsubnet = \"{subnet}\"\n"
        );
        config += &template(network, "/opt/virshle/payload-BUTTON.elf".as_ref(), "");
        config += &format!("[[template.vm.net]]\nname = \"{network}\"\n");
    }
    let mut host = Host::new(&config)?;
    host.boot();
    assert_eq!(host.property("systemd-resolved.service", "ActiveState"), "active");
    exercised("names on the host", "systemd-resolved");
    host.run(["sh", "-c", "echo 127.0.0.1 localhost >/etc/hosts"]).ok();
    let address = |name: &str, family: &str| {
        let told = host.run(["getent", family, name]).stdout;
        told.split_whitespace().next().map(str::to_owned)
    };
    let is = |name: &str, expected: &str| {
        eventually(name, LIMIT, || address(name, "ahostsv4").as_deref() == Some(expected));
    };

    // The first start of a VM brings its network up.
    host.create("lan", "web");
    host.v(["vm", "start", "web"]).ok();
    is("web.vm", "10.44.0.2");
    let v6 = address("web.vm", "ahostsv6").expect("an address of IPv6");
    assert!(v6.starts_with("fd") && v6.ends_with("::2"), "{v6}");
    assert!(host.run(["resolvectl", "query", "10.44.0.2"]).ok().stdout.contains("web.vm"));
    assert_eq!(address("db.vm", "ahosts"), None);

    // Another network, and a VM that is made when both are up, though its name was asked for before.
    host.v(["network", "up", "--all"]).ok();
    let servers = || {
        ["virshle-network@lan.service", "virshle-network@lab.service", "systemd-resolved.service"].map(|unit| {
            assert_eq!(host.property(unit, "ActiveState"), "active", "{unit}");
            host.property(unit, "MainPID")
        })
    };
    let before = servers();
    host.create("lab", "db");
    host.v(["vm", "start", "db"]).ok();
    is("db.vm", "10.45.0.2");
    // Each time, whichever server is the first to answer.
    for _ in 0..10 {
        for (name, address) in [("web.vm", "10.44.0.2"), ("db.vm", "10.45.0.2")] {
            let told = host.run(["resolvectl", "query", "--cache=no", "-4", name]).ok().stdout;
            assert!(told.contains(address), "{told}");
        }
        assert_eq!(address("no.vm", "ahosts"), None);
    }

    // While nothing runs on it a bridge has no carrier, and systemd-resolved asks nobody there.
    host.v(["vm", "stop", "web"]).ok();
    host.v(["vm", "rename", "web", "shop"]).ok();
    host.v(["vm", "start", "shop"]).ok();
    is("shop.vm", "10.44.0.2");
    assert_eq!(address("web.vm", "ahosts"), None, "the old name");
    host.create("lan", "other");
    is("other.vm", "10.44.0.3");
    host.v(["vm", "delete", "other"]).ok();
    eventually("a name ends with its VM", LIMIT, || address("other.vm", "ahosts").is_none());
    assert_eq!(servers(), before, "none of it was started again");
    // An upgrade's restart forgets nothing.
    host.run(["systemctl", "restart", "systemd-resolved.service"]).ok();
    is("shop.vm", "10.44.0.2");
    is("db.vm", "10.45.0.2");
    assert_eq!(
        host.run(["cat", "/etc/hosts"]).ok().stdout,
        "127.0.0.1 localhost\n",
        "nothing is written where nobody needs it"
    );

    host.v(["vm", "stop", "shop", "db"]).ok();
    host.v(["network", "down", "--all"]).ok();
    assert_eq!(address("db.vm", "ahosts"), None);
    let told = host.run(["resolvectl", "domain"]).ok().stdout;
    assert!(!told.contains("~vm"), "{told}");
    Ok(())
}
