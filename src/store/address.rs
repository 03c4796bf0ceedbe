//! Which address a NIC gets: the one it asked for, else the lowest free host address of its network's
//! subnet that is not in the pool of those whom Virshle does not know.
//!
//! The addresses in use are read once per network and transaction and then searched in memory.
//! That is right because the transaction is `IMMEDIATE`: nobody else can give one meanwhile. An
//! address outside the subnet (the config changed since) stays its VM's and blocks nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::error::{Error, OrFailed, Result};
use crate::spec::{Address, Name, Subnet, ip6_of};

use super::fault::Fault;
use super::vms::Wanted;

/// The addresses of the networks that one transaction gives addresses of.
#[derive(Debug, Default)]
pub(super) struct Pools(HashMap<Name, Pool>);

#[derive(Debug, Default)]
struct Pool {
    /// Those of recorded VMs, as far as they were read, and those given in this transaction.
    used: BTreeSet<Ipv4Addr>,
    read: bool,
    /// What NICs of this transaction ask for: nobody else gets it.
    asked: HashSet<Ipv4Addr>,
    /// How many NICs of this transaction take what there is, and how many of them have it.
    wanted: u64,
    given: u64,
}

impl Pools {
    /// For what these NICs want; two that want one address are refused.
    pub(super) fn of<'a>(nics: impl Iterator<Item = &'a Wanted>) -> Result<Self> {
        let mut pools = Self::default();
        for nic in nics {
            let Some(subnet) = &nic.subnet else {
                if let Some(ip) = nic.address {
                    return Err(Error::usage(format!("`{ip}` is asked for of a network that gives no addresses"))
                        .hint("leave the address out, or give the network a `subnet`"));
                }
                continue;
            };
            let pool = pools.0.entry(subnet.network.clone()).or_default();
            let Some(ip) = nic.address else {
                pool.wanted += 1;
                continue;
            };
            check_asked(subnet, ip)?;
            if !pool.asked.insert(ip) {
                let network = &subnet.network;
                return Err(Error::refused(format!("two of the NICs would have the address `{ip}` of `{network}`"))
                    .hint("an address belongs to one NIC: leave it out, or create one VM at a time"));
            }
        }
        Ok(pools)
    }

    /// Gives a NIC its address; `None` on a network that has none to give.
    pub(super) fn take(&mut self, connection: &Connection, nic: &Wanted) -> Result<Option<Address>, Fault> {
        let Some(subnet) = &nic.subnet else { return Ok(None) };
        let pool = self.0.entry(subnet.network.clone()).or_default();
        if !pool.read {
            pool.used = read(connection, &subnet.network)?;
            pool.read = true;
        }
        let ip = match nic.address {
            Some(ip) if pool.used.contains(&ip) => return Err(taken(connection, &subnet.network, ip)?.into()),
            Some(ip) => ip,
            None => {
                let Some(ip) = pool.lowest_free(subnet) else { return Err(pool.full(subnet).into()) };
                pool.given += 1;
                ip
            }
        };
        pool.used.insert(ip);
        let with_length =
            Ipv4Net::new(ip, subnet.net.prefix_len()).or_failed(|| format!("`{}` is no subnet", subnet.net))?;
        Ok(Some(Address {
            ip6: subnet.net6.map(|net6| ip6_of(subnet.net, ip, net6)),
            gateway6: subnet.gateway6,
            domain: subnet.domain.clone(),
            ..Address::new(with_length, subnet.gateway, subnet.dns.clone())
        }))
    }
}

/// Whether a NIC may have this address of the subnet at all.
pub fn check_asked(subnet: &Subnet, ip: Ipv4Addr) -> Result<()> {
    let (network, net) = (&subnet.network, subnet.net.trunc());
    let (first, last) = hosts(net);
    let wrong = if !net.contains(&ip) {
        format!("`{ip}` is not in the subnet `{net}` of network `{network}`")
    } else if !(first..=last).contains(&ip) {
        format!("`{ip}` is no host's address: the subnet of network `{network}` is `{net}`")
    } else if subnet.gateway == Some(ip) {
        format!("`{ip}` is the gateway of network `{network}`")
    } else {
        return Ok(());
    };
    Err(Error::usage(wrong).hint(format!("choose an address from `{first}` to `{last}`, or leave it out")))
}

fn read(connection: &Connection, network: &Name) -> Result<BTreeSet<Ipv4Addr>, Fault> {
    let mut statement = connection.prepare_cached("SELECT ip FROM address WHERE network = ?1")?;
    let mut rows = statement.query([network.as_str()])?;
    let mut used = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let text = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        used.insert(text.parse().or_failed(|| format!("network `{network}` gave out `{text}`, which is no address"))?);
    }
    Ok(used)
}

fn taken(connection: &Connection, network: &Name, ip: Ipv4Addr) -> Result<Error, Fault> {
    let mut statement = connection.prepare(
        "SELECT vm.name, vm.number FROM address JOIN vm ON vm.uuid = address.vm
         WHERE address.network = ?1 AND address.ip = ?2",
    )?;
    let holder: Option<(String, u32)> =
        statement.query_row([network.as_str(), &ip.to_string()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (who, hint) = match holder {
        Some((name, number)) => (
            format!("VM {number}, `{name}`, has it"),
            format!("choose another address, or leave it out; `v vm info {name}` shows that VM"),
        ),
        // An address of nobody is damage.
        None => ("it is given out".to_owned(), "`v doctor` checks the database".to_owned()),
    };
    Ok(Error::refused(format!("the address `{ip}` of network `{network}` is taken: {who}")).hint(hint))
}

impl Pool {
    fn lowest_free(&self, subnet: &Subnet) -> Option<Ipv4Addr> {
        let (first, last) = hosts(subnet.net);
        let mut used = self.used.range(first..=last).copied().peekable();
        // Used addresses come in order: where they and the count part, there is a gap.
        (first.to_bits()..=last.to_bits()).map(Ipv4Addr::from_bits).find(|candidate| {
            let taken = used.next_if_eq(candidate).is_some();
            !taken && !is_reserved(subnet, *candidate) && !self.asked.contains(candidate)
        })
    }

    fn full(&self, subnet: &Subnet) -> Error {
        let (network, net) = (&subnet.network, subnet.net.trunc());
        let need = match self.wanted {
            1 => "1 is needed".to_owned(),
            wanted => format!("{wanted} are needed"),
        };
        let (total, pool) = (total(subnet), pool_of(subnet).is_some());
        // The pool's are free too, and would be missed in the count.
        let apart = if pool { " outside its DHCP pool" } else { "" };
        let or_ask = if pool { ", or ask for addresses of its DHCP pool with `address`" } else { "" };
        Error::refused(format!(
            "network `{network}` has {} of the {total} addresses of `{net}`{apart} free, and {need}",
            self.given
        ))
        .hint(format!("delete VMs of network `{network}`, or give it a larger `subnet`{or_ask}"))
    }
}

/// How many addresses of the subnet are given without being asked for.
fn total(subnet: &Subnet) -> u64 {
    let (first, last) = hosts(subnet.net);
    let count = |first: Ipv4Addr, last: Ipv4Addr| u64::from(last.to_bits() - first.to_bits()) + 1;
    let pool = pool_of(subnet);
    let others = subnet.gateway.into_iter().chain(subnet.dns.iter().filter_map(v4)).chain(subnet.named.iter().copied());
    let others: BTreeSet<Ipv4Addr> = others
        .filter(|ip| (first..=last).contains(ip) && !pool.is_some_and(|(first, last)| (first..=last).contains(ip)))
        .collect();
    count(first, last) - pool.map_or(0, |(first, last)| count(first, last)) - others.len() as u64
}

/// The part of the pool that is in the subnet.
fn pool_of(subnet: &Subnet) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let ((first, last), (from, to)) = (hosts(subnet.net), subnet.pool?);
    let (from, to) = (from.max(first), to.min(last));
    (from <= to).then_some((from, to))
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

/// Whether it is the gateway's, a name server's, a declared VM's or the pool's.
fn is_reserved(subnet: &Subnet, ip: Ipv4Addr) -> bool {
    subnet.gateway == Some(ip)
        || subnet.dns.contains(&IpAddr::V4(ip))
        || subnet.named.contains(&ip)
        || subnet.pool.is_some_and(|(first, last)| (first..=last).contains(&ip))
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
        Pool { used: used.iter().map(|ip| ip.parse().unwrap()).collect(), ..Pool::default() }
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
        let error = Pool { given: 2, wanted: 5, ..pool(&[]) }.full(&subnet);
        assert_eq!(
            error.message(),
            "network `main` has 2 of the 252 addresses of `10.0.0.0/24` free, and 5 are needed"
        );
        assert!(error.hint_text().is_some());
    }

    fn pooled(net: &str, gateway: Option<&str>, dns: &[&str], pool: (&str, &str)) -> Subnet {
        Subnet { pool: Some((pool.0.parse().unwrap(), pool.1.parse().unwrap())), ..subnet(net, gateway, dns) }
    }

    #[test]
    fn the_pool_is_left_to_others() {
        let named = ["10.0.0.2", "10.0.0.9"].map(|ip| ip.parse().unwrap()).into();
        let rows = [
            (pooled("10.0.0.0/28", None, &[], ("10.0.0.12", "10.0.0.14")), 11, "at the end"),
            (pooled("10.0.0.0/28", None, &[], ("10.0.0.1", "10.0.0.4")), 10, "at the beginning"),
            (pooled("10.0.0.0/28", None, &[], ("10.0.0.5", "10.0.0.5")), 13, "one in the middle"),
            (pooled("10.0.0.0/28", None, &[], ("10.0.0.12", "10.0.0.15")), 11, "the broadcast address counts once"),
            (pooled("10.0.0.0/28", None, &[], ("10.0.0.0", "10.0.0.15")), 0, "all of it"),
            (pooled("10.0.0.0/28", None, &[], ("10.1.0.0", "10.1.0.15")), 14, "another subnet's"),
            (pooled("10.0.0.0/28", Some("10.0.0.1"), &["10.0.0.13"], ("10.0.0.12", "10.0.0.14")), 10, "its dns in it"),
            (Subnet { named, ..subnet("10.0.0.0/28", Some("10.0.0.1"), &[]) }, 11, "two that VMs are declared with"),
        ];
        for (subnet, expected, why) in rows {
            assert_eq!(total(&subnet), expected, "{why}");
            let mut all = Pool::default();
            while let Some(ip) = all.lowest_free(&subnet) {
                assert!(!is_reserved(&subnet, ip), "{why}: {ip}");
                all.used.insert(ip);
            }
            assert_eq!(all.used.len() as u64, expected, "{why}");
        }
        let subnet = pooled("10.0.0.0/24", Some("10.0.0.1"), &["10.0.0.1"], ("10.0.0.192", "10.0.0.254"));
        let error = Pool { given: 0, wanted: 1, ..pool(&[]) }.full(&subnet);
        assert_eq!(
            error.message(),
            "network `main` has 0 of the 190 addresses of `10.0.0.0/24` outside its DHCP pool free, and 1 is needed"
        );
    }

    #[test]
    fn what_nobody_may_ask_for() {
        let subnet = pooled("10.0.0.0/24", Some("10.0.0.1"), &["10.0.0.2"], ("10.0.0.192", "10.0.0.254"));
        let rows = [
            ("10.0.1.5", Some("`10.0.1.5` is not in the subnet `10.0.0.0/24` of network `main`")),
            ("10.0.0.0", Some("`10.0.0.0` is no host's address: the subnet of network `main` is `10.0.0.0/24`")),
            ("10.0.0.255", Some("`10.0.0.255` is no host's address: the subnet of network `main` is `10.0.0.0/24`")),
            ("10.0.0.1", Some("`10.0.0.1` is the gateway of network `main`")),
            ("10.0.0.2", None),
            ("10.0.0.192", None),
            ("10.0.0.254", None),
        ];
        for (ip, expected) in rows {
            let error = check_asked(&subnet, ip.parse().unwrap()).err();
            assert_eq!(error.as_ref().map(Error::message), expected, "{ip}");
            assert!(error.is_none_or(|error| error.kind() == crate::error::Kind::Usage && error.hint_text().is_some()));
        }
    }

    proptest! {
        /// Against the plain definition, over every shape of small subnet.
        #[test]
        fn is_the_lowest(prefix in 26u8..=32, gateway in 0u32..64, used in proptest::collection::btree_set(0u32..80, 0..70), asked in proptest::collection::hash_set(0u32..80, 0..4), from in 0u32..70, size in 0u32..20) {
            let base = Ipv4Addr::new(10, 0, 0, 0).to_bits();
            let net = Ipv4Net::new(Ipv4Addr::from_bits(base), prefix).unwrap();
            let subnet = Subnet::new("n".parse().unwrap(), net, Some(Ipv4Addr::from_bits(base + gateway)), vec![]);
            let ip = |n| Ipv4Addr::from_bits(base + n);
            let left = ip(from)..=ip(from + size);
            let subnet = Subnet { pool: Some((*left.start(), *left.end())), ..subnet };
            let pool = Pool {
                used: used.into_iter().map(ip).collect(),
                asked: asked.into_iter().map(ip).collect(),
                ..Pool::default()
            };
            let may = |ip: &Ipv4Addr| Some(*ip) != subnet.gateway && !left.contains(ip);
            let expected = net.hosts().find(|ip| may(ip) && !pool.used.contains(ip) && !pool.asked.contains(ip));
            prop_assert_eq!(pool.lowest_free(&subnet), expected);
            prop_assert_eq!(total(&subnet), net.hosts().filter(may).count() as u64);
        }
    }
}
