//! VMs that exchange what they have, at rest.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use super::make::Requests;
use super::tests::{add, change, entry, item, site};
use super::*;
use crate::config::{Config, DeclaredVm, of_text};
use crate::host::Quiet;
use crate::plan::{Alter, Class, Field, NicField, Wishes, compare, look};
use crate::spec::{Declared, Disk, Link, Mac, Nic};
use crate::store::Store;

const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];

fn mac(at: usize) -> Mac {
    MACS[at].parse().unwrap()
}

/// `web` and `db`, each with the MAC of the other; of `db`, which is protected or not, a disk comes from elsewhere.
fn config(dir: &Path) -> Config {
    let kernel = dir.join("kernel");
    std::fs::write(&kernel, "").unwrap();
    let net = |at: usize| format!("running = false\nnet = [{{ name = 'out', mac = '{}' }}]", MACS[at]);
    let text = format!(
        "network = [{{ name = 'out', type = 'user' }}]
         template.vm = [{{ name = 'xs', vcpu = 1, vram = '64MiB', kernel = {kernel:?} }}]
         [[vm]]\nname = 'web'\ntemplate = 'xs'\n{}
         [[vm]]\nname = 'db'\ntemplate = 'xs'\n{}\ndisk = [{{ name = 'os', path = '/new.img' }}]",
        net(1),
        net(0)
    );
    of_text(&text).expect(&text)
}

struct World {
    dir: tempfile::TempDir,
    site: Site,
    store: Store,
    situation: Situation,
    vms: [Uuid; 2],
}

impl World {
    fn new() -> Self {
        let (dir, site, mut store) = site();
        let vms = ["web", "db"].map(|name| add(&site, &mut store, name, Some(Declared::default())).spec.uuid);
        for (at, vm) in vms.iter().enumerate() {
            let plug = |record: &mut Record| {
                let nic = Nic::new(*vm, 0, "out".parse().unwrap(), Link::User);
                record.spec.nics = vec![Nic { mac: mac(at), ..nic }];
                record.spec.disks = match at {
                    0 => Vec::new(),
                    _ => vec![Disk {
                        name: "os".parse().unwrap(),
                        source: Some("/old.img".into()),
                        size: None,
                        readonly: false,
                    }],
                };
                Ok(())
            };
            store.update(*vm, plug).unwrap();
        }
        let situation = look(&site, &config(dir.path())).unwrap();
        Self { dir, site, store, situation, vms }
    }

    fn look(&mut self) {
        self.situation = look(&self.site, &config(self.dir.path())).unwrap();
    }

    fn plan(&self) -> Plan {
        let replace: BTreeSet<_> = ["db".parse().unwrap()].into();
        let plan = compare(&self.situation, &Wishes { replace, ..Wishes::default() }).unwrap();
        assert!(matches!(plan.items.last().unwrap().work, Work::Replace(..)), "{plan:#?}");
        plan
    }

    fn macs(&self) -> [Vec<Mac>; 2] {
        self.vms.map(|vm| {
            let record = self.store.get(vm).unwrap().unwrap();
            assert_eq!((record.owner, record.progress), (None, None), "nobody is at work on it");
            record.spec.nics.iter().map(|nic| nic.mac).collect()
        })
    }

    /// Lets them change together, with nothing to make `db` of. What was told, and what became of `web`.
    fn exchange(&mut self, cancel: &Cancel) -> (Vec<String>, Vec<Fate>) {
        let plan = self.plan();
        let told = Mutex::new(Vec::new());
        let hear = |what: Told<'_>| {
            if let Told::Failed(error) = what {
                told.lock().unwrap().push(error.chain().join(": "));
            }
        };
        let first_boot = &|| Err(Error::failed("nobody is asked"));
        let (site, situation) = (&self.site, &self.situation);
        let apply = Apply { site, situation, first_boot, cancel, progress: &Quiet, told: &hear };
        let mut accounts: Vec<Account<'_>> = plan.items.iter().map(Account::of).collect();
        assert_eq!(turns(situation, &plan.items), [[0, 1]], "they have one turn");
        apply.exchange(&mut self.store, &mut accounts, &[0, 1], &mut Requests::new());
        (told.into_inner().unwrap(), accounts.swap_remove(0).fates())
    }
}

/// Whatever comes of it, the old one can run.
#[test]
fn one_that_is_not_made_anew_has_the_nics_that_it_is_to_have() {
    let mut world = World::new();
    let before = world.store.get(world.vms[1]).unwrap().unwrap().spec;
    let (told, fates) = world.exchange(&Cancel::default());
    assert!(told.is_empty(), "{told:?}");
    assert!(fates.iter().all(|fate| matches!(fate, Fate::Done)), "{fates:?}");
    assert_eq!(world.macs(), [vec![mac(1)], vec![mac(0)]]);
    let now = world.store.get(world.vms[1]).unwrap().unwrap().spec;
    assert_eq!((now.disks, &now.boot), (before.disks, &before.boot), "nothing else has changed");
    world.look();
    let plan = world.plan();
    assert!(turns(&world.situation, &plan.items).iter().all(|turn| turn.len() == 1), "the next apply finishes it");
    let nics = plan.lines().filter(|(_, change)| matches!(change.field, Field::Nic(..)));
    assert_eq!(nics.count(), 0, "{plan:#?}");
}

#[test]
fn what_has_changed_since_the_look_keeps_all_of_them() {
    type Meanwhile = fn(&mut Record);
    let rows: [(Meanwhile, &str); 2] = [
        (|record| record.spec.name = "mail".parse().unwrap(), "cannot change `db`: `db` has changed meanwhile"),
        (|record| record.spec.policy.protect = true, "cannot change `db`: cannot delete `db`: it is protected"),
    ];
    for (meanwhile, words) in rows {
        let mut world = World::new();
        let db = world.vms[1];
        let change = |record: &mut Record| {
            meanwhile(record);
            Ok(())
        };
        world.store.update(db, change).unwrap();
        let (told, _) = world.exchange(&Cancel::default());
        assert_eq!(told, [words]);
        assert_eq!(world.macs(), [vec![mac(0)], vec![mac(1)]]);
    }
}

#[test]
fn an_interruption_of_an_exchange_is_told_by_nobody_else() {
    let mut world = World::new();
    let cancel = Cancel::default();
    cancel.set();
    let (told, fates) = world.exchange(&cancel);
    assert!(told.is_empty(), "it is told once, at the end: {told:?}");
    for fate in fates {
        assert!(matches!(&fate, Fate::Failed(error) if error.message() == "interrupted"), "{fate:?}");
    }
    assert_eq!(world.macs(), [vec![mac(0)], vec![mac(1)]]);
}

/// Another VM wants one of its ports.
#[test]
fn a_vm_is_the_configs_before_it_gives_up_a_port() {
    let mut world = World::new();
    let [web, db] = world.vms;
    let ports = |record: &mut Record, port: &str| record.spec.nics[0].forwards = vec![port.parse().unwrap()];
    for (vm, port) in [(web, "8080:80"), (db, "8081:80")] {
        let plug = |record: &mut Record| {
            record.declared = None;
            ports(record, port);
            Ok(())
        };
        world.store.update(vm, plug).unwrap();
    }
    let spec = |vm| world.store.get(vm).unwrap().unwrap().spec;
    let item_of = |vm: Uuid, name: &str, port: &str| {
        let mut target = spec(vm);
        target.nics[0].forwards = vec![port.parse().unwrap()];
        let net = format!(
            "name = 'xs'\nvcpu = 1\nvram = '64MiB'\nkernel = '/k'\nnet = [{{ name = 'out', ports = ['{port}'] }}]"
        );
        let entry = DeclaredVm { template: toml::from_str(&net).unwrap(), ..entry(name) };
        let alter = Alter { spec: spec(vm), target, entry, declared: Declared::default(), runs: true, run: None };
        let changes = [Field::Declared, Field::Nic(0, NicField::Ports)].map(|field| change(Class::Live, field, None));
        item(name, changes.to_vec(), Work::Alter(Box::new(alter)))
    };
    let items = [item_of(web, "web", "8081:80"), item_of(db, "db", "8080:80")];
    let mut accounts: Vec<Account<'_>> = items.iter().map(Account::of).collect();
    let (site, situation) = (&world.site, &world.situation);
    let first_boot = &|| Err(Error::failed("nobody is asked"));
    let cancel = &Cancel::default();
    let apply = Apply { site, situation, first_boot, cancel, progress: &Quiet, told: &|_| {} };
    apply.free_ports(&mut world.store, &mut accounts);
    for vm in [web, db] {
        let record = world.store.get(vm).unwrap().unwrap();
        assert!(record.spec.nics[0].forwards.is_empty(), "{:?}", record.spec.nics);
        assert!(record.declared.is_some());
    }
}
