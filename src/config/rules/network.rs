//! One `[[network]]` by itself.

use ipnet::{Ipv4Net, Ipv6Net};

use super::super::file::{Network, NetworkKind};
use super::super::network::Keeping;
use super::super::placed::Placed;
use super::super::subnet6::Subnet6;
use crate::error::Result;

pub(super) fn check(network: &Placed<Network>) -> Result<()> {
    check_user(network)?;
    check_names(network)?;
    check_serving(network)?;
    check_switch(network)?;
    check_domain(network)?;
    check_subnet(network)?;
    check_subnet6(network)
}

/// What a network of the type `user` cannot have: nearly all.
fn check_user(network: &Placed<Network>) -> Result<()> {
    let entry = &network.entry;
    if entry.kind != NetworkKind::User {
        return Ok(());
    }
    let refused = [
        ("bridge", entry.bridge.is_some()),
        ("create", entry.create.is_some()),
        ("datapath", entry.datapath.is_some()),
        ("subnet", entry.subnet.is_some()),
        ("subnet6", entry.subnet6.is_some()),
        ("gateway", entry.gateway.is_some()),
        ("dns", !entry.dns.is_empty()),
        ("domain", entry.domain.is_some()),
        ("dhcp", entry.dhcp.is_some()),
        ("nat", entry.nat.is_some()),
        ("isolated", entry.isolated),
        ("vlan", entry.vlan.is_some()),
        ("mtu", entry.mtu.is_some()),
        ("uplink", entry.uplink.is_some()),
    ];
    match refused.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((key, _)) => Err(network
            .wrong(key, "cannot be set for a network of the type `user`, which has no bridge and its own addresses")
            .hint(format!("remove `{key}`, or write `type = \"ovs\"` or `type = \"bridge\"`"))),
    }
}

fn check_names(network: &Placed<Network>) -> Result<()> {
    let Network { bridge, uplink, .. } = &network.entry;
    for (key, name) in [("bridge", bridge), ("uplink", uplink)] {
        if let Some(name) = name {
            check_device(name).map_err(|what| network.wrong(key, what))?;
        }
    }
    let Some(uplink) = uplink else { return Ok(()) };
    if uplink == network.entry.bridge() {
        return Err(network
            .wrong("uplink", format_args!("is `{uplink}`, the bridge itself"))
            .hint("name the interface that leads out, like `eth0`"));
    }
    if uplink == "lo" {
        return Err(network.wrong("uplink", "is `lo`, which leads nowhere"));
    }
    if network.entry.create == Some(false) {
        return Err(network
            .wrong("uplink", "is set for a bridge that is used as it is (`create = false`)")
            .hint("remove `create`, or `uplink`"));
    }
    Ok(())
}

/// The keys that say what this host is on a network, where it is nothing.
fn check_serving(network: &Placed<Network>) -> Result<()> {
    let entry = &network.entry;
    let mut given = [
        ("subnet6", entry.subnet6.is_some()),
        ("domain", entry.domain.is_some()),
        ("dhcp", entry.dhcp.is_some()),
        ("nat", entry.nat.is_some()),
        ("isolated", entry.isolated),
    ]
    .into_iter()
    .filter_map(|(key, given)| given.then_some(key));
    let Some(key) = given.next() else { return Ok(()) };
    if entry.create == Some(false) {
        return Err(network
            .wrong(key, "is set for a bridge that is used as it is (`create = false`)")
            .hint(format!("remove `{key}`; or remove `create`, and name a bridge that Virshle makes")));
    }
    if entry.uplink.is_some() {
        return Err(network
            .wrong(key, "is set together with `uplink`; the site's own router, DHCP and DNS serve then")
            .hint(format!("remove `{key}` or `uplink`")));
    }
    if entry.subnet.is_none() {
        return Err(network
            .wrong(key, "is set without a `subnet`, so this host has no part in the network")
            .hint(format!("add `subnet = …`, or remove `{key}`")));
    }
    Ok(())
}

/// What only some bridges can do.
fn check_switch(network: &Placed<Network>) -> Result<()> {
    let Network { kind, create, datapath, vlan, mtu, .. } = &network.entry;
    if let Some(vlan) = vlan {
        if *kind != NetworkKind::Ovs {
            return Err(network
                .wrong("vlan", "is set for a Linux bridge, which Virshle tags no frames on")
                .hint("set `uplink` to the VLAN's own interface, like `eth0.5`; or write `type = \"ovs\"`"));
        }
        if !(1..=4094).contains(vlan) {
            return Err(network.wrong("vlan", format_args!("must be from 1 to 4094, not `{vlan}`")));
        }
        let device = format!("{}.{vlan}", network.entry.bridge());
        if network.entry.keeping() != Keeping::Theirs && device.len() > 15 {
            return Err(network
                .wrong(
                    "vlan",
                    format_args!("makes the interface `{device}` of {} characters, and 15 is the most", device.len()),
                )
                .hint("give the bridge a shorter name"));
        }
    }
    if datapath.is_some() {
        if *kind != NetworkKind::Ovs {
            return Err(network
                .wrong("datapath", "is set for a Linux bridge, which has but one")
                .hint("remove `datapath`, or write `type = \"ovs\"`"));
        }
        if network.entry.keeping() == Keeping::Theirs {
            return Err(network
                .wrong("datapath", "is set for a bridge that Virshle does not make")
                .hint("add `create = true`, or remove `datapath`"));
        }
    }
    let Some(mtu) = mtu else { return Ok(()) };
    if *create == Some(false) {
        return Err(network
            .wrong("mtu", "is set for a bridge that is used as it is (`create = false`)")
            .hint("remove `mtu`: the bridge's own is taken"));
    }
    if !(1280..=9216).contains(mtu) {
        return Err(network
            .wrong("mtu", format_args!("must be from 1280 to 9216 bytes, not `{mtu}`"))
            .hint("IPv6 needs 1280"));
    }
    Ok(())
}

/// DNS labels, in lower case as VMs' names are.
fn check_domain(network: &Placed<Network>) -> Result<()> {
    let Some(domain) = &network.entry.domain else { return Ok(()) };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let top = domain.rsplit('.').next().unwrap_or(domain);
    // A name with a VM's in front has 253 bytes at most.
    let right = domain.len() <= 189 && domain.split('.').all(label) && !top.bytes().all(|b| b.is_ascii_digit());
    if !right {
        let what = format!("is `{}`, which no domain is named", domain.escape_debug());
        return Err(network.wrong("domain", what).hint("write it like `vm` or `lab.example`, in lower case"));
    }
    let whose = match top {
        "local" => "multicast DNS",
        "localhost" => "the host itself",
        _ => return Ok(()),
    };
    Err(network
        .wrong("domain", format_args!("is `{domain}`, and names that end in `{top}` are those of {whose}"))
        .hint("take another, like `vm` or `home.arpa`"))
}

fn check_subnet(network: &Placed<Network>) -> Result<()> {
    let Network { subnet, gateway, dns, .. } = &network.entry;
    let Some(subnet) = subnet else {
        let orphan = [("gateway", gateway.is_some()), ("dns", !dns.is_empty())].into_iter().find(|(_, given)| *given);
        return orphan.map_or(Ok(()), |(key, _)| {
            Err(network
                .wrong(key, "is set without a `subnet`; the guest's own DHCP decides it then")
                .hint(format!("add `subnet = …`, or remove `{key}`")))
        });
    };
    if !(8..=30).contains(&subnet.prefix_len()) {
        return Err(network.wrong("subnet", format_args!("must be from /30 to /8 in size, not `{subnet}`")));
    }
    if subnet.trunc() != *subnet {
        let hint = format!("did you mean `{}`?", subnet.trunc());
        return Err(network.wrong("subnet", format_args!("is `{subnet}`, the address of a host in it")).hint(hint));
    }
    let reserved = ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"].iter().filter_map(|net| net.parse::<Ipv4Net>().ok());
    if network.entry.keeping() != Keeping::Theirs
        && let Some(reserved) = reserved.into_iter().find(|reserved| reserved.contains(subnet))
    {
        return Err(network
            .wrong("subnet", format_args!("is `{subnet}`, and no host has an address in `{reserved}`"))
            .hint("take a private one, like `10.44.0.0/24`"));
    }
    let Some(gateway) = gateway else { return Ok(()) };
    if !subnet.contains(gateway) {
        return Err(network
            .wrong("gateway", format_args!("is `{gateway}`, which is outside the subnet `{subnet}`"))
            .hint("remove it to take the subnet's first address"));
    }
    if *gateway == subnet.network() || *gateway == subnet.broadcast() {
        return Err(network
            .wrong("gateway", format_args!("is `{gateway}`, which no host can have in the subnet `{subnet}`"))
            .hint("remove it to take the subnet's first address"));
    }
    Ok(())
}

fn check_subnet6(network: &Placed<Network>) -> Result<()> {
    let Some(Subnet6::Net(net)) = network.entry.subnet6 else { return Ok(()) };
    if net.prefix_len() != 64 {
        return Err(network
            .wrong("subnet6", format_args!("must be a /64, not `{net}`"))
            .hint("guests find their addresses in a /64 only"));
    }
    if net.trunc() != net {
        let hint = format!("did you mean `{}`?", net.trunc());
        return Err(network.wrong("subnet6", format_args!("is `{net}`, the address of a host in it")).hint(hint));
    }
    let routed = ["fc00::/7", "2000::/3"].iter().filter_map(|net| net.parse::<Ipv6Net>().ok());
    if !routed.into_iter().any(|routed| routed.contains(&net)) {
        return Err(network
            .wrong(
                "subnet6",
                format_args!("is `{net}`, which is neither a private (fc00::/7) nor a global one (2000::/3)"),
            )
            .hint("leave it out: one is made up then, and remembered"));
    }
    Ok(())
}

/// What Linux and Open vSwitch both take as an interface's name, and no option of a program.
fn check_device(name: &str) -> std::result::Result<(), String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if (1..=15).contains(&name.len())
        && name.bytes().all(legal)
        && !matches!(name, "." | "..")
        && !name.starts_with('-')
    {
        return Ok(());
    }
    Err(format!(
        "must be 1 to 15 letters, digits, `_`, `.` or `-`, and not begin with `-`, unlike `{}`",
        name.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use crate::config::load::of_text;

    #[test]
    fn networks() {
        run([
            (
                "network = [{ name = 'main' }, { name = 'lan' }, { name = 'main' }]".into(),
                "line 1, column 58: `network[2].name` is `main`, which `network[0]` in line 1 has already",
                "rename",
            ),
            (network("bridge = ''"), "`network[0].bridge` must be 1 to 15", ""),
            (network("bridge = 'a/b'"), "unlike `a/b`", ""),
            (network("bridge = '..'"), "unlike `..`", ""),
            (network("bridge = '--db=tcp:x'"), "unlike `--db=tcp:x`", ""),
            (network("bridge = '-a'"), "unlike `-a`", ""),
            (network("bridge = 'sixteen-letters-'"), "unlike `sixteen-letters-`", ""),
            (network("bridge = \"a\\nb\""), "unlike `a\\nb`", ""),
            (
                network("subnet = '10.0.0.0/31'"),
                "line 1, column 38: `network[0].subnet` must be from /30 to /8 in size, not `10.0.0.0/31`",
                "",
            ),
            (network("subnet = '10.0.0.0/7'"), "must be from /30 to /8", ""),
            (
                network("subnet = '10.44.0.5/24'"),
                "is `10.44.0.5/24`, the address of a host in it",
                "did you mean `10.44.0.0/24`?",
            ),
            (
                network("subnet = '10.44.0.0/24', gateway = '10.44.1.1'"),
                "`network[0].gateway` is `10.44.1.1`, which is outside the subnet `10.44.0.0/24`",
                "remove it",
            ),
            (network("subnet = '10.44.0.0/24', gateway = '10.44.0.0'"), "which no host can have", "remove it"),
            (network("subnet = '10.44.0.0/24', gateway = '10.44.0.255'"), "which no host can have", "remove it"),
            (network("gateway = '10.44.0.1'"), "`network[0].gateway` is set without a `subnet`", "add `subnet"),
            (network("dns = ['10.44.0.1']"), "`network[0].dns` is set without a `subnet`", "add `subnet"),
            (
                network("type = 'user', bridge = 'br0'"),
                "`network[0].bridge` cannot be set for a network of the type `user`",
                "remove `bridge`",
            ),
            (network("type = 'user', create = true"), "`network[0].create` cannot be set", "remove `create`"),
            (network("type = 'user', subnet = '10.0.0.0/24'"), "`network[0].subnet` cannot be set", "remove `subnet`"),
            (network("type = 'user', gateway = '10.0.0.1'"), "`network[0].gateway` cannot be set", "remove `gateway`"),
            (network("type = 'user', dns = ['10.0.0.1']"), "`network[0].dns` cannot be set", "remove `dns`"),
        ]);
        for text in [
            network("bridge = 'a_.-0123456789Z'"),
            network("subnet = '10.0.0.0/8'"),
            network("subnet = '10.0.0.0/30', gateway = '10.0.0.2', dns = ['::1']"),
            network("type = 'user'"),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }

    fn network(rest: &str) -> String {
        format!("network = [{{ name = 'main', {rest} }}]")
    }

    #[test]
    fn names_of_networks_are_in_lower_case() {
        let error = of_text("network = [{ name = 'main' }, { name = 'Main' }]").unwrap_err();
        let message = error.message();
        assert!(message.contains("the name `Main` holds `M`; only a-z, 0-9 and `-` are allowed"), "{message}");
    }

    #[test]
    fn what_a_user_network_cannot_have() {
        for (key, value) in [
            ("datapath", "'auto'"),
            ("subnet6", "false"),
            ("domain", "'lab'"),
            ("dhcp", "false"),
            ("nat", "true"),
            ("isolated", "true"),
            ("vlan", "5"),
            ("mtu", "1400"),
            ("uplink", "'eth0'"),
        ] {
            let message = format!("`network[0].{key}` cannot be set for a network of the type `user`");
            run([(network(&format!("type = 'user', {key} = {value}")), message.as_str(), "type = \"bridge\"")]);
        }
    }

    #[test]
    fn what_only_a_served_network_has() {
        for (key, value) in
            [("subnet6", "false"), ("domain", "'lab'"), ("dhcp", "false"), ("nat", "true"), ("isolated", "true")]
        {
            let given = format!("{key} = {value}");
            let begin = format!("`network[0].{key}` is set ");
            let remove = format!("remove `{key}`");
            run([
                (network(&given), format!("{begin}without a `subnet`").as_str(), remove.as_str()),
                (
                    network(&format!("subnet = '10.44.0.0/24', create = false, {given}")),
                    format!("{begin}for a bridge that is used as it is").as_str(),
                    remove.as_str(),
                ),
                (
                    network(&format!("subnet = '10.44.0.0/24', uplink = 'eth0', {given}")),
                    format!("{begin}together with `uplink`").as_str(),
                    remove.as_str(),
                ),
            ]);
            let right = network(&format!("subnet = '10.44.0.0/24', {given}"));
            assert!(of_text(&right).is_ok(), "{right}: {:?}", of_text(&right));
        }
    }

    #[test]
    fn bridges_tags_and_uplinks() {
        run([
            (
                network("type = 'bridge', vlan = 5"),
                "line 1, column 53: `network[0].vlan` is set for a Linux bridge",
                "like `eth0.5`",
            ),
            (network("vlan = 0"), "`network[0].vlan` must be from 1 to 4094, not `0`", ""),
            (network("vlan = 4095"), "must be from 1 to 4094, not `4095`", ""),
            (
                network("bridge = 'twelve-bytes', create = true, vlan = 100"),
                "makes the interface `twelve-bytes.100` of 16 characters, and 15 is the most",
                "a shorter name",
            ),
            (
                network("type = 'bridge', create = true, datapath = 'netdev'"),
                "`network[0].datapath` is set for a Linux bridge",
                "remove `datapath`",
            ),
            (network("datapath = 'netdev'"), "is set for a bridge that Virshle does not make", "add `create = true`"),
            (network("datapath = 'system', create = false"), "that Virshle does not make", "remove `datapath`"),
            (network("mtu = 1400, create = false"), "`network[0].mtu` is set for a bridge that is used", "remove"),
            (network("mtu = 1279"), "`network[0].mtu` must be from 1280 to 9216 bytes, not `1279`", ""),
            (network("mtu = 9217"), "not `9217`", ""),
            (network("uplink = '-a'"), "`network[0].uplink` must be 1 to 15 letters", ""),
            (network("uplink = 'eth 0'"), "unlike `eth 0`", ""),
            (network("uplink = 'lo'"), "`network[0].uplink` is `lo`", ""),
            (network("uplink = 'br0', bridge = 'br0'"), "`network[0].uplink` is `br0`, the bridge itself", "name the"),
            (network("uplink = 'vsbr0'"), "the bridge itself", ""),
            (network("uplink = 'eth0', create = false"), "`network[0].uplink` is set for a bridge", "remove"),
        ]);
        for text in [
            network("vlan = 4094, create = false, bridge = 'fifteen-letters'"),
            network("bridge = 'eleven-byte', create = true, vlan = 100"),
            network("datapath = 'auto', subnet = '10.44.0.0/24'"),
            network("type = 'bridge', uplink = 'eth0.5', mtu = 9216"),
            network("uplink = 'eth0', subnet = '10.44.0.0/24', mtu = 1280"),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }

    #[test]
    fn domains_and_prefixes() {
        let served = |rest: &str| network(&format!("subnet = '10.44.0.0/24', {rest}"));
        for domain in ["", ".", "lab.", "-lab", "lab-", "Lab", "la_b", "a..b", "lab.5", "a b", "lab\\nx"] {
            run([(served(&format!("domain = \"{domain}\"")), "`network[0].domain` is `", "in lower case")]);
        }
        run([
            (served(&format!("domain = '{}'", "a".repeat(64))), "which no domain is named", ""),
            (served(&format!("domain = '{}'", ["abcdefghi"; 20].join("."))), "which no domain is named", ""),
            (served("domain = 'local'"), "names that end in `local` are those of multicast DNS", "another"),
            (served("domain = 'lab.local'"), "is `lab.local`", "another"),
            (served("domain = 'localhost'"), "those of the host itself", "another"),
            (served("subnet6 = 'fd00::/63'"), "`network[0].subnet6` must be a /64, not `fd00::/63`", ""),
            (served("subnet6 = 'fd00::/65'"), "must be a /64", ""),
            (served("subnet6 = 'fd00::1/64'"), "the address of a host in it", "did you mean `fd00::/64`?"),
            (served("subnet6 = 'fe80::/64'"), "is `fe80::/64`, which is neither a private", "made up"),
            (served("subnet6 = 'ff02::/64'"), "neither a private", ""),
            (served("subnet6 = '::/64'"), "neither a private", ""),
            (served("subnet6 = 'fd00::/64x'"), "is not an IPv6 subnet", ""),
            (served("subnet6 = true"), "`true` is what it is without the key", ""),
            (network("subnet = '127.0.0.0/24'"), "no host has an address in `127.0.0.0/8`", "10.44.0.0/24"),
            (network("subnet = '239.0.0.0/24'"), "no host has an address in `224.0.0.0/3`", ""),
        ]);
        for text in [
            served("domain = 'vm'"),
            served("domain = 'a1.lab-2.example'"),
            served("subnet6 = 'fd12:3456:789a:1::/64'"),
            served("subnet6 = '2001:db8::/64'"),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }
}
