//! `[[template.vm.net]]`: a template's NICs, and what their networks let them have.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::super::draft::Draft;
use super::super::file::{NetEntry, Network, NetworkKind, Template};
use super::super::link::LinkEntry;
use super::super::network::Keeping;
use super::super::placed::Placed;
use super::super::source::did_you_mean;
use crate::error::{Error, Result};

pub(super) fn check_all(template: &Placed<Template>, draft: &Draft) -> Result<()> {
    let nets = &template.entry.nets;
    for (index, net) in nets.iter().enumerate() {
        check_link(template, index, net, draft)?;
        let network = draft.networks.iter().map(|network| &network.entry).find(|network| network.name == net.name);
        let nic = Nic { template, index, net, network };
        nic.check_address()?;
        nic.check_mac()?;
        nic.check_ports()?;
        nic.check_guard()?;
        nets[..index].iter().enumerate().try_for_each(|(other_index, other)| nic.check_beside(other_index, other))?;
    }
    Ok(())
}

/// Whether a NIC of the subnet may have the address, or why not as the end of the sentence "`key` …".
pub fn check_address(
    net: Ipv4Net,
    gateway: Option<Ipv4Addr>,
    dns: &[IpAddr],
    address: Ipv4Addr,
) -> std::result::Result<(), String> {
    if !net.contains(&address) {
        return Err(format!("is `{address}`, which is outside the subnet `{net}`"));
    }
    if address == net.network() || address == net.broadcast() {
        return Err(format!("is `{address}`, which no host can have in the subnet `{net}`"));
    }
    if gateway == Some(address) {
        return Err(format!("is `{address}`, the gateway of the subnet `{net}`"));
    }
    if dns.contains(&IpAddr::V4(address)) {
        return Err(format!("is `{address}`, a name server of the subnet `{net}`"));
    }
    Ok(())
}

/// One `net` of a template, and its `[[network]]`, if there is one.
struct Nic<'a> {
    template: &'a Placed<Template>,
    index: usize,
    net: &'a NetEntry,
    network: Option<&'a Network>,
}

impl Nic<'_> {
    fn wrong(&self, key: &str, what: impl std::fmt::Display) -> Error {
        self.template.wrong(&format!("net[{}].{key}", self.index), what)
    }

    fn check_address(&self) -> Result<()> {
        let Some(address) = self.net.address else { return Ok(()) };
        let Some((net, network)) = self.network.and_then(|network| Some((network.subnet?, network))) else {
            return Err(self
                .wrong("address", format_args!("is set, and the network `{}` has no `subnet`", self.net.name))
                .hint("give the network a `subnet`, or remove `address`"));
        };
        let gateway = network.gateway.or_else(|| net.hosts().next());
        check_address(net, gateway, &network.dns, address).map_err(|what| self.wrong("address", what))
    }

    fn check_mac(&self) -> Result<()> {
        match self.net.mac {
            Some(mac) if !mac.is_of_a_device() => Err(self
                .wrong("mac", format_args!("is `{mac}`, which no single device can have"))
                .hint("the first byte of a MAC of your own is 02, 06, 0a or 0e, like `02:00:00:00:00:01`")),
            _ => Ok(()),
        }
    }

    fn check_ports(&self) -> Result<()> {
        let ports = &self.net.ports;
        if ports.is_empty() {
            return Ok(());
        }
        let can = match self.network {
            Some(network) if network.kind == NetworkKind::User => true,
            Some(network) => network.is_served() && network.keeping() != Keeping::Theirs,
            None => self.net.link == Some(LinkEntry::User),
        };
        if !can {
            return Err(self
                .wrong(
                    "ports",
                    format_args!("is set, and this host serves no network `{}` that it could lead to", self.net.name),
                )
                .hint("give the network a `subnet` and no `uplink` or `create = false`, or the type `user`"));
        }
        for (index, port) in ports.iter().enumerate() {
            if let Some(other) = ports[..index].iter().find(|other| other.clashes(port)) {
                return Err(
                    self.wrong("ports", format_args!("has both `{other}` and `{port}`, at the same port of the host"))
                );
            }
        }
        Ok(())
    }

    fn check_guard(&self) -> Result<()> {
        let NetEntry { allow, deny, rate, spoof, .. } = self.net;
        let given = [
            ("allow", !allow.is_empty()),
            ("deny", !deny.is_empty()),
            ("rate", rate.is_some()),
            ("spoof", spoof.is_some()),
        ];
        let Some((key, _)) = given.into_iter().find(|(_, given)| *given) else { return Ok(()) };
        if self.network.is_some_and(|network| network.keeping() != Keeping::Theirs) {
            return Ok(());
        }
        let name = &self.net.name;
        Err(self
            .wrong(key, format_args!("is set, and the network `{name}` is not one that Virshle keeps"))
            .hint(format!("give the network a `subnet` or `create = true`, or remove `{key}`")))
    }

    fn check_beside(&self, other_index: usize, other: &NetEntry) -> Result<()> {
        if let (Some(address), Some(taken)) = (self.net.address, other.address)
            && address == taken
        {
            return Err(self.wrong("address", format_args!("is `{address}`, which `net[{other_index}]` has already")));
        }
        if let (Some(mac), Some(taken)) = (self.net.mac, other.mac)
            && mac == taken
        {
            return Err(self.wrong("mac", format_args!("is `{mac}`, which `net[{other_index}]` has already")));
        }
        let mut pairs = self.net.ports.iter().flat_map(|port| other.ports.iter().map(move |other| (port, other)));
        match pairs.find(|(port, other)| port.clashes(other)) {
            Some((port, other)) => Err(self.wrong(
                "ports",
                format_args!("has `{port}`, and `net[{other_index}]` has `{other}`, at the same port of the host"),
            )),
            None => Ok(()),
        }
    }
}

fn check_link(template: &Placed<Template>, index: usize, net: &NetEntry, draft: &Draft) -> Result<()> {
    let network = draft.networks.iter().find(|network| network.entry.name == net.name);
    match (net.link, network) {
        // What a network of that name would be follows from the type.
        (Some(_), None) | (None, Some(_)) => Ok(()),
        (None, None) => Err(unknown_network(template, index, net, draft)),
        (Some(link), Some(network)) if network.entry.kind.fits(link) => Ok(()),
        (Some(link), Some(network)) => {
            let (link, kind) = (link.as_str(), network.entry.kind);
            Err(template
                .wrong(
                    &format!("net[{index}].type"),
                    format_args!(
                        "is `{link}`, which the network `{}` of the type `{}` cannot have",
                        net.name,
                        kind.as_str()
                    ),
                )
                .hint(match kind {
                    NetworkKind::Ovs => "write `vhost` or `tap`, or remove the type",
                    NetworkKind::Bridge => "write `tap`, or remove the type",
                    NetworkKind::User => "write `user`, or remove the type",
                }))
        }
    }
}

fn unknown_network(template: &Placed<Template>, index: usize, net: &NetEntry, draft: &Draft) -> Error {
    let types = format!(
        "write its type: `type = \"{}\"`, `\"{}\"` or `\"{}\"`",
        LinkEntry::Vhost.as_str(),
        LinkEntry::Tap.as_str(),
        LinkEntry::User.as_str()
    );
    let names = draft.networks.iter().map(|network| network.entry.name.as_str());
    let hint = match did_you_mean(net.name.as_str(), names) {
        Some(meant) => format!("{meant} Otherwise {types}"),
        None => types,
    };
    let what = format_args!("is `{}`, and there is no such `[[network]]` to take the type from", net.name).to_string();
    template.wrong(&format!("net[{index}].name"), what).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{VM, run};
    use crate::config::load::of_text;

    #[test]
    fn nics() {
        let nets = |networks: &str, list: &str| {
            let open = VM.strip_suffix(" }]").unwrap();
            format!("{networks}\n{open}, net = [{list}] }}]")
        };
        let (ovs, bridge, user) = (
            "network = [{ name = 'main' }]",
            "network = [{ name = 'main', type = 'bridge' }]",
            "network = [{ name = 'main', type = 'user' }]",
        );
        run([
            (
                nets("", "{ name = 'main' }"),
                "`template.vm[0].net[0].name` is `main`, and there is no such `[[network]]`",
                "write its type: `type = \"vhost\"`, `\"tap\"` or `\"user\"`",
            ),
            (
                nets(ovs, "{ name = 'main' }, { name = 'mian' }"),
                "`template.vm[0].net[1].name` is `mian`",
                "did you mean `main`? Otherwise write its type",
            ),
            (
                nets(ovs, "{ name = 'main', type = 'user' }"),
                "`template.vm[0].net[0].type` is `user`, which the network `main` of the type `ovs` cannot have",
                "`vhost` or `tap`",
            ),
            (
                nets(bridge, "{ name = 'main', type = 'vhost' }"),
                "is `vhost`, which the network `main` of the type `bridge` cannot have",
                "write `tap`",
            ),
            (nets(bridge, "{ name = 'main', type = 'user' }"), "is `user`", "write `tap`"),
            (nets(user, "{ name = 'main', type = 'vhost' }"), "is `vhost`", "write `user`"),
            (nets(user, "{ name = 'main', type = 'tap' }"), "is `tap`", "write `user`"),
            (nets(ovs, &["{ name = 'main' }"; 9].join(",")), "`template.vm[0].net` has 9 NICs, and 8 is the most", ""),
        ]);
        for text in [
            nets(ovs, "{ name = 'main' }, { name = 'main', type = 'vhost' }, { name = 'main', type = 'tap' }"),
            nets(bridge, "{ name = 'main', type = 'tap' }, { name = 'main' }"),
            nets(user, "{ name = 'main', type = 'user' }, { name = 'main' }"),
            nets("", "{ name = 'main', type = 'vhost' }, { name = 'b', type = 'tap' }, { name = 'c', type.user = {} }"),
            nets(ovs, &["{ name = 'main' }"; 8].join(",")),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }

    const LAN: &str = "network = [
        { name = 'lan', bridge = 'x', subnet = '10.44.0.0/24', dns = ['10.44.0.53'] },
        { name = 'site', bridge = 'y', subnet = '10.45.0.0/24', create = false },
        { name = 'out', bridge = 'z', uplink = 'eth0' },
        { name = 'slirp', type = 'user' }]";

    fn nets(list: &str) -> String {
        let open = VM.strip_suffix(" }]").unwrap();
        format!("{LAN}\n{open}, net = [{list}] }}]")
    }

    #[test]
    fn addresses_and_macs() {
        let lan = |rest: &str| nets(&format!("{{ name = 'lan', {rest} }}"));
        run([
            (
                lan("address = '10.45.0.5'"),
                "`template.vm[0].net[0].address` is `10.45.0.5`, which is outside the subnet `10.44.0.0/24`",
                "",
            ),
            (lan("address = '10.44.0.0'"), "which no host can have", ""),
            (lan("address = '10.44.0.255'"), "which no host can have", ""),
            (lan("address = '10.44.0.1'"), "is `10.44.0.1`, the gateway of the subnet", ""),
            (lan("address = '10.44.0.53'"), "is `10.44.0.53`, a name server of the subnet", ""),
            (lan("address = '10.44.0'"), "`10.44.0` is not an IPv4 address", ""),
            (
                nets("{ name = 'out', address = '10.44.0.5' }"),
                "`template.vm[0].net[0].address` is set, and the network `out` has no `subnet`",
                "give the network a `subnet`",
            ),
            (nets("{ name = 'slirp', address = '10.0.2.5' }"), "has no `subnet`", ""),
            (nets("{ name = 'x', type = 'tap', address = '10.0.2.5' }"), "has no `subnet`", ""),
            (
                nets("{ name = 'lan', address = '10.44.0.5' }, { name = 'lan', address = '10.44.0.5' }"),
                "`template.vm[0].net[1].address` is `10.44.0.5`, which `net[0]` has already",
                "",
            ),
            (
                lan("mac = '01:00:00:00:00:01'"),
                "`template.vm[0].net[0].mac` is `01:00:00:00:00:01`, which no single device can have",
                "like `02:00:00:00:00:01`",
            ),
            (lan("mac = '00:00:00:00:00:00'"), "which no single device can have", ""),
            (lan("mac = '02:00:00:00:00'"), "`02:00:00:00:00` is not a MAC address", ""),
            (
                nets("{ name = 'lan', mac = '02:00:00:00:00:AA' }, { name = 'out', mac = '02:00:00:00:00:aa' }"),
                "`template.vm[0].net[1].mac` is `02:00:00:00:00:aa`, which `net[0]` has already",
                "",
            ),
        ]);
        for text in [
            lan("address = '10.44.0.2', mac = '02:00:00:00:00:01'"),
            nets("{ name = 'site', address = '10.45.0.254' }"),
            nets("{ name = 'slirp', mac = '52:54:00:00:00:01' }"),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }

    #[test]
    fn ports_and_guards() {
        let lan = |rest: &str| nets(&format!("{{ name = 'lan', {rest} }}"));
        run([
            (
                nets("{ name = 'site', ports = ['8080:80'] }"),
                "`template.vm[0].net[0].ports` is set, and this host serves no network `site`",
                "the type `user`",
            ),
            (nets("{ name = 'out', ports = ['8080:80'] }"), "serves no network `out`", ""),
            (nets("{ name = 'x', type = 'tap', ports = ['8080:80'] }"), "serves no network `x`", ""),
            (
                lan("ports = ['80:80', '127.0.0.1:80:81']"),
                "`template.vm[0].net[0].ports` has both `80:80/tcp` and `127.0.0.1:80:81/tcp`",
                "",
            ),
            (
                nets("{ name = 'lan', ports = ['80:80'] }, { name = 'slirp', ports = ['80:8080'] }"),
                "`template.vm[0].net[1].ports` has `80:8080/tcp`, and `net[0]` has `80:80/tcp`",
                "",
            ),
            (lan("ports = ['80']"), "`80` is no forward", ""),
            (lan("allow = ['tcp/22 from home']"), "`home` is no address and no subnet", ""),
            (lan("rate = '1Mb'"), "`1Mb` is no rate", ""),
        ]);
        for (key, value) in [("allow", "['tcp/22']"), ("deny", "['any']"), ("rate", "'1Mbit'"), ("spoof", "false")] {
            let message = format!("`template.vm[0].net[0].{key}` is set, and the network `");
            for entry in ["name = 'site'", "name = 'slirp'", "name = 'x', type = 'tap'"] {
                let hint = format!("or remove `{key}`");
                run([(nets(&format!("{{ {entry}, {key} = {value} }}")), message.as_str(), hint.as_str())]);
            }
            for name in ["lan", "out"] {
                let right = nets(&format!("{{ name = '{name}', {key} = {value} }}"));
                assert!(of_text(&right).is_ok(), "{right}: {:?}", of_text(&right));
            }
        }
        for text in [
            lan("ports = ['80:80', '80:80/udp', '127.0.0.1:81:80', '127.0.0.2:81:80']"),
            nets("{ name = 'slirp', ports = ['8080:80'] }"),
            nets("{ name = 'x', type = 'user', ports = ['8080:80'] }"),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }
}
