//! The host's own routes, which a network that it serves must not cut across.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::keep::ip;
use crate::error::{Error, OrFailed, Result};
use crate::spec::NetworkSpec;

/// A route as `ip -j route show` prints it; what else it prints does not matter here.
#[derive(Debug, Deserialize)]
struct Route {
    /// A subnet, an address alone, or `default`.
    dst: String,
    /// One with several ways has none of its own.
    #[serde(default)]
    dev: Option<String>,
}

/// Refuses a network whose subnet this host reaches by another interface already: one of the two
/// would be lost.
pub fn check_routes(network: &NetworkSpec) -> Result<()> {
    let Some(host) = &network.host else { return Ok(()) };
    let subnets = [Some(IpNet::V4(host.address.trunc())), host.address6.map(|net| IpNet::V6(net.trunc()))];
    for subnet in subnets.into_iter().flatten() {
        let family = if subnet.addr().is_ipv4() { "-4" } else { "-6" };
        let printed = ip(["-json", family, "route", "show", "table", "main"])?;
        if let Some((taken, by)) = overlap(&printed, subnet, &network.device())? {
            let key = if subnet.addr().is_ipv4() { "subnet" } else { "subnet6" };
            return Err(Error::refused(format!("the network `{}` cannot have `{subnet}`", network.name))
                .source(Error::failed(format!("this host reaches `{taken}` by the interface `{by}`")))
                .hint(format!("give the network another `{key}`")));
        }
    }
    Ok(())
}

/// The first route that shares addresses with the subnet, and its interface.
fn overlap(printed: &str, subnet: IpNet, own: &str) -> Result<Option<(IpNet, String)>> {
    let printed = printed.trim();
    let routes: Vec<Route> = match printed {
        "" => Vec::new(),
        _ => serde_json::from_str(printed).or_failed(|| "`ip` gave an answer that cannot be read".to_owned())?,
    };
    let reached = routes.into_iter().filter_map(|route| {
        let net = net(&route.dst)?;
        let by = route.dev.unwrap_or_else(|| "several interfaces".to_owned());
        (net.prefix_len() > 0 && by != own).then_some((net, by))
    });
    let mut shared = reached.filter(|(net, _)| net.contains(&subnet) || subnet.contains(net));
    Ok(shared.next())
}

/// Nothing for `default`.
fn net(dst: &str) -> Option<IpNet> {
    dst.parse().ok().or_else(|| dst.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: &str = r#"[{"dst":"default","gateway":"192.0.2.1","dev":"eth0","protocol":"dhcp","flags":[]},
        {"dst":"10.44.0.0/24","dev":"vmbr0","protocol":"kernel","scope":"link","prefsrc":"10.44.0.1","flags":[]},
        {"dst":"172.16.0.0/12","dev":"wg0","scope":"link","flags":[]},
        {"dst":"198.51.100.7","gateway":"192.0.2.1","dev":"eth0","flags":[]},
        {"dst":"203.0.113.0/24","flags":[],"nexthops":[{"dev":"eth0"},{"dev":"eth1"}]},
        {"dst":"192.0.2.0/24","dev":"eth0","protocol":"kernel","scope":"link","flags":[]}]"#;
    const SIX: &str = r#"[{"dst":"fd12::/64","dev":"tun0","metric":256,"flags":[],"pref":"medium"},
        {"dst":"fe80::/64","dev":"eth0","protocol":"kernel","metric":256,"flags":[],"pref":"medium"},
        {"dst":"default","gateway":"fe80::1","dev":"eth0","metric":1024,"flags":[],"pref":"medium"}]"#;

    #[test]
    fn a_subnet_that_the_host_reaches_otherwise() {
        let rows = [
            (FOUR, "10.44.0.0/24", None),
            (FOUR, "10.45.0.0/24", None),
            (FOUR, "172.20.1.0/24", Some("172.16.0.0/12 wg0")),
            (FOUR, "192.0.0.0/16", Some("192.0.2.0/24 eth0")),
            (FOUR, "198.51.100.0/24", Some("198.51.100.7/32 eth0")),
            (FOUR, "203.0.113.128/25", Some("203.0.113.0/24 several interfaces")),
            (SIX, "fd12::/64", Some("fd12::/64 tun0")),
            (SIX, "fd13::/64", None),
            ("", "10.45.0.0/24", None),
            ("[]", "10.45.0.0/24", None),
        ];
        for (printed, subnet, expected) in rows {
            let found = overlap(printed, subnet.parse().unwrap(), "vmbr0").unwrap();
            assert_eq!(found.map(|(net, by)| format!("{net} {by}")).as_deref(), expected, "{subnet}");
        }
        assert!(overlap("nonsense", "10.45.0.0/24".parse().unwrap(), "vmbr0").is_err());
    }
}
