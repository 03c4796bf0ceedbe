use super::*;
use crate::spec::{Address, Link};

const VM: &str = "6f1b0a1e-91a7-4d2c-9d52-0123456789ab";
const COOKIE: &str = "0x123456789ab2008";

fn nic(address: Option<Address>) -> Nic {
    let link = Link::Vhost { bridge: "vsbr0".into(), create: false };
    let mut nic = Nic::new(VM.parse().unwrap(), 0, "lan".parse().unwrap(), link);
    nic.mac = "02:00:00:00:00:05".parse().unwrap();
    nic.address = address;
    nic
}

fn served() -> Address {
    let mut address = Address::new("10.44.0.5/24".parse().unwrap(), Some("10.44.0.1".parse().unwrap()), Vec::new());
    address.ip6 = Some("fd00::5/64".parse().unwrap());
    address.gateway6 = Some("fd00::1".parse().unwrap());
    address.domain = Some("lan".into());
    address
}

fn text(nic: &Nic, wanted: &Guard) -> String {
    let cookie = cookie(VM.parse().unwrap(), 0x2008);
    let text = guard(0x2008, cookie, nic, wanted);
    text.replace(&format!(",cookie={COOKIE}"), "")
}

#[test]
fn the_common_flows() {
    let expected = "\
delete cookie=0x76697273686c6500/-1
add table=0,priority=1,cookie=0x76697273686c6500,in_port=8200,actions=drop
add table=0,priority=0,cookie=0x76697273686c6500,actions=goto_table:3
add table=3,priority=0,cookie=0x76697273686c6500,actions=NORMAL
";
    assert_eq!(common(&[8200]), expected);
}

#[test]
fn a_guest_with_addresses() {
    let expected = "\
delete cookie=0x123456789ab2008/-1
delete in_port=8200
delete reg0=8200
add table=0,priority=1,in_port=8200,actions=drop
add table=0,priority=60,in_port=8200,vlan_tci=0x1000/0x1000,actions=drop
add table=0,priority=50,in_port=8200,udp,tp_src=67,actions=drop
add table=0,priority=50,in_port=8200,udp6,tp_src=547,actions=drop
add table=0,priority=50,in_port=8200,icmp6,icmp_type=134,actions=drop
add table=0,priority=50,in_port=8200,icmp6,icmp_type=137,actions=drop
add table=0,priority=40,arp,in_port=8200,dl_src=02:00:00:00:00:05,arp_sha=02:00:00:00:00:05,arp_spa=10.44.0.5,actions=goto_table:1
add table=0,priority=40,arp,in_port=8200,dl_src=02:00:00:00:00:05,arp_sha=02:00:00:00:00:05,arp_spa=0.0.0.0,arp_tpa=10.44.0.5,actions=goto_table:1
add table=0,priority=40,ip,in_port=8200,dl_src=02:00:00:00:00:05,nw_src=10.44.0.5,actions=goto_table:1
add table=0,priority=40,udp,in_port=8200,dl_src=02:00:00:00:00:05,nw_src=0.0.0.0,tp_src=68,tp_dst=67,actions=goto_table:1
add table=0,priority=44,icmp6,in_port=8200,icmp_type=136,actions=drop
add table=0,priority=40,icmp6,in_port=8200,dl_src=02:00:00:00:00:05,ipv6_src=::,icmp_type=135,nd_target=fd00::5,actions=goto_table:1
add table=0,priority=45,icmp6,in_port=8200,dl_src=02:00:00:00:00:05,ipv6_src=fd00::5,icmp_type=136,nd_target=fd00::5,actions=goto_table:1
add table=0,priority=45,icmp6,in_port=8200,dl_src=02:00:00:00:00:05,ipv6_src=fe80::ff:fe00:5,icmp_type=136,nd_target=fd00::5,actions=goto_table:1
add table=0,priority=40,icmp6,in_port=8200,dl_src=02:00:00:00:00:05,ipv6_src=::,icmp_type=135,nd_target=fe80::ff:fe00:5,actions=goto_table:1
add table=0,priority=45,icmp6,in_port=8200,dl_src=02:00:00:00:00:05,ipv6_src=fd00::5,icmp_type=136,nd_target=fe80::ff:fe00:5,actions=goto_table:1
add table=0,priority=45,icmp6,in_port=8200,dl_src=02:00:00:00:00:05,ipv6_src=fe80::ff:fe00:5,icmp_type=136,nd_target=fe80::ff:fe00:5,actions=goto_table:1
add table=0,priority=40,icmp6,in_port=8200,dl_src=02:00:00:00:00:05,ipv6_src=::,icmp_type=133,actions=goto_table:1
add table=0,priority=40,icmp6,in_port=8200,dl_src=02:00:00:00:00:05,ipv6_src=::,icmp_type=131,actions=goto_table:1
add table=0,priority=40,icmp6,in_port=8200,dl_src=02:00:00:00:00:05,ipv6_src=::,icmp_type=143,actions=goto_table:1
add table=0,priority=40,ipv6,in_port=8200,dl_src=02:00:00:00:00:05,ipv6_src=fd00::5,actions=goto_table:1
add table=0,priority=40,ipv6,in_port=8200,dl_src=02:00:00:00:00:05,ipv6_src=fe80::ff:fe00:5,actions=goto_table:1
add table=1,priority=0,in_port=8200,actions=goto_table:3
";
    assert_eq!(text(&nic(Some(served())), &Guard::default()), expected);
}

#[test]
fn what_is_not_known_is_not_held_against_a_guest() {
    let unknown = text(&nic(None), &Guard::default());
    for flow in [
        "arp,in_port=8200,dl_src=02:00:00:00:00:05,arp_sha=02:00:00:00:00:05",
        "ip,in_port=8200,dl_src=02:00:00:00:00:05",
        "ipv6,in_port=8200,dl_src=02:00:00:00:00:05",
    ] {
        assert!(unknown.contains(&format!("add table=0,priority=40,{flow},actions=goto_table:1\n")), "{unknown}");
    }
    assert!(unknown.contains("udp,tp_src=67,actions=drop"));
    let elsewhere = Address::new("10.44.0.5/24".parse().unwrap(), None, Vec::new());
    let elsewhere = text(&nic(Some(elsewhere)), &Guard::default());
    assert!(
        elsewhere.contains("add table=0,priority=40,ipv6,in_port=8200,dl_src=02:00:00:00:00:05,actions=goto_table:1\n")
    );
    assert!(elsewhere.contains("nw_src=10.44.0.5"));

    let spoof = text(&nic(Some(served())), &Guard { spoof: true, ..Guard::default() });
    let expected = "\
delete cookie=0x123456789ab2008/-1
delete in_port=8200
delete reg0=8200
add table=0,priority=1,in_port=8200,actions=drop
add table=0,priority=60,in_port=8200,vlan_tci=0x1000/0x1000,actions=drop
add table=0,priority=10,in_port=8200,actions=goto_table:1
add table=1,priority=0,in_port=8200,actions=goto_table:3
";
    assert_eq!(spoof, expected);
}

#[test]
fn rules_and_a_rate() {
    let guard = Guard {
        spoof: true,
        allow: vec!["in tcp/22 from 10.0.0.0/8".parse().unwrap()],
        deny: vec!["out icmp".parse().unwrap()],
        rate: Some("10Mbit".parse().unwrap()),
    };
    let text = text(&nic(Some(served())), &guard);
    let expected = "\
add table=0,priority=10,in_port=8200,actions=meter:16400,goto_table:1
add table=3,priority=10,dl_dst=02:00:00:00:00:05,actions=meter:16401,set_field:8200->reg0,goto_table:4
add table=3,priority=10,ip,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,nw_dst=10.44.0.5,actions=meter:16401,set_field:8200->reg0,goto_table:4
add table=3,priority=10,ipv6,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,ipv6_dst=fd00::5,actions=meter:16401,set_field:8200->reg0,goto_table:4
";
    assert!(text.contains(expected), "{text}");
    for flow in [
        "table=1,priority=30,udp,nw_dst=10.44.0.1,tp_dst=53,in_port=8200,actions=goto_table:3",
        "table=1,priority=30,tcp6,ipv6_dst=fd00::1,tp_dst=53,in_port=8200,actions=goto_table:3",
        "table=1,priority=10,ip,in_port=8200,actions=ct(table=2,zone=8200)",
        "table=1,priority=0,in_port=8200,actions=drop",
        "table=2,priority=40,ct_state=+trk+est-inv,in_port=8200,actions=goto_table:3",
        "table=2,priority=20,icmp,in_port=8200,actions=drop",
        "table=2,priority=20,icmp6,in_port=8200,actions=drop",
        "table=2,priority=0,ip,in_port=8200,actions=ct(commit,zone=8200),goto_table:3",
        "table=4,priority=30,udp,tp_dst=68,tp_src=67,reg0=8200,actions=NORMAL",
        "table=4,priority=10,ipv6,reg0=8200,actions=ct(table=5,zone=8200)",
        "table=5,priority=10,tcp,nw_src=10.0.0.0/8,tp_dst=22,reg0=8200,actions=ct(commit,zone=8200),NORMAL",
        "table=5,priority=0,ipv6,reg0=8200,actions=drop",
    ] {
        assert!(text.contains(&format!("add {flow}\n")), "{flow}: {text}");
    }
    assert!(!text.contains("table=5,priority=10,tcp6"), "a peer of one version");
    assert_eq!(meter(1, guard.rate.unwrap()), "meter=1,kbps,burst,stats,band=type=drop,rate=10000,burst_size=1024");
    assert_eq!(
        meter(1, "100Gbit".parse().unwrap()),
        "meter=1,kbps,burst,stats,band=type=drop,rate=100000000,burst_size=10000000"
    );
}

#[test]
fn a_range_of_ports_is_covered_exactly() {
    for (first, last) in [(22, 22), (80, 90), (1, 65535), (8000, 8099), (65535, 65535), (1024, 2047), (3, 4)] {
        let masks = masks(PortRange { first, last });
        let covers = |port: u16| {
            let hex = |text: &str| u16::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
            masks
                .iter()
                .filter(|mask| match mask.split_once('/') {
                    Some((value, mask)) => port & hex(mask) == hex(value),
                    None => port == mask.parse::<u16>().unwrap(),
                })
                .count()
        };
        for port in 0..=u16::MAX {
            assert_eq!(covers(port), usize::from((first..=last).contains(&port)), "{port} in {first}-{last}");
        }
    }
}
