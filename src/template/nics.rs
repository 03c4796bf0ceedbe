//! From a template's `net`s to NICs: what each is plugged into, and what goes with it.

use std::net::Ipv4Addr;

use ipnet::Ipv6Net;
use uuid::Uuid;

use super::Overrides;
use crate::config::{Config, DEFAULT_BRIDGE, Keeping, LinkEntry, NetEntry, Network, Template, check_address};
use crate::error::{Error, Result};
use crate::spec::{Address, Forward, Guard, Link, Mac, Name, Nic, Subnet, Switch};

/// What looking at the host has settled about a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Whether Virshle keeps it.
    pub kept: bool,
    /// Whether this host has IPv6 at all.
    pub ipv6: bool,
    /// The /64 that was made up for it, where it says none.
    pub net6: Option<Ipv6Net>,
}

impl Settled {
    /// Without looking: as if nobody else had a bridge here.
    pub fn by_config(network: &Network) -> Self {
        Self { kept: network.keeping() != Keeping::Theirs, ipv6: true, net6: None }
    }
}

/// A NIC before it has an address: what it is plugged into, and where its address comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedNic {
    pub network: Name,
    pub link: Link,
    /// Without one, the guest's own DHCP decides.
    pub subnet: Option<Subnet>,
    /// The one it asks for, of the subnet.
    pub address: Option<Ipv4Addr>,
    /// The one it asks for; else one follows from the VM.
    pub mac: Option<Mac>,
    pub mtu: Option<u16>,
    pub vlan: Option<u16>,
    /// On every network that Virshle keeps, and on no other.
    pub guard: Option<Guard>,
    pub forwards: Vec<Forward>,
    /// Whether ports of this host can lead to it.
    pub takes_forwards: bool,
}

impl PlannedNic {
    /// The NIC of a VM, with the address it was given.
    pub fn nic(&self, vm: Uuid, index: u8, address: Option<Address>) -> Nic {
        let nic = Nic::new(vm, index, self.network.clone(), self.link.clone());
        Nic {
            mac: self.mac.unwrap_or(nic.mac),
            address,
            mtu: self.mtu,
            vlan: self.vlan,
            guard: self.guard.clone(),
            forwards: self.forwards.clone(),
            ..nic
        }
    }
}

/// The NICs in the template's order. A name without a `[[network]]` gets its type's defaults.
pub fn nics(
    config: &Config,
    template: &Template,
    settle: &mut dyn FnMut(&Network) -> Result<Settled>,
) -> Result<Vec<PlannedNic>> {
    template
        .nets
        .iter()
        .map(|net| {
            let link = config.link(net).ok_or_else(|| {
                Error::usage(format!("there is no network `{}` to take the NIC's type from", net.name))
                    .hint("write the type: `type = \"vhost\"`, `\"tap\"` or `\"user\"`")
            })?;
            let network = config.network(&net.name);
            let settled = network.map(&mut *settle).transpose()?;
            plan(net, link, network, settled)
        })
        .collect()
}

fn plan(net: &NetEntry, link: LinkEntry, network: Option<&Network>, settled: Option<Settled>) -> Result<PlannedNic> {
    let kept = settled.is_some_and(|settled| settled.kept);
    let bridge = network.map_or(DEFAULT_BRIDGE, Network::bridge).to_owned();
    let link = match link {
        LinkEntry::Vhost => Link::Vhost { bridge, create: kept },
        LinkEntry::Tap => {
            let switch = network.and_then(|network| network.kind.switch()).unwrap_or(Switch::Ovs);
            Link::Tap { bridge, switch, create: kept }
        }
        LinkEntry::User => Link::User,
    };
    let mut subnet = network.and_then(|network| network.addresses(kept, settled.and_then(|settled| settled.net6)));
    if let Some(subnet) = subnet.as_mut().filter(|_| settled.is_none_or(|settled| !settled.ipv6)) {
        (subnet.net6, subnet.gateway6) = (None, None);
    }
    let guard =
        Guard { spoof: net.spoof == Some(true), allow: net.allow.clone(), deny: net.deny.clone(), rate: net.rate };
    let takes_forwards = link == Link::User || kept && network.is_some_and(Network::is_served);
    refuse_foreign(net, network, kept, takes_forwards)?;
    Ok(PlannedNic {
        network: net.name.clone(),
        link,
        subnet,
        address: net.address,
        mac: net.mac,
        mtu: network.and_then(|network| network.mtu),
        vlan: network.and_then(|network| network.vlan),
        guard: kept.then_some(guard),
        forwards: net.ports.clone(),
        takes_forwards,
    })
}

/// A bridge that turns out to be somebody else's cannot do for a NIC what one of ours can: nothing
/// that was asked for is left out in silence.
fn refuse_foreign(net: &NetEntry, network: Option<&Network>, kept: bool, takes_forwards: bool) -> Result<()> {
    let asked = [
        ("ports", !net.ports.is_empty() && !takes_forwards),
        ("allow", !net.allow.is_empty() && !kept),
        ("deny", !net.deny.is_empty() && !kept),
        ("rate", net.rate.is_some() && !kept),
        ("spoof", net.spoof.is_some() && !kept),
    ];
    let (Some((key, _)), Some(network)) = (asked.iter().find(|(_, asked)| *asked), network) else { return Ok(()) };
    let (name, bridge) = (&network.name, network.bridge());
    Err(Error::refused(format!("the bridge `{bridge}` of the network `{name}` belongs to somebody else"))
        .source(Error::failed(format!("the template's `{key}` needs one that Virshle makes")))
        .hint(format!("name another `bridge` in the network, or remove `{key}`")))
}

/// Keeps for the VMs that the config declares what it names for them: nobody else is given that.
pub fn keep_named(config: &Config, nics: &mut [PlannedNic]) {
    for subnet in nics.iter_mut().filter_map(|nic| nic.subnet.as_mut()) {
        let nets = config.vms.iter().flat_map(|vm| &vm.template.nets);
        subnet.named.extend(nets.filter(|net| net.name == subnet.network).filter_map(|net| net.address));
    }
}

/// Lays what a person asks for over the plan, and refuses what cannot be for so many VMs.
pub fn lay_over(nics: &mut [PlannedNic], overrides: &Overrides, vms: u32) -> Result<()> {
    if let Some(address) = overrides.address {
        let of_its_subnet = |nic: &&mut PlannedNic| nic.subnet.as_ref().is_some_and(|own| own.net.contains(&address));
        let Some(nic) = nics.iter_mut().find(of_its_subnet) else {
            return Err(Error::usage(format!("`{address}` is in no subnet of the template's networks"))
                .hint("`v template show` tells the subnets"));
        };
        if let Some(subnet) = &nic.subnet {
            check_address(subnet.net, subnet.gateway, &subnet.dns, address)
                .map_err(|what| Error::usage(format!("the address {what}")))?;
        }
        nic.address = Some(address);
    }
    if !overrides.ports.is_empty() {
        let Some(nic) = nics.iter_mut().find(|nic| nic.takes_forwards) else {
            return Err(Error::usage("no NIC of the template can have ports of this host").hint(
                "this host forwards into a network with a `subnet` that Virshle keeps, or one of the type `user`",
            ));
        };
        nic.forwards.extend(overrides.ports.iter().cloned());
    }
    let forwards: Vec<&Forward> = nics.iter().flat_map(|nic| &nic.forwards).collect();
    for (index, forward) in forwards.iter().enumerate() {
        if let Some(other) = forwards[..index].iter().find(|other| other.clashes(forward)) {
            return Err(Error::usage(format!("`{other}` and `{forward}` are at the same port of the host")));
        }
    }
    if vms > 1 {
        let only_one = nics.iter().find_map(|nic| {
            let address = nic.address.map(|address| format!("the address `{address}`"));
            address.or_else(|| nic.mac.map(|mac| format!("the MAC `{mac}`")))
        });
        if let Some(what) = only_one {
            return Err(Error::usage(format!("{vms} VMs cannot all have {what}"))
                .hint("create one, or leave the address or MAC to Virshle"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn config(nets: &str) -> (Config, Template) {
        let networks = [
            "name = 'main'\nbridge = 'br-main'\nsubnet = '10.44.0.0/24'\nvlan = 5\nmtu = 1400\ndns = ['10.44.0.53']",
            "name = 'lan'\ntype = 'bridge'\nbridge = 'br-lan'\ncreate = true",
            "name = 'site'\nbridge = 'br-site'\nsubnet = '10.45.0.0/24'\ndns = ['10.45.0.53']",
            "name = 'plain'\nbridge = 'br-plain'",
            "name = 'slirp'\ntype = 'user'",
        ];
        let networks = networks.iter().map(|text| toml::from_str(text).unwrap()).collect();
        let template = format!("name = 'xs'\nvcpu = 1\nvram = 1\nkernel = 'k'\nnet = [{nets}]");
        (Config { networks, ..Config::default() }, toml::from_str(&template).unwrap())
    }

    /// Where `site`'s bridge is somebody else's.
    fn settle(network: &Network) -> Result<Settled> {
        let by_config = Settled::by_config(network);
        Ok(Settled { kept: by_config.kept && network.name.as_str() != "site", ..by_config })
    }

    fn planned(nets: &str) -> Result<Vec<PlannedNic>> {
        let (config, template) = config(nets);
        nics(&config, &template, &mut settle)
    }

    fn one(net: &str) -> PlannedNic {
        planned(net).unwrap().remove(0)
    }

    #[test]
    fn links_and_their_defaults() {
        let vhost = |bridge: &str, create| Link::Vhost { bridge: bridge.to_owned(), create };
        let tap = |bridge: &str, switch, create| Link::Tap { bridge: bridge.to_owned(), switch, create };
        let rows = [
            ("name = 'main'", vhost("br-main", true), true),
            ("name = 'main', type = 'tap'", tap("br-main", Switch::Ovs, true), true),
            ("name = 'lan'", tap("br-lan", Switch::Bridge, true), false),
            ("name = 'site'", vhost("br-site", false), true),
            ("name = 'plain'", vhost("br-plain", false), false),
            ("name = 'slirp'", Link::User, false),
            ("name = 'other', type = 'vhost'", vhost("vsbr0", false), false),
            ("name = 'other', type = 'tap'", tap("vsbr0", Switch::Ovs, false), false),
            ("name = 'other', type = 'user'", Link::User, false),
        ];
        for (net, link, addressed) in rows {
            let nic = one(&format!("{{ {net} }}"));
            assert_eq!((&nic.link, nic.subnet.is_some()), (&link, addressed), "{net}");
            let kept = matches!(link, Link::Vhost { create: true, .. } | Link::Tap { create: true, .. });
            assert_eq!(nic.guard, kept.then(Guard::default), "{net}");
        }
        let error = planned("{ name = 'other' }").unwrap_err();
        assert!(error.hint_text().unwrap().contains("write the type"), "{error:?}");
    }

    #[test]
    fn what_a_subnet_gives_depends_on_who_keeps_it() {
        let dns = |nic: &PlannedNic| nic.subnet.as_ref().unwrap().dns.clone();
        let kept = one("{ name = 'main' }");
        assert_eq!((kept.mtu, kept.vlan), (Some(1400), Some(5)));
        assert_eq!(dns(&kept), ["10.44.0.1".parse::<std::net::IpAddr>().unwrap()]);
        assert!(kept.subnet.unwrap().pool.is_some());
        let theirs = one("{ name = 'site' }");
        assert_eq!(dns(&theirs), ["10.45.0.53".parse::<std::net::IpAddr>().unwrap()]);
        let subnet = theirs.subnet.unwrap();
        assert_eq!((subnet.gateway, subnet.pool), (Some("10.45.0.1".parse().unwrap()), None));
    }

    #[test]
    fn without_ipv6_on_the_host_a_nic_has_none() {
        let (mut config, template) = config("{ name = 'main' }");
        config.networks[0].subnet6 = Some(crate::config::Subnet6::Net("fd00::/64".parse().unwrap()));
        for ipv6 in [true, false] {
            let planned = nics(&config, &template, &mut |network| Ok(Settled { ipv6, ..Settled::by_config(network) }));
            let subnet = planned.unwrap().remove(0).subnet.unwrap();
            assert_eq!((subnet.net6.is_some(), subnet.gateway6.is_some()), (ipv6, ipv6));
        }
    }

    #[test]
    fn a_nic_has_what_it_asks_for() {
        let nic = one("{ name = 'main', address = '10.44.0.9', mac = '02:00:00:00:00:01', ports = ['80:80'], \
               allow = ['tcp/80'], deny = ['any from 192.0.2.7'], rate = '1Mbit', spoof = true }");
        let spec = nic.nic(Uuid::new_v4(), 3, None);
        assert_eq!((spec.index, spec.mac.to_string().as_str()), (3, "02:00:00:00:00:01"));
        assert_eq!((nic.address, spec.mtu, spec.vlan), (Some("10.44.0.9".parse().unwrap()), Some(1400), Some(5)));
        assert_eq!(spec.forwards, ["80:80".parse().unwrap()]);
        let guard = spec.guard.unwrap();
        assert_eq!((guard.spoof, guard.rate), (true, Some("1Mbit".parse().unwrap())));
        assert_eq!(guard.allow, ["tcp/80".parse().unwrap()]);
        assert_eq!(guard.deny, ["any from 192.0.2.7".parse().unwrap()]);
    }

    #[test]
    fn a_bridge_of_somebody_else_is_told_before_a_rule_is_lost() {
        for (key, value) in
            [("ports", "['80:80']"), ("allow", "['any']"), ("deny", "['any']"), ("rate", "'1Mbit'"), ("spoof", "true")]
        {
            let error = planned(&format!("{{ name = 'site', {key} = {value} }}")).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{key}");
            assert!(error.message().contains("the bridge `br-site` of the network `site`"), "{error}");
            assert!(error.chain().join(": ").contains(&format!("`{key}`")), "{error:?}");
        }
    }

    #[test]
    fn addresses_and_ports_of_the_command_line() {
        let both = "{ name = 'slirp', ports = ['81:81'] }, { name = 'main' }, { name = 'site' }";
        let mut nics = planned(both).unwrap();
        let overrides = Overrides {
            address: Some("10.45.0.9".parse().unwrap()),
            ports: vec!["80:80".parse().unwrap()],
            ..Overrides::default()
        };
        lay_over(&mut nics, &overrides, 1).unwrap();
        let asked: Vec<_> = nics.iter().map(|nic| (nic.address, nic.forwards.len())).collect();
        assert_eq!(asked, [(None, 2), (None, 0), (overrides.address, 0)]);

        let address = |text: &str| Overrides { address: Some(text.parse().unwrap()), ..Overrides::default() };
        let port = |text: &str| Overrides { ports: vec![text.parse().unwrap()], ..Overrides::default() };
        let none = Overrides::default();
        let rows = [
            (both, address("10.46.0.9"), 1, "`10.46.0.9` is in no subnet of the template's networks"),
            (both, address("10.44.0.1"), 1, "the address is `10.44.0.1`, the gateway"),
            (both, address("10.45.0.53"), 1, "the address is `10.45.0.53`, a name server"),
            (both, address("10.44.0.9"), 2, "2 VMs cannot all have the address `10.44.0.9`"),
            (both, port("81:22"), 1, "`81:81/tcp` and `81:22/tcp` are at the same port"),
            ("{ name = 'site' }", port("80:80"), 1, "no NIC of the template can have ports"),
            ("{ name = 'main', address = '10.44.0.9' }", none.clone(), 3, "3 VMs cannot all have the address"),
            ("{ name = 'main', mac = '02:00:00:00:00:01' }", none, 2, "the MAC `02:00:00:00:00:01`"),
        ];
        for (nets, overrides, vms, message) in rows {
            let error = lay_over(&mut planned(nets).unwrap(), &overrides, vms).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{message}");
            assert!(error.message().contains(message), "{error}");
        }
    }
}
