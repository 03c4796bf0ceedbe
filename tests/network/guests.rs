//! Networks under VMs that run.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use libtest_mimic::Trial;

use super::lan::{LAN, ip, on_a_host, ruleset, snapshot};
use crate::fixtures::ovs::PrivateOvs;
use crate::fixtures::payload::{self, Variant};
use crate::lifecycle::{Stage, template};
use crate::trials;
use crate::world::{Outcome, World, eventually, need_program};

pub fn trials() -> Vec<Trial> {
    trials![
        the_first_start_brings_its_network_up,
        a_bridge_is_put_back_under_a_guest,
        a_forward_that_is_taken_is_refused,
        names_follow_the_vms,
        a_hosts_file_has_the_names_of_two_networks_of_one_domain,
        a_network_on_open_vswitch,
    ]
}

const LIMIT: Duration = Duration::from_secs(30);

/// Templates `a` and `b`, each with a NIC on `lan` and these keys.
fn stage(a: &str, b: &str) -> Result<Stage, crate::world::Skip> {
    let stage = Stage::either()?;
    let kernel = payload::build(stage.world.dir(), Variant::Button).expect("the payload is built");
    let mut more = String::new();
    for (name, keys) in [("ta", a), ("tb", b)] {
        more += &template(name, &kernel);
        more += &format!("[[template.vm.net]]\nname = \"lan\"\n{keys}\n");
    }
    stage.config(&(more + LAN));
    Ok(stage)
}

fn the_first_start_brings_its_network_up() -> Outcome {
    let stage = stage("", "")?;
    let world = &stage.world;
    on_a_host(world, || {
        let before = snapshot();
        stage.create("ta", "a");
        assert_eq!(world.network("lan")["state"], "down");
        before.still_holds("a VM that does not run needs no network");
        stage.start("a");
        let row = world.network("lan");
        assert_eq!((&row["state"], &row["vms"], &row["running"]), (&"up".into(), &1.into(), &1.into()));
        assert!(ip("link show master vtest0").contains("v1n0"));
        assert!(ruleset().contains("v1n0"), "{}", ruleset());
        world.v(["network", "down", "lan"]).fails(4, &["`a`", "v vm stop a"]);
        assert_eq!(world.network("lan")["state"], "up");

        let rules = ruleset();
        super::lan::run("nft", "flush ruleset");
        world.v(["network", "repair", "lan"]).ok();
        assert_eq!(ruleset(), rules);

        world.v(["vm", "stop", "a"]).ok();
        eventually("the firewall forgets it", LIMIT, || !ruleset().contains("v1n0"));
        world.v(["network", "down", "lan"]).ok();
        before.still_holds("after it");
        world.assert_no_network();
    })
}

fn a_bridge_is_put_back_under_a_guest() -> Outcome {
    let stage = stage("", "")?;
    let world = &stage.world;
    on_a_host(world, || {
        stage.create("ta", "a");
        stage.start("a");
        let address = || ip("-brief address show");
        ip("link delete vtest0");
        eventually("bridge, port and address are back", LIMIT, || {
            address().contains("10.44.0.1/24") && ip("link show").contains("master vtest0")
        });
        eventually("it is well", LIMIT, || world.network("lan")["state"] == "up");
    })
}

fn a_forward_that_is_taken_is_refused() -> Outcome {
    let stage = stage("ports = [\"8080:80\", \"5353:53/udp\"]", "ports = [\"127.0.0.1:8080:80\"]")?;
    let world = &stage.world;
    on_a_host(world, || {
        stage.create("ta", "a");
        stage.create("tb", "b");
        let listener = TcpListener::bind("127.0.0.1:8080").expect("a port");
        world.v(["vm", "start", "a"]).fails(4, &["8080"]);
        assert_eq!(world.state_of("a"), "stopped", "what is refused has not begun");
        drop(listener);
        let socket = UdpSocket::bind("0.0.0.0:5353").expect("a port");
        world.v(["vm", "start", "a"]).fails(4, &["5353"]);
        drop(socket);
        assert_eq!(world.network("lan")["running"], 0);
        stage.start("a");
        assert!(ruleset().contains("8080"), "{}", ruleset());
        world.v(["vm", "start", "b"]).fails(4, &["127.0.0.1:8080:80", "`a`", "v vm stop a"]);
        assert_eq!(world.state_of("b"), "stopped");
        world.v(["vm", "stop", "a"]).ok();
        eventually("its forward is gone", LIMIT, || !ruleset().contains("8080"));
        stage.start("b");
    })
}

fn names_follow_the_vms() -> Outcome {
    let stage = stage("", "")?;
    let world = &stage.world;
    on_a_host(world, || {
        stage.create("ta", "a");
        world.v(["network", "up", "lan"]).ok();
        let published = || {
            let mut text = String::new();
            for folder in ["hosts", "dhcp"] {
                for entry in fs::read_dir(world.root().join("run/virshle/net/lan").join(folder)).into_iter().flatten() {
                    text += &fs::read_to_string(entry.expect("an entry").path()).unwrap_or_default();
                }
            }
            text
        };
        let address = world.row("a")["address"].as_str().expect("an address").to_owned();
        assert!(published().contains(&address) && published().contains("a.vm"), "{}", published());
        world.v(["vm", "rename", "a", "renamed"]).ok();
        assert!(published().contains("renamed.vm"), "{}", published());
        stage.create("tb", "second");
        assert!(published().contains("second.vm"), "{}", published());
        world.v(["vm", "delete", "renamed"]).ok();
        assert!(!published().contains("renamed"), "{}", published());
    })
}

fn a_hosts_file_has_the_names_of_two_networks_of_one_domain() -> Outcome {
    let world = World::new();
    let file = world.file("hosts", "127.0.0.1 localhost\n");
    let mut config = format!("[node]\nhosts-file = {file:?}\n{LAN}{}", LAN.replace("lan", "lab").replace("44", "45"))
        .replace("vtest0\"\nsubnet = \"10.45", "vtest1\"\nsubnet = \"10.45");
    for network in ["lan", "lab"] {
        config += &template(network, &world.image("kernel", 1));
        config += &format!("[[template.vm.net]]\nname = \"{network}\"\n");
    }
    world.config(&config);
    on_a_host(&world, || {
        world.v(["network", "up", "--all"]).ok();
        world.v(["vm", "create", "-t", "lan", "-n", "web"]).ok();
        world.v(["vm", "create", "-t", "lab", "-n", "db"]).ok();
        let named = |network: &str, line: &str| {
            let prefix = world.network(network)["subnet6"].as_str().expect("a prefix").replace("/64", "2");
            format!("{line}\n{prefix} {}\n", line.split_once(' ').expect("a name").1)
        };
        let (web, db) = (named("lan", "10.44.0.2 web.vm"), named("lab", "10.45.0.2 db.vm"));
        let state = world.state();
        let with = |lines: &[&str]| {
            let state = state.display();
            format!("127.0.0.1 localhost\n# BEGIN virshle {state}\n{}# END virshle {state}\n", lines.concat())
        };
        let text = || fs::read_to_string(&file).expect("the file");
        assert!([with(&[&web, &db]), with(&[&db, &web])].contains(&text()), "{}", text());
        world.v(["network", "down", "lan"]).ok();
        assert_eq!(text(), with(&[&db]));
        world.v(["network", "up", "lan"]).ok();
        world.v(["vm", "delete", "db"]).ok();
        assert_eq!(text(), with(&[&web]));
        world.v(["network", "down", "--all"]).ok();
        assert_eq!(text(), "127.0.0.1 localhost\n");
    })
}

fn a_network_on_open_vswitch() -> Outcome {
    need_program("ovs-vswitchd")?;
    let stage = Stage::either()?;
    let world = &stage.world;
    on_a_host(world, || {
        let ovs = PrivateOvs::start_beside("network").expect("a switch");
        let kernel = payload::build(world.dir(), Variant::Button).expect("the payload is built");
        let lan = LAN.replace("\"bridge\"\n", "\"ovs\"\n");
        stage.config(&format!("{}[[template.vm.net]]\nname = \"lan\"\ntype = \"tap\"\n{lan}", template("ta", &kernel)));
        let config = fs::read_to_string(world.config_file()).expect("the config");
        world.config(&config.replacen("[node]\n", &format!("[node]\novs-db = \"{}\"\n", ovs.db), 1));
        let before = snapshot();
        stage.create("ta", "a");
        stage.start("a");
        assert_eq!(world.network("lan")["state"], "up");
        assert_eq!(ovs.vsctl(&["list-ports", "vtest0"]).expect("ports").trim(), "v1n0");
        assert!(ip("-brief address show dev vtest0").contains("10.44.0.1/24"));
        world.v(["network", "down", "lan"]).fails(4, &["`a`"]);
        world.v(["vm", "stop", "a"]).ok();
        world.v(["network", "down", "lan"]).ok();
        assert_eq!(ovs.vsctl(&["list-br"]).expect("bridges").trim(), "");
        before.still_holds("down");
        world.assert_no_network();
    })
}
