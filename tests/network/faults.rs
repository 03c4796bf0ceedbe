//! What is in a network's way: it is told, and nothing is changed.

use std::net::UdpSocket;

use libtest_mimic::Trial;

use super::lan::{LAN, ip, on_a_host, snapshot};
use crate::trials;
use crate::world::{Outcome, World, need_program};

pub fn trials() -> Vec<Trial> {
    trials![
        a_bridge_of_somebody_else,
        two_networks_on_one_bridge,
        a_missing_program_is_named_before_anything_is_made,
        a_taken_port_is_told_and_all_is_undone,
        a_subnet_that_the_host_routes,
        an_uplink_with_addresses_or_in_a_bridge,
        an_unknown_network,
        no_network_without_root,
    ]
}

fn a_bridge_of_somebody_else() -> Outcome {
    let world = World::new();
    on_a_host(&world, || {
        ip("link add vtest0 type bridge");
        let before = snapshot();
        world.config(&format!("{LAN}create = true\n"));
        world.v(["network", "up", "lan"]).fails(4, &["`vtest0`", "belongs to somebody else", "create = false"]);
        before.still_holds("after it");
        // Where the config leaves it open, it is used as it is.
        world.config(LAN);
        world.v(["network", "up", "lan"]).fails(4, &["used as it is"]);
        assert_eq!(world.network("lan")["state"], "foreign");
        assert!(world.v(["network", "up", "--all"]).ok().stderr.contains("nothing to bring up"));
        before.still_holds("after it");
        // Something of that name that is no bridge.
        ip("link delete vtest0");
        ip("link add vtest0 type veth peer name far1");
        world.config(&format!("{LAN}create = true\n"));
        world.v(["network", "up", "lan"]).fails(4, &["belongs to somebody else"]);
    })
}

fn two_networks_on_one_bridge() -> Outcome {
    let world = World::new();
    let other = LAN.replace("\"lan\"", "\"other\"").replace("10.44", "10.45");
    on_a_host(&world, || {
        world.config(LAN);
        world.v(["network", "up", "lan"]).ok();
        let before = snapshot();
        // The config has the other alone: what is up still has the bridge.
        world.config(&other);
        world.v(["network", "up", "other"]).fails(4, &["`vtest0`", "`lan`", "v network down lan"]);
        before.still_holds("after it");
        world.config(&format!("{LAN}{other}"));
        world.v(["network", "up", "other"]).fails(2, &["vtest0"]);
        before.still_holds("after it");
    })
}

fn a_missing_program_is_named_before_anything_is_made() -> Outcome {
    let programs = ["ip", "nft", "dnsmasq"];
    let paths = programs.map(need_program);
    for (missing, package) in programs.into_iter().zip(["iproute2", "nftables", "dnsmasq"]) {
        let mut world = World::new();
        world.config(LAN);
        let bin = world.dir().join("bin");
        std::fs::create_dir(&bin).expect("a folder");
        for (name, path) in programs.iter().zip(&paths).filter(|(name, _)| **name != missing) {
            if let Ok(path) = path {
                std::os::unix::fs::symlink(path, bin.join(name)).expect("a link");
            }
        }
        world.only_path(&bin);
        on_a_host(&world, || {
            let before = snapshot();
            world.v(["network", "up", "lan"]).fails(1, &[&format!("`{missing}` is not installed"), package]);
            before.still_holds("after it");
            assert_eq!(world.network("lan")["state"], "down");
            let doctor = world.v(["doctor"]);
            assert!(doctor.stdout.contains(&format!("install the package {package}")), "{}", doctor.stdout);
        })?;
    }
    Ok(())
}

fn a_taken_port_is_told_and_all_is_undone() -> Outcome {
    let world = World::new();
    world.config(LAN);
    on_a_host(&world, || {
        let before = snapshot();
        let taken = UdpSocket::bind("0.0.0.0:53").expect("the port");
        world.v(["network", "up", "lan"]).fails(4, &["port 53"]);
        before.still_holds("after it");
        world.assert_no_network();
        drop(taken);
        world.v(["network", "up", "lan"]).ok();
    })
}

fn a_subnet_that_the_host_routes() -> Outcome {
    let world = World::new();
    on_a_host(&world, || {
        ip("route add 10.44.0.0/16 via 192.0.2.1");
        let before = snapshot();
        world.config(LAN);
        world.v(["network", "up", "lan"]).fails(4, &["10.44.0.0/24", "10.44.0.0/16", "eth0"]);
        before.still_holds("after it");
    })
}

fn an_uplink_with_addresses_or_in_a_bridge() -> Outcome {
    let world = World::new();
    let wire = |uplink: &str| {
        format!("[[network]]\nname = \"wire\"\ntype = \"bridge\"\nbridge = \"vtest2\"\nuplink = \"{uplink}\"\n")
    };
    on_a_host(&world, || {
        ip("link add spare0 type veth peer name spare1");
        ip("link add other0 type bridge");
        ip("link set spare1 master other0");
        let before = snapshot();
        let rows = [("eth0", "192.0.2.2/24"), ("spare1", "`other0`"), ("nowhere0", "no interface `nowhere0`")];
        for (uplink, why) in rows {
            world.config(&wire(uplink));
            world.v(["network", "up", "wire"]).fails(4, &[uplink, why]);
            before.still_holds(uplink);
        }
        world.config(&wire("spare0"));
        world.v(["network", "up", "wire"]).ok();
        assert!(ip("link show dev spare0").contains("master vtest2"));
    })
}

fn an_unknown_network() -> Outcome {
    let world = World::new();
    world.config(LAN);
    for verb in ["up", "down", "info", "repair"] {
        world.v(["network", verb, "lam"]).fails(3, &["no network `lam`", "did you mean `lan`?"]);
    }
    Ok(())
}

fn no_network_without_root() -> Outcome {
    crate::world::need_root()?;
    let mut world = World::new();
    world.config(LAN);
    world.become_user(65534, 65534);
    world.v(["network", "up", "lan"]).fails(4, &["only root", "type `user`"]);
    assert_eq!(world.network("lan")["state"], "down");
    Ok(())
}
