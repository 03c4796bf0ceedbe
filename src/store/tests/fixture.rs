use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

use crate::error::Result;
use crate::host::{Handle, Timestamp};
use crate::spec::{Boot, Disk, Link, Name, NetworkSpec, Nic, Size, State, Subnet, VmSpec};
use crate::store::{Draft, Record, Reserved, Store, Wanted};

pub(in crate::store) const OWNER: Handle = Handle { pid: 4711, start_time: 42 };

/// Where a database could be; neither it nor its folder is there yet.
pub(in crate::store) fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("virshle/virshle.sqlite");
    (dir, path)
}

pub(in crate::store) fn store() -> (TempDir, Store) {
    let (dir, path) = place();
    let store = Store::open(&path).unwrap();
    (dir, store)
}

pub(in crate::store) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(in crate::store) fn subnet(network: &str, net: &str) -> Subnet {
    let net: ipnet::Ipv4Net = net.parse().unwrap();
    let gateway = net.hosts().next();
    Subnet::new(name(network), net, gateway, gateway.into_iter().map(Into::into).collect())
}

/// A network on a bridge of its name that serves 10.44.0.0/24.
pub(in crate::store) fn network(given: &str) -> NetworkSpec {
    let spec = NetworkSpec::sample(given).with_host(|side| side.address6 = None);
    NetworkSpec { bridge: given.to_owned(), ..spec }
}

pub(in crate::store) fn draft(given: Option<&str>, subnets: &[Subnet]) -> Draft {
    let nics = subnets.iter().map(|subnet| Wanted { subnet: Some(subnet.clone()), ..Wanted::default() });
    Draft { uuid: Uuid::new_v4(), name: given.map(name), nics: nics.collect(), declared: None }
}

/// A spec of the usual size: one disk, a NIC per address asked for.
#[allow(clippy::unnecessary_wraps)] // It stands for a `build`.
pub(in crate::store) fn build(reserved: &Reserved) -> Result<VmSpec> {
    let link = || Link::Vhost { bridge: "vsbr0".to_owned(), create: false };
    let nics = (0..).zip(&reserved.addresses).map(|(index, address)| Nic {
        address: address.clone(),
        ..Nic::new(reserved.uuid, index, name("main"), link())
    });
    Ok(VmSpec {
        number: reserved.number,
        name: reserved.name.clone(),
        vram: Size::gib(2),
        boot: Boot::Firmware { code: "/usr/share/cloud-hypervisor/CLOUDHV.fd".into(), vars: None },
        disks: vec![Disk {
            name: name("os"),
            source: Some("/var/lib/virshle/cache/nixos.raw".into()),
            size: Some(Size::gib(50)),
            readonly: false,
        }],
        nics: nics.collect(),
        seed: true,
        ..VmSpec::sample(reserved.uuid)
    })
}

pub(in crate::store) fn record(number: u32, given: &str) -> Record {
    let reserved = Reserved { uuid: Uuid::new_v4(), number, name: name(given), addresses: vec![None] };
    Record {
        spec: build(&reserved).unwrap(),
        state: State::Stopped,
        intent: None,
        exit: None,
        runtime: None,
        owner: None,
        progress: None,
        declared: None,
        retries: None,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        started_at: None,
    }
}

/// `reserve` with names made up as `made-up-<n>`.
pub(in crate::store) fn reserve(store: &mut Store, drafts: &[Draft]) -> Result<Vec<VmSpec>> {
    let mut n = 0;
    let mut propose = || {
        n += 1;
        name(&format!("made-up-{n}"))
    };
    store.reserve(drafts, OWNER, &mut propose, &mut build)
}

/// A VM of that name and uuid without NICs.
pub(in crate::store) fn add(store: &mut Store, given: &str, uuid: Uuid) -> VmSpec {
    reserve(store, &[Draft { uuid, ..draft(Some(given), &[]) }]).unwrap().remove(0)
}

/// Edits the file behind the store's back.
pub(in crate::store) fn tamper(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

pub(in crate::store) fn set_last_number(path: &Path, number: u32) {
    tamper(path, &format!("UPDATE last_number SET number = {number}"));
}
