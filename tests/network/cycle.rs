//! Up, down, up: what a network brings to the host, and that it takes all of it away again.

use libtest_mimic::Trial;

use super::lan::{LAN, ip, on_a_host, ruleset, snapshot};
use crate::trials;
use crate::world::{Outcome, World};

pub fn trials() -> Vec<Trial> {
    trials![
        twenty_times_up_and_down_leave_the_host_as_it_was,
        a_network_of_four_lines_is_up,
        a_flushed_firewall_is_rebuilt,
        what_the_config_says_later_counts_after_a_down,
        without_ipv6_there_is_ipv4,
    ]
}

fn twenty_times_up_and_down_leave_the_host_as_it_was() -> Outcome {
    let world = World::new();
    let more = "[[network]]\nname = \"lab\"\ntype = \"bridge\"\nbridge = \"vtest1\"\nsubnet = \"10.45.0.0/24\"\nisolated = true\n\
                [[network]]\nname = \"wire\"\ntype = \"bridge\"\nbridge = \"vtest2\"\nuplink = \"spare0\"\n";
    world.config(&format!("{LAN}{more}"));
    on_a_host(&world, || {
        ip("link add spare0 type veth peer name spare1");
        // An uplink that was down is down again afterwards.
        ip("link set spare0 up");
        ip("link set spare0 down");
        // Somebody else's rules and bridge stay.
        ip("link add other0 type bridge");
        super::lan::run("nft", "add table inet other");
        let before = snapshot();
        for _ in 0..20 {
            world.v(["network", "up", "--all"]).ok();
            assert!(snapshot() != before);
            world.v(["network", "down", "--all"]).ok();
            before.still_holds("after it");
        }
        world.assert_no_network();
    })
}

fn a_network_of_four_lines_is_up() -> Outcome {
    let world = World::new();
    world.config(LAN);
    on_a_host(&world, || {
        assert_eq!(world.network("lan")["state"], "down");
        world.v(["network", "up", "lan"]).ok();
        let row = world.network("lan");
        assert_eq!((&row["state"], &row["gateway"]), (&"up".into(), &"10.44.0.1".into()));
        let addresses = ip("-brief address show dev vtest0");
        let prefix = row["subnet6"].as_str().expect("a prefix").trim_end_matches("::/64");
        assert!(addresses.contains("10.44.0.1/24") && addresses.contains(&format!("{prefix}::1/64")), "{addresses}");
        assert!(ip("link show dev vtest0").contains(&format!("alias virshle {}", world.state().display())));
        assert!(ruleset().contains("vtest0"), "{}", ruleset());
        let info = world.network_info("lan");
        assert!(info["server_pid"].is_number() && info["made"]["bridge"] == true, "{info:#}");
        let again = world.v(["network", "up", "lan"]).ok();
        assert!(again.stderr.contains("up already"), "{}", again.stderr);
        // It keeps its prefix.
        world.v(["network", "down", "lan"]).ok();
        world.v(["network", "up", "lan"]).ok();
        assert_eq!(world.network("lan")["subnet6"], row["subnet6"]);
        world.v(["repair", "--dry-run"]).ok();
    })
}

fn a_flushed_firewall_is_rebuilt() -> Outcome {
    let world = World::new();
    world.config(LAN);
    on_a_host(&world, || {
        world.v(["network", "up", "lan"]).ok();
        let rules = ruleset();
        super::lan::run("nft", "flush ruleset");
        assert_eq!(ruleset(), "");
        assert!(world.v(["network", "repair", "lan"]).ok().stderr.contains("is mended"));
        assert_eq!(ruleset(), rules);
        assert!(world.v(["network", "repair", "lan"]).ok().stderr.contains("is as it should be"));
        // A name server that was killed, and an address that somebody took.
        let pid = world.network_info("lan")["server_pid"].as_i64().expect("a pid");
        super::lan::run("kill", &format!("-9 {pid}"));
        ip("address delete 10.44.0.1/24 dev vtest0");
        crate::world::eventually("its end is seen", std::time::Duration::from_secs(10), || {
            world.network("lan")["state"] == "damaged"
        });
        world.v(["repair"]).ok();
        assert_eq!(world.network("lan")["state"], "up");
        assert!(ip("-brief address show dev vtest0").contains("10.44.0.1/24"));
    })
}

fn what_the_config_says_later_counts_after_a_down() -> Outcome {
    let world = World::new();
    world.config(LAN);
    on_a_host(&world, || {
        let before = snapshot();
        world.v(["network", "up", "lan"]).ok();
        // Nobody is on it: it is made anew, under its new name for the bridge, and nothing of the old is left.
        world.config(&LAN.replace("vtest0", "vtest7"));
        world.v(["network", "up", "lan"]).ok();
        assert!(!ip("-brief link show").contains("vtest0") && ip("-brief link show").contains("vtest7"));
        // Gone from the config, it is still known, and goes down.
        world.config("");
        assert_eq!(world.network("lan")["configured"], false);
        world.v(["network", "down", "lan"]).ok();
        before.still_holds("down");
        world.v(["network", "down", "lan"]).fails(3, &["no network `lan`"]);
    })
}

fn without_ipv6_there_is_ipv4() -> Outcome {
    let world = World::new();
    world.config(LAN);
    on_a_host(&world, || {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("a setting");
        let before = snapshot();
        let up = world.v(["network", "up", "lan"]).ok();
        assert!(up.stderr.contains("IPv6 switched off"), "{}", up.stderr);
        assert_eq!(world.network("lan")["subnet6"], serde_json::Value::Null);
        assert_eq!(world.network("lan")["state"], "up");
        world.v(["network", "down", "lan"]).ok();
        before.still_holds("after it");
    })
}
