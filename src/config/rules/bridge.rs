//! Two `[[network]]`s beside each other: on one bridge, with one subnet, behind one uplink.

use super::super::file::{Network, NetworkKind};
use super::super::network::Keeping;
use super::super::placed::Placed;
use super::super::subnet6::Subnet6;
use crate::error::Result;

pub(super) fn check_beside(network: &Placed<Network>, other: &Network) -> Result<()> {
    let user = |network: &Network| network.kind == NetworkKind::User;
    if user(&network.entry) || user(other) {
        return Ok(());
    }
    check_bridge(network, other)?;
    check_devices(network, other)?;
    check_overlap(network, other)
}

fn may_be_ours(network: &Network) -> bool {
    network.keeping() != Keeping::Theirs
}

fn shares_bridge(one: &Network, two: &Network) -> bool {
    one.bridge() == two.bridge()
}

/// A bridge of the site's own may have any number of networks on it. One that Virshle makes has one,
/// or those that are told apart by their tags.
fn check_bridge(network: &Placed<Network>, other: &Network) -> Result<()> {
    let entry = &network.entry;
    if !shares_bridge(entry, other) || !(may_be_ours(entry) || may_be_ours(other)) {
        return Ok(());
    }
    let bridge = entry.bridge();
    let told_apart = entry.kind == other.kind && entry.vlan != other.vlan;
    if !told_apart {
        let error = match entry.bridge {
            Some(_) => {
                network.wrong("bridge", format_args!("is `{bridge}`, the bridge of the network `{}`", other.name))
            }
            None => {
                network.wrong("", format_args!("is on the bridge `{bridge}`, which the network `{}` has", other.name))
            }
        };
        return Err(error.hint(match entry.bridge {
            None => "name a bridge of its own: `bridge = …`; without one it is `vsbr0`",
            Some(_) if entry.kind == NetworkKind::Ovs && other.kind == NetworkKind::Ovs => {
                "name another bridge, or give each network on it a `vlan` of its own"
            }
            Some(_) => "name another bridge",
        }));
    }
    if may_be_ours(entry) != may_be_ours(other) {
        let theirs = if may_be_ours(entry) { &other.name } else { &entry.name };
        return Err(network
            .wrong(
                "",
                format_args!(
                    "shares the bridge `{bridge}` with the network `{}`, and Virshle would make it for only one of them",
                    other.name
                ),
            )
            .hint(format!("write `create = true` in the network `{theirs}`, or `create = false` in both")));
    }
    if let (Some(datapath), Some(told)) = (entry.datapath, other.datapath)
        && datapath != told
    {
        return Err(network.wrong(
            "datapath",
            format_args!("is another one than that of the network `{}` on the same bridge `{bridge}`", other.name),
        ));
    }
    Ok(())
}

/// An interface is in one bridge, and has one use.
fn check_devices(network: &Placed<Network>, other: &Network) -> Result<()> {
    let entry = &network.entry;
    if let Some(uplink) = &entry.uplink {
        if other.uplink.as_ref() == Some(uplink) && !shares_bridge(entry, other) {
            return Err(network
                .wrong("uplink", format_args!("is `{uplink}`, which the network `{}` has already", other.name))
                .hint("an interface is in one bridge only"));
        }
        if uplink == other.bridge() {
            return Err(
                network.wrong("uplink", format_args!("is `{uplink}`, the bridge of the network `{}`", other.name))
            );
        }
    }
    if other.uplink.as_deref() == Some(entry.bridge()) {
        return Err(network
            .wrong("bridge", format_args!("is `{}`, the uplink of the network `{}`", entry.bridge(), other.name)));
    }
    // The host's own side of a tagged network.
    let device = |network: &Network| {
        network.vlan.filter(|_| may_be_ours(network)).map(|vlan| format!("{}.{vlan}", network.bridge()))
    };
    if device(other).as_deref() == Some(entry.bridge()) {
        return Err(network.wrong(
            "bridge",
            format_args!("is `{}`, this host's interface on the network `{}`", entry.bridge(), other.name),
        ));
    }
    if device(entry).as_deref() == Some(other.bridge()) {
        return Err(network.wrong(
            "vlan",
            format_args!("makes the interface `{}`, the bridge of the network `{}`", other.bridge(), other.name),
        ));
    }
    Ok(())
}

/// Two networks on one bridge would give the same address twice; two that this host serves would
/// lead it astray.
fn check_overlap(network: &Placed<Network>, other: &Network) -> Result<()> {
    let entry = &network.entry;
    let served = |network: &Network| network.is_served() && may_be_ours(network);
    let both_served = served(entry) && served(other);
    let where_ = match (shares_bridge(entry, other), both_served) {
        (true, _) => format!("on the same bridge `{}`", other.bridge()),
        (false, true) => "on this host".to_owned(),
        (false, false) => return Ok(()),
    };
    let overlaps = |key: &str, net: &dyn std::fmt::Display, taken: &dyn std::fmt::Display| {
        network
            .wrong(
                key,
                format_args!("is `{net}`, which overlaps with `{taken}` of the network `{}` {where_}", other.name),
            )
            .hint(match both_served && !shares_bridge(entry, other) {
                true => "give it a subnet of its own; or, if the bridge is the site's own, `create = false`",
                false => "give it a subnet of its own, or another bridge",
            })
    };
    if let (Some(subnet), Some(taken)) = (entry.subnet, other.subnet)
        && (subnet.contains(&taken) || taken.contains(&subnet))
    {
        return Err(overlaps("subnet", &subnet, &taken));
    }
    if let (Some(Subnet6::Net(subnet)), Some(Subnet6::Net(taken))) = (entry.subnet6, other.subnet6)
        && subnet == taken
    {
        return Err(overlaps("subnet6", &subnet, &taken));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use crate::config::load::of_text;

    fn two(a: &str, b: &str) -> String {
        format!("network = [{{ name = 'a', {a} }}, {{ name = 'b', {b} }}]")
    }

    #[test]
    fn two_networks_on_one_bridge() {
        run([
            (
                two("subnet = '10.0.0.0/24'", "subnet = '10.0.1.0/24'"),
                "`network[1]` is on the bridge `vsbr0`, which the network `a` has",
                "name a bridge of its own",
            ),
            (
                two("subnet = '10.0.0.0/24', bridge = 'x'", "subnet = '10.0.1.0/24', bridge = 'x'"),
                "`network[1].bridge` is `x`, the bridge of the network `a`",
                "a `vlan` of its own",
            ),
            (
                two("type = 'bridge', create = true, bridge = 'x'", "type = 'bridge', create = true, bridge = 'x'"),
                "`network[1].bridge` is `x`, the bridge of the network `a`",
                "name another bridge",
            ),
            (two("create = true, vlan = 5", "create = true, vlan = 5"), "is on the bridge `vsbr0`", ""),
            (
                two("type = 'bridge', bridge = 'x', create = true", "bridge = 'x', create = true, vlan = 5"),
                "is `x`, the bridge of the network `a`",
                "name another bridge",
            ),
            (
                two("create = true", "vlan = 5"),
                "shares the bridge `vsbr0` with the network `a`",
                "write `create = true` in the network `b`",
            ),
            (
                two("create = false", "vlan = 5, create = true"),
                "Virshle would make it for only one of them",
                "write `create = true` in the network `a`",
            ),
            (
                two("create = true, datapath = 'netdev'", "create = true, datapath = 'system', vlan = 5"),
                "`network[1].datapath` is another one than that of the network `a`",
                "",
            ),
            (
                two("create = false, subnet = '10.0.0.0/16'", "create = false, subnet = '10.0.3.0/24'"),
                "`network[1].subnet` is `10.0.3.0/24`, which overlaps with `10.0.0.0/16` of the network `a`",
                "another bridge",
            ),
        ]);
        for text in [
            two("create = true", "create = true, vlan = 5"),
            two("subnet = '10.0.0.0/24', vlan = 4", "subnet = '10.0.1.0/24', vlan = 5, datapath = 'netdev'"),
            two("create = false, subnet = '10.0.0.0/24'", "create = false, subnet = '10.0.1.0/24'"),
            two("bridge = 'x'", "bridge = 'x'"),
            two("type = 'user'", "type = 'user'"),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }

    #[test]
    fn two_networks_with_one_subnet() {
        let served = |a: &str, b: &str| two(&format!("bridge = 'x', {a}"), &format!("bridge = 'y', {b}"));
        run([
            (
                served("subnet = '10.0.0.0/24'", "subnet = '10.0.0.0/24'"),
                "`network[1].subnet` is `10.0.0.0/24`, which overlaps with `10.0.0.0/24` of the network `a` on this host",
                "`create = false`",
            ),
            (served("subnet = '10.0.3.0/24'", "subnet = '10.0.0.0/16'"), "overlaps with `10.0.3.0/24`", ""),
            (
                served(
                    "subnet = '10.0.0.0/24', subnet6 = 'fd00::/64'",
                    "subnet = '10.0.1.0/24', subnet6 = 'fd00:0::/64'",
                ),
                "`network[1].subnet6` is `fd00::/64`, which overlaps with `fd00::/64` of the network `a` on this host",
                "a subnet of its own",
            ),
            (
                two("vlan = 4, subnet = '10.0.0.0/16'", "vlan = 5, subnet = '10.0.3.0/24'"),
                "overlaps with `10.0.0.0/16` of the network `a` on the same bridge `vsbr0`",
                "",
            ),
        ]);
        for text in [
            served("subnet = '10.0.0.0/24'", "subnet = '10.0.0.0/24', create = false"),
            served("subnet = '10.0.0.0/24'", "subnet = '10.0.0.0/24', uplink = 'eth0'"),
            served("subnet = '10.0.0.0/24', subnet6 = 'fd00::/64'", "subnet = '10.0.1.0/24', subnet6 = 'fd01::/64'"),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }

    #[test]
    fn one_interface_with_two_uses() {
        run([
            (
                two("bridge = 'x', uplink = 'eth0'", "bridge = 'y', uplink = 'eth0'"),
                "`network[1].uplink` is `eth0`, which the network `a` has already",
                "in one bridge only",
            ),
            (two("bridge = 'x'", "bridge = 'y', uplink = 'x'"), "is `x`, the bridge of the network `a`", ""),
            (two("bridge = 'y', uplink = 'x'", "bridge = 'x'"), "`network[1].bridge` is `x`, the uplink of", ""),
            (
                two("bridge = 'x', vlan = 5, create = true", "bridge = 'x.5'"),
                "`network[1].bridge` is `x.5`, this host's interface on the network `a`",
                "",
            ),
            (
                two("bridge = 'x.5'", "bridge = 'x', vlan = 5, create = true"),
                "`network[1].vlan` makes the interface `x.5`, the bridge of the network `a`",
                "",
            ),
        ]);
        let trunk = two("uplink = 'eth0', vlan = 4", "uplink = 'eth0', vlan = 5");
        assert!(of_text(&trunk).is_ok(), "{trunk}: {:?}", of_text(&trunk));
    }
}
