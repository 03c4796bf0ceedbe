//! Which address a NIC gets: the lowest free host address of its network's subnet.
//!
//! The addresses in use are read once per network and transaction and then searched in memory.
//! That is right because the transaction is `IMMEDIATE`: nobody else can give one meanwhile. An
//! address outside the subnet (the config changed since) stays its VM's and blocks nothing.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::error::{Error, OrFailed, Result};
use crate::spec::{Address, Name, Subnet};

use super::fault::Fault;

/// The addresses in use, of the networks asked about so far in one transaction.
#[derive(Debug, Default)]
pub(super) struct Pools(HashMap<Name, Pool>);

#[derive(Debug, Default)]
struct Pool {
    used: BTreeSet<Ipv4Addr>,
    /// How many of `used` were given in this transaction.
    given: u64,
}

impl Pools {
    /// Gives the lowest free address of `subnet`. `wanted` counts what the whole transaction
    /// needs of this network, for the words of the error.
    pub(super) fn take(
        &mut self,
        connection: &Connection,
        subnet: &Subnet,
        wanted: impl FnOnce() -> u64,
    ) -> Result<Address, Fault> {
        let pool = match self.0.entry(subnet.network.clone()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Pool::read(connection, &subnet.network)?),
        };
        let Some(ip) = pool.lowest_free(subnet) else { return Err(pool.full(subnet, wanted()).into()) };
        pool.used.insert(ip);
        pool.given += 1;
        let ip = Ipv4Net::new(ip, subnet.net.prefix_len()).or_failed(|| format!("`{}` is no subnet", subnet.net))?;
        Ok(Address::new(ip, subnet.gateway, subnet.dns.clone()))
    }
}

impl Pool {
    fn read(connection: &Connection, network: &Name) -> Result<Self, Fault> {
        let mut statement = connection.prepare_cached("SELECT ip FROM address WHERE network = ?1")?;
        let mut rows = statement.query([network.as_str()])?;
        let mut pool = Self::default();
        while let Some(row) = rows.next()? {
            let text = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            pool.used.insert(
                text.parse().or_failed(|| format!("network `{network}` gave out `{text}`, which is no address"))?,
            );
        }
        Ok(pool)
    }

    fn lowest_free(&self, subnet: &Subnet) -> Option<Ipv4Addr> {
        let (first, last) = hosts(subnet.net);
        let mut used = self.used.range(first..=last).copied().peekable();
        // Used addresses come in order: where they and the count part, there is a gap.
        (first.to_bits()..=last.to_bits()).map(Ipv4Addr::from_bits).find(|candidate| {
            let taken = used.next_if_eq(candidate).is_some();
            !taken && !is_reserved(subnet, *candidate)
        })
    }

    fn full(&self, subnet: &Subnet, wanted: u64) -> Error {
        let (first, last) = hosts(subnet.net);
        let mut reserved: BTreeSet<Ipv4Addr> =
            subnet.gateway.into_iter().chain(subnet.dns.iter().filter_map(v4)).collect();
        reserved.retain(|ip| (first..=last).contains(ip));
        let total = u64::from(last.to_bits() - first.to_bits()) + 1 - reserved.len() as u64;
        let (network, net) = (&subnet.network, subnet.net.trunc());
        let need = if wanted == 1 { "1 is needed".to_owned() } else { format!("{wanted} are needed") };
        Error::refused(format!(
            "network `{network}` has {} of the {total} addresses of `{net}` free, and {need}",
            self.given
        ))
        .hint(format!("delete VMs of network `{network}`, or give it a larger `subnet`"))
    }
}

/// The first and last address a host may have: not the network's own, not the broadcast one. A /31
/// has neither (RFC 3021), nor has a /32.
fn hosts(net: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
    let (network, broadcast) = (net.network(), net.broadcast());
    if net.prefix_len() >= 31 {
        return (network, broadcast);
    }
    (Ipv4Addr::from_bits(network.to_bits() + 1), Ipv4Addr::from_bits(broadcast.to_bits() - 1))
}

/// Whether it is the gateway's or a name server's.
fn is_reserved(subnet: &Subnet, ip: Ipv4Addr) -> bool {
    subnet.gateway == Some(ip) || subnet.dns.contains(&IpAddr::V4(ip))
}

fn v4(ip: &IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    }
}

/// Records what was taken. Apart from the taking, because the VM's row must be there first.
pub(super) fn record(
    connection: &Connection,
    vm: Uuid,
    nic: usize,
    network: &Name,
    address: &Address,
) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("INSERT INTO address (network, ip, vm, nic) VALUES (?1, ?2, ?3, ?4)")?;
    statement.execute(params![network.as_str(), address.ip.addr().to_string(), vm.to_string(), nic as i64])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(net: &str, gateway: Option<&str>, dns: &[&str]) -> Subnet {
        let gateway = gateway.map(|ip| ip.parse().unwrap());
        let dns = dns.iter().map(|ip| ip.parse().unwrap()).collect();
        Subnet::new("main".parse().unwrap(), net.parse().unwrap(), gateway, dns)
    }

    fn pool(used: &[&str]) -> Pool {
        Pool { used: used.iter().map(|ip| ip.parse().unwrap()).collect(), given: 0 }
    }

    type Row<'a> = (&'a str, Option<&'a str>, &'a [&'a str], &'a [&'a str], Option<&'a str>, &'a str);

    #[test]
    fn the_lowest_free_address() {
        let rows: [Row<'_>; 12] = [
            ("10.0.0.0/24", None, &[], &[], Some("10.0.0.1"), "an empty subnet"),
            ("10.0.0.0/24", Some("10.0.0.1"), &[], &[], Some("10.0.0.2"), "not the gateway's"),
            ("10.0.0.0/24", Some("10.0.0.1"), &["10.0.0.2"], &[], Some("10.0.0.3"), "not the name server's"),
            ("10.0.0.77/24", None, &[], &[], Some("10.0.0.1"), "host bits in the subnet do not matter"),
            ("10.0.0.0/24", None, &[], &["10.0.0.1", "10.0.0.3"], Some("10.0.0.2"), "a gap is filled"),
            ("10.0.0.0/24", None, &[], &["9.0.0.1", "10.0.1.1"], Some("10.0.0.1"), "others' ranges do not matter"),
            ("10.0.0.0/30", Some("10.0.0.2"), &[], &["10.0.0.1"], None, "never the broadcast address"),
            ("10.0.0.0/30", Some("10.0.0.2"), &[], &["10.0.0.2"], Some("10.0.0.1"), "a gateway that somebody has"),
            ("10.0.0.0/31", Some("10.0.0.0"), &[], &[], Some("10.0.0.1"), "a /31 has two hosts"),
            ("10.0.0.5/32", None, &[], &[], Some("10.0.0.5"), "a /32 has one"),
            ("10.0.0.5/32", Some("10.0.0.5"), &[], &[], None, "and then none"),
            ("255.255.255.252/30", None, &[], &["255.255.255.253"], Some("255.255.255.254"), "the very end"),
        ];
        for (net, gateway, dns, used, expected, why) in rows {
            let found = pool(used).lowest_free(&subnet(net, gateway, dns)).map(|ip| ip.to_string());
            assert_eq!(found.as_deref(), expected, "{why}");
        }
    }

    #[test]
    fn a_full_subnet_says_how_many_there_are() {
        let subnet = subnet("10.0.0.0/24", Some("10.0.0.1"), &["10.0.0.1", "10.0.0.2", "1.1.1.1"]);
        let error = Pool { given: 2, ..pool(&[]) }.full(&subnet, 5);
        assert_eq!(
            error.message(),
            "network `main` has 2 of the 252 addresses of `10.0.0.0/24` free, and 5 are needed"
        );
        assert!(error.hint_text().is_some());
    }

    proptest! {
        /// Against the plain definition, over every shape of small subnet.
        #[test]
        fn is_the_lowest(prefix in 26u8..=32, gateway in 0u32..64, used in proptest::collection::btree_set(0u32..80, 0..70)) {
            let base = Ipv4Addr::new(10, 0, 0, 0).to_bits();
            let net = Ipv4Net::new(Ipv4Addr::from_bits(base), prefix).unwrap();
            let subnet = Subnet::new("n".parse().unwrap(), net, Some(Ipv4Addr::from_bits(base + gateway)), vec![]);
            let pool = Pool { used: used.into_iter().map(|n| Ipv4Addr::from_bits(base + n)).collect(), given: 0 };
            let expected = net.hosts().find(|ip| !pool.used.contains(ip) && Some(*ip) != subnet.gateway);
            prop_assert_eq!(pool.lowest_free(&subnet), expected);
        }
    }
}
