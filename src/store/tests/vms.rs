//! What is given, changed and taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use proptest::prelude::*;
use uuid::Uuid;

use super::fixture::{self, OWNER, build, draft, name, reserve, store, subnet};
use crate::error::{Error, Kind};
use crate::host::{self, Handle};
use crate::spec::{Ailment, Event, Exit, Intent, PortTrouble, Serves, State, VmSpec};
use crate::store::{Draft, Helper, Line, Runtime, Store, Wanted};

fn ips(spec: &VmSpec) -> Vec<String> {
    spec.nics.iter().filter_map(|nic| nic.address.as_ref()).map(|address| address.ip.to_string()).collect()
}

#[test]
fn each_is_given_a_number_a_name_and_its_addresses() {
    let (_dir, mut store) = store();
    let (main, lan) = (subnet("main", "10.44.0.0/24"), subnet("lan", "192.168.0.0/24"));
    let mut drafts = vec![
        draft(Some("web"), std::slice::from_ref(&main)),
        draft(None, &[main.clone(), lan.clone(), main.clone()]),
        draft(None, &[]),
    ];
    drafts[2].nics = vec![Wanted::default(), Wanted { subnet: Some(lan), ..Wanted::default() }];
    let specs = reserve(&mut store, &drafts).unwrap();

    let given: Vec<_> = specs.iter().map(|spec| (spec.number, spec.name.as_str(), ips(spec))).collect();
    assert_eq!(
        given,
        [
            (1, "web", vec!["10.44.0.2/24".to_owned()]),
            (2, "made-up-1", vec!["10.44.0.3/24".to_owned(), "192.168.0.2/24".to_owned(), "10.44.0.4/24".to_owned()]),
            (3, "made-up-2", vec!["192.168.0.3/24".to_owned()]),
        ]
    );
    assert_eq!(specs[2].nics[0].address, None);
    let address = specs[0].nics[0].address.as_ref().unwrap();
    assert_eq!((address.gateway, &address.dns), (main.gateway, &main.dns));

    let listed = store.list().unwrap();
    assert_eq!(listed.iter().map(|record| record.spec.clone()).collect::<Vec<_>>(), specs);
    for record in &listed {
        assert_eq!((record.state, record.owner), (State::Creating, Some(OWNER)));
        assert_eq!((&record.intent, &record.exit, &record.runtime, record.started_at), (&None, &None, &None, None));
        assert_eq!(record.created_at, record.updated_at);
    }
    assert_eq!(store.get(drafts[1].uuid).unwrap().as_ref(), Some(&listed[1]));
    assert_eq!(store.get(Uuid::new_v4()).unwrap(), None);
}

#[test]
fn removing_gives_back_the_addresses_and_the_name_but_never_the_number() {
    let (_dir, mut store) = store();
    let main = [subnet("main", "10.44.0.0/24")];
    let specs =
        reserve(&mut store, &[draft(Some("a"), &main), draft(Some("b"), &main), draft(Some("c"), &main)]).unwrap();
    for _ in 0..2 {
        store.remove(specs[2].uuid).unwrap();
        store.remove(specs[0].uuid).unwrap();
    }
    let path = store.path().to_owned();
    drop(store);
    let mut store = Store::open(&path).unwrap();
    let again =
        reserve(&mut store, &[draft(Some("a"), &main), draft(Some("c"), &main), draft(Some("d"), &main)]).unwrap();
    let given: Vec<_> = again.iter().map(|spec| (spec.number, ips(spec).remove(0))).collect();
    assert_eq!(given, [(4, "10.44.0.2/24".into()), (5, "10.44.0.4/24".into()), (6, "10.44.0.5/24".into())]);
    store.check().unwrap();
}

#[test]
fn a_changed_subnet_leaves_the_addresses_given_before() {
    let (_dir, mut store) = store();
    let old = reserve(&mut store, &[draft(None, &[subnet("main", "10.44.0.0/24")])]).unwrap().remove(0);
    let new = reserve(&mut store, &[draft(Some("new"), &[subnet("main", "10.55.0.0/29")])]).unwrap().remove(0);
    assert_eq!(ips(&new), ["10.55.0.2/29"]);
    assert_eq!(store.get(old.uuid).unwrap().unwrap().spec, old);
}

#[test]
fn what_cannot_be_given_is_refused_and_nothing_is_written() {
    let small = || [subnet("small", "10.0.0.0/29")];
    let known = Uuid::new_v4();
    type Refused = (&'static str, Vec<Draft>, Kind, &'static str);
    let rows: Vec<Refused> = vec![
        (
            "a taken name",
            vec![draft(None, &[]), draft(Some("web"), &[])],
            Kind::Refused,
            "the name `web` is taken by VM 1",
        ),
        (
            "a name twice",
            vec![draft(Some("x"), &[]), draft(Some("x"), &[])],
            Kind::Refused,
            "two of the VMs would be named `x`",
        ),
        (
            "a full subnet",
            (0..5).map(|_| draft(None, &small())).collect(),
            Kind::Refused,
            "network `small` has 4 of the 5 addresses of `10.0.0.0/29` free, and 5 are needed",
        ),
        (
            "a known uuid",
            vec![Draft { uuid: known, ..draft(None, &[]) }],
            Kind::Refused,
            "there is a VM with uuid `KNOWN` already",
        ),
    ];
    let (_dir, mut store) = store();
    reserve(&mut store, &[Draft { uuid: known, ..draft(Some("web"), &small()) }]).unwrap();
    let before = store.list().unwrap();
    for (what, drafts, kind, message) in rows {
        let error = reserve(&mut store, &drafts).unwrap_err();
        assert_eq!((error.message(), error.kind()), (&*message.replace("KNOWN", &known.to_string()), kind), "{what}");
        assert!(error.hint_text().is_some(), "{what}");
        assert_eq!(store.list().unwrap(), before, "{what}");
    }
    // Neither a number nor an address went with the refused ones.
    let next = reserve(&mut store, &(0..4).map(|_| draft(None, &small())).collect::<Vec<_>>()).unwrap();
    assert_eq!((next[0].number, ips(&next[3])), (2, vec!["10.0.0.6/29".to_owned()]));
}

#[test]
fn a_build_that_fails_or_tells_another_story_writes_nothing() {
    let (_dir, mut store) = store();
    let drafts = [draft(Some("a"), &[]), draft(Some("b"), &[subnet("main", "10.44.0.0/24")])];
    let mut propose = || unreachable!("both have names");
    let error = store
        .reserve(&drafts, OWNER, &mut propose, &mut |reserved| match reserved.name.as_str() {
            "a" => build(reserved),
            _ => Err(Error::usage("no such image")),
        })
        .unwrap_err();
    assert_eq!((error.message(), error.kind()), ("no such image", Kind::Usage));

    type Lie = (&'static str, fn(&mut VmSpec));
    let lies: [Lie; 4] = [
        ("uuid", |spec| spec.uuid = Uuid::new_v4()),
        ("number", |spec| spec.number += 1),
        ("name", |spec| spec.name = name("other")),
        ("address", |spec| spec.nics.clear()),
    ];
    for (what, lie) in lies {
        let error = store
            .reserve(&drafts, OWNER, &mut propose, &mut |reserved| {
                let mut spec = build(reserved)?;
                if reserved.name.as_str() == "b" {
                    lie(&mut spec);
                }
                Ok(spec)
            })
            .unwrap_err();
        assert_eq!(error.message(), "the spec built for `b` is not what was reserved", "{what}");
    }
    assert!(store.list().unwrap().is_empty());
    assert_eq!(reserve(&mut store, &drafts).unwrap()[0].number, 1);
}

#[test]
fn made_up_names_give_way_and_end_with_the_number() {
    let (_dir, mut store) = store();
    let mut stubborn = |proposed: &str, drafts: &[Draft]| {
        let mut tries = 0;
        let specs = store.reserve(
            drafts,
            OWNER,
            &mut || {
                tries += 1;
                name(proposed)
            },
            &mut build,
        );
        let names = specs.map(|specs| specs.iter().map(|spec| spec.name.to_string()).collect::<Vec<_>>());
        (names.map_err(|error| error.message().to_owned()), tries)
    };
    let names = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
    let long = "a".repeat(63);

    assert_eq!(stubborn("calm-fox", &[draft(None, &[])]), (names(&["calm-fox"]), 1));
    assert_eq!(stubborn("calm-fox", &[draft(None, &[])]), (names(&["calm-fox-2"]), 32));
    assert_eq!(
        stubborn("new-fox", &[draft(None, &[]), draft(Some("new-fox"), &[])]).0,
        names(&["new-fox-3", "new-fox"]),
        "a name that somebody chose in the same batch"
    );
    assert_eq!(
        stubborn(&long, &[draft(Some(&long), &[]), draft(None, &[])]).0,
        names(&[&long, "vm-6"]),
        "no room for `-6`"
    );
    assert_eq!(
        stubborn("calm-fox", &[draft(None, &[]), draft(Some("calm-fox-7"), &[]), draft(Some("vm-7"), &[])]).0,
        Err("no free name was found".to_owned())
    );
}

#[test]
fn the_last_number_is_given_and_then_none() {
    let (_dir, mut store) = store();
    fixture::set_last_number(store.path(), u32::MAX - 1);
    assert_eq!(reserve(&mut store, &[draft(Some("last"), &[])]).unwrap()[0].number, u32::MAX);
    let error = reserve(&mut store, &[draft(Some("none"), &[])]).unwrap_err();
    assert_eq!(error.message(), "every VM number has been given");
    assert_eq!(store.find_number(u32::MAX).unwrap().spec.name.as_str(), "last");
}

#[test]
fn every_field_of_a_record_is_written_and_read_back() {
    let (_dir, mut store) = store();
    let vm = reserve(&mut store, &[draft(Some("web"), &[subnet("main", "10.44.0.0/24")])]).unwrap().remove(0).uuid;
    let before = store.get(vm).unwrap().unwrap();
    let exits = [
        Exit::Stopped,
        Exit::Killed { signal: 31 },
        Exit::Failed { code: 1, detail: "\"quoted\"\nand ü".to_owned() },
        Exit::Lost,
    ];
    for (exit, state) in exits.into_iter().zip(State::ALL.into_iter().skip(1)) {
        let written = store
            .update(vm, |record| {
                record.state = state;
                record.intent = Some(Intent::ForceStop);
                record.exit = Some(exit);
                record.runtime = Some(Runtime {
                    supervisor: Handle { pid: 1, start_time: u64::MAX },
                    hypervisor: Some(Handle { pid: i32::MAX, start_time: 0 }),
                    ssh: Some("127.0.0.1:2201".parse().unwrap()),
                    troubles: vec![PortTrouble {
                        port: "v1n0".to_owned(),
                        ailment: Ailment::Missing,
                        detail: Some("no bridge".to_owned()),
                    }],
                    helpers: vec![Helper { serves: Serves::Nic(3), process: Handle { pid: 7, start_time: 9 } }],
                    vsock: Some(Line::Socket("/run/hv/vsock.sock".into())),
                });
                record.owner = None;
                record.started_at = Some(host::now());
                record.spec.vcpu += 1;
                Ok(record.clone())
            })
            .unwrap();
        let read = store.get(vm).unwrap().unwrap();
        assert!(read.updated_at > before.updated_at);
        assert_eq!(read.created_at, before.created_at);
        assert_eq!(crate::store::Record { updated_at: read.updated_at, ..written }, read);
    }
    store
        .update(vm, |record| {
            (record.intent, record.exit, record.runtime, record.started_at) = (None, None, None, None);
            Ok(())
        })
        .unwrap();
    let read = store.get(vm).unwrap().unwrap();
    assert_eq!((read.intent, read.exit, read.runtime, read.started_at), (None, None, None, None));
}

#[test]
fn a_refused_update_writes_nothing() {
    let (_dir, mut store) = store();
    let specs =
        reserve(&mut store, &[draft(Some("web"), &[subnet("main", "10.44.0.0/24")]), draft(Some("db"), &[])]).unwrap();
    let vm = specs[0].uuid;
    let before = store.get(vm).unwrap().unwrap();

    let error = store
        .update(vm, |record| {
            record.intent = Some(Intent::Delete);
            record.apply(&Event::Start).map_err(|refusal| Error::refused("cannot start `web`").source(refusal))
        })
        .unwrap_err();
    assert_eq!(error.chain(), ["cannot start `web`", "it is still being created"]);
    assert_eq!(error.kind(), Kind::Refused);

    type Change = (fn(&mut VmSpec), &'static str);
    let changes: [Change; 4] = [
        (|spec| spec.uuid = Uuid::new_v4(), "the uuid, number and addresses of `web` are settled for its life"),
        (|spec| spec.number = 9, "the uuid, number and addresses of `web` are settled for its life"),
        (|spec| spec.nics[0].address = None, "the uuid, number and addresses of `web` are settled for its life"),
        (|spec| spec.name = name("db"), "the name `db` is taken by VM 2"),
    ];
    for (change, message) in changes {
        let error = store
            .update(vm, |record| {
                change(&mut record.spec);
                Ok(())
            })
            .unwrap_err();
        assert_eq!(error.message(), message);
    }
    store.update(vm, |_| Ok(())).unwrap();
    assert_eq!(store.get(vm).unwrap().unwrap(), before, "not even `updated_at`");

    store.remove(vm).unwrap();
    let error = store.update(vm, |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(error.message(), format!("there is no VM with uuid `{vm}` any more"));
}

#[test]
fn a_vm_can_be_renamed() {
    let (_dir, mut store) = store();
    let vm = reserve(&mut store, &[draft(Some("web"), &[])]).unwrap().remove(0).uuid;
    store
        .update(vm, |record| {
            record.spec.name = name("www");
            Ok(())
        })
        .unwrap();
    assert_eq!(store.find("www").unwrap().spec.uuid, vm);
    assert_eq!(store.find("web").unwrap_err().kind(), Kind::NotFound);
}

#[derive(Debug, Clone)]
enum Step {
    Reserve(usize),
    Remove(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![3 => (1usize..5).prop_map(Step::Reserve), 2 => any::<prop::sample::Index>().prop_map(Step::Remove)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever comes and goes in whatever order: numbers only grow, and each gets the lowest
    /// address that nobody has; when there are too few, nobody gets one.
    #[test]
    fn nothing_is_given_twice(steps in proptest::collection::vec(step(), 1..25)) {
        let (_dir, mut store) = store();
        let net = subnet("main", "10.0.0.0/28");
        let mut alive: BTreeMap<Ipv4Addr, Uuid> = BTreeMap::new();
        let (mut names, mut last) = (0, 0);
        for step in steps {
            match step {
                Step::Remove(index) if !alive.is_empty() => {
                    let (ip, vm) = index.get(&alive.iter().map(|(ip, vm)| (*ip, *vm)).collect::<Vec<_>>()).to_owned();
                    store.remove(vm).unwrap();
                    alive.remove(&ip);
                }
                Step::Remove(_) => store.remove(Uuid::new_v4()).unwrap(),
                Step::Reserve(count) => {
                    let drafts: Vec<Draft> = (0..count).map(|_| draft(None, std::slice::from_ref(&net))).collect();
                    let mut propose = || { names += 1; name(&format!("n{names}")) };
                    let given = store.reserve(&drafts, OWNER, &mut propose, &mut build);
                    let free: Vec<Ipv4Addr> =
                        net.net.hosts().filter(|ip| Some(*ip) != net.gateway && !alive.contains_key(ip)).collect();
                    if free.len() < count {
                        prop_assert_eq!(given.unwrap_err().kind(), Kind::Refused);
                        continue;
                    }
                    for (spec, lowest) in given.unwrap().iter().zip(free) {
                        last += 1;
                        prop_assert_eq!(spec.number, last);
                        prop_assert_eq!(spec.address(), Some(lowest));
                        prop_assert_eq!(alive.insert(lowest, spec.uuid), None);
                    }
                }
            }
        }
        let listed: BTreeSet<_> = store.list().unwrap().iter().map(|r| (r.spec.address().unwrap(), r.spec.uuid)).collect();
        prop_assert_eq!(listed, alive.into_iter().collect::<BTreeSet<_>>());
    }
}
