//! What guards let through, proven by frames: guests are taps whose other end is ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::kept_tests::network;
use super::ovs::Ovs;
use super::private_ovs::PrivateOvs;
use super::tests::{HEADER, Machine, row, send, sum, tap, vhost, with_switch, with_switch_beside};
use crate::error::Kind;
use crate::host::Program;
use crate::spec::{Address, Guard, Mac, NetworkSpec, Switch};

const EVERYBODY: [u8; 6] = [0xff; 6];
const ARP: [u8; 2] = [8, 6];
const IP: [u8; 2] = [8, 0];
const IP6: [u8; 2] = [0x86, 0xdd];

struct Guest {
    machine: Machine,
    line: OwnedFd,
}

impl Guest {
    /// A guest on the bridge of the network, with the address `10.44.0.<number>`.
    fn new(ovs: &Ovs, number: u8, network: &NetworkSpec, guard: Guard) -> Self {
        let mut machine = Machine::new(number.into(), tap(&network.bridge, Switch::Ovs, false));
        machine.nic.mac = format!("02:00:00:00:00:{number:02x}").parse().unwrap();
        let mut address = Address::new(
            format!("10.44.0.{number}/24").parse().unwrap(),
            Some("10.44.0.1".parse().unwrap()),
            Vec::new(),
        );
        address.ip6 = Some(format!("fd00::{number:x}/64").parse().unwrap());
        address.domain = Some("lan".into());
        machine.nic.address = Some(address);
        machine.nic.network = network.name.clone();
        machine.nic.vlan = network.vlan;
        machine.nic.guard = Some(guard);
        let line = machine.driver().prepare(&machine.port(ovs)).unwrap().unwrap();
        Self { machine, line }
    }

    fn mac(&self) -> [u8; 6] {
        bytes(self.machine.nic.mac)
    }

    fn ip(&self) -> Ipv4Addr {
        self.machine.nic.address.as_ref().unwrap().ip.addr()
    }

    fn ip6(&self) -> Ipv6Addr {
        self.machine.nic.address.as_ref().unwrap().ip6.unwrap().addr()
    }

    fn send(&self, frame: &[u8]) {
        send(&self.line, [0; HEADER], frame);
    }

    /// Sends the frames, and says which of them arrived.
    fn sends(&self, to: &Guest, frames: &[Vec<u8>]) -> Vec<bool> {
        frames.iter().for_each(|frame| self.send(frame));
        let seen = self.flush(to);
        frames.iter().map(|frame| seen.contains(frame)).collect()
    }

    /// Everything that arrives of what was sent until now, by a frame that always passes, and one
    /// more: the switch keeps no order among the frames that it takes in at once.
    fn flush(&self, to: &Guest) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let last = self.hello();
            self.send(&last);
            seen.extend(to.until(&last).expect("the last frame arrives"));
        }
        seen
    }

    /// An ARP request of its own, different each time.
    fn hello(&self) -> Vec<u8> {
        use std::sync::atomic::{AtomicU8, Ordering};
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let asked = Ipv4Addr::new(10, 44, 1, COUNT.fetch_add(1, Ordering::Relaxed));
        ether(EVERYBODY, self.mac(), ARP, &arp(1, self.mac(), self.ip(), asked))
    }

    /// What arrives up to this frame; `None`: it does not.
    fn until(&self, last: &[u8]) -> Option<Vec<Vec<u8>>> {
        let give_up = Instant::now() + Duration::from_secs(3);
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while Instant::now() < give_up {
            let tick = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            if poll(&mut [PollFd::new(&self.line, PollFlags::IN)], Some(&tick)).unwrap() == 0 {
                continue;
            }
            let length = rustix::io::read(&self.line, &mut buffer).unwrap();
            let frame = buffer[HEADER..length].to_vec();
            if frame == last {
                return Some(seen);
            }
            seen.push(frame);
        }
        None
    }
}

fn bytes(mac: Mac) -> [u8; 6] {
    let bytes: Vec<u8> = mac.to_string().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

fn ether(to: [u8; 6], from: [u8; 6], kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind, payload].concat()
}

fn arp(operation: u8, mac: [u8; 6], ip: Ipv4Addr, asked: Ipv4Addr) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, operation][..], &mac, &ip.octets(), &[0; 6], &asked.octets()].concat()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A packet whose checksums are right; that of the payload lies at `at` in it.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, mut payload: Vec<u8>, at: usize) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let pseudo = [octets(from), octets(to), vec![0, protocol], length.to_be_bytes().to_vec()].concat();
    let over = if protocol == 1 { payload.clone() } else { [pseudo, payload.clone()].concat() };
    payload[at..at + 2].copy_from_slice(&(!sum(&over)).to_be_bytes());
    match from {
        IpAddr::V4(_) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
            header.extend([octets(from), octets(to)].concat());
            let checksum = !sum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            [header, payload].concat()
        }
        IpAddr::V6(_) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([protocol, 255]);
            [header, octets(from), octets(to), payload].concat()
        }
    }
}

fn kind_of(address: IpAddr) -> [u8; 2] {
    if address.is_ipv4() { IP } else { IP6 }
}

fn udp(from: impl Into<IpAddr>, to: impl Into<IpAddr>, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).unwrap();
    let payload = [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &length.to_be_bytes(), &[0, 0], data].concat();
    packet(from.into(), to.into(), 17, payload, 6)
}

const SYN: u8 = 2;
const SYN_ACK: u8 = 0x12;

fn tcp(from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let acked = if flags == SYN_ACK { [0, 0, 0, 2] } else { [0; 4] };
    let payload = [
        &ports.0.to_be_bytes()[..],
        &ports.1.to_be_bytes(),
        &[0, 0, 0, 1],
        &acked,
        &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0],
    ]
    .concat();
    packet(from.into(), to.into(), 6, payload, 16)
}

fn ping(from: Ipv4Addr, to: Ipv4Addr, kind: u8) -> Vec<u8> {
    packet(from.into(), to.into(), 1, vec![kind, 0, 0, 0, 0, 7, 0, 1], 2)
}

/// A message of neighbour discovery about an address.
fn discovery(from: Ipv6Addr, to: Ipv6Addr, kind: u8, target: Ipv6Addr) -> Vec<u8> {
    packet(from.into(), to.into(), 58, [&[kind, 0, 0, 0, 0x60, 0, 0, 0][..], &target.octets()].concat(), 2)
}

/// From the guest, to a MAC.
fn ip_frame(from: [u8; 6], to: [u8; 6], packet: &[u8]) -> Vec<u8> {
    ether(
        to,
        from,
        kind_of(if packet[0] >> 4 == 4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }),
        packet,
    )
}

fn open() -> Guard {
    Guard { spoof: true, ..Guard::default() }
}

fn flows(switch: &PrivateOvs, command: &str) -> String {
    let socket = format!("unix:{}/vsbr0.mgmt", switch.dir.display());
    Program::new("ovs-ofctl").args(["-O", "OpenFlow14", command, &socket]).run().unwrap().text()
}

#[test]
fn a_guest_is_who_it_says() {
    with_switch_beside(|switch, ovs| {
        let lan = network("lan", None);
        ovs.make_network(&lan).unwrap();
        let guest = Guest::new(ovs, 5, &lan, Guard::default());
        let other = Guest::new(ovs, 6, &lan, open());
        let (me, them) = (guest.mac(), other.mac());
        let (mine, theirs) = (guest.ip(), other.ip());
        let (mine6, theirs6) = (guest.ip6(), other.ip6());
        let local: Ipv6Addr = "fe80::ff:fe00:5".parse().unwrap();
        let all: Ipv6Addr = "ff02::1".parse().unwrap();
        let none = Ipv6Addr::UNSPECIFIED;
        let ipv4 = |from: Ipv4Addr, ports| ip_frame(me, EVERYBODY, &udp(from, Ipv4Addr::BROADCAST, ports, b"x"));
        let ipv6 = |packet: Vec<u8>| ip_frame(me, [0x33, 0x33, 0, 0, 0, 1], &packet);
        let zero = Ipv4Addr::UNSPECIFIED;
        let tagged = [
            &EVERYBODY[..],
            &me,
            &[0x81, 0, 0, 0],
            &ether([0; 6], [0; 6], IP, &udp(mine, theirs, (7, 7), b"tag"))[12..],
        ]
        .concat();
        let rows = [
            ("its own ARP", ether(EVERYBODY, me, ARP, &arp(1, me, mine, theirs)), true),
            ("an answer to ARP", ether(them, me, ARP, &arp(2, me, mine, theirs)), true),
            ("ARP with another's address", ether(EVERYBODY, me, ARP, &arp(2, me, theirs, mine)), false),
            ("ARP with another's MAC in it", ether(EVERYBODY, me, ARP, &arp(2, them, mine, theirs)), false),
            ("ARP from another's MAC", ether(EVERYBODY, them, ARP, &arp(1, me, mine, theirs)), false),
            ("whether its own address is free", ether(EVERYBODY, me, ARP, &arp(1, me, zero, mine)), true),
            ("whether another's is", ether(EVERYBODY, me, ARP, &arp(1, me, zero, theirs)), false),
            ("IPv4", ip_frame(me, them, &udp(mine, theirs, (7, 7), b"x")), true),
            ("IPv4 from another's address", ip_frame(me, them, &udp(theirs, theirs, (7, 7), b"x")), false),
            ("IPv4 from another's MAC", ip_frame([2, 0, 0, 0, 9, 9], them, &udp(mine, theirs, (7, 7), b"y")), false),
            ("a question to DHCP", ipv4(zero, (68, 67)), true),
            ("something else without an address", ipv4(zero, (7, 7)), false),
            ("an answer of DHCP", ipv4(mine, (67, 68)), false),
            ("IPv6", ipv6(udp(mine6, all, (7, 7), b"x")), true),
            ("IPv6 from the address of the MAC", ipv6(udp(local, all, (7, 7), b"x")), true),
            ("IPv6 from another's address", ipv6(udp(theirs6, all, (7, 7), b"x")), false),
            ("IPv6 from no address", ipv6(udp(none, all, (7, 7), b"x")), false),
            ("an answer of DHCPv6", ipv6(udp(local, all, (547, 546), b"x")), false),
            ("whether its own IPv6 address is free", ipv6(discovery(none, all, 135, mine6)), true),
            ("whether another's IPv6 is", ipv6(discovery(none, all, 135, theirs6)), false),
            ("who has an address", ipv6(discovery(local, all, 135, theirs6)), true),
            ("that it has its own", ipv6(discovery(mine6, all, 136, mine6)), true),
            ("that it has another's", ipv6(discovery(mine6, all, 136, theirs6)), false),
            ("who is the router", ipv6(discovery(none, all, 133, none)), true),
            ("that it is a router", ipv6(discovery(local, all, 134, none)), false),
            ("that another way is better", ipv6(discovery(local, all, 137, theirs6)), false),
            ("another protocol", ether(EVERYBODY, me, [0x88, 0xb5], b"anything"), false),
            ("a tag", tagged, false),
        ];
        let frames: Vec<_> = rows.iter().map(|row| row.1.clone()).collect();
        let seen = guest.sends(&other, &frames);
        for ((what, _, passes), seen) in rows.iter().zip(seen) {
            assert_eq!(seen, *passes, "{what}");
        }

        // The same from one who may.
        let foreign = ip_frame([2, 0, 0, 0, 9, 9], me, &udp(mine, theirs, (67, 68), b"y"));
        let tagged = [&EVERYBODY[..], &them, &[0x81, 0, 0, 20, 0x88, 0xb5], b"tag"].concat();
        assert_eq!(other.sends(&guest, &[foreign, tagged]), [true, false]);

        guest.machine.driver().release(&guest.machine.port(ovs)).unwrap();
        let left = flows(switch, "dump-flows");
        let number = 0x2000 + 5 * 8;
        assert!(!left.contains(&format!("reg0={number:#x}")) && !left.contains(&me_text(&guest)), "{left}");
        assert!(left.contains("in_port=8240") && left.contains("NORMAL"), "{left}");
    });
}

fn me_text(guest: &Guest) -> String {
    guest.machine.nic.mac.to_string()
}

fn rules(allow: &[&str], deny: &[&str]) -> Guard {
    let read = |rules: &[&str]| rules.iter().map(|rule| rule.parse().unwrap()).collect();
    Guard { spoof: true, allow: read(allow), deny: read(deny), rate: None }
}

#[test]
fn rules_say_who_may_begin() {
    with_switch_beside(|_, ovs| {
        let lan = network("lan", None);
        ovs.make_network(&lan).unwrap();
        let guest = Guest::new(ovs, 5, &lan, rules(&["tcp/22-24 from 10.44.0.0/24"], &["tcp/23", "out udp/53"]));
        let other = Guest::new(ovs, 6, &lan, Guard::default());
        let (me, them) = (guest.mac(), other.mac());
        let (mine, theirs) = (guest.ip(), other.ip());
        let (mine6, theirs6) = (guest.ip6(), other.ip6());
        let to = |packet: Vec<u8>| ip_frame(them, me, &packet);
        let from = |packet: Vec<u8>| ip_frame(me, them, &packet);

        let rows = [
            ("what is allowed", to(tcp(theirs, mine, (5000, 22), SYN)), true),
            ("the end of the range", to(tcp(theirs, mine, (5000, 24), SYN)), true),
            ("beyond the range", to(tcp(theirs, mine, (5000, 25), SYN)), false),
            ("what is denied of it", to(tcp(theirs, mine, (5000, 23), SYN)), false),
            ("another protocol", to(udp(theirs, mine, (5000, 22), b"x")), false),
            ("a ping", to(ping(theirs, mine, 8)), false),
            ("an answer to nothing", to(tcp(theirs, mine, (80, 6000), SYN_ACK)), false),
            ("to all MACs, but its address", ip_frame(them, EVERYBODY, &udp(theirs, mine, (5000, 22), b"x")), false),
            ("IPv6", to(udp(theirs6, mine6, (5000, 22), b"x")), false),
            ("who has its IPv6 address", to(discovery(theirs6, mine6, 135, mine6)), true),
            ("DHCP", to(udp(theirs, mine, (67, 68), b"x")), false),
        ];
        let seen = other.sends(&guest, &rows.each_ref().map(|row| row.1.clone()));
        for ((what, _, passes), seen) in rows.iter().zip(seen) {
            assert_eq!(seen, *passes, "in: {what}");
        }
        let rows = [
            ("the answer to what came", from(tcp(mine, theirs, (22, 5000), SYN_ACK)), true),
            ("of its own accord", from(tcp(mine, theirs, (6000, 80), SYN)), true),
            ("a datagram", from(udp(mine, theirs, (6000, 4000), b"x")), true),
            ("a ping", from(ping(mine, theirs, 8)), true),
            ("IPv6", from(udp(mine6, theirs6, (6000, 4000), b"x")), true),
            ("what is denied", from(udp(mine, theirs, (6000, 53), b"x")), false),
            (
                "a name from the host",
                ip_frame(me, EVERYBODY, &udp(mine, Ipv4Addr::new(10, 44, 0, 1), (6000, 53), b"x")),
                true,
            ),
        ];
        let seen = guest.sends(&other, &rows.each_ref().map(|row| row.1.clone()));
        for ((what, _, passes), seen) in rows.iter().zip(seen) {
            assert_eq!(seen, *passes, "out: {what}");
        }
        let rows = [
            ("TCP", to(tcp(theirs, mine, (80, 6000), SYN_ACK)), true),
            ("UDP", to(udp(theirs, mine, (4000, 6000), b"y")), true),
            ("ping", to(ping(theirs, mine, 0)), true),
            ("IPv6", to(udp(theirs6, mine6, (4000, 6000), b"y")), true),
            ("another port", to(udp(theirs, mine, (4001, 6000), b"y")), false),
        ];
        let seen = other.sends(&guest, &rows.each_ref().map(|row| row.1.clone()));
        for ((what, _, passes), seen) in rows.iter().zip(seen) {
            assert_eq!(seen, *passes, "an answer: {what}");
        }
    });
}

#[test]
fn a_rate_is_kept_both_ways() {
    with_switch_beside(|switch, ovs| {
        let lan = network("lan", None);
        ovs.make_network(&lan).unwrap();
        let slow = Guard { rate: Some("1Mbit".parse().unwrap()), ..open() };
        let (slow, free) = (Guest::new(ovs, 5, &lan, slow), Guest::new(ovs, 6, &lan, open()));
        for (from, to, count) in [(&slow, &free, 400), (&free, &slow, 400), (&free, &free, 0)] {
            let frame = |n: usize| {
                let data = [&n.to_be_bytes()[..], &[0; 992]].concat();
                ip_frame(from.mac(), to.mac(), &udp(from.ip(), to.ip(), (7, 7), &data))
            };
            let mut arrived = 0;
            // In small lots, so that no queue in between is too short.
            for lot in 0..count / 20 {
                for n in 0..20 {
                    from.send(&frame(lot * 20 + n));
                }
                let tick = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
                let mut buffer = [0; 4096];
                while poll(&mut [PollFd::new(&to.line, PollFlags::IN)], Some(&tick)).unwrap() > 0 {
                    let length = rustix::io::read(&to.line, &mut buffer).unwrap();
                    arrived += usize::from(length > 1000);
                }
            }
            // 128 KiB at once, and what the time that passes adds.
            if count > 0 {
                assert!((100..300).contains(&arrived), "{arrived} of {count}");
            }
        }
        assert!(flows(switch, "dump-meters").contains("rate=1000"), "its meters");
        slow.machine.driver().release(&slow.machine.port(ovs)).unwrap();
        assert!(!flows(switch, "dump-meters").contains("rate=1000"), "its meters are gone");
    });
}

#[test]
fn networks_on_one_bridge_do_not_meet() {
    with_switch_beside(|_, ovs| {
        let (lan, web) = (network("lan", None), network("web", Some(20)));
        ovs.make_network(&lan).unwrap();
        ovs.make_network(&web).unwrap();
        let [a, b] = [5, 6].map(|number| Guest::new(ovs, number, &lan, open()));
        let [c, d] = [7, 8].map(|number| Guest::new(ovs, number, &web, Guard::default()));
        let from_lan = ether(EVERYBODY, a.mac(), ARP, &arp(1, a.mac(), a.ip(), c.ip()));
        let direct = ether(c.mac(), a.mac(), ARP, &arp(1, a.mac(), a.ip(), c.ip()));
        let tagged = [&EVERYBODY[..], &a.mac(), &[0x81, 0, 0, 20], &from_lan[12..]].concat();
        assert_eq!(a.sends(&b, &[from_lan.clone(), tagged.clone()]), [true, false]);
        a.send(&direct);
        let from_web = ether(EVERYBODY, c.mac(), ARP, &arp(1, c.mac(), c.ip(), a.ip()));
        a.flush(&b);
        let seen = d.flush(&c);
        assert!(!seen.contains(&from_lan) && !seen.contains(&direct), "nothing of the other network");
        assert!(!seen.contains(&tagged), "{seen:?}");
        assert_eq!(c.sends(&d, std::slice::from_ref(&from_web)), [true]);
        let seen = b.flush(&a);
        // The host's own frames are there too.
        assert!(!seen.iter().any(|frame| frame[6..12] == c.mac() || frame[12] == 0x81), "nor the other way: {seen:?}");

        for (device, guest) in [("vsbr0", &a), ("vsbr0.20", &c)] {
            Program::new("ip").args(["addr", "add", "10.44.0.1/24", "dev", device]).run().unwrap();
            let asks =
                ether(EVERYBODY, guest.mac(), ARP, &arp(1, guest.mac(), guest.ip(), Ipv4Addr::new(10, 44, 0, 1)));
            guest.send(&asks);
            assert!(answers(guest), "the host on {device}");
            Program::new("ip").args(["addr", "flush", "dev", device]).run().unwrap();
        }
    });
}

#[test]
fn a_guard_is_another_one_under_a_guest() {
    const SYN: u8 = 2;
    with_switch_beside(|switch, ovs| {
        let lan = network("lan", None);
        ovs.make_network(&lan).unwrap();
        let mut guest = Guest::new(ovs, 5, &lan, rules(&["tcp/22"], &[]));
        let other = Guest::new(ovs, 6, &lan, open());
        let limited = Guard { rate: Some("1Mbit".parse().unwrap()), ..rules(&["tcp/22"], &[]) };
        let steps = [
            (rules(&["tcp/22"], &[]), [true, false], false),
            (rules(&["tcp/80"], &[]), [false, true], false),
            (Guard::default(), [true, true], false),
            (limited, [true, false], true),
            (rules(&[], &["tcp/22"]), [false, true], false),
        ];
        // Another port each time: what was let through once is known to the switch.
        for (from, (guard, passes, metered)) in (6000..).zip(steps) {
            guest.machine.nic.guard = Some(guard.clone());
            guest.machine.driver().restore(&guest.machine.port(ovs), Path::new("/nowhere")).unwrap();
            let frames = [22, 80]
                .map(|port| ip_frame(other.mac(), guest.mac(), &tcp(other.ip(), guest.ip(), (from, port), SYN)));
            assert_eq!(other.sends(&guest, &frames), passes, "{guard:?}");
            assert_eq!(flows(switch, "dump-flows").contains("meter:"), metered, "{guard:?}");
        }
    });
}

/// Whether the host answers the guest's ARP.
fn answers(guest: &Guest) -> bool {
    let give_up = Instant::now() + Duration::from_secs(3);
    let mut buffer = [0; 4096];
    while Instant::now() < give_up {
        let tick = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        if poll(&mut [PollFd::new(&guest.line, PollFlags::IN)], Some(&tick)).unwrap() > 0 {
            let length = rustix::io::read(&guest.line, &mut buffer).unwrap();
            let frame = &buffer[HEADER..length];
            if frame[12..14] == ARP && frame[21] == 2 && frame[28..32] == [10, 44, 0, 1] {
                return true;
            }
        }
    }
    false
}

#[test]
fn a_switch_that_starts_anew_moves_nothing_unguarded() {
    with_switch_beside(|switch, ovs| {
        let lan = network("lan", None);
        ovs.make_network(&lan).unwrap();
        let guest = Guest::new(ovs, 5, &lan, Guard::default());
        let other = Guest::new(ovs, 6, &lan, Guard::default());
        let lie = ether(EVERYBODY, guest.mac(), ARP, &arp(2, guest.mac(), other.ip(), guest.ip()));
        assert_eq!(guest.sends(&other, std::slice::from_ref(&lie)), [false]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let anew = ovs.started_anew("vsbr0");
            let soon = tokio::time::timeout(Duration::from_millis(300), async { std::future::pending::<()>().await });
            tokio::pin!(anew);
            tokio::select! {
                () = &mut anew => panic!("it still runs"),
                _ = soon => {}
            }
            switch.kill_switch();
            switch.start_switch().unwrap();
            tokio::time::timeout(Duration::from_secs(10), anew).await.expect("it is told");
        });
        assert!(!flows(switch, "dump-flows").contains("actions="), "it has forgotten all");
        let hello = guest.hello();
        guest.send(&hello);

        let restore = |guest: &Guest| {
            let put_back = guest.machine.driver().restore(&guest.machine.port(ovs), Path::new("/nowhere"));
            assert!(!put_back.unwrap(), "the port itself was there");
        };
        restore(&other);
        // The other is there again and would get it, but its sender's guard is not.
        guest.send(&hello);
        guest.send(&lie);
        restore(&guest);
        let seen = guest.flush(&other);
        assert!(!seen.contains(&hello) && !seen.contains(&lie), "nothing passed meanwhile");
        assert_eq!(guest.sends(&other, std::slice::from_ref(&lie)), [false]);

        // A bridge that is gone comes back as ours.
        switch.vsctl(&["del-br", "vsbr0"]).unwrap();
        for guest in [&guest, &other] {
            assert!(guest.machine.driver().restore(&guest.machine.port(ovs), Path::new("/nowhere")).unwrap());
        }
        assert_eq!(ovs.bridge_is_ours("vsbr0").unwrap(), Some(true));
        assert_eq!(guest.sends(&other, std::slice::from_ref(&lie)), [false]);
    });
}

#[test]
fn a_vhost_port_takes_the_same_guard() {
    with_switch(true, |switch, ovs| {
        let lan = NetworkSpec { mtu: Some(1400), ..network("lan", Some(20)) };
        let mut vm = Machine::new(1, vhost("vsbr0", false));
        let socket = switch.dir.join("n0.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let connect = |vm: &Machine| {
            vm.driver().prepare(&vm.port(ovs)).unwrap();
            let since = Instant::now();
            vm.driver().connect(&vm.port(ovs), &socket).unwrap();
            since.elapsed()
        };
        ovs.make_network(&lan).unwrap();
        let without = connect(&vm);
        assert_eq!(row(switch, "Port", "v1n0", "tag"), "[]", "as ever");
        vm.nic.guard = Some(rules(&["tcp/22"], &[]));
        vm.nic.mtu = lan.mtu;
        vm.nic.vlan = lan.vlan;
        let with = connect(&vm);
        eprintln!("connected in {without:?}, with a guard in {with:?}");
        let rows = [
            ("Interface", "ofport", "8200"),
            ("Interface", "mtu_request", "1400"),
            ("Port", "tag", "20"),
            ("Port", "external_ids:virshle-guard", "\"8200\""),
        ];
        for (table, column, value) in rows {
            assert_eq!(row(switch, table, "v1n0", column), value, "{column}");
        }
        let count = |switch: &PrivateOvs| {
            flows(switch, "dump-flows").matches("in_port=v1n0").count()
                + flows(switch, "dump-flows").matches("in_port=8200").count()
        };
        let guarded = count(switch);
        assert!(guarded > 5, "{guarded}");
        let before = row(switch, "Interface", "v1n0", "_uuid");
        assert!(!vm.driver().restore(&vm.port(ovs), &socket).unwrap());
        assert_eq!(row(switch, "Interface", "v1n0", "_uuid"), before, "the guest's link is not cut for it");
        assert_eq!(count(switch), guarded);

        let error = ovs.clone().for_state(Path::new("/elsewhere")).guard("vsbr0", "v1n0", vm.uuid, 1, &vm.nic);
        assert_eq!(error.unwrap_err().kind(), Kind::Refused, "the bridge is not theirs");
        let far = Ovs::new(Some("tcp:127.0.0.1:1".into())).for_state(Path::new("/x"));
        far.guard("vsbr0", "v1n0", vm.uuid, 1, &vm.nic).unwrap_err();
        vm.driver().release(&vm.port(ovs)).unwrap();
        assert_eq!(count(switch), 0);
    });
}
