//! What the host routes: addresses translated, forwards, networks kept apart.

use std::collections::BTreeMap;

use super::Port;
use super::text::{Device, Hook, Table, joined};
use crate::spec::{Forward, HostSide, NetworkSpec};

/// What guests of a network may reach beyond it, the strictest last: of two networks on one bridge
/// it counts for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Routed,
    Nat,
    Isolated,
}

/// `None`: this host is on no network.
pub(super) fn table(networks: &[&NetworkSpec], ports: &[&Port]) -> Option<Table> {
    let served: Vec<(String, &NetworkSpec, &HostSide)> =
        networks.iter().filter_map(|network| Some((network.device(), *network, network.host.as_ref()?))).collect();
    if served.is_empty() {
        return None;
    }
    let mut reach = BTreeMap::new();
    for (device, _, host) in &served {
        let now = match (host.isolated, host.nat) {
            (true, _) => Reach::Isolated,
            (false, true) => Reach::Nat,
            (false, false) => Reach::Routed,
        };
        let before = reach.entry(device.as_str()).or_insert(now);
        *before = now.max(*before);
    }
    let with_ip6 = served.iter().any(|(.., host)| host.address6.is_some());
    let forwards = Forwards::of(&served, ports);

    let mut table = Table::new("inet");
    sets(&mut table, &served, &reach, with_ip6);
    // Before connection tracking: the answers to what the host sent from 127.0.0.1 are still
    // addressed to its other address here.
    table.chain(
        "loopback",
        Some(Hook("type filter hook prerouting priority raw")),
        ["iifname @served ip daddr 127.0.0.0/8 drop", "iifname @served ip saddr 127.0.0.0/8 drop"],
    );
    forwards.write(&mut table);
    translation_out(&mut table, with_ip6);
    forwarding(&mut table, &reach);
    if reach.values().any(|reach| *reach == Reach::Isolated) {
        to_this_host(&mut table);
    }
    Some(table)
}

fn sets(
    table: &mut Table,
    served: &[(String, &NetworkSpec, &HostSide)],
    reach: &BTreeMap<&str, Reach>,
    with_ip6: bool,
) {
    table.set("served", "type ifname", reach.keys().map(|device| Device(device)));
    let isolated = reach.iter().filter(|(_, reach)| **reach == Reach::Isolated);
    table.set("isolated", "type ifname", isolated.map(|(device, _)| Device(device)));
    let nat = || served.iter().filter(|(device, _, host)| host.nat && reach[device.as_str()] == Reach::Nat);
    let net4 = |host: &HostSide| host.address.trunc();
    table.set("nat4", "type ipv4_addr; flags interval; auto-merge", nat().map(|(.., host)| net4(host)));
    let own4 = served.iter().map(|(device, _, host)| joined!(Device(device), net4(host)));
    table.set("inside4", "type ifname . ipv4_addr; flags interval", own4);
    if with_ip6 {
        let net6 = |host: &HostSide| host.address6.map(|net| net.trunc());
        let nat6 = nat().filter_map(|(.., host)| net6(host));
        table.set("nat6", "type ipv6_addr; flags interval; auto-merge", nat6);
        let own6 = served.iter().filter_map(|(device, _, host)| Some(joined!(Device(device), net6(host)?)));
        table.set("inside6", "type ifname . ipv6_addr; flags interval", own6);
    }
}

/// Ports of the host and where they lead: one look-up each, however many there are.
#[derive(Debug, Default)]
struct Forwards {
    /// Of one address of the host.
    one4: BTreeMap<String, String>,
    every4: BTreeMap<String, String>,
    every6: BTreeMap<String, String>,
}

impl Forwards {
    fn of(served: &[(String, &NetworkSpec, &HostSide)], ports: &[&Port]) -> Self {
        let mut all = Self::default();
        for port in ports {
            let (Some(address), true) = (&port.address, served.iter().any(|(_, net, _)| net.name == port.network))
            else {
                continue;
            };
            for Forward { host, host_port, guest_port, protocol } in &port.forwards {
                let target = joined!(address.ip.addr(), guest_port);
                // Two that clash were refused when the second VM started; a table that cannot be
                // loaded would help nobody.
                match host {
                    Some(host) => {
                        all.one4.entry(joined!(host, protocol, host_port)).or_insert(target);
                    }
                    None => {
                        all.every4.entry(joined!(protocol, host_port)).or_insert(target);
                        if let Some(ip6) = address.ip6 {
                            let target = joined!(ip6.addr(), guest_port);
                            all.every6.entry(joined!(protocol, host_port)).or_insert(target);
                        }
                    }
                }
            }
        }
        all
    }

    fn write(&self, table: &mut Table) {
        if self.one4.is_empty() && self.every4.is_empty() {
            return;
        }
        let mut rules = Vec::new();
        if !self.one4.is_empty() {
            table.map("one4", "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service", &self.one4);
            rules.push("dnat ip to ip daddr . meta l4proto . th dport map @one4");
        }
        if !self.every4.is_empty() {
            table.map("every4", "type inet_proto . inet_service : ipv4_addr . inet_service", &self.every4);
            rules.push("dnat ip to meta l4proto . th dport map @every4");
        }
        if !self.every6.is_empty() {
            table.map("every6", "type inet_proto . inet_service : ipv6_addr . inet_service", &self.every6);
            rules.push("dnat ip6 to meta l4proto . th dport map @every6");
        }
        table.chain("forwards", None, rules);
        // An address is translated before the kernel would refuse 127.0.0.1 from outside.
        let from_outside =
            ["ip daddr 127.0.0.0/8 return", "meta l4proto { tcp, udp } fib daddr type local jump forwards"];
        table.chain("from_outside", Some(Hook("type nat hook prerouting priority dstnat")), from_outside);
        // The kernel takes no answer to `::1` from a wire; there is no `route_localnet` for it.
        let from_here = ["ip6 daddr ::1 return", "meta l4proto { tcp, udp } fib daddr type local jump forwards"];
        table.chain("from_here", Some(Hook("type nat hook output priority -100")), from_here);
    }
}

/// Guests' addresses stay inside: outside they have the host's.
fn translation_out(table: &mut Table, with_ip6: bool) {
    let mut rules = vec![
        // A guest that reaches a neighbour, or itself, through a forward: the answer must come back
        // through the host, which knows whom the guest believes to talk with.
        "oifname . ip saddr @inside4 ct status dnat masquerade",
        "oifname @served ip saddr 127.0.0.0/8 masquerade",
        "ip daddr { 224.0.0.0/4, 255.255.255.255 } return",
        "ip saddr @nat4 oifname != @served masquerade",
    ];
    if with_ip6 {
        rules.extend([
            "oifname . ip6 saddr @inside6 ct status dnat masquerade",
            "ip6 daddr ff00::/8 return",
            "ip6 saddr @nat6 oifname != @served masquerade",
        ]);
    }
    table.chain("going_out", Some(Hook("type nat hook postrouting priority srcnat")), rules);
}

fn forwarding(table: &mut Table, reach: &BTreeMap<&str, Reach>) {
    table.chain("into_nat", None, ["ct state established,related accept", "ct status dnat accept", "drop"]);
    let within = reach.keys().map(|device| joined!(Device(device), Device(device)));
    table.set("within", "type ifname . ifname", within);
    let into = reach.iter().filter_map(|(device, reach)| match reach {
        Reach::Routed => None,
        Reach::Nat => Some((Device(device), "goto into_nat")),
        Reach::Isolated => Some((Device(device), "drop")),
    });
    table.map("into", "type ifname : verdict", into);
    table.chain(
        "forward",
        Some(Hook("type filter hook forward priority filter")),
        ["iifname . oifname @within accept", "iifname @isolated drop", "oifname vmap @into"],
    );
}

/// Guests of isolated networks have this host's DHCP and DNS, at its address on their network.
fn to_this_host(table: &mut Table) {
    table.chain(
        "from_isolated",
        None,
        [
            "ct state established,related accept",
            "fib daddr . iif type != { local, broadcast, multicast, anycast } drop",
            "udp dport { 53, 67, 547 } accept",
            "tcp dport 53 accept",
            "meta l4proto { icmp, ipv6-icmp } accept",
            "drop",
        ],
    );
    table.chain(
        "input",
        Some(Hook("type filter hook input priority filter")),
        ["iifname @isolated goto from_isolated"],
    );
}
