//! The flows of a bridge that Virshle made, as text for `ovs-ofctl`. Pure.
//!
//! ```text
//! table 0  from a guarded port: only what its guest may send ─► 1 ─► 2   else: straight to 3
//! table 1  its rules for what it sends                        ─► 2 (with the answer of `ct`) ─► 3
//! table 3  to a guarded guest ─► 4, else delivered
//! table 4  its rules for what it gets                         ─► 5 (with the answer of `ct`), delivered
//! ```
//!
//! Delivered is `NORMAL`: the switch learns MACs and heeds VLANs as ever. Each flow has a cookie, by
//! which those of one NIC, or the common ones, are replaced and removed. Rules say who may begin;
//! answers come back: that is what the switch's connection tracking knows, in a zone for each port.
//!
//! What is sent to everybody has no one receiver, so the rules for what a guest gets do not see it,
//! unless its IP address is the guest's alone.

use std::fmt::{Display, Write as _};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use uuid::Uuid;

use crate::spec::{Direction, Guard, Nic, PortRange, Rate, Rule, RuleProtocol};

const FROM: u8 = 0;
const FROM_RULES: u8 = 1;
const FROM_TRACKED: u8 = 2;
const TO: u8 = 3;
const TO_RULES: u8 = 4;
const TO_TRACKED: u8 = 5;

/// Of the flows that are no guest's: `virshle` in ASCII.
const COMMON: u64 = 0x7669_7273_686c_6500;

/// What every bridge of ours has, and that ports with one of the numbers `guarded` send nothing
/// until their own flows are there.
pub(super) fn common(guarded: &[u16]) -> String {
    let mut flows = Flows::new(COMMON);
    for port in guarded {
        flows.add(FROM, 1, format_args!("in_port={port}"), "drop");
    }
    flows.add(FROM, 0, "", format_args!("goto_table:{TO}"));
    flows.add(TO, 0, "", "NORMAL");
    flows.text
}

/// The low bytes of the VM's uuid, which are random in each version of it, and the port's number.
pub(super) fn cookie(vm: Uuid, number: u16) -> u64 {
    (vm.as_u64_pair().1 << 16) | u64::from(number)
}

/// The meters of a port: of what its guest sends, and of what it gets.
pub(super) fn meters(number: u16) -> [u32; 2] {
    [u32::from(number) * 2, u32::from(number) * 2 + 1]
}

/// What `add-meter` and `mod-meter` take: what is above the rate is dropped.
pub(super) fn meter(id: u32, rate: Rate) -> String {
    // A frame that the host will cut up later has up to 64 KiB.
    const LEAST_BURST: u64 = 128 * 8;
    let kbps = rate.bits_per_second() / 1000;
    let burst = (kbps / 10).max(LEAST_BURST);
    format!("meter={id},kbps,burst,stats,band=type=drop,rate={kbps},burst_size={burst}")
}

/// Removes everything of a port's guard.
pub(super) fn without(number: u16, cookie: u64) -> String {
    format!("delete cookie={cookie:#x}/-1\ndelete in_port={number}\ndelete reg0={number}\n")
}

/// Replaces everything of a port's guard, whoever had that number before.
pub(super) fn guard(number: u16, cookie: u64, nic: &Nic, guard: &Guard) -> String {
    let mut flows = Flows::new(cookie);
    flows.text = without(number, cookie);
    let [meter_from, meter_to] = meters(number);
    let metered = |id: u32| guard.rate.map(|_| format!("meter:{id},")).unwrap_or_default();
    honest(&mut flows, number, nic, guard, &format!("{}goto_table:{FROM_RULES}", metered(meter_from)));
    let ruled = !(guard.allow.is_empty() && guard.deny.is_empty());
    let sender = Side { direction: Direction::Out, number, nic, guard };
    if !ruled {
        flows.add(FROM_RULES, 0, sender.key(), sender.pass());
        if guard.rate.is_none() {
            return flows.text;
        }
    }
    let receiver = Side { direction: Direction::In, ..sender };
    let to = format!("{}set_field:{number}->reg0,goto_table:{TO_RULES}", metered(meter_to));
    flows.add(TO, 10, format_args!("dl_dst={}", nic.mac), &to);
    if let Some(address) = &nic.address {
        let all = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00";
        flows.add(TO, 10, format_args!("ip,{all},nw_dst={}", address.ip.addr()), &to);
        if let Some(ip6) = address.ip6 {
            flows.add(TO, 10, format_args!("ipv6,{all},ipv6_dst={}", ip6.addr()), &to);
        }
    }
    if !ruled {
        flows.add(TO_RULES, 0, receiver.key(), receiver.pass());
        return flows.text;
    }
    for side in [sender, receiver] {
        side.write(&mut flows);
    }
    flows.text
}

/// That the guest uses no MAC and no address that was not given to it, and is no router and no DHCP
/// server.
fn honest(flows: &mut Flows, number: u16, nic: &Nic, guard: &Guard, pass: &str) {
    let port = format!("in_port={number}");
    flows.add(FROM, 1, &port, "drop");
    // A port without a VLAN is in all of them, by the tags that its guest would write.
    flows.add(FROM, 60, format_args!("{port},vlan_tci=0x1000/0x1000"), "drop");
    if guard.spoof {
        flows.add(FROM, 10, &port, pass);
        return;
    }
    let mac = nic.mac;
    for what in ["udp,tp_src=67", "udp6,tp_src=547", "icmp6,icmp_type=134", "icmp6,icmp_type=137"] {
        flows.add(FROM, 50, format_args!("{port},{what}"), "drop");
    }
    let own = format!("{port},dl_src={mac}");
    match &nic.address {
        None => {
            flows.add(FROM, 40, format_args!("arp,{own},arp_sha={mac}"), pass);
            flows.add(FROM, 40, format_args!("ip,{own}"), pass);
        }
        Some(address) => {
            let ip = address.ip.addr();
            flows.add(FROM, 40, format_args!("arp,{own},arp_sha={mac},arp_spa={ip}"), pass);
            // Whether somebody has an address is asked without one: of one's own only, or a
            // neighbour that comes up believes that its address is taken.
            flows.add(FROM, 40, format_args!("arp,{own},arp_sha={mac},arp_spa=0.0.0.0,arp_tpa={ip}"), pass);
            flows.add(FROM, 40, format_args!("ip,{own},nw_src={ip}"), pass);
            flows.add(FROM, 40, format_args!("udp,{own},nw_src=0.0.0.0,tp_src=68,tp_dst=67"), pass);
        }
    }
    // Where this host serves, it gives every address there is, and a domain.
    match nic.address.as_ref().filter(|address| address.ip6.is_some() || address.domain.is_some()) {
        None => flows.add(FROM, 40, format_args!("ipv6,{own}"), pass),
        Some(address) => {
            let addresses = address.ip6.map(|ip6| ip6.addr()).into_iter().chain([nic.mac.link_local()]);
            let addresses: Vec<Ipv6Addr> = addresses.collect();
            flows.add(FROM, 44, format_args!("icmp6,{port},icmp_type=136"), "drop");
            for target in &addresses {
                let asks = format!("icmp6,{own},ipv6_src=::,icmp_type=135,nd_target={target}");
                flows.add(FROM, 40, asks, pass);
                for source in &addresses {
                    let tells = format!("icmp6,{own},ipv6_src={source},icmp_type=136,nd_target={target}");
                    flows.add(FROM, 45, tells, pass);
                }
            }
            for (source, kind) in [("::", 133), ("::", 131), ("::", 143)] {
                flows.add(FROM, 40, format_args!("icmp6,{own},ipv6_src={source},icmp_type={kind}"), pass);
            }
            for source in &addresses {
                flows.add(FROM, 40, format_args!("ipv6,{own},ipv6_src={source}"), pass);
            }
        }
    }
}

/// One direction of a port's rules.
#[derive(Debug, Clone, Copy)]
struct Side<'a> {
    direction: Direction,
    number: u16,
    nic: &'a Nic,
    guard: &'a Guard,
}

impl Side<'_> {
    /// What its frames have in common.
    fn key(&self) -> String {
        match self.direction {
            Direction::Out => format!("in_port={}", self.number),
            Direction::In => format!("reg0={}", self.number),
        }
    }

    fn pass(&self) -> String {
        match self.direction {
            Direction::Out => format!("goto_table:{TO}"),
            Direction::In => "NORMAL".to_owned(),
        }
    }

    fn write(&self, flows: &mut Flows) {
        let (rules, tracked) = match self.direction {
            Direction::Out => (FROM_RULES, FROM_TRACKED),
            Direction::In => (TO_RULES, TO_TRACKED),
        };
        let (key, pass, zone) = (self.key(), self.pass(), self.number);
        for what in self.always() {
            flows.add(rules, 30, format_args!("{what},{key}"), &pass);
        }
        for version in ["ip", "ipv6"] {
            flows.add(rules, 10, format_args!("{version},{key}"), format_args!("ct(table={tracked},zone={zone})"));
        }
        flows.add(rules, 0, &key, "drop");

        let begin = format!("ct(commit,zone={zone}),{pass}");
        let of = |rules: &[Rule]| -> Vec<Rule> {
            rules.iter().filter(|rule| rule.direction == self.direction).cloned().collect()
        };
        let (allow, deny) = (of(&self.guard.allow), of(&self.guard.deny));
        for state in ["+trk+est-inv", "+trk+rel-inv"] {
            flows.add(tracked, 40, format_args!("ct_state={state},{key}"), &pass);
        }
        flows.add(tracked, 30, format_args!("ct_state=+trk+inv,{key}"), "drop");
        for what in deny.iter().flat_map(matches) {
            flows.add(tracked, 20, format_args!("{what},{key}"), "drop");
        }
        for what in allow.iter().flat_map(matches) {
            flows.add(tracked, 10, format_args!("{what},{key}"), &begin);
        }
        for version in ["ip", "ipv6"] {
            let rest = if allow.is_empty() { &begin } else { "drop" };
            flows.add(tracked, 0, format_args!("{version},{key}"), rest);
        }
    }

    /// What goes through whatever the rules say.
    fn always(&self) -> Vec<String> {
        let mut all = vec!["arp".to_owned()];
        let discovery = [130, 131, 132, 133, 134, 135, 136, 143];
        all.extend(discovery.iter().map(|kind| format!("icmp6,icmp_type={kind}")));
        let (own, peer, whom) = match self.direction {
            Direction::Out => ("tp_src", "tp_dst", "dst"),
            Direction::In => ("tp_dst", "tp_src", "src"),
        };
        all.push(format!("udp,{own}=68,{peer}=67"));
        all.push(format!("udp6,{own}=546,{peer}=547"));
        // To the host's name server only: its answers are known as such.
        let host = self.nic.address.as_ref().filter(|_| self.direction == Direction::Out);
        let host4 = host.and_then(|address| address.gateway).map(IpAddr::V4);
        let host6 = host.and_then(|address| address.gateway6).map(IpAddr::V6);
        for address in host4.into_iter().chain(host6) {
            let (field, six) = if address.is_ipv4() { ("nw", "") } else { ("ipv6", "6") };
            all.extend(["udp", "tcp"].map(|over| format!("{over}{six},{field}_{whom}={address},{peer}=53")));
        }
        all
    }
}

/// The matches of a rule: it is for both versions of IP, and a range of ports is several masks.
fn matches(rule: &Rule) -> Vec<String> {
    let side = match rule.direction {
        Direction::In => "src",
        Direction::Out => "dst",
    };
    let versions: &[bool] = match rule.peer {
        None => &[false, true],
        Some(IpNet::V4(_)) => &[false],
        Some(IpNet::V6(_)) => &[true],
    };
    let ports: Vec<String> = match rule.ports.as_slice() {
        [] => vec![String::new()],
        ranges => ranges.iter().flat_map(|range| masks(*range)).map(|mask| format!(",tp_dst={mask}")).collect(),
    };
    let mut all = Vec::new();
    for six in versions {
        let protocol = match (rule.protocol, six) {
            (RuleProtocol::Any, false) => "ip",
            (RuleProtocol::Any, true) => "ipv6",
            (RuleProtocol::Icmp, false) => "icmp",
            (RuleProtocol::Icmp, true) => "icmp6",
            (RuleProtocol::Tcp, false) => "tcp",
            (RuleProtocol::Tcp, true) => "tcp6",
            (RuleProtocol::Udp, false) => "udp",
            (RuleProtocol::Udp, true) => "udp6",
        };
        let field = if *six { "ipv6" } else { "nw" };
        let peer = rule.peer.map(|peer| format!(",{field}_{side}={peer}")).unwrap_or_default();
        all.extend(ports.iter().map(|port| format!("{protocol}{peer}{port}")));
    }
    all
}

/// The range as values with masks, each of which covers a power of two of ports.
fn masks(range: PortRange) -> Vec<String> {
    let (mut first, last) = (u32::from(range.first), u32::from(range.last));
    let mut all = Vec::new();
    while first <= last {
        let mut size = 1;
        while first % (size * 2) == 0 && first + size * 2 - 1 <= last {
            size *= 2;
        }
        all.push(match size {
            1 => first.to_string(),
            _ => format!("{first:#06x}/{:#06x}", 0x1_0000 - size),
        });
        first += size;
    }
    all
}

#[derive(Debug)]
struct Flows {
    cookie: u64,
    text: String,
}

impl Flows {
    /// Those of an earlier time with this cookie go first.
    fn new(cookie: u64) -> Self {
        Self { cookie, text: format!("delete cookie={cookie:#x}/-1\n") }
    }

    fn add(&mut self, table: u8, priority: u16, what: impl Display, actions: impl Display) {
        let what = what.to_string();
        let comma = if what.is_empty() { "" } else { "," };
        let cookie = self.cookie;
        writeln!(self.text, "add table={table},priority={priority},cookie={cookie:#x}{comma}{what},actions={actions}")
            .expect("a string");
    }
}

#[cfg(test)]
#[path = "flows_tests.rs"]
mod tests;
