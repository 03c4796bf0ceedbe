//! What the host routes: out, in, between.

use std::net::IpAddr;

use libtest_mimic::Trial;
use virshle::spec::Forward;

use super::lab::{self, Guest, apply, as_host, make, network, outside};
use crate::trials;
use crate::world::Outcome;

pub fn trials() -> Vec<Trial> {
    trials![
        out_and_in,
        forwards,
        forwards_where_bridged_frames_are_routed_ones_too,
        networks_apart,
        a_forward_s_port_is_taken
    ]
}

fn seen(ip: &str) -> Option<IpAddr> {
    Some(ip.parse().expect("an address"))
}

fn list(forwards: &[&str]) -> Vec<Forward> {
    forwards.iter().map(|text| text.parse().expect("a forward")).collect()
}

fn out_and_in() -> Outcome {
    as_host(|| {
        let nat = network("main", 44);
        let mut routed = network("lab", 45);
        routed.host.as_mut().expect("served").nat = false;
        make(&nat);
        make(&routed);
        let (inside, open, world) = (Guest::new(&nat, 2, None), Guest::new(&routed, 2, None), outside(1));
        for node in [&inside.node, &open.node, &world] {
            node.serve(80);
        }
        world.ip("route add default via 198.51.1.1");
        world.ip("route add default via 2001:db8:1::1");
        assert_eq!(world.tcp(&format!("{}:80", inside.ip())), seen("198.51.1.2"), "without rules all is open");
        apply(&[&nat, &routed], &[&inside.port, &open.port]);

        // Out under the host's address, in both versions and every protocol.
        assert_eq!(inside.node.tcp("198.51.1.2:80"), seen("198.51.1.1"));
        assert_eq!(inside.node.udp("198.51.1.2:80"), seen("198.51.1.1"));
        assert!(inside.node.ping("198.51.1.2") && inside.node.ping("2001:db8:1::2"));
        assert_eq!(inside.node.tcp("[2001:db8:1::2]:80"), seen("2001:db8:1::1"));
        assert_eq!(inside.node.udp("[2001:db8:1::2]:80"), seen("2001:db8:1::1"));
        // Without `nat` under its own.
        assert_eq!(open.node.tcp("198.51.1.2:80"), seen("10.45.0.2"));
        assert_eq!(open.node.tcp("[2001:db8:1::2]:80"), seen("fd00:45::2"));

        // Nobody comes in uninvited, but where it is not translated.
        for to in [inside.ip(), format!("[{}]", inside.ip6())] {
            assert_eq!(world.tcp(&format!("{to}:80")), None, "{to}");
            assert_eq!(world.udp(&format!("{to}:80")), None, "{to}");
        }
        assert!(!world.ping(&inside.ip()) && !world.ping(&inside.ip6()));
        assert_eq!(world.tcp("10.45.0.2:80"), seen("198.51.1.2"));
        assert_eq!(world.udp("[fd00:45::2]:80"), seen("2001:db8:1::2"));
        assert!(world.ping("10.45.0.2") && world.ping("fd00:45::2"));
        // The host itself reaches both.
        assert_eq!(lab::tcp("10.44.0.2:80".parse().expect("it")), seen("10.44.0.1"));
        assert_eq!(lab::tcp("[fd00:45::2]:80".parse().expect("it")), seen("fd00:45::1"));
    })
}

fn forwards() -> Outcome {
    forwards_with(false)
}

/// Docker and others switch that on (`br_netfilter`): then frames within a bridge meet the rules of
/// the host as well, and its translation takes place in the bridge.
fn forwards_where_bridged_frames_are_routed_ones_too() -> Outcome {
    forwards_with(true)
}

fn forwards_with(bridged: bool) -> Outcome {
    as_host(move || {
        if !lab::filter_bridged(bridged) && bridged {
            return;
        }
        let nat = network("main", 44);
        make(&nat);
        let mut guest = Guest::new(&nat, 2, None);
        let (neighbour, world) = (Guest::new(&nat, 3, None), outside(1));
        guest.node.serve(80);
        guest.port.forwards = list(&["8080:80", "5353:80/udp", "198.51.1.1:9090:80", "127.0.0.1:7070:80"]);
        apply(&[&nat], &[&guest.port, &neighbour.port]);

        // From outside: the guest sees who it is.
        assert_eq!(world.tcp("198.51.1.1:8080"), seen("198.51.1.2"));
        assert_eq!(world.udp("198.51.1.1:5353"), seen("198.51.1.2"));
        assert_eq!(world.tcp("[2001:db8:1::1]:8080"), seen("2001:db8:1::2"));
        assert_eq!(world.udp("[2001:db8:1::1]:5353"), seen("2001:db8:1::2"));
        assert_eq!(world.tcp("198.51.1.1:9090"), seen("198.51.1.2"), "of one address");
        assert_eq!(world.udp("198.51.1.1:8080"), None, "TCP alone");
        assert_eq!(world.tcp("198.51.1.1:5353"), None, "UDP alone");
        assert_eq!(world.tcp("198.51.1.1:7070"), None, "of another address");
        // Who sends 127.0.0.1 over a wire gets nothing, neither from outside nor from a guest.
        world.ip("route add 127.0.0.0/8 via 198.51.1.1 table 7");
        for node in [&world, &neighbour.node] {
            node.ip("link set lo down");
            node.run(|| {
                for scope in ["all", "eth0"] {
                    let path = format!("/proc/sys/net/ipv4/conf/{scope}/route_localnet");
                    std::fs::write(path, "1").expect("a setting");
                }
            });
            node.ip("rule add pref 1 to 127.0.0.0/8 lookup 7");
            node.ip("rule del pref 0");
            node.ip("rule add pref 2 lookup local");
        }
        neighbour.node.ip("route add 127.0.0.0/8 via 10.44.0.1 table 7");
        assert_eq!(world.tcp("127.0.0.1:8080"), None);
        assert_eq!(neighbour.node.tcp("127.0.0.1:8080"), None);

        // From the host: by its own addresses, and by 127.0.0.1.
        let from_host = |to: &str| lab::tcp(to.parse().expect("an address"));
        assert_eq!(from_host("198.51.1.1:8080"), seen("198.51.1.1"));
        assert_eq!(from_host("127.0.0.1:8080"), seen("10.44.0.1"));
        assert_eq!(from_host("127.0.0.1:7070"), seen("10.44.0.1"));
        assert_eq!(lab::udp("127.0.0.1:5353".parse().expect("it")), seen("10.44.0.1"));
        assert_eq!(from_host("[2001:db8:1::1]:8080"), seen("2001:db8:1::1"));
        assert_eq!(from_host("198.51.1.1:7070"), None);

        // A neighbour, and the guest itself, by the host's address.
        assert_eq!(neighbour.node.tcp("198.51.1.1:8080"), seen("10.44.0.1"));
        assert_eq!(neighbour.node.udp("10.44.0.1:5353"), seen("10.44.0.1"));
        assert_eq!(neighbour.node.tcp("[2001:db8:1::1]:8080"), seen("fd00:44::1"));
        // A bridge sends no frame back out of the port it came from.
        if !bridged {
            assert_eq!(guest.node.tcp("198.51.1.1:8080"), seen("10.44.0.1"));
            assert_eq!(guest.node.tcp("[2001:db8:1::1]:8080"), seen("fd00:44::1"));
        }
        // What is no address of the host stays whose it is.
        world.serve(8080);
        assert_eq!(neighbour.node.tcp("198.51.1.2:8080"), seen("198.51.1.1"));

        apply(&[&nat], &[&neighbour.port]);
        assert_eq!(world.tcp("198.51.1.1:8080"), None, "it goes with the guest");
    })
}

fn networks_apart() -> Outcome {
    as_host(|| {
        lab::filter_bridged(true);
        let (one, two) = (network("one", 44), network("two", 45));
        let (mut open, mut dark) = (network("open", 46), network("dark", 47));
        open.host.as_mut().expect("served").nat = false;
        dark.host.as_mut().expect("served").isolated = true;
        let all = [&one, &two, &open, &dark];
        all.iter().for_each(|network| make(network));
        let world = outside(1);
        world.ip("route add default via 198.51.1.1");
        let mut guests: Vec<Guest> = all.iter().map(|network| Guest::new(network, 2, None)).collect();
        let dark_neighbour = Guest::new(&dark, 3, None);
        for node in guests.iter().map(|guest| &guest.node).chain([&dark_neighbour.node, &world]) {
            [22, 80].into_iter().for_each(|port| node.serve(port));
        }
        guests[1].port.forwards = list(&["8080:80"]);
        guests[3].port.forwards = list(&["9090:80"]);
        let ports: Vec<_> = guests.iter().map(|guest| &guest.port).chain([&dark_neighbour.port]).collect();
        apply(&all, &ports);
        // The host's own servers.
        [53, 67, 80, 547].into_iter().for_each(lab::serve);

        let reaches = |from: usize, to: usize| guests[from].node.reaches(&guests[to].ip(), &guests[to].ip6());
        let (one, two, open, dark) = (0, 1, 2, 3);
        for (from, to, yes) in [
            (one, two, false),
            (two, one, false),
            (open, one, false),
            (one, open, true),
            (dark, one, false),
            (dark, open, false),
            (one, dark, false),
            (open, dark, false),
        ] {
            assert_eq!(reaches(from, to), [yes; 3], "{from} to {to}");
        }
        assert!(!guests[one].node.ping("10.45.0.2") && guests[one].node.ping("10.46.0.2"));
        // A forward is an invitation, for other networks too, but for isolated ones on either side.
        assert_eq!(guests[one].node.tcp("10.44.0.1:8080"), seen("10.44.0.2"));
        assert_eq!(guests[dark].node.tcp("10.47.0.1:8080"), None);
        assert_eq!(world.tcp("198.51.1.1:9090"), None);

        // Isolated: each other, and of the host DHCP, DNS and ping at its own address there.
        let guest = &guests[dark].node;
        assert_eq!(guest.tcp("10.47.0.3:80"), seen("10.47.0.2"));
        assert_eq!(guest.tcp("[fd00:47::3]:80"), seen("fd00:47::2"));
        assert_eq!(guest.tcp("198.51.1.2:80"), None);
        assert_eq!(guest.udp("198.51.1.2:80"), None);
        assert!(!guest.ping("198.51.1.2") && !guest.ping("2001:db8:1::2"));
        assert_eq!(world.tcp("10.47.0.2:80"), None);
        assert!(guest.ping("10.47.0.1") && guest.ping("fd00:47::1"));
        for host in ["10.47.0.1", "[fd00:47::1]"] {
            assert!(guest.tcp(&format!("{host}:53")).is_some(), "DNS over TCP at {host}");
            assert!(guest.udp(&format!("{host}:53")).is_some(), "DNS over UDP at {host}");
            assert_eq!(guest.tcp(&format!("{host}:80")), None, "{host}");
            assert_eq!(guest.udp(&format!("{host}:80")), None, "{host}");
        }
        assert!(guest.udp("10.47.0.1:67").is_some() && guest.udp("[fd00:47::1]:547").is_some(), "DHCP");
        for host in ["10.44.0.1:53", "198.51.1.1:53", "[2001:db8:1::1]:53"] {
            assert_eq!(guest.udp(host), None, "{host}: not its network's address");
        }
        // The host reaches it all the same, and others reach the host.
        assert_eq!(lab::tcp("10.47.0.2:80".parse().expect("it")), seen("10.47.0.1"));
        assert_eq!(guests[one].node.tcp("10.44.0.1:80"), seen("10.44.0.2"));
    })
}

fn a_forward_s_port_is_taken() -> Outcome {
    use virshle::network::firewall::check_free;
    as_host(|| {
        let tcp = std::net::TcpListener::bind("127.0.0.1:8080").expect("a server");
        let udp = std::net::UdpSocket::bind("[::1]:5353").expect("a server");
        for taken in ["8080:80", "127.0.0.1:8080:80", "5353:53/udp"] {
            let error = check_free(&list(&["81:80", taken])).expect_err(taken);
            assert_eq!(error.kind().exit_code(), 4, "{taken}");
            let (message, pid) = (error.message(), std::process::id());
            assert!(message.contains(&format!("(pid {pid})")) && message.contains(taken), "{message}");
        }
        check_free(&list(&["8080:80/udp", "127.0.0.2:8080:80", "127.0.0.1:5353:53/udp"])).expect("free");
        drop((tcp, udp));
        check_free(&list(&["8080:80", "5353:53/udp"])).expect("free again");
        let error = check_free(&list(&["192.0.2.7:8080:80"])).expect_err("not an address of this host");
        assert!(error.message().contains("192.0.2.7") && error.kind().exit_code() == 4, "{error}");
    })
}
