//! What ports of a bridge let through.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use virshle::network::firewall::Port;
use virshle::spec::{Guard, Mac};

use super::lab::{self, Guest, apply, as_host, make, network, outside};
use super::raw::{self, BROADCAST, Line, about, arp, ether, ip4, ip6, tagged, tcp, udp};
use crate::trials;
use crate::world::Outcome;

pub fn trials() -> Vec<Trial> {
    trials![nobody_is_somebody_else, a_bridge_learns_no_lie, where_no_address_is_known, who_may_begin, rates]
}

const ARP: u16 = 0x0806;
const IP4: u16 = 0x0800;
const IP6: u16 = 0x86dd;

/// What it is, whether it gets through, and the frame with that mark in it.
type Row<'a> = (&'a str, bool, &'a dyn Fn(&[u8]) -> Vec<u8>);

/// Sends frames out of the liar's NIC and looks which of them the neighbour sees.
struct Stage {
    liar: Arc<Line>,
    neighbour: Arc<Line>,
    from: lab::Node,
    to: lab::Node,
    last: Vec<u8>,
}

impl Stage {
    fn passes(&self, frame: &[u8], mark: &[u8]) -> bool {
        let (line, frame, last) = (Arc::clone(&self.liar), frame.to_vec(), self.last.clone());
        self.from.run(move || {
            line.send(&frame);
            line.send(&last);
        });
        let (line, mark) = (Arc::clone(&self.neighbour), mark.to_vec());
        self.to.run(move || line.came_before(&mark, b"the last one"))
    }
}

fn stage(liar: Guest, neighbour: Guest, ip: Ipv4Addr) -> Stage {
    let line = |node: &lab::Node| Arc::new(node.run(|| Line::open("eth0")));
    let honest = ip4(17, ip, Ipv4Addr::BROADCAST, &udp(4000, 4000, b"the last one"));
    Stage {
        liar: line(&liar.node),
        neighbour: line(&neighbour.node),
        last: ether(BROADCAST, liar.port.mac, IP4, &honest),
        from: liar.node,
        to: neighbour.node,
    }
}

fn nobody_is_somebody_else() -> Outcome {
    as_host(|| {
        let nat = network("main", 44);
        make(&nat);
        let (liar, neighbour) =
            (Guest::new(&nat, 2, Some(Guard::default())), Guest::new(&nat, 3, Some(Guard::default())));
        apply(&[&nat], &[&liar.port, &neighbour.port]);
        assert!(liar.node.ping("10.44.0.3") && liar.node.ping("fd00:44::3") && liar.node.ping("10.44.0.1"));
        assert!(neighbour.node.ping("10.44.0.2") && neighbour.node.ping("fd00:44::1"));

        let (me, them) = (liar.port.mac, neighbour.port.mac);
        // To all: a bridge that has learned a lie would send elsewhere what is for the neighbour.
        let to = BROADCAST;
        let stranger: Mac = "02:aa:aa:aa:aa:aa".parse().expect("a MAC");
        let nobody: Mac = "00:00:00:00:00:00".parse().expect("a MAC");
        let v4 = |last: u8| Ipv4Addr::new(10, 44, 0, last);
        let v6 = |last: u16| Ipv6Addr::new(0xfd00, 0x44, 0, 0, 0, 0, 0, last);
        let (own_link, their_link) = (me.link_local(), them.link_local());
        let all: Ipv6Addr = "ff02::1".parse().expect("an address");
        let none = Ipv6Addr::UNSPECIFIED;
        let stage = stage(liar, neighbour, v4(2));

        let talk = |mark: &[u8]| udp(4000, 4000, mark);
        let rows: [Row<'_>; 37] = [
            ("its own IPv4", true, &|m| ether(to, me, IP4, &ip4(17, v4(2), v4(3), &talk(m)))),
            ("another MAC", false, &|m| ether(to, stranger, IP4, &ip4(17, v4(2), v4(3), &talk(m)))),
            ("the neighbour's MAC", false, &|m| ether(BROADCAST, them, IP4, &ip4(17, v4(2), v4(3), &talk(m)))),
            ("the neighbour's IPv4", false, &|m| ether(to, me, IP4, &ip4(17, v4(3), v4(3), &talk(m)))),
            ("the gateway's IPv4", false, &|m| ether(to, me, IP4, &ip4(17, v4(1), v4(3), &talk(m)))),
            ("no IPv4", false, &|m| ether(BROADCAST, me, IP4, &ip4(17, Ipv4Addr::UNSPECIFIED, v4(3), &talk(m)))),
            ("a DHCP question", true, &|m| {
                let question = udp(68, 67, m);
                ether(BROADCAST, me, IP4, &ip4(17, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &question))
            }),
            ("a DHCP answer", false, &|m| ether(to, me, IP4, &ip4(17, v4(2), v4(3), &udp(67, 68, m)))),
            ("in a tag of VLAN 0", false, &|m| tagged(0, &ether(to, me, IP4, &ip4(17, v4(1), v4(3), &talk(m))))),
            ("in two tags", false, &|m| tagged(0, &tagged(0, &ether(to, me, IP4, &ip4(17, v4(1), v4(3), &talk(m)))))),
            ("in a tag", false, &|m| tagged(7, &ether(to, me, IP4, &ip4(17, v4(1), v4(3), &talk(m))))),
            ("in LLC", false, &|m| {
                let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &ip4(17, v4(1), v4(3), &talk(m))].concat();
                ether(to, me, u16::try_from(snap.len()).expect("short"), &snap)
            }),
            ("its own ARP", true, &|m| ether(BROADCAST, me, ARP, &arp(1, (me, v4(2)), (nobody, v4(3)), m))),
            ("its own ARP answer", true, &|m| ether(to, me, ARP, &arp(2, (me, v4(2)), (them, v4(3)), m))),
            ("an ARP question about its own", true, &|m| {
                ether(BROADCAST, me, ARP, &arp(1, (me, Ipv4Addr::UNSPECIFIED), (nobody, v4(2)), m))
            }),
            ("an ARP question that takes the neighbour's", false, &|m| {
                ether(BROADCAST, me, ARP, &arp(1, (me, Ipv4Addr::UNSPECIFIED), (nobody, v4(3)), m))
            }),
            ("the gateway's ARP", false, &|m| ether(to, me, ARP, &arp(2, (me, v4(1)), (them, v4(3)), m))),
            ("another MAC in ARP", false, &|m| ether(to, me, ARP, &arp(2, (stranger, v4(2)), (them, v4(3)), m))),
            ("another frame's MAC around ARP", false, &|m| {
                ether(to, stranger, ARP, &arp(2, (me, v4(2)), (them, v4(3)), m))
            }),
            ("ARP of another kind", false, &|m| {
                let mut odd = arp(2, (me, v4(1)), (them, v4(3)), m);
                odd[1] = 6;
                ether(to, me, ARP, &odd)
            }),
            ("its own IPv6", true, &|m| ether(to, me, IP6, &ip6(17, v6(2), v6(3), &talk(m)))),
            ("its own link-local", true, &|m| ether(to, me, IP6, &ip6(17, own_link, their_link, &talk(m)))),
            ("the neighbour's IPv6", false, &|m| ether(to, me, IP6, &ip6(17, v6(3), v6(3), &talk(m)))),
            ("another link-local", false, &|m| ether(to, me, IP6, &ip6(17, their_link, v6(3), &talk(m)))),
            ("another IPv6 of the subnet", false, &|m| ether(to, me, IP6, &ip6(17, v6(0x99), v6(3), &talk(m)))),
            ("no IPv6", false, &|m| ether(to, me, IP6, &ip6(17, none, v6(3), &talk(m)))),
            ("its own NA", true, &|m| ether(to, me, IP6, &ip6(58, v6(2), v6(3), &about(136, v6(2), m)))),
            ("its own link-local NA", true, &|m| {
                ether(to, me, IP6, &ip6(58, own_link, v6(3), &about(136, own_link, m)))
            }),
            ("the gateway's NA", false, &|m| ether(to, me, IP6, &ip6(58, v6(2), v6(3), &about(136, v6(1), m)))),
            ("the gateway's NA behind an option", false, &|m| {
                let option = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &about(136, v6(1), m)].concat();
                ether(to, me, IP6, &ip6(0, v6(2), v6(3), &option))
            }),
            ("a question", true, &|m| ether(to, me, IP6, &ip6(58, v6(2), v6(3), &about(135, v6(3), m)))),
            ("whether its own is taken", true, &|m| ether(to, me, IP6, &ip6(58, none, all, &about(135, v6(2), m)))),
            ("whether the neighbour's is taken", false, &|m| {
                ether(to, me, IP6, &ip6(58, none, all, &about(135, v6(3), m)))
            }),
            ("an RA", false, &|m| ether(to, me, IP6, &ip6(58, own_link, all, &about(134, v6(1), m)))),
            ("an RA behind an option", false, &|m| {
                let option = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &about(134, v6(1), m)].concat();
                ether(to, me, IP6, &ip6(0, own_link, all, &option))
            }),
            ("a redirect", false, &|m| ether(to, me, IP6, &ip6(58, own_link, all, &about(137, v6(1), m)))),
            ("a DHCPv6 answer", false, &|m| ether(to, me, IP6, &ip6(17, own_link, their_link, &udp(547, 546, m)))),
        ];
        let mut wrong = Vec::new();
        for (index, (what, passes, frame)) in rows.iter().enumerate() {
            let mark = format!("frame number {index:04}");
            if stage.passes(&frame(mark.as_bytes()), mark.as_bytes()) != *passes {
                wrong.push(format!("{what}: {}", if *passes { "lost" } else { "got through" }));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");

        // Who may, may; and without rules every one of them would.
        for guard in [Some(Guard { spoof: true, ..Guard::default() }), None] {
            let [me, them] = [2, 3].map(|number| lab::port(&nat, number, guard.clone()));
            apply(&[&nat], &[&me, &them]);
            for (index, (what, _, frame)) in rows.iter().enumerate() {
                let mark = format!("frame anew {index:04}");
                assert!(stage.passes(&frame(mark.as_bytes()), mark.as_bytes()), "{what}: lost");
            }
        }
    })
}

/// Frames for the bridge itself do not go through it, and yet it would learn from them that the
/// neighbour is behind the liar's port.
fn a_bridge_learns_no_lie() -> Outcome {
    as_host(|| {
        let nat = network("main", 44);
        make(&nat);
        let (liar, neighbour) =
            (Guest::new(&nat, 2, Some(Guard::default())), Guest::new(&nat, 3, Some(Guard::default())));
        let learned = |mac: &str| {
            let output = Command::new("bridge").args(["fdb", "show", "br", "br44"]).output().expect("bridge runs");
            String::from_utf8_lossy(&output.stdout).lines().any(|line| line.starts_with(mac))
        };
        let line = Arc::new(liar.node.run(|| Line::open("eth0")));
        let lie = |mac: &str, to: [u8; 6]| {
            let frame = ether(
                to,
                mac.parse().expect("a MAC"),
                IP4,
                &ip4(17, [10, 44, 0, 2].into(), [10, 44, 0, 3].into(), &udp(1, 1, b"x")),
            );
            let line = Arc::clone(&line);
            liar.node.run(move || line.send(&frame));
        };
        const SPANNING_TREE: [u8; 6] = [1, 0x80, 0xc2, 0, 0, 0];
        lie("02:aa:aa:aa:aa:01", SPANNING_TREE);
        lie("02:aa:aa:aa:aa:02", BROADCAST);
        assert!(learned("02:aa:aa:aa:aa:01") && learned("02:aa:aa:aa:aa:02"), "without rules it learns both");
        apply(&[&nat], &[&liar.port, &neighbour.port]);
        lie("02:aa:aa:aa:aa:03", SPANNING_TREE);
        lie("02:aa:aa:aa:aa:04", BROADCAST);
        assert!(!learned("02:aa:aa:aa:aa:03") && !learned("02:aa:aa:aa:aa:04"));
        assert!(liar.node.ping("10.44.0.3"));
    })
}

/// On a network with somebody else's addresses: a MAC is one's own, and nobody is a router.
fn where_no_address_is_known() -> Outcome {
    as_host(|| {
        let mut site = network("site", 44);
        make(&site);
        let (mut liar, neighbour) = (Guest::new(&site, 2, Some(Guard::default())), Guest::new(&site, 3, None));
        site.host = None;
        site.uplink = Some("eth9".into());
        liar.port.address = None;
        apply(&[&site], &[&liar.port]);
        assert!(liar.node.ping("10.44.0.3") && liar.node.ping("fd00:44::3"));
        let (me, them) = (liar.port.mac, neighbour.port.mac);
        let to = raw::bytes(them);
        let stranger: Mac = "02:aa:aa:aa:aa:aa".parse().expect("a MAC");
        let (a, b): (Ipv4Addr, Ipv4Addr) = ([192, 0, 2, 9].into(), [10, 44, 0, 3].into());
        let all: Ipv6Addr = "ff02::1".parse().expect("an address");
        let stage = stage(liar, neighbour, [10, 44, 0, 2].into());
        let rows: [Row<'_>; 7] = [
            ("any IPv4", true, &|m| ether(to, me, IP4, &ip4(17, a, b, &udp(1, 1, m)))),
            ("any ARP", true, &|m| ether(to, me, ARP, &arp(2, (me, a), (them, b), m))),
            ("another MAC", false, &|m| ether(to, stranger, IP4, &ip4(17, a, b, &udp(1, 1, m)))),
            ("another MAC in ARP", false, &|m| ether(to, me, ARP, &arp(2, (stranger, a), (them, b), m))),
            ("a DHCP answer", false, &|m| ether(to, me, IP4, &ip4(17, a, b, &udp(67, 68, m)))),
            ("an RA", false, &|m| ether(to, me, IP6, &ip6(58, me.link_local(), all, &about(134, all, m)))),
            ("an RA in a tag of VLAN 0", false, &|m| {
                tagged(0, &ether(to, me, IP6, &ip6(58, me.link_local(), all, &about(134, all, m))))
            }),
        ];
        for (index, (what, passes, frame)) in rows.iter().enumerate() {
            let mark = format!("frame number {index:04}");
            assert_eq!(stage.passes(&frame(mark.as_bytes()), mark.as_bytes()), *passes, "{what}");
        }
    })
}

fn guard(allow: &[&str], deny: &[&str]) -> Option<Guard> {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a rule")).collect();
    Some(Guard { allow: rules(allow), deny: rules(deny), ..Guard::default() })
}

fn who_may_begin() -> Outcome {
    as_host(|| {
        let nat = network("main", 44);
        make(&nat);
        let guests = [2, 3, 4].map(|number| Guest::new(&nat, number, Some(Guard::default())));
        let [guest, one, other] = &guests;
        let world = outside(1);
        for port in [22, 53, 80] {
            for node in guests.iter().map(|guest| &guest.node).chain([&world]) {
                node.serve(port);
            }
            lab::serve(port);
        }
        let with = |guard: Option<Guard>| {
            let ruled = Port { guard, ..guest.port.clone() };
            apply(&[&nat], &[&ruled, &one.port, &other.port]);
        };
        // TCP 22, UDP 80 and ping; by IPv4 and IPv6, which must agree.
        let reached = |from: &lab::Node| from.reaches("10.44.0.2", "fd00:44::2");
        let reaches = |net4: &str, net6: &str| guest.node.reaches(net4, net6);
        let neighbour = || reaches("10.44.0.3", "fd00:44::3");
        let beyond = || reaches("198.51.1.2", "2001:db8:1::2");
        const ALL: [bool; 3] = [true; 3];
        const NONE: [bool; 3] = [false; 3];

        with(guard(&[], &[]));
        assert_eq!((reached(&one.node), neighbour(), beyond()), (ALL, ALL, ALL));

        // Each protocol, to it; what it begins itself is answered.
        with(guard(&["tcp/22"], &[]));
        assert_eq!((reached(&one.node), neighbour(), beyond()), ([true, false, false], ALL, ALL));
        assert_eq!(one.node.tcp("10.44.0.2:80"), None, "another port");
        with(guard(&["udp/70-90"], &[]));
        assert_eq!((reached(&one.node), neighbour()), ([false, true, false], ALL));
        with(guard(&["icmp"], &[]));
        assert_eq!((reached(&one.node), neighbour()), ([false, false, true], ALL));
        with(guard(&["any"], &["tcp/22"]));
        assert_eq!((reached(&one.node), neighbour()), ([false, true, true], ALL));
        with(guard(&[], &["any"]));
        assert_eq!((reached(&one.node), neighbour(), beyond()), (NONE, ALL, ALL));
        with(guard(&[], &["udp", "icmp"]));
        assert_eq!((reached(&one.node), neighbour(), beyond()), ([true, false, false], ALL, ALL));

        // By whom.
        with(guard(&["any from 10.44.0.3", "any from fd00:44::3"], &[]));
        assert_eq!((reached(&one.node), reached(&other.node)), (ALL, NONE));
        with(guard(&[], &["any from 10.44.0.3", "any from fd00:44::3"]));
        assert_eq!((reached(&one.node), reached(&other.node)), (NONE, ALL));
        assert_eq!(neighbour(), ALL, "it may begin with whom it denies");

        // From it; what others begin is answered.
        with(guard(&["out tcp/22 to 10.44.0.0/24", "out tcp/22 to fd00:44::/64"], &[]));
        assert_eq!((neighbour(), beyond(), reached(&one.node)), ([true, false, false], NONE, ALL));
        with(guard(&["out udp", "out icmp"], &[]));
        assert_eq!((neighbour(), beyond(), reached(&one.node)), ([false, true, true], [false, true, true], ALL));
        with(guard(&[], &["out any to 198.51.1.0/24", "out any to 2001:db8:1::/64"]));
        assert_eq!((neighbour(), beyond(), reached(&one.node)), (ALL, NONE, ALL));

        // Neither way, but DNS and what addresses need.
        with(guard(&["in tcp/1", "out tcp/1"], &[]));
        assert_eq!((reached(&one.node), neighbour(), beyond()), (NONE, NONE, NONE));
        for host in ["10.44.0.1:53", "[fd00:44::1]:53"] {
            assert!(guest.node.udp(host).is_some() && guest.node.tcp(host).is_some(), "{host}");
        }
        assert_eq!(guest.node.udp("10.44.0.1:80"), None);
        assert_eq!(guest.node.udp("198.51.1.2:53"), None, "of this host alone");
        let line = Arc::new(guest.node.run(|| Line::open("eth0")));
        let here = Line::open("br44");
        let frames = [
            ("a DHCP question", true, ip4(17, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &udp(68, 67, b"the mark"))),
            ("nothing of it", false, ip4(17, [10, 44, 0, 2].into(), Ipv4Addr::BROADCAST, &udp(68, 69, b"the mark"))),
            ("a first half of a head", false, {
                let mut half = ip4(6, [10, 44, 0, 2].into(), Ipv4Addr::BROADCAST, &tcp(1, 22, 2, b"the mark")[..]);
                half[7] = 1;
                half
            }),
        ];
        let mac = guest.port.mac;
        for (what, passes, packet) in frames {
            let line = Arc::clone(&line);
            let frames = [
                ether(BROADCAST, mac, IP4, &packet),
                ether(
                    BROADCAST,
                    mac,
                    ARP,
                    &arp(1, (mac, [10, 44, 0, 2].into()), (mac, [10, 44, 0, 1].into()), b"the end"),
                ),
            ];
            guest.node.run(move || frames.iter().for_each(|frame| line.send(frame)));
            assert_eq!(here.came_before(b"the mark", b"the end"), passes, "{what}");
        }
    })
}

/// Bytes that arrive while as many as possible are sent for a while, each way.
fn rates() -> Outcome {
    as_host(|| {
        let nat = network("main", 44);
        make(&nat);
        let limited = Guard { rate: Some("1Mbit".parse().expect("a rate")), ..Guard::default() };
        let (guest, neighbour) =
            (Guest::new(&nat, 2, Some(Guard::default())), Guest::new(&nat, 3, Some(Guard::default())));
        let flood = |from: &lab::Node, to: &lab::Node, address: &'static str| {
            let sink = to.run(|| {
                let sink = std::net::UdpSocket::bind("0.0.0.0:9").expect("a socket");
                sink.set_nonblocking(true).expect("a setting");
                sink
            });
            from.run(move || {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
                let started = Instant::now();
                let (mut arrived, mut buffer) = (0, [0; 2048]);
                while started.elapsed() < Duration::from_secs(1) {
                    let _ = socket.send_to(&[0; 1400], address);
                    while let Ok(length) = sink.recv(&mut buffer) {
                        arrived += length;
                    }
                }
                (arrived, started.elapsed())
            })
        };
        for (guard, is_limited) in [(limited, true), (Guard::default(), false)] {
            let ruled = Port { guard: Some(guard), ..guest.port.clone() };
            apply(&[&nat], &[&ruled, &neighbour.port]);
            for (from, to, address) in
                [(&guest.node, &neighbour.node, "10.44.0.3:9"), (&neighbour.node, &guest.node, "10.44.0.2:9")]
            {
                let (arrived, took) = flood(from, to, address);
                // 125 kB a second, and what may come at once: two seconds' worth.
                let most = 125_000 * (usize::try_from(took.as_secs()).expect("short") + 3);
                if is_limited {
                    assert!(arrived > 50_000 && arrived < 2 * most, "{arrived}");
                } else {
                    assert!(arrived > 4 * most, "{arrived}");
                }
            }
            assert!(guest.node.tcp("10.44.0.3:1").is_none());
        }
    })
}
