//! What becomes of a VM that does not run, on a host without switches.

use std::fs;
use std::io::{Cursor, Read};
use std::path::PathBuf;

use uuid::Uuid;

use super::{Reshape, finish, is_cut_short, reshape};
use crate::config::{Config, Template};
use crate::disk::{self, Seed};
use crate::error::{Kind, Result};
use crate::host::{Handle, Lock};
use crate::spec::{Boot, Event, HypervisorKind, Progress, Size, Verb, VmSpec};
use crate::store::{Record, Store};
use crate::template::UserData;
use crate::vm::repair::survey;
use crate::vm::sweep::tests::{gone, stopped};
use crate::vm::{Site, delete};

const TEMPLATE: &str = "name = 'xs'\nvcpu = 1\nvram = '64MiB'\nkernel = '/kernel'\n";
const OS: &str = "[[disk]]\nname = 'os'\nsize = '1MiB'\n";
const DATA: &str = "[[disk]]\nname = 'data'\nsize = '2MiB'\n";

struct World {
    dir: tempfile::TempDir,
    site: Site,
    store: Store,
    config: Config,
    vm: Uuid,
}

impl World {
    /// A VM `web` with one disk and a first-boot volume, without a NIC.
    fn new() -> Self {
        let (dir, site, mut store, record) = stopped();
        let vm = record.spec.uuid;
        let networks = [
            "name = 'main'\ntype = 'bridge'\nbridge = 'absent0'\nsubnet = '10.231.7.0/24'",
            "name = 'plain'\ntype = 'user'",
        ];
        let networks = networks.iter().map(|text| toml::from_str(text).unwrap()).collect();
        let config = Config { networks, ..Config::default() };
        let seed = Seed {
            hostname: record.spec.name,
            instance: vm,
            users: UserData { users: Vec::new(), cloud_init: Vec::new() },
            parts: Vec::new(),
            nics: Vec::new(),
        };
        disk::write_seed(&site.dirs.vm(vm).join(VmSpec::SEED), &seed).unwrap();
        store
            .update(vm, |record| {
                record.spec.seed = true;
                record.spec.login = Some("ann".to_owned());
                record.spec.vsock = Some(7);
                Ok(())
            })
            .unwrap();
        let mut world = Self { dir, site, store, config, vm };
        world.reshape(OS).unwrap();
        fs::write(world.file("os.raw"), vec![7; 1 << 20]).unwrap();
        world
    }

    fn file(&self, name: &str) -> PathBuf {
        self.site.dirs.vm(self.vm).join(name)
    }

    fn record(&self) -> Record {
        self.store.get(self.vm).unwrap().unwrap()
    }

    fn reshape(&mut self, more: &str) -> Result<VmSpec> {
        self.become_like(&format!("{TEMPLATE}{more}"))
    }

    fn become_like(&mut self, template: &str) -> Result<VmSpec> {
        let template: Template = toml::from_str(template).unwrap();
        let wish = Reshape { template: &template, resolve: false };
        reshape(&self.site, &mut self.store, &self.config, self.vm, wish)
    }

    /// What the guest is told of its NICs.
    fn told(&self) -> serde_json::Value {
        let bytes = fs::read(self.file(VmSpec::SEED)).unwrap();
        let system = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
        let mut text = String::new();
        system.root_dir().open_file("network-config").unwrap().read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.site.dirs.vm(self.vm)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "lock");
        names.sort();
        names
    }

    /// As a process leaves it that was killed there.
    fn cut(&mut self, step: &str, done: bool, change: impl FnOnce(&mut VmSpec)) {
        let cut = self.store.update(self.vm, |record| {
            change(&mut record.spec);
            record.owner = Some(gone());
            record.progress = Some(Progress { verb: Verb::Reshape, step: step.to_owned(), done });
            Ok(())
        });
        cut.unwrap();
        assert!(is_cut_short(&self.record()));
    }
}

#[test]
fn it_becomes_what_the_template_says() {
    let mut world = World::new();
    let before = world.record().spec;
    let nic = "[[net]]\nname = 'main'\n";
    let more = "labels = { role = 'db' }\nstop-timeout = 9\ncmdline = 'quiet'\nvcpu-max = 4\n";
    let os = OS.replace("1MiB", "3MiB");
    let spec = world.become_like(&format!("{}{more}{DATA}{os}{nic}{nic}", TEMPLATE.replace("vcpu = 1", "vcpu = 2")));
    let spec = spec.unwrap();
    assert_eq!(world.record().spec, spec);
    assert_eq!((spec.vcpu, spec.vcpu_max, spec.policy.stop_timeout), (2, Some(4), 9));
    assert_eq!(spec.labels.get("role"), Some("db"));
    assert_eq!(spec.boot, Boot::Kernel { kernel: "/kernel".into(), initramfs: None, cmdline: "quiet".into() });
    let kept = |spec: &VmSpec| (spec.uuid, spec.number, spec.name.clone(), spec.seed, spec.login.clone(), spec.vsock);
    assert_eq!(kept(&spec), kept(&before));
    let disks: Vec<_> = spec.disks.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(disks, ["data", "os"]);
    assert_eq!(world.files(), ["data.raw", "os.raw", "seed.img"]);
    let os = fs::read(world.file("os.raw")).unwrap();
    assert!(os.len() == 3 << 20 && os[..1 << 20].iter().all(|byte| *byte == 7), "grown, and still its own");
    assert_eq!(world.file("data.raw").metadata().unwrap().len(), 2 << 20);
    let macs: Vec<_> = spec.nics.iter().map(|nic| nic.mac.to_string()).collect();
    for (index, (mac, ip)) in macs.iter().zip(["10.231.7.2/24", "10.231.7.3/24"]).enumerate() {
        let told = &world.told()["ethernets"][format!("nic{index}")];
        assert_eq!((&told["match"]["macaddress"], &told["addresses"][0]), (&mac.as_str().into(), &ip.into()));
    }
    let record = world.record();
    assert_eq!((record.owner, record.progress), (None, None));
    assert!(!Lock::is_held(&world.site.lock(world.vm)).unwrap());

    // Its only NIC is the second of before, but in the first one's place.
    let spec = world.reshape(&format!("{OS}{DATA}{nic}")).unwrap_err();
    assert!(spec.chain().join(": ").contains("`os` would be smaller"), "{spec:?}");
    let spec = world.reshape(&format!("{}{DATA}{nic}", OS.replace("1MiB", "3MiB"))).unwrap();
    assert_eq!(spec.nics.iter().map(|nic| nic.mac.to_string()).collect::<Vec<_>>(), macs[..1]);
    assert_eq!(world.told()["ethernets"].as_object().unwrap().len(), 1);
    let files = world.files();
    assert_eq!(world.reshape(&format!("{}{DATA}{nic}", OS.replace("1MiB", "3MiB"))).unwrap(), spec, "again");
    assert_eq!(world.files(), files);
}

#[test]
fn what_needs_a_vm_made_anew_is_refused_and_nothing_is_changed() {
    let mut world = World::new();
    world.reshape(&format!("{OS}{DATA}")).unwrap();
    fs::write(world.file("other.raw"), "somebody's").unwrap();
    let (record, files) = (world.record(), world.files());
    let other = DATA.replace("data", "other");
    let rows = [
        (OS.to_owned(), "its disk `data` would be gone"),
        (
            format!("{}{DATA}", OS.replace("size", "path = '/image.raw'\nsize")),
            "its disk `os` was made from another source",
        ),
        (format!("{OS}{}", DATA.replace("2MiB", "1MiB")), "its disk `data` would be smaller, with 1MiB"),
        (format!("{OS}{DATA}{other}"), "other.raw`, which is no disk of the VM"),
    ];
    for (template, words) in rows {
        let error = world.reshape(&template).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{words}");
        assert_eq!(error.message(), "cannot change `web`");
        assert!(error.chain().join(": ").contains(words) && error.hint_text().is_some(), "{error:?}");
        let now = world.record();
        assert_eq!((&now.spec, now.owner, now.progress), (&record.spec, None, None), "{words}");
        assert_eq!(world.files(), files, "{words}");
    }
    fs::remove_file(world.file("data.raw")).unwrap();
    let error = world.reshape(&format!("{OS}{DATA}")).unwrap_err();
    assert!(error.chain().join(": ").contains("`data` is missing"), "{error:?}");
}

/// The second new disk cannot be made: the first is gone again.
#[test]
fn a_failure_leaves_nothing_behind() {
    let mut world = World::new();
    let (spec, files) = (world.record().spec, world.files());
    fs::create_dir(world.file("more.raw.new")).unwrap();
    let error = world.reshape(&format!("{OS}{DATA}{}", DATA.replace("data", "more"))).unwrap_err();
    assert!(error.chain().join(": ").contains("more.raw.new"), "{error:?}");
    fs::remove_dir(world.file("more.raw.new")).unwrap();
    assert_eq!(world.files(), files);
    let record = world.record();
    assert_eq!((record.spec, record.owner, record.progress), (spec, None, None));
}

#[test]
fn one_that_runs_or_is_at_work_is_left_alone() {
    let mut world = World::new();
    let lock = Lock::try_take(&world.site.lock(world.vm)).unwrap();
    let error = world.reshape(OS).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    world.cut("new disk data", true, |_| ());
    assert!(!finish(&world.site, &mut world.store, world.vm).unwrap(), "a supervisor has it");
    drop(lock);
    let us = Handle::current().unwrap();
    let update = |world: &mut World, owner| {
        world.store.update(world.vm, |record| {
            (record.owner, record.progress) = (owner, None);
            Ok(())
        })
    };
    update(&mut world, None).unwrap();
    for (event, words) in [(Event::Start, "it is already starting"), (Event::Booted, "it is running")] {
        world.store.update(world.vm, |record| Ok(record.apply(&event)?)).unwrap();
        // As a supervisor would: else it is a run that was lost, and is recorded as such.
        let _lock = Lock::try_take(&world.site.lock(world.vm)).unwrap();
        let record = world.store.update(world.vm, |record| super::rest::take(record, us, noted()));
        assert!(record.unwrap_err().chain().join(": ").contains(words));
    }
}

fn noted() -> Progress {
    Progress { verb: Verb::Reshape, step: "reshaping".to_owned(), done: true }
}

#[test]
fn one_that_was_killed_before_the_record_is_undone() {
    let steps = [("reshaping", true), ("new disk data", false), ("new disk data", true), ("recorded", false)];
    for (step, done) in steps {
        let mut world = World::new();
        let (spec, files) = (world.record().spec, world.files());
        fs::write(world.file("data.raw.new"), "whole").unwrap();
        fs::write(world.file("more.raw.new.partial"), "half").unwrap();
        world.cut(step, done, |_| ());
        assert!(finish(&world.site, &mut world.store, world.vm).unwrap(), "{step}");
        let record = world.record();
        assert_eq!((record.spec, record.owner, record.progress), (spec, None, None), "{step}");
        assert_eq!(world.files(), files, "{step}");
        assert!(!finish(&world.site, &mut world.store, world.vm).unwrap(), "{step}: a second time");
    }
}

#[test]
fn one_that_was_killed_after_the_record_is_finished() {
    let more = format!("{}{DATA}[[net]]\nname = 'plain'\n", OS.replace("1MiB", "4MiB"));
    let wanted = World::new().reshape(&more).unwrap();
    for (step, done) in
        [("recorded", true), ("files", true), ("sizes", false), ("network config", true), ("reshaped", false)]
    {
        for by_the_next in [false, true] {
            let mut world = World::new();
            let place = if step == "recorded" { "data.raw.new" } else { "data.raw" };
            fs::write(world.file(place), vec![3; 2 << 20]).unwrap();
            world.cut(step, done, |spec| {
                let own = spec.clone();
                *spec = VmSpec { uuid: own.uuid, number: own.number, name: own.name, ..wanted.clone() };
            });
            let spec = world.record().spec;
            match by_the_next {
                true => assert_eq!(world.reshape(&more).unwrap().disks, spec.disks),
                false => assert!(finish(&world.site, &mut world.store, world.vm).unwrap()),
            }
            let record = world.record();
            assert_eq!((&record.spec.disks, record.owner, record.progress), (&spec.disks, None, None), "{step}");
            assert_eq!(world.files(), ["data.raw", "os.raw", "seed.img"], "{step}");
            assert_eq!(fs::read(world.file("data.raw")).unwrap(), vec![3; 2 << 20], "{step}");
            assert_eq!(world.file("os.raw").metadata().unwrap().len(), Size::mib(4).bytes(), "{step}");
            assert_eq!(world.told()["ethernets"].as_object().unwrap().len(), 1, "{step}");
        }
    }
}

#[test]
fn uefi_variables_are_the_vms_own_until_another_firmware_comes() {
    let mut world = World::new();
    world
        .store
        .update(world.vm, |record| {
            record.spec.hypervisor = HypervisorKind::Qemu;
            Ok(())
        })
        .unwrap();
    let dir = world.dir.path().to_owned();
    for name in ["code.fd", "one.fd", "two.fd"] {
        // In whole blocks.
        fs::write(dir.join(name), format!("{name:4096}")).unwrap();
    }
    let bios = format!("{}{OS}", TEMPLATE.replace("kernel = '/kernel'\n", ""));
    let variables = |world: &World| fs::read_to_string(world.file(VmSpec::EFI_VARS)).unwrap().trim_end().to_owned();
    world.config.node.qemu.firmware = Some(dir.join("code.fd"));
    world.config.node.qemu.vars = Some(dir.join("one.fd"));
    let spec = world.become_like(&bios).unwrap();
    let vars = Some(dir.join("one.fd"));
    assert_eq!(spec.boot, Boot::Firmware { code: dir.join("code.fd"), vars });
    assert_eq!(variables(&world), "one.fd");

    // What the guest wrote stays, and which firmware it is too.
    fs::write(world.file(VmSpec::EFI_VARS), "its own").unwrap();
    world.config.node.qemu.vars = Some(dir.join("two.fd"));
    assert_eq!(world.become_like(&bios).unwrap(), spec);
    assert_eq!(variables(&world), "its own");
    assert_eq!(world.files(), ["efivars.fd", "os.raw", "seed.img"]);

    world.reshape(OS).unwrap();
    let spec = world.become_like(&bios).unwrap();
    assert!(matches!(spec.boot, Boot::Firmware { vars: Some(vars), .. } if vars.ends_with("two.fd")));
    assert_eq!(variables(&world), "two.fd", "another one by now");
    assert_eq!(world.files(), ["efivars.fd", "efivars.fd.old", "os.raw", "seed.img"]);
    let old = world.file(&format!("{}.old", VmSpec::EFI_VARS));
    assert_eq!(fs::read_to_string(&old).unwrap(), "its own");

    // Of the same length, they may be good for the other firmware too.
    fs::write(world.file(VmSpec::EFI_VARS), format!("{:4096}", "enrolled")).unwrap();
    world.reshape(OS).unwrap();
    world.config.node.qemu.vars = Some(dir.join("one.fd"));
    let spec = world.become_like(&bios).unwrap();
    assert!(matches!(spec.boot, Boot::Firmware { vars: Some(vars), .. } if vars.ends_with("one.fd")));
    assert_eq!(variables(&world), "enrolled");
    assert_eq!(fs::read_to_string(&old).unwrap(), "its own");

    let record = world.record();
    assert!(survey(&world.site, Some(&world.store)).unwrap().iter().all(|finding| !finding.is_left_over()));
    delete(&world.site, &mut world.store, record, false).unwrap();
    assert!(!world.site.dirs.vm(world.vm).exists());
}

/// Killed at any place, the guest's own are never lost and the new ones come.
#[test]
fn uefi_variables_that_were_being_replaced() {
    let old = format!("{}.old", VmSpec::EFI_VARS);
    let new = format!("{}.new", VmSpec::EFI_VARS);
    for own in [VmSpec::EFI_VARS, old.as_str()] {
        let mut world = World::new();
        // Where its own are in their place, what was kept before makes way for them.
        fs::write(world.file(&old), "older").unwrap();
        fs::write(world.file(own), "its own").unwrap();
        fs::write(world.file(&new), "new").unwrap();
        world.cut("recorded", true, |spec| {
            spec.boot = Boot::Firmware { code: "/code.fd".into(), vars: Some("/vars.fd".into()) };
        });
        for _ in 0..2 {
            finish(&world.site, &mut world.store, world.vm).unwrap();
            assert_eq!(world.files(), [VmSpec::EFI_VARS, &old, "os.raw", "seed.img"], "{own}");
            assert_eq!(fs::read_to_string(world.file(&old)).unwrap(), "its own");
            assert_eq!(fs::read_to_string(world.file(VmSpec::EFI_VARS)).unwrap(), "new");
        }
    }
}
