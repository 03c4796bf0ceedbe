//! Another name for a VM: in its record, in its guest's first-boot volume, at its switch ports.
//!
//! The record comes first. Its transaction decides whether the name is free and takes it, and from
//! then on it says what the rest must become: whoever finds a rename that was cut short needs to
//! know nothing but the record, and doing it again changes nothing. With the record last, another
//! VM could take the name while the volume has it already.

use uuid::Uuid;

use super::leftovers::for_each_port;
use super::steps::{Step, opening, run_all};
use super::{Site, alter, networks};
use crate::config::Config;
use crate::disk;
use crate::error::{Error, OrFailed, Result};
use crate::host::Handle;
use crate::network;
use crate::spec::{Name, Progress, Refusal, State, Verb, VmSpec};
use crate::store::{Record, Store};

/// Renames a VM, which may run: its guest takes the host name at its next start. One that has the
/// name already gets it wherever it is missing. `true`: the config still declares the old name.
pub fn rename(site: &Site, store: &mut Store, vm: Uuid, new: &Name) -> Result<bool> {
    let Some(record) = store.get(vm)? else {
        return Err(Error::not_found("cannot rename the VM: it was deleted"));
    };
    let names = match record.is_declared() && record.spec.name != *new {
        true => declared(&site.config()?, &record.spec.name, new)?,
        false => Names { old: false, new: true },
    };
    let lets_go = !names.new;
    let spec = record.spec;
    let old = spec.name.clone();
    let failed = || format!("cannot rename `{old}` to `{new}`");
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    // Its note of how far it came would make way for ours.
    alter::finish(site, store, vm)?;
    let renamed = VmSpec { name: new.clone(), ..spec.clone() };
    opening(Verb::Rename, "name", |progress| store.update(vm, |record| take(record, new, lets_go, us, progress)))
        .map_err(|error| error.context(failed()))?;
    let steps = [
        Step::new([vm], "first-boot volume", |_| name_seed(site, &renamed), |_| name_seed(site, &spec)),
        Step::new([vm], "ports", |_| name_ports(site, &renamed), |_| name_ports(site, &spec)),
        Step::new([vm], "renamed", |store| store.update(vm, |record| release(record, us)), |_| Ok(())),
    ];
    run_all(store, Verb::Rename, &steps).or_else(|error| {
        store.update(vm, |record| give_back(record, &old, lets_go, us))?;
        Err(error.context(failed()))
    })?;
    networks::publish_after(site);
    Ok(names.old)
}

/// Which names of a declared VM the config has. Where it has not the new one, the VM is let go: an
/// apply would do to it what is done to one that is declared no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Names {
    old: bool,
    new: bool,
}

fn declared(config: &Config, old: &Name, new: &Name) -> Result<Names> {
    let has = |name: &Name| config.vms.iter().any(|vm| vm.name == *name);
    let names = Names { old: has(old), new: has(new) };
    if names.old && names.new {
        return Err(Error::refused(format!("cannot rename `{old}` to `{new}`: the config declares both"))
            .hint(format!("take the `[[vm]]` of one of the two out of it, or give `{old}` another name")));
    }
    Ok(names)
}

/// Whether a process was killed while it renamed the VM.
pub(super) fn is_cut_short(record: &Record) -> bool {
    !matches!(record.state, State::Creating | State::Deleting)
        && record.progress.as_ref().is_some_and(|progress| progress.verb == Verb::Rename)
        && record.owner.is_none_or(|owner| !owner.is_alive())
}

/// Finishes a rename that was cut short. `false`: there is none any more.
pub(super) fn finish(site: &Site, store: &mut Store, vm: Uuid) -> Result<bool> {
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    let spec = store.update(vm, |record| {
        if !is_cut_short(record) {
            return Ok(None);
        }
        record.owner = Some(us);
        Ok(Some(record.spec.clone()))
    })?;
    let Some(spec) = spec else { return Ok(false) };
    name_seed(site, &spec)?;
    name_ports(site, &spec)?;
    store.update(vm, |record| release(record, us))?;
    networks::publish_after(site);
    Ok(true)
}

fn take(record: &mut Record, new: &Name, lets_go: bool, us: Handle, progress: Progress) -> Result<()> {
    // Another process has noted how far it came with these.
    let refusal = match record.state {
        State::Creating => Some(Refusal::BeingCreated),
        State::Deleting => Some(Refusal::BeingDeleted),
        State::Starting => Some(Refusal::AlreadyStarting),
        State::Stopping => Some(Refusal::AlreadyStopping),
        State::Restarting => Some(Refusal::Restarting),
        State::Stopped | State::Crashed | State::Running | State::Paused => None,
    };
    if let Some(refusal) = refusal {
        return Err(refusal.into());
    }
    if record.owner.is_some_and(|owner| owner != us && owner.is_alive()) {
        return Err(Error::refused("another command is at work on it"));
    }
    record.owner = Some(us);
    record.progress = Some(progress);
    record.spec.name = new.clone();
    if let (true, Some(declared)) = (lets_go, &mut record.declared) {
        declared.removed = true;
    }
    Ok(())
}

fn give_back(record: &mut Record, old: &Name, let_go: bool, us: Handle) -> Result<()> {
    if record.owner == Some(us) {
        record.spec.name = old.clone();
        if let (true, Some(declared)) = (let_go, &mut record.declared) {
            declared.removed = false;
        }
    }
    release(record, us)
}

fn release(record: &mut Record, us: Handle) -> Result<()> {
    if record.owner == Some(us) {
        record.owner = None;
        record.progress = None;
    }
    Ok(())
}

fn name_seed(site: &Site, spec: &VmSpec) -> Result<()> {
    if !spec.seed {
        return Ok(());
    }
    disk::rename_seed(&site.dirs.vm(spec.uuid).join(VmSpec::SEED), &spec.name)
}

/// The name at a port is for people; one that cannot be written gets it at the next start.
fn name_ports(site: &Site, spec: &VmSpec) -> Result<()> {
    for_each_port(site, spec, |port| {
        if let Err(error) = network::driver(&port.nic.link).rename(port) {
            let why = error.chain().join(": ");
            tracing::warn!(vm = %spec.name, port = port.name(), error = %why, "port keeps the old name");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use super::super::sweep::tests::{gone, stopped};
    use super::*;
    use crate::config::{DeclaredVm, Running, Template};
    use crate::disk::Seed;
    use crate::error::Kind;
    use crate::spec::{Declared, Event, OnRemove};
    use crate::template::UserData;

    fn noted() -> Progress {
        Progress { verb: Verb::Rename, step: "name".to_owned(), done: true }
    }

    /// A VM `web` that does not run, with a first-boot volume.
    fn with_seed() -> (tempfile::TempDir, Site, Store, Uuid) {
        let (dir, site, mut store, record) = stopped();
        let vm = record.spec.uuid;
        store
            .update(vm, |record| {
                record.spec.seed = true;
                Ok(())
            })
            .unwrap();
        let seed = Seed {
            hostname: record.spec.name,
            instance: vm,
            users: UserData { users: Vec::new(), cloud_init: Vec::new() },
            parts: Vec::new(),
            nics: Vec::new(),
        };
        disk::write_seed(&site.dirs.vm(vm).join(VmSpec::SEED), &seed).unwrap();
        (dir, site, store, vm)
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// What the record and the volume say.
    fn names(site: &Site, store: &Store, vm: Uuid) -> (String, String) {
        let bytes = std::fs::read(site.dirs.vm(vm).join(VmSpec::SEED)).unwrap();
        let system = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
        let mut text = String::new();
        system.root_dir().open_file("meta-data").unwrap().read_to_string(&mut text).unwrap();
        let meta: serde_json::Value = serde_json::from_str(&text).unwrap();
        let record = store.get(vm).unwrap().unwrap();
        (record.spec.name.to_string(), meta["local-hostname"].as_str().unwrap().to_owned())
    }

    fn both(name: &str) -> (String, String) {
        (name.to_owned(), name.to_owned())
    }

    #[test]
    fn record_and_volume_follow_each_other() {
        let (_dir, site, mut store, vm) = with_seed();
        rename(&site, &mut store, vm, &name("db")).unwrap();
        assert_eq!(names(&site, &store, vm), both("db"));
        rename(&site, &mut store, vm, &name("db")).unwrap();
        let record = store.get(vm).unwrap().unwrap();
        assert_eq!((record.owner, record.progress), (None, None));

        std::fs::write(site.dirs.vm(vm).join(VmSpec::SEED), "damaged").unwrap();
        let error = rename(&site, &mut store, vm, &name("mail")).unwrap_err();
        assert!(error.message().contains("cannot rename `db` to `mail`"), "{error}");
        let record = store.get(vm).unwrap().unwrap();
        assert_eq!(record.spec.name, name("db"), "undone");
        assert_eq!((record.owner, record.progress), (None, None));
    }

    fn config(names: &[&str]) -> Config {
        let entry = |text: &&str| DeclaredVm {
            name: name(text),
            template: Template::blank(name("xs")),
            running: Running::No,
            on_remove: OnRemove::Delete,
            user_data: Vec::new(),
        };
        Config { vms: names.iter().map(entry).collect(), ..Config::default() }
    }

    #[test]
    fn a_name_that_the_config_has_not_lets_the_vm_go() {
        let (web, db) = (name("web"), name("db"));
        for (old, new) in [(false, false), (false, true), (true, false)] {
            let all: Vec<&str> =
                [(old, "web"), (new, "db")].into_iter().filter_map(|(has, name)| has.then_some(name)).collect();
            assert_eq!(declared(&config(&all), &web, &db).unwrap(), Names { old, new });
        }
        let error = declared(&config(&["web", "db"]), &web, &db).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "the new name is to be another's");

        let (_dir, _site, _store, mut record) = stopped();
        record.declared = Some(Declared { on_remove: OnRemove::Delete, ..Declared::default() });
        let before = record.clone();
        let us = Handle::current().unwrap();
        take(&mut record, &db, true, us, noted()).unwrap();
        assert!(!record.is_declared());
        give_back(&mut record, &web, true, us).unwrap();
        assert_eq!(record, before, "undone");
        take(&mut record, &db, false, us, noted()).unwrap();
        assert!(record.is_declared());
    }

    /// Killed once the record has the new name: before the volume has it, and after.
    #[test]
    fn one_that_was_killed_is_finished() {
        for volume_done in [false, true] {
            let (_dir, site, mut store, vm) = with_seed();
            let begin = |store: &mut Store, new: &str| {
                store.update(vm, |record| take(record, &name(new), false, gone(), noted())).unwrap();
                if volume_done {
                    name_seed(&site, &store.get(vm).unwrap().unwrap().spec).unwrap();
                }
                assert!(is_cut_short(&store.get(vm).unwrap().unwrap()));
            };
            begin(&mut store, "db");
            assert!(finish(&site, &mut store, vm).unwrap());
            assert_eq!(names(&site, &store, vm), both("db"));
            assert!(!finish(&site, &mut store, vm).unwrap(), "a second time");
            begin(&mut store, "mail");
            rename(&site, &mut store, vm, &name("web")).unwrap();
            assert_eq!(names(&site, &store, vm), both("web"), "the next rename is as good");
            assert!(!is_cut_short(&store.get(vm).unwrap().unwrap()));
        }
    }

    #[test]
    fn what_a_process_is_at_work_on_is_left_to_it() {
        let (_dir, site, mut store, vm) = with_seed();
        let parent = std::fs::read_to_string("/proc/self/stat").unwrap();
        let parent: i32 = parent.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap();
        let start_time = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
        let alive = Handle { pid: parent, start_time };
        assert!(alive.is_alive());
        store.update(vm, |record| take(record, &name("db"), false, alive, noted())).unwrap();
        assert!(!finish(&site, &mut store, vm).unwrap());
        let error = rename(&site, &mut store, vm, &name("mail")).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        let record = store.get(vm).unwrap().unwrap();
        assert_eq!((record.spec.name, record.owner), (name("db"), Some(alive)));

        store
            .update(vm, |record| {
                record.owner = None;
                Ok(record.apply(&Event::Delete)?)
            })
            .unwrap();
        let error = rename(&site, &mut store, vm, &name("mail")).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.chain().join(" ").contains("being deleted"), "{error:?}");
        assert!(!is_cut_short(&store.get(vm).unwrap().unwrap()), "the delete takes all with it");
    }
}
