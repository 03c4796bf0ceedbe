//! Other NICs for a VM that is there.

use uuid::Uuid;

use super::fixture::{draft, name, reserve, store, subnet};
use crate::error::{Error, Kind, Result};
use crate::spec::{Link, Mac, Nic, Subnet, VmSpec};
use crate::store::{Store, Wanted};

/// Two NICs on `main`, of a VM beside another one.
fn two() -> (tempfile::TempDir, Store, Uuid) {
    let (dir, mut store) = store();
    let main = subnet("main", "10.44.0.0/24");
    let specs = reserve(&mut store, &[draft(Some("a"), &[main.clone(), main.clone()]), draft(Some("b"), &[main])]);
    let vm = specs.unwrap()[0].uuid;
    (dir, store, vm)
}

fn on(subnet: &Subnet) -> (crate::spec::Name, Wanted) {
    (subnet.network.clone(), Wanted { subnet: Some(subnet.clone()), ..Wanted::default() })
}

fn asking(subnet: &Subnet, address: &str) -> (crate::spec::Name, Wanted) {
    let (network, wanted) = on(subnet);
    (network, Wanted { address: Some(address.parse().unwrap()), ..wanted })
}

fn reshape(store: &mut Store, vm: Uuid, nics: &[(crate::spec::Name, Wanted)]) -> Result<Vec<Nic>> {
    let mut done = store.reshape(&[(vm, nics.to_vec())], |record, given| {
        let nics = (0..).zip(nics).zip(given).map(|((index, (network, _)), given)| {
            let nic = Nic::new(vm, index, network.clone(), Link::User);
            Nic { mac: given.mac.unwrap_or(nic.mac), address: given.address.clone(), ..nic }
        });
        record.spec.nics = nics.collect();
        Ok(record.spec.nics.clone())
    })?;
    Ok(done.remove(0))
}

fn ips(nics: &[Nic]) -> Vec<String> {
    nics.iter().filter_map(|nic| nic.address.as_ref()).map(|address| address.ip.addr().to_string()).collect()
}

#[test]
fn a_nic_keeps_its_address_where_it_stays() {
    let (main, lan) = (subnet("main", "10.44.0.0/24"), subnet("lan", "10.45.0.0/24"));
    let small = Subnet { net: "10.44.0.0/30".parse().unwrap(), ..main.clone() };
    let rows = [
        (vec![on(&main), on(&main)], vec!["10.44.0.2", "10.44.0.3"], "nothing changes"),
        (vec![on(&main)], vec!["10.44.0.2"], "the second is gone"),
        (vec![on(&main), on(&lan), on(&main)], vec!["10.44.0.2", "10.45.0.2", "10.44.0.3"], "one moved"),
        (vec![on(&main), asking(&main, "10.44.0.9")], vec!["10.44.0.2", "10.44.0.9"], "another was named"),
        (vec![on(&main), asking(&main, "10.44.0.2")], vec!["10.44.0.3", "10.44.0.2"], "one gets the other's"),
        (vec![on(&small)], vec!["10.44.0.2"], "it is in the smaller subnet too"),
        (vec![(name("main"), Wanted::default()), on(&small)], vec!["10.44.0.2"], "its own is not in it"),
        (vec![on(&main), on(&main), on(&main)], vec!["10.44.0.2", "10.44.0.3", "10.44.0.5"], "one more"),
        (vec![], vec![], "none"),
    ];
    for (nics, expected, why) in rows {
        let (_dir, mut store, vm) = two();
        assert_eq!(ips(&reshape(&mut store, vm, &nics).unwrap()), expected, "{why}");
        assert_eq!(ips(&reshape(&mut store, vm, &nics).unwrap()), expected, "{why}: again");
        // What it gave back is there for others, and nothing else.
        let others = reserve(&mut store, &[draft(Some("c"), std::slice::from_ref(&main))]).unwrap();
        let other = ips(&others[0].nics).remove(0);
        assert!(!expected.contains(&other.as_str()), "{why}: {other}");
        store.remove(vm).unwrap();
        let (_, asked) = asking(&main, "10.44.0.2");
        let mut draft = draft(Some("d"), &[]);
        draft.nics = vec![asked];
        assert_eq!(reserve(&mut store, &[draft]).is_ok(), other != "10.44.0.2", "{why}: all are free");
    }
}

#[test]
fn a_mac_stays_with_its_nic() {
    let (main, lan) = (subnet("main", "10.44.0.0/24"), subnet("lan", "10.45.0.0/24"));
    let own: Mac = "02:00:00:00:00:07".parse().unwrap();
    let named = |subnet: &Subnet, mac| {
        let (network, wanted) = on(subnet);
        (network, Wanted { mac: Some(mac), ..wanted })
    };
    let (_dir, mut store, vm) = two();
    let first = Mac::of(vm, 0);
    let macs = |nics: &[Nic]| nics.iter().map(|nic| nic.mac).collect::<Vec<_>>();
    assert_eq!(macs(&reshape(&mut store, vm, &[named(&main, own)]).unwrap()), [own]);
    assert_eq!(macs(&reshape(&mut store, vm, &[on(&main)]).unwrap()), [own], "named no more");
    assert_eq!(macs(&reshape(&mut store, vm, &[on(&main), named(&main, own)]).unwrap()), [first, own], "it moved");
    assert_eq!(macs(&reshape(&mut store, vm, &[on(&lan)]).unwrap()), [first], "another network");

    let other = store.list().unwrap()[1].spec.nics[0].mac;
    let second = Mac::of(vm, 1);
    let rows = [
        (vec![named(&main, other)], "is taken"),
        (vec![named(&main, own), named(&main, own)], "two of the NICs"),
        (vec![named(&main, second), on(&main)], "two of the NICs"),
    ];
    for (nics, words) in rows {
        let before = store.get(vm).unwrap();
        let error = reshape(&mut store, vm, &nics).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.message().contains(words), "{error}");
        assert_eq!(store.get(vm).unwrap(), before, "nothing was changed");
    }
}

#[test]
fn what_cannot_be_leaves_everything_as_it_was() {
    let (_dir, mut store, vm) = two();
    let main = subnet("main", "10.44.0.0/24");
    let before = store.get(vm).unwrap();
    let error = reshape(&mut store, vm, &[on(&main), asking(&main, "10.44.0.4")]).unwrap_err();
    assert!(error.message().contains("is taken: VM 2, `b`, has it"), "{error}");
    let changes: [fn(&mut VmSpec); 3] =
        [|spec| spec.name = name("c"), |spec| spec.number = 9, |spec| spec.nics[0].address = None];
    for change in changes {
        let changed = store.reshape(&[(vm, vec![on(&main), on(&main)])], |record, _| {
            change(&mut record.spec);
            Ok(())
        });
        assert!(changed.unwrap_err().message().contains("the spec built for `a`"));
    }
    store.reshape(&[(vm, vec![])], |_, _| Err::<(), _>(Error::failed("no"))).unwrap_err();
    assert_eq!(store.get(vm).unwrap(), before);
    // Its addresses are still its own.
    let mut draft = draft(None, &[]);
    draft.nics = vec![asking(&main, "10.44.0.2").1];
    assert!(reserve(&mut store, &[draft]).unwrap_err().message().contains("`a`, has it"));
    assert_eq!(store.reshape(&[(Uuid::new_v4(), vec![])], |_, _| Ok(())).unwrap_err().kind(), Kind::NotFound);
}

/// Each asks for what the next one has: all of them get it, or none.
#[test]
fn vms_in_a_ring_get_what_the_next_one_had() {
    for size in [2, 3, 7] {
        let (_dir, mut store) = store();
        let main = subnet("main", "10.44.0.0/24");
        let drafts: Vec<_> = (0..size).map(|_| draft(None, std::slice::from_ref(&main))).collect();
        let specs = reserve(&mut store, &drafts).unwrap();
        let had: Vec<Nic> = specs.iter().map(|spec| spec.nics[0].clone()).collect();
        let wish = |at: usize| {
            let next = &had[(at + 1) % size];
            let (network, wanted) = asking(&main, &ips(std::slice::from_ref(next))[0]);
            (specs[at].uuid, vec![(network, Wanted { mac: Some(next.mac), ..wanted })])
        };
        let mut wishes: Vec<_> = (0..size).map(wish).collect();
        let become_so = |record: &mut crate::store::Record, given: &[crate::store::Given]| {
            record.spec.nics[0].address = given[0].address.clone();
            record.spec.nics[0].mac = given[0].mac.unwrap();
            Ok(())
        };
        for (less, words) in [(1, "is taken"), (0, "two of the NICs")] {
            let mut wrong = wishes[..size - less].to_vec();
            if less == 0 {
                wrong[0].1[0].1.address = wrong[1].1[0].1.address;
            }
            let before = store.list().unwrap();
            let error = store.reshape(&wrong, become_so).unwrap_err();
            assert!(error.message().contains(words), "{error}");
            assert_eq!(store.list().unwrap(), before, "none of them is changed");
        }
        wishes.rotate_left(1);
        store.reshape(&wishes, become_so).unwrap();
        let now: Vec<Nic> = store.list().unwrap().into_iter().map(|record| record.spec.nics[0].clone()).collect();
        let what = |nic: &Nic| (nic.address.clone(), nic.mac);
        assert_eq!(
            now.iter().map(what).collect::<Vec<_>>(),
            (0..size).map(|at| what(&had[(at + 1) % size])).collect::<Vec<_>>()
        );
        assert!(store.check_free(&[asking(&main, "10.44.0.2").1], &[]).is_err(), "each has an owner");
    }
}

#[test]
fn what_is_kept_for_another_is_given_up() {
    let (_dir, mut store, vm) = two();
    let main = subnet("main", "10.44.0.0/24");
    let named = ["10.44.0.2".parse().unwrap()].into();
    let nics = reshape(&mut store, vm, &[on(&Subnet { named, ..main })]).unwrap();
    assert_eq!(ips(&nics), ["10.44.0.3"]);
}
