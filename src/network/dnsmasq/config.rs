//! The text of a `dnsmasq.conf`. It holds no path: those are in the argv, where nothing is quoted.

use std::fmt::Write as _;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::error::{Error, Result};
use crate::spec::{HostSide, NetworkSpec};

/// How long an address is a guest's that does not ask again.
const LEASE: &str = "1h";
/// In seconds: how often routers are announced unasked, and how long one is believed.
const ROUTER_EVERY: u32 = 600;
const ROUTER_FOR: u32 = 1800;

pub(super) fn text(spec: &NetworkSpec, host: &HostSide) -> Result<String> {
    let device = spec.device();
    for (what, word) in [("interface", &device), ("domain", &host.domain)] {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if word.is_empty() || !word.chars().all(plain) {
            return Err(Error::usage(format!(
                "the {what} `{}` of the network `{}` is no name that dnsmasq can be given",
                word.escape_debug(),
                spec.name
            )));
        }
    }
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing into a string cannot fail.
        let _ = out.write_fmt(text).and_then(|()| out.write_char('\n'));
    };
    line(format_args!("# What the network `{}` is. Written by virshle at each start.", spec.name));
    line(format_args!("interface={device}"));
    line(format_args!("except-interface=lo"));
    // Its addresses may come later: IPv6 needs the first guest's carrier.
    line(format_args!("bind-dynamic"));
    for always in ["pid-file", "log-facility=-", "quiet-dhcp", "quiet-dhcp6", "quiet-ra", "no-hosts", "cache-size=1000"]
    {
        line(format_args!("{always}"));
    }

    let domain = &host.domain;
    line(format_args!("domain={domain}"));
    line(format_args!("local=/{domain}/"));
    for zone in reverse_zones(host.address).into_iter().chain(host.address6.map(reverse_zone6)) {
        line(format_args!("local=/{zone}/"));
    }
    line(format_args!("domain-needed"));
    // No `stop-dns-rebind`: a site's own names lead to private addresses.
    line(format_args!("dns-loop-detect"));
    if host.isolated || !host.upstream.is_empty() {
        line(format_args!("no-resolv"));
    }
    if !host.isolated {
        for upstream in &host.upstream {
            line(format_args!("server={upstream}"));
        }
    }
    if host.dhcp {
        dhcp(host, &mut line);
        let mtu = spec.mtu.map(|mtu| format!("mtu:{mtu},")).unwrap_or_default();
        if let Some(mtu) = spec.mtu {
            line(format_args!("dhcp-option=option:mtu,{mtu}"));
        }
        if let Some(address6) = host.address6 {
            let router_for = if host.isolated { 0 } else { ROUTER_FOR };
            line(format_args!("enable-ra"));
            line(format_args!("ra-param={device},{mtu}{ROUTER_EVERY},{router_for}"));
            line(format_args!("dhcp-range={},static,{},{LEASE}", address6.trunc().addr(), address6.prefix_len()));
            line(format_args!("dhcp-option=option6:dns-server,[{}]", address6.addr()));
            line(format_args!("dhcp-option=option6:domain-search,{domain}"));
        }
    }
    Ok(out)
}

fn dhcp(host: &HostSide, line: &mut impl FnMut(std::fmt::Arguments<'_>)) {
    let (own, mask) = (host.address.addr(), host.address.netmask());
    match host.pool {
        Some((first, last)) => line(format_args!("dhcp-range={first},{last},{mask},{LEASE}")),
        None => line(format_args!("dhcp-range={},static,{mask},{LEASE}", host.address.network())),
    }
    line(format_args!("dhcp-authoritative"));
    // Clones of one image give the same client id: the MAC alone says who it is.
    line(format_args!("dhcp-ignore-clid"));
    line(format_args!("dhcp-ignore-names"));
    line(format_args!("dhcp-lease-max=65536"));
    match host.isolated {
        // Without a value: none, instead of dnsmasq's own choice, which is this host.
        true => line(format_args!("dhcp-option=option:router")),
        false => line(format_args!("dhcp-option=option:router,{own}")),
    }
    line(format_args!("dhcp-option=option:dns-server,{own}"));
    line(format_args!("dhcp-option=option:domain-search,{}", host.domain));
}

/// The zones of `in-addr.arpa` that a subnet is, which begin at whole bytes: 128 at most.
pub(in crate::network) fn reverse_zones(subnet: Ipv4Net) -> Vec<String> {
    let bytes = usize::from(subnet.prefix_len().div_ceil(8).max(1));
    let whole = u8::try_from(bytes * 8).unwrap_or(32).max(subnet.prefix_len());
    let parts = subnet.trunc().subnets(whole).into_iter().flatten();
    let zone = |part: Ipv4Net| {
        let octets = part.network().octets();
        let labels: Vec<String> = octets[..bytes].iter().rev().map(u8::to_string).collect();
        format!("{}.in-addr.arpa", labels.join("."))
    };
    parts.map(zone).collect()
}

/// The zone of `ip6.arpa` that holds a subnet, to the whole digit.
pub(in crate::network) fn reverse_zone6(subnet: Ipv6Net) -> String {
    let digits = format!("{:032x}", u128::from(subnet.network()));
    let digits = &digits[..usize::from(subnet.prefix_len() / 4)];
    let labels: String = digits.chars().rev().flat_map(|digit| [digit, '.']).collect();
    format!("{labels}ip6.arpa")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> NetworkSpec {
        NetworkSpec::sample("main")
    }

    fn text_of(change: impl FnOnce(&mut NetworkSpec, &mut HostSide)) -> String {
        let mut spec = spec();
        let mut host = spec.host.take().unwrap();
        change(&mut spec, &mut host);
        text(&spec, &host).unwrap()
    }

    #[test]
    fn an_ordinary_network() {
        let expected = "\
# What the network `main` is. Written by virshle at each start.
interface=vbr0
except-interface=lo
bind-dynamic
pid-file
log-facility=-
quiet-dhcp
quiet-dhcp6
quiet-ra
no-hosts
cache-size=1000
domain=vm
local=/vm/
local=/0.44.10.in-addr.arpa/
local=/3.0.0.0.2.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa/
domain-needed
dns-loop-detect
dhcp-range=10.44.0.192,10.44.0.254,255.255.255.0,1h
dhcp-authoritative
dhcp-ignore-clid
dhcp-ignore-names
dhcp-lease-max=65536
dhcp-option=option:router,10.44.0.1
dhcp-option=option:dns-server,10.44.0.1
dhcp-option=option:domain-search,vm
enable-ra
ra-param=vbr0,600,1800
dhcp-range=fd00:1:2:3::,static,64,1h
dhcp-option=option6:dns-server,[fd00:1:2:3::1]
dhcp-option=option6:domain-search,vm
";
        assert_eq!(text_of(|_, _| ()), expected);
    }

    #[test]
    fn an_isolated_one_on_a_vlan() {
        let text = text_of(|spec, host| {
            (spec.vlan, spec.mtu) = (Some(7), Some(1450));
            (host.isolated, host.pool) = (true, None);
            host.upstream = vec!["9.9.9.9".parse().unwrap()];
        });
        let expected = "\
# What the network `main` is. Written by virshle at each start.
interface=vbr0.7
except-interface=lo
bind-dynamic
pid-file
log-facility=-
quiet-dhcp
quiet-dhcp6
quiet-ra
no-hosts
cache-size=1000
domain=vm
local=/vm/
local=/0.44.10.in-addr.arpa/
local=/3.0.0.0.2.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa/
domain-needed
dns-loop-detect
no-resolv
dhcp-range=10.44.0.0,static,255.255.255.0,1h
dhcp-authoritative
dhcp-ignore-clid
dhcp-ignore-names
dhcp-lease-max=65536
dhcp-option=option:router
dhcp-option=option:dns-server,10.44.0.1
dhcp-option=option:domain-search,vm
dhcp-option=option:mtu,1450
enable-ra
ra-param=vbr0.7,mtu:1450,600,0
dhcp-range=fd00:1:2:3::,static,64,1h
dhcp-option=option6:dns-server,[fd00:1:2:3::1]
dhcp-option=option6:domain-search,vm
";
        assert_eq!(text, expected);
    }

    #[test]
    fn names_alone_and_other_servers() {
        let text = text_of(|_, host| {
            host.dhcp = false;
            host.upstream = vec!["9.9.9.9".parse().unwrap(), "2620:fe::9".parse().unwrap()];
        });
        assert!(text.ends_with("no-resolv\nserver=9.9.9.9\nserver=2620:fe::9\n"), "{text}");
        assert!(!text.contains("dhcp-") && !text.contains("-ra\nra-"), "{text}");
        let text = text_of(|_, host| host.address6 = None);
        assert!(!text.contains("ip6") && !text.contains("option6") && !text.contains("enable-ra"), "{text}");
    }

    #[test]
    fn nothing_but_names_gets_into_the_text() {
        for domain in ["", "vm\nport=0", "vm/1.2.3.4", "vm #", "a,b"] {
            let mut spec = spec();
            let mut host = spec.host.take().unwrap();
            domain.clone_into(&mut host.domain);
            assert!(text(&spec, &host).is_err(), "{domain:?}");
        }
    }

    #[test]
    fn zones_of_a_subnet() {
        let zones = |net: &str| reverse_zones(net.parse().unwrap());
        assert_eq!(zones("10.44.3.1/16"), ["44.10.in-addr.arpa"]);
        assert_eq!(zones("10.1.2.3/8"), ["10.in-addr.arpa"]);
        assert_eq!(zones("10.44.2.0/23"), ["2.44.10.in-addr.arpa", "3.44.10.in-addr.arpa"]);
        let small = zones("10.44.0.21/30");
        assert_eq!((small.len(), small[0].as_str()), (4, "20.0.44.10.in-addr.arpa"));
        assert_eq!(zones("10.128.0.0/9").len(), 128);
    }
}
