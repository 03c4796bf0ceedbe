//! `allow` and `deny` of a port. They say who may begin; answers come back. A rule without
//! connection tracking knows an answer by this: of TCP everything is one but the first packet
//! (SYN), of UDP and ping what fits a packet the other way that was let through a short time ago.
//!
//! What was let through is forgotten when the table is written again: of a UDP exchange with
//! nothing but answers left in it, those are lost then.

use ipnet::IpNet;

use super::guard::Guarded;
use super::text::{Table, joined};
use crate::spec::{Direction, PortRange, Rule, RuleProtocol};

/// As long as the kernel's own tracking remembers an exchange in both directions.
const UDP: &str = "flags dynamic,timeout; timeout 2m; size 262144";
const PING: &str = "flags dynamic,timeout; timeout 30s; size 262144";

pub(super) fn write(table: &mut Table, ports: &[&Guarded<'_>]) {
    table.set("ruled", "type ifname", ports.iter().map(|guarded| guarded.device()));
    let hosts = || ports.iter().filter_map(|guarded| Some((guarded.device(), guarded.network?.host.as_ref()?)));
    let host4 = hosts().map(|(device, host)| joined!(device, host.address.addr()));
    table.set("host4", "type ifname . ipv4_addr", host4);
    let host6 = hosts().filter_map(|(device, host)| Some(joined!(device, host.address6?.addr())));
    table.set("host6", "type ifname . ipv6_addr", host6);
    // The port, the other end, its port (or the ping's id), and the guest's.
    for version in ["4", "6"] {
        let key = format!("type ifname . ipv{version}_addr . inet_service . inet_service; {UDP}");
        table.set::<&str>(&format!("udp{version}"), &key, []);
        let (ip, icmp) = if version == "4" { ("ip", "icmp") } else { ("ip6", "icmpv6") };
        let key = format!("typeof iifname . {ip} daddr . {icmp} id; {PING}");
        table.set::<&str>(&format!("ping{version}"), &key, []);
    }
    for side in [From, To] {
        for guarded in ports {
            let (allow, deny) = (&guarded.guard.allow, &guarded.guard.deny);
            let of = |rules: &'_ [Rule]| -> Vec<Rule> {
                rules.iter().filter(|rule| rule.direction == side.direction()).cloned().collect()
            };
            let (allow, deny) = (of(allow), of(deny));
            let mut lines: Vec<String> = deny.iter().map(|rule| line(rule, "drop")).collect();
            if !allow.is_empty() {
                lines.extend(allow.iter().map(|rule| line(rule, "return")));
                lines.push("drop".to_owned());
            }
            table.chain(&format!("{}_{}", side.word(), guarded.port.port), None, lines);
        }
        let chains =
            ports.iter().map(|guarded| (guarded.device(), format!("goto {}_{}", side.word(), guarded.port.port)));
        table.map(&format!("port_{}", side.word()), "type ifname : verdict", chains);
        table.chain(&format!("rules_{}", side.word()), None, side.always());
        table.chain(&format!("remember_{}", side.word()), None, side.remember());
    }
}

/// Which way the frames go that a chain sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// From the guest.
    From,
    /// To the guest.
    To,
}
use Side::{From, To};

impl Side {
    fn direction(self) -> Direction {
        match self {
            From => Direction::Out,
            To => Direction::In,
        }
    }

    fn word(self) -> &'static str {
        match self {
            From => "from",
            To => "to",
        }
    }

    /// The guest's port, the other end's address, the other end's port and the guest's own.
    fn fields(self) -> [&'static str; 4] {
        match self {
            From => ["iifname", "daddr", "dport", "sport"],
            To => ["oifname", "saddr", "sport", "dport"],
        }
    }

    /// What goes through whatever the rules say, then the port's own rules.
    fn always(self) -> Vec<String> {
        let [device, peer, peer_port, own_port] = self.fields();
        let mut lines = vec![
            "ether type arp return".to_owned(),
            "ether type != { ip, ip6 } drop".to_owned(),
            "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, \
             mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } return"
                .to_owned(),
            format!("ether type ip udp {own_port} 68 udp {peer_port} 67 return"),
            format!("ether type ip6 udp {own_port} 546 udp {peer_port} 547 return"),
        ];
        if self == From {
            for (version, ip) in [("4", "ip"), ("6", "ip6")] {
                let dns = format!("iifname . {ip} daddr @host{version} meta l4proto {{ tcp, udp }} th dport 53 return");
                lines.push(dns);
            }
        }
        lines.extend([
            // The second half of a header that was cut in two, so that no rule sees it whole.
            "ip frag-off & 0x1fff == 1 drop".to_owned(),
            "frag frag-off 1 drop".to_owned(),
            // Later fragments are worth nothing without the first, which the rules see.
            "ip frag-off & 0x1fff != 0 return".to_owned(),
            "frag frag-off != 0 return".to_owned(),
            "tcp flags & (syn | ack) != syn return".to_owned(),
        ]);
        for (version, ip, icmp) in [("4", "ip", "icmp"), ("6", "ip6", "icmpv6")] {
            lines.push(format!("{device} . {ip} {peer} . udp {peer_port} . udp {own_port} @udp{version} return"));
            lines.push(format!("{icmp} type echo-reply {device} . {ip} {peer} . {icmp} id @ping{version} return"));
        }
        lines.extend([
            "icmp type { destination-unreachable, time-exceeded, parameter-problem } return".to_owned(),
            "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } return"
                .to_owned(),
            format!("{device} vmap @port_{}", self.word()),
        ]);
        lines
    }

    /// What came this far was let through.
    fn remember(self) -> Vec<String> {
        let [device, peer, peer_port, own_port] = self.fields();
        let mut lines = Vec::new();
        for (version, ip, icmp) in [("4", "ip", "icmp"), ("6", "ip6", "icmpv6")] {
            let key = format!("{device} . {ip} {peer} . udp {peer_port} . udp {own_port}");
            lines.push(format!("ether type {ip} meta l4proto udp update @udp{version} {{ {key} }}"));
            let key = format!("{device} . {ip} {peer} . {icmp} id");
            lines.push(format!("{icmp} type echo-request update @ping{version} {{ {key} }}"));
        }
        lines
    }
}

fn line(rule: &Rule, verdict: &str) -> String {
    let mut words = Vec::new();
    let side = match rule.direction {
        Direction::In => "saddr",
        Direction::Out => "daddr",
    };
    match rule.peer {
        None => {}
        // Every one of that version.
        Some(IpNet::V4(net)) if net.prefix_len() == 0 => words.push("ether type ip".to_owned()),
        Some(IpNet::V6(net)) if net.prefix_len() == 0 => words.push("ether type ip6".to_owned()),
        Some(IpNet::V4(net)) => words.push(format!("ip {side} {net}")),
        Some(IpNet::V6(net)) => words.push(format!("ip6 {side} {net}")),
    }
    let protocol = match rule.protocol {
        RuleProtocol::Any => None,
        RuleProtocol::Icmp => Some("meta l4proto { icmp, ipv6-icmp }".to_owned()),
        RuleProtocol::Tcp | RuleProtocol::Udp if rule.ports.is_empty() => {
            Some(format!("meta l4proto {}", rule.protocol))
        }
        RuleProtocol::Tcp | RuleProtocol::Udp => Some(format!("{} dport {}", rule.protocol, ports(&rule.ports))),
    };
    words.extend(protocol);
    words.push(verdict.to_owned());
    words.join(" ")
}

/// `{ 22, 80-90 }`; ranges that touch become one, because a set takes no two that overlap.
fn ports(ranges: &[PortRange]) -> String {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| (range.first, range.last));
    let mut merged: Vec<PortRange> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    let texts: Vec<String> = merged.iter().map(PortRange::to_string).collect();
    format!("{{ {} }}", texts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_is_one_line() {
        let rows = [
            ("tcp/22", "tcp dport { 22 } drop"),
            ("tcp/80-90,22,85-100,101", "tcp dport { 22, 80-101 } drop"),
            ("udp/65535,1-65535", "udp dport { 1-65535 } drop"),
            ("out udp to 10.0.0.0/8", "ip daddr 10.0.0.0/8 meta l4proto udp drop"),
            ("icmp from fd00::/8", "ip6 saddr fd00::/8 meta l4proto { icmp, ipv6-icmp } drop"),
            ("any", "drop"),
            ("out any to 0.0.0.0/0", "ether type ip drop"),
            ("any from ::/0", "ether type ip6 drop"),
        ];
        for (rule, written) in rows {
            assert_eq!(line(&rule.parse().unwrap(), "drop"), written, "{rule}");
        }
    }
}
