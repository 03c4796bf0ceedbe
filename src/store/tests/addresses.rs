//! Addresses and MACs that were asked for, and those that were not.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use proptest::prelude::{
    ProptestConfig, Strategy, any as arbitrary, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use uuid::Uuid;

use super::fixture::{OWNER, build, draft, name, reserve, store, subnet};
use crate::error::{Kind, Result};
use crate::spec::{Mac, Subnet, VmSpec};
use crate::store::{Draft, Reserved, Store, Wanted};

/// As a kept network's: the last quarter is the pool, and there is IPv6.
fn kept(given: &str, net: &str) -> Subnet {
    let net: Ipv4Net = net.parse().unwrap();
    let (size, last) = (net.hostmask().to_bits() + 1, net.broadcast().to_bits() - 1);
    Subnet {
        pool: Some((Ipv4Addr::from_bits(last + 2 - size / 4), Ipv4Addr::from_bits(last))),
        net6: Some("fd00:1:2::/64".parse().unwrap()),
        gateway6: Some("fd00:1:2::1".parse().unwrap()),
        domain: Some("vm".to_owned()),
        ..subnet(given, &net.to_string())
    }
}

fn asking(subnet: &Subnet, ip: &str) -> Wanted {
    Wanted { subnet: Some(subnet.clone()), address: Some(ip.parse().unwrap()), mac: None }
}

fn any(subnet: &Subnet) -> Wanted {
    Wanted { subnet: Some(subnet.clone()), ..Wanted::default() }
}

fn with_mac(mac: Mac) -> Wanted {
    Wanted { mac: Some(mac), ..Wanted::default() }
}

fn vm(given: &str, nics: &[Wanted]) -> Draft {
    Draft { nics: nics.to_vec(), ..draft(Some(given), &[]) }
}

fn ips(spec: &VmSpec) -> Vec<String> {
    spec.nics.iter().filter_map(|nic| nic.address.as_ref()).map(|address| address.ip.addr().to_string()).collect()
}

/// [`reserve`] with a spec that has the MACs that were asked for.
fn reserve_macs(store: &mut Store, drafts: &[Draft]) -> Result<Vec<VmSpec>> {
    let mut build = |reserved: &Reserved| {
        let mut spec = build(reserved)?;
        let draft = drafts.iter().find(|draft| draft.uuid == reserved.uuid).unwrap();
        for (nic, wanted) in spec.nics.iter_mut().zip(&draft.nics) {
            nic.mac = wanted.mac.unwrap_or(nic.mac);
        }
        Ok(spec)
    };
    store.reserve(drafts, OWNER, &mut || name("made-up"), &mut build)
}

fn assert_error(result: Result<Vec<VmSpec>>, kind: Kind, message: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.message(), error.kind()), (message, kind));
    assert!(error.hint_text().is_some(), "{message}");
}

#[test]
fn an_address_that_was_asked_for() {
    let (_dir, mut store) = store();
    let main = kept("main", "10.44.0.0/24");
    let drafts = [
        vm("a", &[any(&main), any(&main)]),
        vm("b", &[asking(&main, "10.44.0.2"), asking(&main, "10.44.0.200")]),
        vm("c", &[asking(&main, "10.44.0.9"), Wanted::default(), any(&main)]),
    ];
    let specs = reserve(&mut store, &drafts).unwrap();
    let given: Vec<_> = specs.iter().map(ips).collect();
    assert_eq!(given[0], ["10.44.0.3", "10.44.0.4"], "what is asked for later in the batch is left alone");
    assert_eq!(given[1], ["10.44.0.2", "10.44.0.200"], "one of the pool too, since it was asked for");
    assert_eq!(given[2], ["10.44.0.9", "10.44.0.5"]);
    let address = specs[2].nics[0].address.as_ref().unwrap();
    assert_eq!(address.ip6, Some("fd00:1:2::9/64".parse().unwrap()));
    assert_eq!((address.gateway6, address.domain.as_deref()), (main.gateway6, Some("vm")));

    let before = store.list().unwrap();
    assert_error(
        reserve(&mut store, &[vm("d", &[asking(&main, "10.44.0.200")])]),
        Kind::Refused,
        "the address `10.44.0.200` of network `main` is taken: VM 2, `b`, has it",
    );
    assert_error(
        reserve(&mut store, &[vm("d", &[any(&main), asking(&main, "10.44.0.4")])]),
        Kind::Refused,
        "the address `10.44.0.4` of network `main` is taken: VM 1, `a`, has it",
    );
    assert_error(
        reserve(&mut store, &[vm("d", &[asking(&main, "10.44.0.50")]), vm("e", &[asking(&main, "10.44.0.50")])]),
        Kind::Refused,
        "two of the NICs would have the address `10.44.0.50` of `main`",
    );
    assert_error(
        reserve(&mut store, &[vm("d", &[asking(&main, "10.45.0.5")])]),
        Kind::Usage,
        "`10.45.0.5` is not in the subnet `10.44.0.0/24` of network `main`",
    );
    let nowhere = Wanted { subnet: None, ..asking(&main, "10.44.0.5") };
    assert_error(
        reserve(&mut store, &[vm("d", &[nowhere])]),
        Kind::Usage,
        "`10.44.0.5` is asked for of a network that gives no addresses",
    );
    assert_eq!(store.list().unwrap(), before, "nothing is recorded of what was refused");

    // Another network's are its own, and what is given back can be asked for.
    let lan = kept("lan", "10.44.0.0/24");
    store.remove(specs[1].uuid).unwrap();
    let again = [vm("d", &[asking(&lan, "10.44.0.9"), asking(&main, "10.44.0.200")])];
    assert_eq!(ips(&reserve(&mut store, &again).unwrap()[0]), ["10.44.0.9", "10.44.0.200"]);
    store.check().unwrap();
}

#[test]
fn a_network_without_ipv6_or_names_gives_neither() {
    let (_dir, mut store) = store();
    let specs = reserve(&mut store, &[draft(Some("a"), &[subnet("main", "10.44.0.0/24")])]).unwrap();
    let address = specs[0].nics[0].address.as_ref().unwrap();
    assert_eq!((address.ip6, address.gateway6, &address.domain), (None, None, &None));
}

#[test]
fn a_mac_that_was_asked_for() {
    let (_dir, mut store) = store();
    let mac: Mac = "02:00:00:00:00:0a".parse().unwrap();
    let plain = reserve_macs(&mut store, &[vm("plain", &[Wanted::default(), Wanted::default()])]).unwrap().remove(0);
    let specs = reserve_macs(&mut store, &[vm("a", &[Wanted::default(), with_mac(mac)])]).unwrap();
    assert_eq!(specs[0].nics[1].mac, mac);

    let shouted: Mac = "02:00:00:00:00:0A".parse().unwrap();
    assert_error(
        reserve_macs(&mut store, &[vm("b", &[with_mac(shouted)])]),
        Kind::Refused,
        "the MAC `02:00:00:00:00:0a` is taken: a NIC of VM 2, `a`, has it",
    );
    let derived = plain.nics[1].mac;
    assert_error(
        reserve_macs(&mut store, &[vm("b", &[with_mac(derived)])]),
        Kind::Refused,
        &format!("the MAC `{derived}` is taken: a NIC of VM 1, `plain`, has it"),
    );
    let new: Mac = "02:00:00:00:00:0b".parse().unwrap();
    let two = [vm("b", &[with_mac(new)]), vm("c", &[with_mac(new)])];
    assert_error(
        reserve_macs(&mut store, &two),
        Kind::Refused,
        "two of the NICs would have the MAC `02:00:00:00:00:0b`",
    );
    // A spec that does not have it.
    let error = reserve(&mut store, &[vm("b", &[with_mac(new)])]).unwrap_err();
    assert_eq!(error.message(), "the spec built for `b` is not what was reserved");
    assert_eq!(store.list().unwrap().len(), 2);

    store.remove(specs[0].uuid).unwrap();
    reserve_macs(&mut store, &[vm("b", &[with_mac(mac)])]).unwrap();
}

/// 1,022 hosts: the gateway, 255 in the pool, and 766 for whoever does not ask.
#[test]
fn a_thousand_vms_fill_a_subnet() {
    let (_dir, mut store) = store();
    let main = kept("main", "10.44.0.0/22");
    let mut left: Vec<Draft> = (0..766).map(|n| vm(&format!("vm-{n}"), &[any(&main)])).collect();
    let last = left.split_off(700);
    for batch in left.chunks(100) {
        reserve(&mut store, batch).unwrap();
    }
    let more: Vec<Draft> = (0..67).map(|n| vm(&format!("more-{n}"), &[any(&main)])).collect();
    assert_error(
        reserve(&mut store, &more),
        Kind::Refused,
        "network `main` has 66 of the 766 addresses of `10.44.0.0/22` outside its DHCP pool free, and 67 are needed",
    );
    reserve(&mut store, &last).unwrap();
    assert_error(
        reserve(&mut store, &[vm("full", &[any(&main)])]),
        Kind::Refused,
        "network `main` has 0 of the 766 addresses of `10.44.0.0/22` outside its DHCP pool free, and 1 is needed",
    );
    // Those of the pool are there for the asking.
    let asked: Vec<Draft> =
        (0..234).map(|n| vm(&format!("asked-{n}"), &[asking(&main, &format!("10.44.3.{}", n + 1))])).collect();
    reserve(&mut store, &asked).unwrap();

    let records = store.list().unwrap();
    assert_eq!(records.len(), 1000);
    let addresses: Vec<_> = records.iter().map(|record| record.spec.nics[0].address.clone().unwrap()).collect();
    assert_eq!(addresses.iter().map(|address| address.ip).collect::<HashSet<_>>().len(), 1000);
    assert_eq!(addresses.iter().map(|address| address.ip6).collect::<HashSet<_>>().len(), 1000);
    // A gap is found among a thousand, without and with the asking.
    store.remove(records[500].spec.uuid).unwrap();
    assert_eq!(reserve(&mut store, &[vm("gap", &[any(&main)])]).unwrap()[0].address(), Some(addresses[500].ip.addr()));
    let error = reserve(&mut store, &[vm("late", &[asking(&main, "10.44.3.7")])]).unwrap_err();
    assert!(error.message().ends_with("`asked-6`, has it"), "{}", error.message());
    store.check().unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    /// A VM per entry, with a NIC on each of the two networks: the host numbers they ask for.
    Create(Vec<(Option<u8>, Option<u8>)>),
    Delete(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let number = || prop::option::of(0u8..20);
    prop_oneof![
        3 => prop::collection::vec((number(), number()), 1..4).prop_map(Step::Create),
        1 => arbitrary::<prop::sample::Index>().prop_map(Step::Delete),
    ]
}

type Taken = HashSet<(String, Ipv4Addr)>;

/// What comes of one NIC, by the plain definition; `Err` is the kind of the refusal.
fn expected(subnet: &Subnet, ip: Option<Ipv4Addr>, taken: &Taken, asked: &Taken) -> Result<Ipv4Addr, Kind> {
    let network = subnet.network.to_string();
    let (first, last) = subnet.pool.unwrap();
    let mut hosts = subnet.net.hosts();
    match ip {
        Some(ip) if !hosts.any(|host| host == ip) || subnet.gateway == Some(ip) => Err(Kind::Usage),
        Some(ip) if taken.contains(&(network.clone(), ip)) => Err(Kind::Refused),
        Some(ip) => Ok(ip),
        None => hosts
            .find(|ip| {
                let key = (network.clone(), *ip);
                let free = !taken.contains(&key) && !asked.contains(&key);
                free && subnet.gateway != Some(*ip) && !(first..=last).contains(ip)
            })
            .ok_or(Kind::Refused),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever comes and goes, asking or not: each gets what it asked for or the lowest that
    /// nobody has, asks for or is to get by DHCP; no two share an address of either kind; and a
    /// batch is given whole or not at all.
    #[test]
    fn no_two_vms_share_an_address(steps in prop::collection::vec(step(), 1..20)) {
        let (_dir, mut store) = store();
        let nets = [kept("main", "10.0.0.0/28"), kept("lan", "10.0.1.0/28")];
        let ip = |net: usize, number: u8| Ipv4Addr::from_bits(nets[net].net.network().to_bits() + u32::from(number));
        let mut alive: BTreeMap<Uuid, [Ipv4Addr; 2]> = BTreeMap::new();
        let mut made = 0;
        for step in steps {
            let batch = match step {
                Step::Delete(_) if alive.is_empty() => continue,
                Step::Delete(index) => {
                    let vm = *index.get(&alive.keys().copied().collect::<Vec<_>>());
                    store.remove(vm).unwrap();
                    alive.remove(&vm);
                    continue;
                }
                Step::Create(batch) => batch,
            };
            let nics = |(one, other): (Option<u8>, Option<u8>)| [one.map(|n| ip(0, n)), other.map(|n| ip(1, n))];
            let wanted: Vec<[Option<Ipv4Addr>; 2]> = batch.into_iter().map(nics).collect();
            let drafts: Vec<Draft> = wanted.iter().map(|nics| {
                made += 1;
                let nic = |net: usize| Wanted { subnet: Some(nets[net].clone()), address: nics[net], mac: None };
                vm(&format!("vm-{made}"), &[nic(0), nic(1)])
            }).collect();

            let key = |net: usize, ip: Ipv4Addr| (nets[net].network.to_string(), ip);
            let mut taken: Taken = alive.values().flat_map(|ips| [key(0, ips[0]), key(1, ips[1])]).collect();
            let all_asked: Vec<_> =
                wanted.iter().flat_map(|nics| (0..2).filter_map(|net| nics[net].map(|ip| key(net, ip)))).collect();
            let asked: Taken = all_asked.iter().cloned().collect();
            let mut right: Result<Vec<[Ipv4Addr; 2]>, Kind> = Ok(Vec::new());
            for nics in &wanted {
                let mut given = [Ipv4Addr::UNSPECIFIED; 2];
                for net in 0..2 {
                    match expected(&nets[net], nics[net], &taken, &asked) {
                        Ok(ip) => { taken.insert(key(net, ip)); given[net] = ip; }
                        Err(kind) => right = Err(kind),
                    }
                }
                if let Ok(all) = &mut right { all.push(given); }
            }
            match (reserve(&mut store, &drafts), right) {
                (Ok(specs), Ok(right)) => {
                    for (spec, right) in specs.iter().zip(right) {
                        let given: Vec<_> = spec.nics.iter().map(|nic| nic.address.clone().unwrap()).collect();
                        prop_assert_eq!([given[0].ip.addr(), given[1].ip.addr()], right);
                        for (address, net) in given.iter().zip(&nets) {
                            let number = address.ip.addr().to_bits() - net.net.network().to_bits();
                            let ip6 = Ipv6Addr::from_bits(net.net6.unwrap().addr().to_bits() + u128::from(number));
                            prop_assert_eq!(address.ip6.unwrap().addr(), ip6);
                        }
                        alive.insert(spec.uuid, right);
                    }
                }
                // Of several reasons any may be told; two that ask for one address are one too.
                (Err(error), right) => {
                    let twice = asked.len() < all_asked.len();
                    prop_assert!(right.is_err() || twice, "{}", error.message());
                    prop_assert!(matches!(error.kind(), Kind::Refused | Kind::Usage));
                }
                (Ok(_), Err(kind)) => prop_assert!(false, "{kind:?} was due"),
            }
        }
        let listed: BTreeMap<_, _> = store.list().unwrap().iter().map(|record| {
            let ip = |nic: usize| record.spec.nics[nic].address.as_ref().unwrap().ip.addr();
            (record.spec.uuid, [ip(0), ip(1)])
        }).collect();
        prop_assert_eq!(&listed, &alive);
        for net in 0..2 {
            let distinct: HashSet<_> = listed.values().map(|ips| ips[net]).collect();
            prop_assert_eq!(distinct.len(), listed.len());
        }
    }
}
