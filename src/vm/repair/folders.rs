//! Folders and files that belong to no VM. Only what has a VM's uuid for its name is ours, and no
//! link is followed. A folder of disks is removed only if this store remembers that its VM was
//! here and is gone, or if nothing in it was ever whole: one that came from elsewhere, or that a
//! database restored from an older copy does not know, may hold a guest that somebody wants.

use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::records::told;
use super::rest::{Rest, Standing, Standings};
use super::{Action, Finding, Kind, Remedy};
use crate::error::{OrFailed, Result};
use crate::host::{Lock, bound_sockets};
use crate::spec::VmSpec;
use crate::store::Store;
use crate::vm::Site;
use crate::vm::site::remove_tree;

/// What lies where VMs' folders lie.
#[derive(Debug)]
pub(super) struct Seen {
    vms: Vec<Entry>,
    runtime: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    name: String,
    kind: FileType,
}

pub(super) fn look(site: &Site) -> Result<Seen> {
    Ok(Seen { vms: entries(&site.dirs.vms())?, runtime: entries(&site.dirs.runtime.join("vm"))? })
}

fn entries(dir: &Path) -> Result<Vec<Entry>> {
    let failed = || format!("cannot read `{}`", dir.display());
    let listed = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.or_failed(failed)?,
    };
    let mut entries = Vec::new();
    for entry in listed {
        let entry = entry.or_failed(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push(Entry { path: entry.path(), name, kind: entry.file_type().or_failed(failed)? });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// The VM whose name for a folder this is.
fn uuid(name: &str) -> Option<Uuid> {
    Uuid::parse_str(name).ok().filter(|uuid| uuid.to_string() == name)
}

pub(super) fn survey(site: &Site, store: Option<&Store>, standings: &Standings, seen: &Seen) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for entry in &seen.vms {
        let Some(vm) = uuid(&entry.name).filter(|_| entry.kind.is_dir()) else {
            found.push(not_ours(Kind::VmFolder, entry));
            continue;
        };
        if standings.standing(vm) != Standing::Unknown || !entry.path.exists() {
            continue;
        }
        found.push(match guarded(site, store, vm)? {
            None => orphan(Kind::VmFolder, "disks and logs of a VM that is gone", &entry.path, vm, None),
            Some(why) => Finding::note(Kind::VmFolder, why, shown(&entry.path), Some(vm.to_string())),
        });
    }
    let bound = bound_sockets().or_failed(|| "cannot see which sockets are in use".to_owned())?;
    for entry in &seen.runtime {
        let vm = match entry.name.strip_suffix(START) {
            Some(name) => uuid(name).filter(|_| !entry.kind.is_dir() && !entry.kind.is_symlink()),
            None => uuid(&entry.name).filter(|_| entry.kind.is_dir()),
        };
        let Some(vm) = vm else {
            found.push(not_ours(Kind::RuntimeFolder, entry));
            continue;
        };
        let standing = standings.standing(vm);
        if !matches!(standing, Standing::AtRest | Standing::Unknown)
            || in_use(&bound, &entry.name)
            || !entry.path.exists()
        {
            continue;
        }
        let name = (standing == Standing::AtRest).then(|| standings.name(vm));
        found.push(orphan(Kind::RuntimeFolder, "sockets of a VM that does not run", &entry.path, vm, name));
    }
    Ok(found)
}

/// Behind the uuid, in the name of the socket on which who launches a supervisor awaits its word.
const START: &str = ".start";

fn orphan(kind: Kind, what: &str, path: &Path, vm: Uuid, name: Option<String>) -> Finding {
    let remedy = match kind {
        Kind::VmFolder => Remedy::VmFolder(vm),
        _ => Remedy::Runtime(vm, path.to_owned()),
    };
    let vm = Some(name.unwrap_or_else(|| vm.to_string()));
    Finding { kind, what: what.to_owned(), place: shown(path), action: Action::Remove, vm, remedy }
}

fn not_ours(kind: Kind, entry: &Entry) -> Finding {
    Finding::note(kind, "not ours, left alone", shown(&entry.path), None)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Why the folder of an unknown VM must stay, if it must.
fn guarded(site: &Site, store: Option<&Store>, vm: Uuid) -> Result<Option<&'static str>> {
    let lock = site.lock(vm);
    if Lock::is_held(&lock).or_failed(|| format!("cannot look at the lock `{}`", lock.display()))? {
        return Ok(Some("a VM that is not recorded here runs in it, left alone"));
    }
    let remembered = store.map_or(Ok(false), |store| store.knew(vm))?;
    if remembered || nothing_whole(&site.dirs.vm(vm))? {
        return Ok(None);
    }
    Ok(Some("holds disks of a VM that was never recorded here, left alone"))
}

/// Whether there is nothing but what a create makes before the first disk is whole, and logs.
fn nothing_whole(dir: &Path) -> Result<bool> {
    const WORTHLESS: [&str; 4] = ["lock", "known_hosts", VmSpec::SEED, VmSpec::EFI_VARS];
    let worthless = |name: &str| {
        WORTHLESS.contains(&name) || [".partial", ".log", ".log.1"].iter().any(|ending| name.ends_with(ending))
    };
    Ok(entries(dir)?.iter().all(|entry| entry.kind.is_file() && worthless(&entry.name)))
}

/// A VM's uuid is nobody else's, so its name in a bound path is enough, by whatever way it was reached.
fn in_use(bound: &[String], name: &str) -> bool {
    bound.iter().any(|path| Path::new(path).components().any(|part| part.as_os_str() == name))
}

pub(super) fn collect_vm(site: &Site, store: &Store, vm: Uuid) -> Result<bool> {
    let dir = site.dirs.vm(vm);
    let there = fs::symlink_metadata(&dir).is_ok_and(|meta| meta.is_dir());
    // A uuid is made anew for each VM, so one that is not recorded now never will be.
    if !there || store.get(vm)?.is_some() || guarded(site, Some(store), vm)?.is_some() {
        return Ok(false);
    }
    remove_tree(&dir)?;
    Ok(true)
}

pub(super) fn collect_runtime(site: &Site, store: &mut Store, vm: Uuid, path: &Path) -> Result<bool> {
    let Some(rest) = Rest::hold(site, store, vm)? else { return Ok(false) };
    let bound = bound_sockets().or_failed(|| "cannot see which sockets are in use".to_owned())?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(false) };
    if meta.is_symlink() || in_use(&bound, &name) {
        return Ok(false);
    }
    if meta.is_dir() {
        remove_tree(path)?;
    } else {
        fs::remove_file(path).or_failed(|| format!("cannot remove `{}`", path.display()))?;
    }
    if let Some(record) = rest.record.as_ref() {
        told(store, &record.spec, format!("`{name}` was removed from the runtime folder"))?;
    }
    Ok(true)
}

pub(super) fn cached(paths: Vec<PathBuf>) -> Vec<Finding> {
    let finding = |path: PathBuf| Finding {
        kind: Kind::CacheFile,
        what: "half made, and its maker was killed".to_owned(),
        place: shown(&path),
        action: Action::Remove,
        vm: None,
        remedy: Remedy::Cache(path),
    };
    paths.into_iter().map(finding).collect()
}

pub(super) fn half_made(paths: Vec<PathBuf>) -> Vec<Finding> {
    let finding = |path: PathBuf| Finding {
        kind: Kind::DatabaseFile,
        what: "a database half made, and its maker was killed".to_owned(),
        place: shown(&path),
        action: Action::Remove,
        vm: None,
        remedy: Remedy::Database,
    };
    paths.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{collect, survey};
    use super::*;
    use crate::vm::make_private;
    use crate::vm::sweep::tests::stopped;

    fn left_overs(site: &Site, store: &Store) -> Vec<Finding> {
        let mut found = survey(site, Some(store)).unwrap();
        found.retain(Finding::is_left_over);
        found
    }

    /// A VM that is started between the look and the act keeps its sockets.
    #[test]
    fn an_old_look_removes_nothing() {
        let (_dir, site, mut store, record) = stopped();
        let vm = record.spec.uuid;
        make_private(&site.dirs.run(vm)).unwrap();
        let found = left_overs(&site, &store);
        assert_eq!(found.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [Kind::RuntimeFolder]);
        let lock = Lock::try_take(&site.lock(vm)).unwrap();
        assert!(left_overs(&site, &store).is_empty(), "a supervisor has it");
        assert!(!collect(&site, &mut store, &found[0]).unwrap());
        assert!(site.dirs.run(vm).exists());
        drop(lock);
        // A child that another test is about to start may hold a copy of the lock for a moment.
        while Lock::is_held(&site.lock(vm)).unwrap() {
            crate::host::pause(std::time::Duration::from_millis(1));
        }
        assert!(collect(&site, &mut store, &found[0]).unwrap());
        assert!(!collect(&site, &mut store, &found[0]).unwrap(), "gone");
        assert!(!site.dirs.run(vm).exists() && site.dirs.vm(vm).exists());
    }

    #[test]
    fn disks_are_removed_only_where_their_vm_is_remembered() {
        let (_dir, site, mut store, record) = stopped();
        let gone = record.spec.uuid;
        let [strange, half_made, running] = [(); 3].map(|()| Uuid::new_v4());
        for vm in [gone, strange, half_made, running] {
            make_private(&site.dirs.vm(vm)).unwrap();
            let disk = if vm == half_made || vm == running { "os.raw.partial" } else { "os.raw" };
            fs::write(site.dirs.vm(vm).join(disk), "").unwrap();
        }
        let _lock = Lock::try_take(&site.lock(running)).unwrap();
        assert_eq!(left_overs(&site, &store).len(), 1, "only what was never whole: a record protects the rest");
        store.remove(gone).unwrap();
        let mut places: Vec<String> = left_overs(&site, &store).into_iter().map(|finding| finding.place).collect();
        let mut expected = [gone, half_made].map(|vm| site.dirs.vm(vm).display().to_string());
        places.sort();
        expected.sort();
        assert_eq!(places, expected);
        for finding in survey(&site, Some(&store)).unwrap() {
            assert_eq!(collect(&site, &mut store, &finding).unwrap(), finding.is_left_over(), "{finding:?}");
        }
        for (vm, stays) in [(gone, false), (half_made, false), (strange, true), (running, true)] {
            assert_eq!(site.dirs.vm(vm).exists(), stays);
        }
    }
}
