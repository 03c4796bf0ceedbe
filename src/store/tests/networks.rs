//! What is remembered of networks, and what one network cannot have beside another.

use std::collections::{BTreeMap, HashSet};
use std::sync::Barrier;

use ipnet::Ipv6Net;
use proptest::prelude::*;

use super::fixture::{self, name, network, store};
use crate::error::{Error, Kind};
use crate::spec::{Datapath, NetworkSpec, Switch};
use crate::store::{Made, NetworkRecord, NetworkState, Store};

/// Open vSwitch, no host side.
fn tagged(given: &str, bridge: &str, vlan: Option<u16>) -> NetworkSpec {
    let switch = Switch::Ovs;
    NetworkSpec { switch, bridge: bridge.to_owned(), vlan, host: None, ..network(given) }
}

fn plain(given: &str, bridge: &str) -> NetworkSpec {
    NetworkSpec { bridge: bridge.to_owned(), host: None, ..network(given) }
}

fn serving(given: &str, net: &str, net6: Option<&str>) -> NetworkSpec {
    let mut spec = network(given);
    let host = spec.host.as_mut().unwrap();
    host.address = net.parse().unwrap();
    host.address6 = net6.map(|net| net.parse().unwrap());
    spec
}

#[test]
fn a_network_comes_up_and_goes_down() {
    let (_dir, mut store) = store();
    let main = name("main");
    assert_eq!(store.networks().unwrap(), []);
    assert_eq!(store.network(&main).unwrap(), None);

    let begun = store.begin_network(&network("main")).unwrap();
    assert_eq!((begun.state, &begun.made, begun.server), (NetworkState::ComingUp, &Made::default(), None));
    assert_eq!(store.network(&main).unwrap().as_ref(), Some(&begun));

    let made =
        Made { bridge: true, device: true, uplink: true, uplink_was_down: true, zone: Some("virshle".to_owned()) };
    let up = store
        .update_network(&main, |record| {
            record.state = NetworkState::Up;
            record.made = made.clone();
            record.server = Some(fixture::OWNER);
            Ok(record.clone())
        })
        .unwrap();
    let read = store.network(&main).unwrap().unwrap();
    assert!(read.updated_at > begun.updated_at);
    assert_eq!(NetworkRecord { updated_at: read.updated_at, ..up }, read);
    assert_eq!(store.begin_network(&network("main")).unwrap(), read, "it is up already");

    let other = NetworkSpec { mtu: Some(9000), ..network("main") };
    assert_eq!(store.begin_network(&other).unwrap(), read, "with the spec it came up with");
    assert_eq!(store.networks().unwrap(), [read]);

    store.forget_network(&main).unwrap();
    store.forget_network(&main).unwrap();
    assert_eq!(store.networks().unwrap(), []);
    assert_eq!(store.begin_network(&other).unwrap().spec, other);
}

#[test]
fn every_field_of_a_network_is_written_and_read_back() {
    let (_dir, mut store) = store();
    let mut full = tagged("full", "ovs0", Some(7));
    full.datapath = Some(Datapath::Netdev);
    full.mtu = Some(1400);
    full.uplink = Some("eth1".to_owned());
    full.host = network("x").host.map(|host| crate::spec::HostSide {
        address6: Some("fd00:1:2::1/64".parse().unwrap()),
        nat: false,
        isolated: true,
        upstream: vec!["9.9.9.9".parse().unwrap(), "2620:fe::fe".parse().unwrap()],
        ..host
    });
    for spec in [full, plain("plain", "br0")] {
        store.begin_network(&spec).unwrap();
        for state in [NetworkState::Up, NetworkState::GoingDown, NetworkState::ComingUp] {
            store
                .update_network(&spec.name, |record| {
                    record.state = state;
                    Ok(())
                })
                .unwrap();
            let read = store.network(&spec.name).unwrap().unwrap();
            assert_eq!((read.spec, read.state), (spec.clone(), state));
        }
    }
    assert_eq!(store.networks().unwrap().len(), 2);
    store.check().unwrap();
}

#[test]
fn what_another_network_has_is_refused() {
    let with_uplink = |spec: NetworkSpec| NetworkSpec { uplink: Some("eth1".to_owned()), ..spec };
    let rows = [
        (plain("a", "br0"), plain("b", "br1"), None),
        (plain("a", "br0"), plain("b", "br0"), Some("the bridge `br0`")),
        (plain("a", "br0"), tagged("b", "br0", Some(5)), Some("the bridge `br0`")),
        (tagged("a", "br0", None), tagged("b", "br0", Some(5)), None),
        (tagged("a", "br0", Some(4)), tagged("b", "br0", Some(5)), None),
        (tagged("a", "br0", Some(5)), tagged("b", "br0", Some(5)), Some("the VLAN 5 of the bridge `br0`")),
        (tagged("a", "br0", Some(5)), tagged("b", "br1", Some(5)), None),
        (tagged("a", "br0", Some(5)), plain("b", "br0.5"), Some("the interface `br0.5`")),
        (plain("a", "br0.5"), tagged("b", "br0", Some(5)), Some("the interface `br0.5`")),
        (tagged("a", "br0", Some(5)), tagged("b", "br0.5", Some(7)), Some("the interface `br0.5`")),
        (with_uplink(plain("a", "br0")), with_uplink(plain("b", "br1")), Some("the uplink `eth1`")),
        (with_uplink(tagged("a", "br0", Some(1))), with_uplink(tagged("b", "br0", Some(2))), None),
        (serving("a", "10.0.0.1/24", None), serving("b", "10.0.1.1/24", None), None),
        (serving("a", "10.0.0.1/24", None), serving("b", "10.0.0.9/24", None), Some("the subnet `10.0.0.0/24`")),
        (
            serving("a", "10.0.0.1/16", None),
            serving("b", "10.0.3.1/24", None),
            Some("the subnet `10.0.3.0/24`, which overlaps `10.0.0.0/16`"),
        ),
        (
            serving("a", "10.0.3.1/24", None),
            serving("b", "10.0.0.1/16", None),
            Some("the subnet `10.0.0.0/16`, which overlaps `10.0.3.0/24`"),
        ),
        (
            serving("a", "10.0.0.1/24", Some("fd00:1::1/64")),
            serving("b", "10.0.1.1/24", Some("fd00:1::2/64")),
            Some("the subnet `fd00:1::/64`"),
        ),
        (serving("a", "10.0.0.1/24", Some("fd00:1::1/64")), serving("b", "10.0.1.1/24", Some("fd00:2::1/64")), None),
        (serving("a", "10.0.0.1/24", Some("fd00:1::1/64")), serving("b", "10.0.1.1/24", None), None),
    ];
    for (one, other, clash) in rows {
        let (_dir, mut store) = store();
        store.begin_network(&one).unwrap();
        let begun = store.begin_network(&other);
        let what = format!("{one:?}\n{other:?}");
        match clash {
            None => assert_eq!(begun.unwrap().spec, other, "{what}"),
            Some(clash) => {
                let error = begun.unwrap_err();
                let expected = format!("network `b` cannot have {clash}: network `a` has it");
                assert_eq!((error.message(), error.kind()), (expected.as_str(), Kind::Refused), "{what}");
                assert!(error.hint_text().unwrap().contains("v network down a"), "{what}");
                assert_eq!(store.networks().unwrap().len(), 1, "{what}");
            }
        }
    }
}

#[test]
fn a_refused_change_of_a_network_writes_nothing() {
    let (_dir, mut store) = store();
    store.begin_network(&plain("a", "br0")).unwrap();
    let before = store.begin_network(&plain("b", "br1")).unwrap();
    type Change = (fn(&mut NetworkRecord), &'static str);
    let changes: [Change; 2] = [
        (|record| record.spec.name = name("c"), "network `b` cannot get another name"),
        (
            |record| record.spec.bridge = "br0".to_owned(),
            "network `b` cannot have the bridge `br0`: network `a` has it",
        ),
    ];
    for (change, message) in changes {
        let error = store
            .update_network(&name("b"), |record| {
                change(record);
                Ok(())
            })
            .unwrap_err();
        assert_eq!(error.message(), message);
    }
    let error = store
        .update_network(&name("b"), |record| {
            record.state = NetworkState::Up;
            Err::<(), _>(Error::refused("not today"))
        })
        .unwrap_err();
    assert_eq!(error.message(), "not today");
    store.update_network(&name("b"), |_| Ok(())).unwrap();
    assert_eq!(store.network(&name("b")).unwrap(), Some(before), "not even `updated_at`");

    let error = store.update_network(&name("c"), |_| Ok(())).unwrap_err();
    assert_eq!((error.message(), error.kind()), ("network `c` is not up", Kind::NotFound));
}

#[test]
fn of_many_that_bring_up_the_same_subnet_one_does() {
    const MANY: usize = 16;
    let (_dir, store) = store();
    let (barrier, path) = (Barrier::new(MANY), store.path());
    let begin = &|n: usize| {
        let mut store = Store::open(path).unwrap();
        barrier.wait();
        store.begin_network(&network(&format!("net-{n}"))).map(drop)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..MANY).map(|n| scope.spawn(move || begin(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.into_iter().filter_map(Result::err).all(|error| error.kind() == Kind::Refused));
    assert_eq!(store.networks().unwrap().len(), 1);
}

#[test]
fn a_made_up_subnet_is_kept_for_ever_and_is_nobody_elses() {
    const MANY: usize = 16;
    let (_dir, mut store) = store();
    let main = name("main");
    let net = store.prefix6(&main).unwrap();
    assert_eq!(net, net.trunc());
    assert_eq!((net.prefix_len(), net.network().octets()[0]), (64, 0xfd), "{net}");
    store.begin_network(&network("main")).unwrap();
    store.forget_network(&main).unwrap();
    assert_eq!(store.prefix6(&main).unwrap(), net);
    assert_eq!(Store::open(store.path()).unwrap().prefix6(&main).unwrap(), net);

    // The same network from many sides at once, and many others.
    let barrier = Barrier::new(2 * MANY);
    let nets: Vec<Ipv6Net> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2 * MANY)
            .map(|n| {
                let (barrier, path) = (&barrier, store.path());
                scope.spawn(move || {
                    let mut store = Store::open(path).unwrap();
                    barrier.wait();
                    let given = if n < MANY { name("same") } else { name(&format!("net-{n}")) };
                    store.prefix6(&given).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(nets[..MANY].iter().all(|other| *other == nets[0]));
    assert_eq!(nets.iter().chain([&net]).collect::<HashSet<_>>().len(), MANY + 2);
    store.check().unwrap();
}

#[test]
fn settings_are_noted_once_and_forgotten_together() {
    let (_dir, mut store) = store();
    assert_eq!(store.settings().unwrap(), []);
    for (path, before) in [
        ("net/ipv6/conf/eth0/accept_ra", "1"),
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv6/conf/eth0/accept_ra", "2"),
        ("net/ipv4/ip_forward", "1"),
    ] {
        store.note_setting(path, before).unwrap();
    }
    let noted = [("net/ipv6/conf/eth0/accept_ra", "1"), ("net/ipv4/ip_forward", "0")];
    assert_eq!(store.settings().unwrap(), noted.map(|(path, before)| (path.to_owned(), before.to_owned())));
    store.forget_settings().unwrap();
    assert_eq!(store.settings().unwrap(), []);
    store.note_setting("net/ipv4/ip_forward", "1").unwrap();
    assert_eq!(store.settings().unwrap(), [("net/ipv4/ip_forward".to_owned(), "1".to_owned())]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever comes up and goes down in whatever order: no two recorded networks share a bridge,
    /// an interface or an address, and what is refused is refused for a reason.
    #[test]
    fn no_two_networks_have_the_same(
        steps in proptest::collection::vec((0u8..4, 0u8..3, prop::option::of(1u16..3), 0u8..3, any::<bool>()), 1..20),
    ) {
        let (_dir, mut store) = store();
        let mut recorded: BTreeMap<String, NetworkSpec> = BTreeMap::new();
        for (which, bridge, vlan, net, up) in steps {
            let given = format!("net-{which}");
            if !up {
                store.forget_network(&name(&given)).unwrap();
                recorded.remove(&given);
                continue;
            }
            let host = serving(&given, &format!("10.0.{net}.1/24"), None).host;
            let spec = NetworkSpec { host, ..tagged(&given, &format!("br{bridge}"), vlan) };
            let clashes = recorded.values().any(|other| {
                let same_net = other.host.as_ref().unwrap().address == spec.host.as_ref().unwrap().address;
                other.device() == spec.device() || same_net
            });
            match store.begin_network(&spec) {
                Ok(record) => {
                    if let Some(before) = recorded.get(&given) {
                        prop_assert_eq!(&record.spec, before);
                    } else {
                        prop_assert!(!clashes);
                        recorded.insert(given, spec);
                    }
                }
                Err(error) => {
                    prop_assert_eq!(error.kind(), Kind::Refused);
                    prop_assert!(clashes && !recorded.contains_key(&given));
                }
            }
        }
        let found: Vec<NetworkSpec> = store.networks().unwrap().into_iter().map(|record| record.spec).collect();
        prop_assert_eq!(found, recorded.into_values().collect::<Vec<_>>());
    }
}
