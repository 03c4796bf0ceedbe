//! The rules as text: the files beside this one are what was agreed; `GOLDEN=write` writes them
//! anew, for a person to read.

use std::fs;
use std::path::Path;
use std::time::Instant;

use libtest_mimic::Trial;
use virshle::network::firewall::{self, Port, ruleset};
use virshle::spec::{Guard, NetworkSpec, Switch};

use super::lab::{TABLE, as_host, network, nft, nft_reads, port};
use crate::trials;
use crate::world::{Outcome, exercised};

pub fn trials() -> Vec<Trial> {
    trials![as_agreed, a_thousand, a_name_that_is_no_interface_s, nothing_left]
}

fn guard(allow: &[&str], deny: &[&str], rate: Option<&str>) -> Guard {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a rule")).collect();
    Guard { spoof: false, allow: rules(allow), deny: rules(deny), rate: rate.map(|rate| rate.parse().expect("a rate")) }
}

fn as_agreed() -> Outcome {
    let nat = network("main", 44);
    let mut routed = network("lab", 45);
    let mut isolated = network("dark", 46);
    let mut uplink = network("site", 47);
    routed.host.as_mut().expect("served").nat = false;
    isolated.host.as_mut().expect("served").isolated = true;
    let mut known = port(&nat, 2, Some(Guard::default()));
    known.forwards =
        ["8080:80", "127.0.0.1:2222:22", "5353:53/udp"].map(|text| text.parse().expect("a forward")).into();
    let ruled = port(
        &nat,
        3,
        Some(guard(
            &["tcp/22,80-90,85-99", "icmp", "udp from 10.0.0.0/8", "out tcp/443 to 192.0.2.0/24"],
            &["any from 10.44.0.9", "out any to fd00::/8"],
            Some("100Mbit"),
        )),
    );
    let mut unknown = port(&uplink, 4, Some(Guard::default()));
    unknown.address = None;
    uplink.host = None;
    uplink.uplink = Some("eth0".into());
    let free = port(&routed, 5, Some(Guard { spoof: true, ..Guard::default() }));
    let mut ovs = port(&nat, 6, Some(guard(&["tcp/22"], &[], None)));
    ovs.switch = Switch::Ovs;
    ovs.forwards = vec!["2200:22".parse().expect("a forward")];

    let rows: [(&str, Vec<&NetworkSpec>, Vec<&Port>); 4] = [
        ("nothing", vec![], vec![]),
        ("plain", vec![&nat], vec![&known]),
        ("all", vec![&nat, &routed, &isolated, &uplink], vec![&known, &ruled, &unknown, &free, &ovs]),
        ("bridge-only", vec![&uplink], vec![&unknown]),
    ];
    let mut wrong = Vec::new();
    for (name, networks, ports) in &rows {
        let networks: Vec<NetworkSpec> = networks.iter().copied().cloned().collect();
        let ports: Vec<Port> = ports.iter().copied().cloned().collect();
        let shown = ruleset(TABLE, &networks, &ports);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/firewall/{name}.nft"));
        if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
            fs::write(&file, &shown).expect("the golden file is written");
        }
        if fs::read_to_string(&file).unwrap_or_default() != shown {
            wrong.push(format!("{}:\n{shown}", file.display()));
        }
        let backwards: (Vec<_>, Vec<_>) =
            (networks.iter().rev().cloned().collect(), ports.iter().rev().cloned().collect());
        assert_eq!(ruleset(TABLE, &backwards.0, &backwards.1), shown, "the order they come in does not matter");
        as_host(move || {
            nft_reads(&shown, &["-c"]);
            assert_eq!(nft(&["list", "ruleset"]), "", "only checked");
        })?;
    }
    assert!(wrong.is_empty(), "not as agreed (`GOLDEN=write` accepts it):\n{}", wrong.join("\n"));
    Ok(())
}

fn a_thousand() -> Outcome {
    let mut nat = network("main", 44);
    nat.host.as_mut().expect("served").address = "10.44.0.1/16".parse().expect("a subnet");
    let fleet = |guard: &Guard| -> Vec<Port> {
        (0..1000u16)
            .map(|number| {
                let mut one = port(&nat, 2, Some(guard.clone()));
                let address = one.address.as_mut().expect("an address");
                address.ip = format!("10.44.{}.{}/16", 1 + number / 250, 1 + number % 250).parse().expect("an address");
                address.ip6 = Some(format!("fd00:44::{:x}/64", 0x100 + number).parse().expect("an address"));
                one.port = format!("v{number}n0");
                one.mac = format!("02:00:00:00:{:02x}:{:02x}", number / 256, number % 256).parse().expect("a MAC");
                one.forwards = vec![format!("{}:22", 20000 + number).parse().expect("a forward")];
                one
            })
            .collect()
    };
    let plain = fleet(&Guard::default());
    let ruled = fleet(&guard(&["tcp/22", "icmp"], &["out any to 192.0.2.0/24"], Some("1Gbit")));
    as_host(move || {
        for (what, ports) in [("plain", plain), ("with rules and rates", ruled)] {
            let text = ruleset(TABLE, std::slice::from_ref(&nat), &ports);
            let started = Instant::now();
            firewall::apply(TABLE, std::slice::from_ref(&nat), &ports).expect("it is loaded");
            let took = started.elapsed();
            exercised("rules of 1,000 VMs", &format!("{what}: {} lines, loaded in {took:?}", text.lines().count()));
            let listed = nft(&["list", "set", "bridge", TABLE, "own_ip4s"]);
            assert_eq!(listed.matches("10.44.").count(), 1000);
            // What every frame meets is the same for one port and for a thousand.
            let all = text.matches("\n\tchain from_guests {").count();
            let rules = text.split("chain from_guests {").nth(1).and_then(|rest| rest.split('}').next()).expect("it");
            assert!(all == 1 && rules.lines().count() < 8, "{rules}");
        }
    })
}

/// A name that would be a rule, a wildcard or too long names no interface.
fn a_name_that_is_no_interface_s() -> Outcome {
    for bad in ["", "br0*", "br0\" accept", "br 0", "br0\n", "b{r}", "sixteen-bytes-xx"] {
        let mut evil = network("main", 44);
        evil.bridge = bad.to_owned();
        let error = firewall::apply(TABLE, &[evil.clone()], &[]).expect_err("refused");
        assert_eq!(error.kind().exit_code(), 4, "{bad:?}");
        let mut port = port(&network("main", 44), 2, Some(Guard::default()));
        port.port = bad.to_owned();
        assert!(firewall::apply(TABLE, &[], &[port.clone()]).is_err(), "{bad:?}");
        assert_eq!(ruleset(TABLE, &[evil], &[port]), ruleset(TABLE, &[], &[]), "{bad:?}");
    }
    Ok(())
}

/// Ours go without a trace, also when they are not there.
fn nothing_left() -> Outcome {
    as_host(|| {
        nft_reads("table inet theirs {\n\tchain c {\n\t\tdrop\n\t}\n}\n", &[]);
        let before = nft(&["-a", "list", "ruleset"]);
        let nat = network("main", 44);
        let known = port(&nat, 2, Some(Guard::default()));
        for _ in 0..3 {
            firewall::apply(TABLE, &[], &[]).expect("nothing to remove");
            assert_eq!(nft(&["-a", "list", "ruleset"]), before);
            firewall::apply(TABLE, std::slice::from_ref(&nat), std::slice::from_ref(&known)).expect("made");
            assert_eq!(nft(&["list", "tables"]).matches(TABLE).count(), 2);
        }
        firewall::apply(TABLE, std::slice::from_ref(&nat), &[]).expect("made");
        assert_eq!(nft(&["list", "tables"]).matches(TABLE).count(), 1, "no port, nothing on bridges");
        firewall::apply(TABLE, &[], &[]).expect("removed");
        assert_eq!(nft(&["-a", "list", "ruleset"]), before);
    })
}
