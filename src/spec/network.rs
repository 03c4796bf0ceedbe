use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{Name, Switch};

/// Everything decided about one network that Virshle keeps: it makes the bridge, and takes it down.
/// Recorded when it comes up, so that what is undone is what was done, whatever the config says by
/// then. A network on somebody else's bridge has none, nor has one of the type `user`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    pub name: Name,
    pub switch: Switch,
    pub bridge: String,
    /// What a new bridge of Open vSwitch moves frames by; a Linux bridge has none.
    pub datapath: Option<Datapath>,
    /// The tag of its frames on a bridge that others share (Open vSwitch only).
    pub vlan: Option<u16>,
    /// In bytes; the kernel's own when not given.
    pub mtu: Option<u16>,
    /// The host's interface that is put into the bridge.
    pub uplink: Option<String>,
    /// What this host is on it; nothing on a network that only has a bridge, or an uplink.
    pub host: Option<HostSide>,
}

impl NetworkSpec {
    /// A network on a Linux bridge that a test changes to its liking: 10.44.0.0/24, served.
    #[cfg(test)]
    pub(crate) fn sample(name: &str) -> Self {
        let host = HostSide {
            address: "10.44.0.1/24".parse().unwrap(),
            address6: Some("fd00:1:2:3::1/64".parse().unwrap()),
            dhcp: true,
            pool: Some(("10.44.0.192".parse().unwrap(), "10.44.0.254".parse().unwrap())),
            nat: true,
            isolated: false,
            domain: "vm".to_owned(),
            upstream: Vec::new(),
        };
        Self {
            name: name.parse().unwrap(),
            switch: Switch::Bridge,
            bridge: "vbr0".to_owned(),
            datapath: None,
            vlan: None,
            mtu: None,
            uplink: None,
            host: Some(host),
        }
    }

    /// The same with another side of the host's.
    #[cfg(test)]
    pub(crate) fn with_host(mut self, change: impl FnOnce(&mut HostSide)) -> Self {
        change(self.host.as_mut().unwrap());
        self
    }

    /// The host's own interface on the network.
    pub fn device(&self) -> String {
        match self.vlan {
            Some(vlan) => format!("{}.{vlan}", self.bridge),
            None => self.bridge.clone(),
        }
    }
}

/// What moves the frames of an Open vSwitch bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Datapath {
    /// Open vSwitch's own process; with DPDK, vhost-user ports too.
    Netdev,
    /// The kernel.
    System,
}

/// What this host is on a network: its router, its name server, and what gives addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSide {
    /// Its own address, which is the guests' gateway, with the subnet's length.
    pub address: Ipv4Net,
    /// The same for IPv6; `None`: the network has no IPv6.
    pub address6: Option<Ipv6Net>,
    /// Whether guests that ask get an address.
    pub dhcp: bool,
    /// First and last address for guests that Virshle does not know; none in a small subnet.
    pub pool: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Whether guests go out under the host's address, and nobody comes in uninvited.
    pub nat: bool,
    /// Whether guests reach nothing but each other and this host's DHCP and DNS.
    pub isolated: bool,
    /// Names of VMs end in it.
    pub domain: String,
    /// Who is asked for other names; the host's own servers when empty.
    pub upstream: Vec<IpAddr>,
}

/// What a network gives addresses from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    pub network: Name,
    pub net: Ipv4Net,
    /// Never given to a VM.
    pub gateway: Option<Ipv4Addr>,
    pub dns: Vec<IpAddr>,
    /// Left to guests that Virshle does not know: never given to a VM that did not ask for one of them.
    pub pool: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Those that VMs are declared with: never given to one that did not ask for it.
    pub named: BTreeSet<Ipv4Addr>,
    /// A /64. A VM's address has the same number in it as its IPv4 address has in `net`.
    pub net6: Option<Ipv6Net>,
    pub gateway6: Option<Ipv6Addr>,
    /// Where short names are looked for.
    pub domain: Option<String>,
}

impl Subnet {
    /// One of IPv4 alone, without a pool.
    pub fn new(network: Name, net: Ipv4Net, gateway: Option<Ipv4Addr>, dns: Vec<IpAddr>) -> Self {
        let named = BTreeSet::new();
        Self { network, net, gateway, dns, pool: None, named, net6: None, gateway6: None, domain: None }
    }
}

/// The IPv6 address that goes with `ip`: it has the same number in `net6` as that has in `net`.
pub fn ip6_of(net: Ipv4Net, ip: Ipv4Addr, net6: Ipv6Net) -> Ipv6Net {
    let number = ip.to_bits() & net.hostmask().to_bits();
    let ip6 = Ipv6Addr::from_bits(net6.network().to_bits() | u128::from(number));
    Ipv6Net::new_assert(ip6, net6.prefix_len())
}

/// What a NIC was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The address with its prefix length.
    pub ip: Ipv4Net,
    pub gateway: Option<Ipv4Addr>,
    pub dns: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip6: Option<Ipv6Net>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

impl Address {
    /// One of IPv4 alone.
    pub fn new(ip: Ipv4Net, gateway: Option<Ipv4Addr>, dns: Vec<IpAddr>) -> Self {
        Self { ip, gateway, dns, ip6: None, gateway6: None, domain: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ipv6_address_of_an_ipv4_one() {
        let rows = [
            ("10.44.0.0/24", "10.44.0.1", "fd00:1:2::/64", "fd00:1:2::1/64"),
            ("10.44.0.0/24", "10.44.0.5", "fd00:1:2::/64", "fd00:1:2::5/64"),
            ("10.44.0.0/16", "10.44.1.2", "fd00:1:2:3::/64", "fd00:1:2:3::102/64"),
            ("10.44.0.1/24", "10.44.0.254", "fd00:1:2::9/64", "fd00:1:2::fe/64"),
            ("10.0.0.0/8", "10.255.255.254", "2001:db8::/64", "2001:db8::ff:fffe/64"),
        ];
        for (net, ip, net6, expected) in rows {
            let ip6 = ip6_of(net.parse().unwrap(), ip.parse().unwrap(), net6.parse().unwrap());
            assert_eq!(ip6.to_string(), expected);
        }
    }

    proptest! {
        /// Two addresses of a subnet never have one IPv6 address, and all are in the /64.
        #[test]
        fn no_two_addresses_share_an_ipv6_one(
            base: u32, prefix in 8u8..=30, one: u32, other: u32, global: u64,
        ) {
            let net = Ipv4Net::new(Ipv4Addr::from_bits(base), prefix).unwrap();
            let net6 = Ipv6Net::new(Ipv6Addr::from_bits(u128::from(global) << 64), 64).unwrap();
            let ip = |number: u32| Ipv4Addr::from_bits(net.network().to_bits() | (number & net.hostmask().to_bits()));
            let ip6 = |number| ip6_of(net, ip(number), net6);
            prop_assert!(net6.contains(&ip6(one)));
            prop_assert_eq!(ip6(one).prefix_len(), 64);
            prop_assert_eq!(ip(one) == ip(other), ip6(one) == ip6(other));
        }
    }
}
