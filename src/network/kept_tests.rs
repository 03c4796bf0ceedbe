//! Networks that Virshle keeps, on a real switch in a network namespace of its own.

use std::path::Path;

use super::ovs::Ovs;
use super::tests::{row, with_switch_beside};
use crate::error::Kind;
use crate::host::{NetDevice, Program};
use crate::spec::{Datapath, NetworkSpec, Switch};

pub(super) fn network(name: &str, vlan: Option<u16>) -> NetworkSpec {
    let spec = NetworkSpec::sample(name).with_host(|side| side.address6 = None);
    NetworkSpec { switch: Switch::Ovs, bridge: "vsbr0".into(), datapath: Some(Datapath::Netdev), vlan, ..spec }
}

fn ip(args: &[&str]) {
    Program::new("ip").args(args).run().unwrap();
}

#[test]
fn what_is_made_for_a_network_is_taken_away_again() {
    with_switch_beside(|switch, ovs| {
        assert_eq!(ovs.bridge_is_ours("vsbr0").unwrap(), None);
        ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
        let lan = NetworkSpec { uplink: Some("up0".into()), mtu: Some(1400), host: None, ..network("lan", None) };
        let web = network("web", Some(20));
        assert!(ovs.make_network(&lan).unwrap());
        assert!(!ovs.make_network(&lan).unwrap(), "it is there");
        assert!(!ovs.make_network(&web).unwrap(), "the bridge is there");
        assert!(!ovs.make_network(&web).unwrap());
        assert_eq!(ovs.bridge_is_ours("vsbr0").unwrap(), Some(true));
        assert_eq!(ovs.clone().for_state(Path::new("/elsewhere")).bridge_is_ours("vsbr0").unwrap(), Some(false));
        let rows = [
            ("Bridge", "vsbr0", "fail_mode", "secure"),
            ("Bridge", "vsbr0", "external_ids:virshle-network", "\"lan,web\""),
            ("Interface", "vsbr0", "mtu", "1400"),
            ("Port", "up0", "external_ids:virshle-network", "lan"),
            ("Port", "vsbr0.20", "tag", "20"),
            ("Interface", "vsbr0.20", "type", "internal"),
        ];
        for (table, name, column, value) in rows {
            assert_eq!(row(switch, table, name, column), value, "{name} {column}");
        }
        assert!(NetDevice::find("vsbr0.20").unwrap().is_some());

        let other = NetworkSpec { bridge: "vsbr1".into(), ..lan.clone() };
        let error = ovs.make_network(&other).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "the uplink is in another bridge: {error:?}");
        assert_eq!(ovs.bridge_is_ours("vsbr1").unwrap(), None);
        let error = ovs.make_network(&NetworkSpec { datapath: Some(Datapath::System), ..lan.clone() }).unwrap_err();
        assert!(error.message().contains("has the datapath `netdev`"), "{error:?}");

        ovs.unmake_network(&lan).unwrap();
        assert!(ovs.port_owner("up0").unwrap().is_none());
        assert_eq!(row(switch, "Bridge", "vsbr0", "external_ids:virshle-network"), "web");
        ovs.unmake_network(&lan).unwrap();
        ovs.unmake_network(&web).unwrap();
        assert_eq!(ovs.bridge_is_ours("vsbr0").unwrap(), None, "the last network takes the bridge along");
        assert!(NetDevice::find("vsbr0").unwrap().is_none());
        ovs.unmake_network(&web).unwrap();
    });
}

#[test]
fn what_is_somebody_elses_stays() {
    with_switch_beside(|switch, ovs| {
        switch.add_bridge("vsbr0").unwrap();
        let (lan, web) = (network("lan", None), network("web", Some(20)));
        for spec in [&lan, &web] {
            let error = ovs.make_network(spec).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused);
            assert!(error.message().contains("somebody else"), "{error:?}");
            ovs.unmake_network(spec).unwrap();
        }
        assert_eq!(ovs.bridge_is_ours("vsbr0").unwrap(), Some(false));
        assert_eq!(row(switch, "Bridge", "vsbr0", "fail_mode"), "[]");
        switch.vsctl(&["del-br", "vsbr0"]).unwrap();

        assert!(ovs.make_network(&lan).unwrap());
        switch.vsctl(&["add-port", "vsbr0", "theirs", "--", "set", "Interface", "theirs", "type=internal"]).unwrap();
        ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
        switch.vsctl(&["add-port", "vsbr0", "up0"]).unwrap();
        let with_uplink = NetworkSpec { uplink: Some("up0".into()), ..lan.clone() };
        ovs.make_network(&with_uplink).unwrap();
        assert_eq!(row(switch, "Port", "up0", "external_ids"), "{}", "put there by hand");
        ovs.unmake_network(&with_uplink).unwrap();
        let ports = switch.vsctl(&["list-ports", "vsbr0"]).unwrap();
        assert_eq!(ports.split_whitespace().collect::<Vec<_>>(), ["theirs", "up0"]);
        assert_eq!(row(switch, "Bridge", "vsbr0", "fail_mode"), "[]", "they go on without us");
        assert!(!ovs.make_network(&lan).unwrap(), "still ours");
        assert_eq!(row(switch, "Bridge", "vsbr0", "fail_mode"), "secure");
        switch.vsctl(&["del-port", "theirs", "--", "del-port", "up0"]).unwrap();
        ovs.unmake_network(&lan).unwrap();
        assert_eq!(ovs.bridge_is_ours("vsbr0").unwrap(), None);
        let nobodys = Ovs::new(Some(switch.db.clone()));
        nobodys.make_network(&lan).unwrap_err();
        assert_eq!(ovs.bridge_is_ours("vsbr0").unwrap(), None);
    });
}

#[test]
fn the_datapath_of_a_new_bridge() {
    with_switch_beside(|_, ovs| {
        assert_eq!(ovs.choose_datapath(Some(Datapath::System)).unwrap(), Datapath::System);
        let chosen = ovs.choose_datapath(None).unwrap();
        let expected = if ovs.can_system_datapath() { Datapath::System } else { Datapath::Netdev };
        assert_eq!(chosen, expected, "without DPDK");
    });
}
