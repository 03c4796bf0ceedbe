//! What each port of a Linux bridge lets through: that a guest is who it says, its own rules, its
//! rate. All ports share the chains; which addresses are whose is looked up in sets, so that a
//! thousand ports cost a frame no more than one.
//!
//! Without connection tracking, which not every kernel has for bridges.

use std::net::Ipv6Addr;

use super::Port;
use super::rules;
use super::text::{Device, Hook, Table, joined};
use crate::spec::{Guard, NetworkSpec, Rate, Switch};

/// A port that has a guard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guarded<'a> {
    pub(super) port: &'a Port,
    pub(super) guard: &'a Guard,
    /// `None`: nothing is known of the network but its ports.
    pub(super) network: Option<&'a NetworkSpec>,
}

impl<'a> Guarded<'a> {
    pub(super) fn device(&self) -> Device<'a> {
        Device(&self.port.port)
    }

    /// Where this host serves, it gives every address there is.
    fn is_served(&self) -> bool {
        self.network.is_some_and(|network| network.host.is_some())
    }

    fn ip6(&self) -> Option<Ipv6Addr> {
        Some(self.port.address.as_ref()?.ip6?.addr())
    }

    /// The chain that knows as much as there is to know.
    fn own(&self) -> &'static str {
        match (&self.port.address, self.ip6().is_some() || self.is_served()) {
            (Some(_), true) => "jump own_addresses",
            (Some(_), false) => "jump own_ip4",
            (None, _) => "jump own_mac",
        }
    }
}

/// `None`: there is no port to guard.
pub(super) fn table(networks: &[&NetworkSpec], ports: &[&Port]) -> Option<Table> {
    let guarded: Vec<Guarded<'_>> = ports
        .iter()
        .filter(|port| port.switch == Switch::Bridge)
        .filter_map(|port| {
            let network = networks.iter().copied().find(|network| network.name == port.network);
            Some(Guarded { port, guard: port.guard.as_ref()?, network })
        })
        .filter(|guarded| *guarded.guard != Guard { spoof: true, ..Guard::default() })
        .collect();
    if guarded.is_empty() {
        return None;
    }
    let mut table = Table::new("bridge");
    let (mut from, mut to) = (Vec::new(), Vec::new());
    let honest: Vec<_> = guarded.iter().filter(|guarded| !guarded.guard.spoof).collect();
    if !honest.is_empty() {
        own_addresses(&mut table, &honest);
        from.push("iifname vmap @own");
    }
    let ruled: Vec<_> =
        guarded.iter().filter(|guarded| !(guarded.guard.allow.is_empty() && guarded.guard.deny.is_empty())).collect();
    if !ruled.is_empty() {
        rules::write(&mut table, &ruled);
        from.extend(["iifname @ruled jump rules_from", "iifname @ruled jump remember_from"]);
        to.extend(["oifname @ruled jump rules_to", "oifname @ruled jump remember_to"]);
    }
    let limited: Vec<_> = guarded.iter().filter_map(|guarded| Some((guarded.device(), guarded.guard.rate?))).collect();
    if !limited.is_empty() {
        rates(&mut table, &limited);
        from.push("limit name iifname map @rate_from drop");
        to.push("limit name oifname map @rate_to drop");
    }
    table.chain("from_guests", Some(Hook("type filter hook prerouting priority -300")), from);
    if !to.is_empty() {
        table.chain("to_guests", Some(Hook("type filter hook postrouting priority 300")), to);
    }
    if !honest.is_empty() {
        // Frames for the bridge itself (spanning tree, …) do not come by above, yet it learns from
        // them behind which port a MAC is.
        table.chain(
            "to_bridge",
            Some(Hook("type filter hook input priority -200")),
            ["ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 iifname vmap @silent"],
        );
    }
    Some(table)
}

/// That nobody uses a MAC or an address that was not given to it, and nobody is a router or a DHCP
/// server.
fn own_addresses(table: &mut Table, ports: &[&Guarded<'_>]) {
    table.map("own", "type ifname : verdict", ports.iter().map(|guarded| (guarded.device(), guarded.own())));
    table.map("silent", "type ifname : verdict", ports.iter().map(|guarded| (guarded.device(), "drop")));
    let macs = ports.iter().map(|guarded| joined!(guarded.device(), guarded.port.mac));
    table.set("own_macs", "type ifname . ether_addr", macs);
    let ip4 =
        ports.iter().filter_map(|guarded| Some(joined!(guarded.device(), guarded.port.address.as_ref()?.ip.addr())));
    table.set("own_ip4s", "type ifname . ipv4_addr", ip4);
    let ip6: Vec<_> = ports
        .iter()
        .filter(|guarded| guarded.own() == "jump own_addresses")
        .flat_map(|guarded| {
            let link_local = guarded.port.mac.link_local();
            guarded.ip6().into_iter().chain([link_local]).map(|ip| (guarded.device(), ip))
        })
        .collect();
    table.set("own_ip6s", "type ifname . ipv6_addr", ip6.iter().map(|(device, ip)| joined!(device, ip)));
    // The same, compared with 16 bytes of a message.
    let targets = ip6.iter().map(|(device, ip)| joined!(device, format_args!("0x{:032x}", u128::from(*ip))));
    table.set("own_targets", "typeof iifname . @th,64,128", targets);

    table.chain(
        "own_mac",
        None,
        [
            "iifname . ether saddr != @own_macs drop",
            // Nothing in a tag or another wrapping either: a tag of VLAN 0 is none to the receiver.
            "ether type != { arp, ip, ip6 } drop",
            "arp htype != 1 drop",
            "arp ptype != ip drop",
            "arp hlen != 6 drop",
            "arp plen != 4 drop",
            "iifname . arp saddr ether != @own_macs drop",
            "ether type ip udp sport 67 drop",
            "ether type ip6 udp sport 547 drop",
            "icmpv6 type { nd-router-advert, nd-redirect } drop",
        ],
    );
    table.chain(
        "own_ip4",
        None,
        [
            "jump own_mac",
            // Whether somebody has an address is asked without one: of one's own only, or a
            // neighbour that comes up believes that its address is taken.
            "arp saddr ip 0.0.0.0 iifname . arp daddr ip != @own_ip4s drop",
            "arp saddr ip != 0.0.0.0 iifname . arp saddr ip != @own_ip4s drop",
            "ip saddr 0.0.0.0 udp sport 68 udp dport 67 return",
            "iifname . ip saddr != @own_ip4s drop",
        ],
    );
    table.chain(
        "own_addresses",
        None,
        [
            "jump own_ip4",
            "ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . @th,64,128 != @own_targets drop",
            "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld-listener-report, \
             mld2-listener-report } return",
            "iifname . ip6 saddr != @own_ip6s drop",
            "icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @own_targets drop",
        ],
    );
}

fn rates(table: &mut Table, ports: &[(Device<'_>, Rate)]) {
    for direction in ["from", "to"] {
        for (Device(port), rate) in ports {
            table.limit(&format!("{direction}_{port}"), limit(*rate));
        }
        let limits = ports.iter().map(|(device, _)| (*device, format!("\"{direction}_{}\"", device.0)));
        table.map(&format!("rate_{direction}"), "type ifname : limit", limits);
    }
}

/// What is above the rate is dropped.
fn limit(rate: Rate) -> String {
    // The kernel counts in nanoseconds times bytes, which fit up to some 147 Gbit/s; no port of a
    // Linux bridge is near that.
    const HIGHEST: u64 = 12_500_000_000;
    // A frame that the host will cut up later has up to 64 KiB.
    const LEAST_BURST: u64 = 128 * 1024;
    const MOST_BURST: u64 = 1 << 30;
    let bytes = (rate.bits_per_second() / 8).min(HIGHEST);
    let burst = (bytes / 10).clamp(LEAST_BURST, MOST_BURST);
    format!("rate over {bytes} bytes/second burst {burst} bytes")
}
