//! What a `[[network]]` comes to: who keeps its bridge, what Virshle makes of it, and what its
//! addresses are given from.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::file::{Network, NetworkKind};
use super::subnet6::Subnet6;
use crate::spec::{Datapath, HostSide, NetworkSpec, Subnet, Switch, ip6_of};

/// The bridge of a network that names none.
pub const DEFAULT_BRIDGE: &str = "vsbr0";
/// What names of VMs end in where the network does not say it.
const DEFAULT_DOMAIN: &str = "vm";

/// Who makes a network's bridge, as far as the config says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Virshle; one of somebody else's is refused.
    Ours,
    /// Virshle, unless somebody else has made it.
    OursIfFree,
    /// Somebody else.
    Theirs,
}

impl Network {
    pub fn keeping(&self) -> Keeping {
        // What only Virshle's own side of a network can give.
        let asks = self.subnet6.is_some()
            || self.domain.is_some()
            || self.dhcp.is_some()
            || self.nat.is_some()
            || self.isolated
            || self.mtu.is_some();
        match self.create {
            _ if self.kind == NetworkKind::User => Keeping::Theirs,
            Some(true) => Keeping::Ours,
            Some(false) => Keeping::Theirs,
            None if asks => Keeping::Ours,
            None if self.subnet.is_some() || self.uplink.is_some() => Keeping::OursIfFree,
            None => Keeping::Theirs,
        }
    }

    /// Whether this host is its router and name server, where Virshle keeps it.
    pub fn is_served(&self) -> bool {
        self.subnet.is_some() && self.uplink.is_none()
    }

    pub fn bridge(&self) -> &str {
        self.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE)
    }

    /// Everything about it where Virshle keeps it. `net6` is the /64 that was made up for it, where
    /// it says none itself; without one it has no IPv6.
    pub fn spec(&self, datapath: Option<Datapath>, net6: Option<Ipv6Net>) -> NetworkSpec {
        let switch = self.kind.switch().unwrap_or(Switch::Bridge);
        let served = self.subnet.filter(|_| self.is_served()).and_then(|net| Some((net, self.gateway_in(net)?)));
        let address6 = served.and_then(|(net, address)| self.prefix6(net6).map(|net6| ip6_of(net, address, net6)));
        let itself = |server: &IpAddr| match server {
            IpAddr::V4(server) => served.is_some_and(|(_, address)| address == *server),
            IpAddr::V6(server) => address6.is_some_and(|address6| address6.addr() == *server),
        };
        NetworkSpec {
            name: self.name.clone(),
            switch,
            bridge: self.bridge().to_owned(),
            datapath: datapath.filter(|_| switch == Switch::Ovs),
            vlan: self.vlan,
            mtu: self.mtu,
            uplink: self.uplink.clone(),
            host: served.map(|(net, address)| HostSide {
                address: with_length(address, net),
                address6,
                dhcp: self.gives_dhcp(),
                pool: self.pool(net),
                nat: self.nat != Some(false),
                isolated: self.isolated,
                domain: self.domain().to_owned(),
                // Of itself it would ask for ever.
                upstream: self.dns.iter().copied().filter(|server| !itself(server)).collect(),
            }),
        }
    }

    /// What addresses are given from. On a network that Virshle keeps and serves, this host is the
    /// way out and the name server; on any other they are as written.
    pub fn addresses(&self, kept: bool, net6: Option<Ipv6Net>) -> Option<Subnet> {
        let net = self.subnet?;
        let gateway = self.gateway_in(net);
        if !(kept && self.is_served()) {
            return Some(Subnet::new(self.name.clone(), net, gateway, self.dns.clone()));
        }
        let net6 = self.prefix6(net6);
        Some(Subnet {
            network: self.name.clone(),
            net,
            gateway,
            dns: gateway.map(Into::into).into_iter().collect(),
            pool: self.pool(net),
            named: BTreeSet::new(),
            net6,
            gateway6: net6.zip(gateway).map(|(net6, gateway)| ip6_of(net, gateway, net6).addr()),
            domain: Some(self.domain().to_owned()),
        })
    }

    /// Whether it has IPv6 and says no prefix: one is to be made up.
    pub fn needs_prefix6(&self) -> bool {
        self.is_served() && self.subnet6.is_none()
    }

    fn prefix6(&self, made_up: Option<Ipv6Net>) -> Option<Ipv6Net> {
        match self.subnet6 {
            Some(Subnet6::Off) => None,
            Some(Subnet6::Net(net6)) => Some(net6),
            None => made_up,
        }
    }

    fn domain(&self) -> &str {
        self.domain.as_deref().unwrap_or(DEFAULT_DOMAIN)
    }

    fn gives_dhcp(&self) -> bool {
        self.dhcp != Some(false)
    }

    fn gateway_in(&self, net: Ipv4Net) -> Option<Ipv4Addr> {
        self.gateway.or_else(|| net.hosts().next())
    }

    /// The subnet's top quarter, if it is large enough to spare it.
    fn pool(&self, net: Ipv4Net) -> Option<(Ipv4Addr, Ipv4Addr)> {
        if !self.gives_dhcp() || net.prefix_len() > 28 {
            return None;
        }
        let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
        let quarter = (last - first) / 4 + 1;
        Some(((last - quarter + 1).into(), (last - 1).into()))
    }
}

fn with_length(address: Ipv4Addr, net: Ipv4Net) -> Ipv4Net {
    Ipv4Net::new(address, net.prefix_len()).unwrap_or(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        toml::from_str(&format!("name = 'lan'\ntype = 'bridge'\nbridge = 'br0'\n{text}")).unwrap()
    }

    #[test]
    fn who_keeps_it() {
        use Keeping::{Ours, OursIfFree, Theirs};
        let rows = [
            ("", Theirs),
            ("create = true", Ours),
            ("create = false\nsubnet = '10.44.0.0/24'", Theirs),
            ("subnet = '10.44.0.0/24'", OursIfFree),
            ("uplink = 'eth0'", OursIfFree),
            ("subnet = '10.44.0.0/24'\nnat = false", Ours),
            ("subnet = '10.44.0.0/24'\ndhcp = true", Ours),
            ("subnet = '10.44.0.0/24'\nsubnet6 = false", Ours),
            ("subnet = '10.44.0.0/24'\nisolated = true", Ours),
            ("subnet = '10.44.0.0/24'\ndomain = 'lab'", Ours),
            ("mtu = 9000", Ours),
        ];
        for (text, keeping) in rows {
            assert_eq!(network(text).keeping(), keeping, "{text}");
        }
    }

    #[test]
    fn a_network_that_is_served() {
        let made_up: Ipv6Net = "fd12:3456:789a:1::/64".parse().unwrap();
        let lan = network("subnet = '10.44.0.0/16'\ngateway = '10.44.1.2'\ndns = ['10.44.1.2', '9.9.9.9']\nmtu = 1400");
        let spec = lan.spec(Some(Datapath::Netdev), Some(made_up));
        assert_eq!((spec.device().as_str(), spec.datapath, spec.mtu), ("br0", None, Some(1400)));
        let host = spec.host.unwrap();
        assert_eq!(host.address.to_string(), "10.44.1.2/16");
        assert_eq!(host.address6.unwrap().to_string(), "fd12:3456:789a:1::102/64");
        assert_eq!((host.dhcp, host.nat, host.isolated, host.domain.as_str()), (true, true, false, "vm"));
        assert_eq!(host.upstream, ["9.9.9.9".parse::<std::net::IpAddr>().unwrap()]);

        let subnet = lan.addresses(true, Some(made_up)).unwrap();
        assert_eq!(subnet.gateway, Some("10.44.1.2".parse().unwrap()));
        assert_eq!(subnet.dns, ["10.44.1.2".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(subnet.gateway6, Some("fd12:3456:789a:1::102".parse().unwrap()));
        assert_eq!((subnet.pool, subnet.domain.as_deref()), (host.pool, Some("vm")));
    }

    #[test]
    fn the_prefix_is_its_own_the_made_up_one_or_none() {
        let made_up: Ipv6Net = "fd12:3456:789a:1::/64".parse().unwrap();
        let rows = [
            ("", Some(made_up), Some("fd12:3456:789a:1::1/64")),
            ("", None, None),
            ("subnet6 = 'fd00:1::/64'", Some(made_up), Some("fd00:1::1/64")),
            ("subnet6 = 'fd00:1::/64'", None, Some("fd00:1::1/64")),
            ("subnet6 = false", Some(made_up), None),
        ];
        for (text, net6, address6) in rows {
            let lan = network(&format!("subnet = '10.44.0.0/24'\n{text}"));
            let host = lan.spec(None, net6).host.unwrap();
            assert_eq!(host.address6.map(|net| net.to_string()).as_deref(), address6, "{text}");
            assert_eq!(lan.addresses(true, net6).unwrap().net6, host.address6.map(|net| net.trunc()), "{text}");
        }
    }

    #[test]
    fn the_pool_is_the_top_quarter() {
        let rows = [
            ("subnet = '10.44.0.0/24'", Some(("10.44.0.192", "10.44.0.254"))),
            ("subnet = '10.44.0.0/28'", Some(("10.44.0.12", "10.44.0.14"))),
            ("subnet = '10.44.0.0/29'", None),
            ("subnet = '10.44.0.0/24'\ndhcp = false", None),
            ("subnet = '10.0.0.0/8'", Some(("10.192.0.0", "10.255.255.254"))),
        ];
        for (text, pool) in rows {
            let pool = pool.map(|(first, last)| (first.parse().unwrap(), last.parse().unwrap()));
            assert_eq!(network(text).spec(None, None).host.unwrap().pool, pool, "{text}");
        }
    }

    #[test]
    fn elsewhere_addresses_are_as_written() {
        let made_up = Some("fd12:3456:789a:1::/64".parse().unwrap());
        let lan = network("subnet = '10.44.0.0/24'\ndns = ['9.9.9.9']");
        let as_written = Subnet::new(
            lan.name.clone(),
            "10.44.0.0/24".parse().unwrap(),
            Some("10.44.0.1".parse().unwrap()),
            vec!["9.9.9.9".parse().unwrap()],
        );
        assert_eq!(lan.addresses(false, made_up), Some(as_written.clone()));
        let uplinked = network("subnet = '10.44.0.0/24'\ndns = ['9.9.9.9']\nuplink = 'eth0'");
        assert_eq!(uplinked.addresses(true, made_up), Some(as_written));
        assert_eq!(uplinked.spec(None, made_up).host, None);
        assert_eq!(network("").addresses(true, None), None);
    }
}
