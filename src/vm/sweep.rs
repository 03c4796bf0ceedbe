use uuid::Uuid;

use super::leftovers::told;
use super::{Site, alter, delete};
use crate::error::{OrFailed, Result};
use crate::host::Handle;
use crate::spec::{Event, Progress, State};
use crate::store::{Record, Store};

/// Undoes what a dead `create` left half made and finishes what a dead `delete` left half gone. A
/// reshape that was cut short is undone or finished.
/// What a living process is at work on is left alone.
pub fn sweep(site: &Site, store: &mut Store) -> Result<()> {
    for record in store.list()? {
        let vm = record.spec.uuid;
        if is_abandoned(&record) {
            collect(site, store, vm)?;
        } else if alter::is_cut_short(&record)
            && let Err(error) = alter::finish(site, store, vm)
        {
            // It is in nobody's way: its next start, or `v repair`, tries again.
            tracing::warn!(error = %error.chain().join(": "));
        }
    }
    Ok(())
}

pub(super) fn is_abandoned(record: &Record) -> bool {
    matches!(record.state, State::Creating | State::Deleting) && record.owner.is_none_or(|owner| !owner.is_alive())
}

/// Takes the record over, then deletes what is there of the VM. Who asks may have looked long ago:
/// its owner may have finished and ended since, so what counts is the record at the moment of
/// taking over. `false`: there is nothing to collect any more.
pub(super) fn collect(site: &Site, store: &mut Store, vm: Uuid) -> Result<bool> {
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    if store.get(vm)?.is_none() {
        return Ok(false);
    }
    let taken = store.update(vm, |record| {
        if !is_abandoned(record) {
            return Ok(None);
        }
        let was = record.clone();
        record.apply(&Event::Delete)?;
        record.owner = Some(us);
        Ok(Some(was))
    })?;
    let Some(was) = taken else { return Ok(false) };
    let cut = was.progress.as_ref().map_or_else(|| "its creation was cut short".to_owned(), Progress::cut_short);
    told(store, &was.spec, Some(cut), if was.state == State::Creating { "undone" } else { "finished" })?;
    delete::finish(site, store, &was.spec)?;
    Ok(true)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::host::Dirs;
    use crate::spec::VmSpec;
    use crate::store::{Draft, Reserved};

    fn spec(reserved: &Reserved) -> VmSpec {
        VmSpec { number: reserved.number, name: reserved.name.clone(), ..VmSpec::sample(reserved.uuid) }
    }

    /// A process that has ended.
    pub(in crate::vm) fn gone() -> Handle {
        let us = Handle::current().unwrap();
        Handle { start_time: us.start_time + 1, ..us }
    }

    /// A site with one VM that a process, gone by now, was creating.
    pub(in crate::vm) fn abandoned() -> (tempfile::TempDir, Site, Store, Record) {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::new(Dirs::find(Some(dir.path())).unwrap());
        let mut store = site.store().unwrap();
        let draft =
            Draft { uuid: Uuid::new_v4(), name: Some("web".parse().unwrap()), nics: Vec::new(), declared: None };
        store.reserve(&[draft], gone(), &mut || "any".parse().unwrap(), &mut |reserved| Ok(spec(reserved))).unwrap();
        let record = store.list().unwrap().remove(0);
        super::super::make_private(&site.dirs.vm(record.spec.uuid)).unwrap();
        (dir, site, store, record)
    }

    /// A site with one VM that does not run.
    pub(in crate::vm) fn stopped() -> (tempfile::TempDir, Site, Store, Record) {
        let (dir, site, mut store, record) = abandoned();
        let record = store
            .update(record.spec.uuid, |record| {
                record.apply(&Event::Created)?;
                record.owner = None;
                Ok(record.clone())
            })
            .unwrap();
        (dir, site, store, record)
    }

    #[test]
    fn what_a_dead_create_left_is_collected() {
        let (_dir, site, mut store, record) = abandoned();
        sweep(&site, &mut store).unwrap();
        assert!(store.list().unwrap().is_empty());
        assert!(!site.dirs.vm(record.spec.uuid).exists());
        assert!(!collect(&site, &mut store, record.spec.uuid).unwrap(), "a second time");
    }

    /// A create that finishes between the look and the act: its VM is not touched.
    #[test]
    fn an_old_look_collects_nothing() {
        let (_dir, site, mut store, seen) = abandoned();
        store
            .update(seen.spec.uuid, |record| {
                record.apply(&Event::Created)?;
                record.owner = None;
                Ok(())
            })
            .unwrap();
        assert!(!collect(&site, &mut store, seen.spec.uuid).unwrap());
        assert_eq!(store.list().unwrap()[0].state, State::Stopped);
        assert!(site.dirs.vm(seen.spec.uuid).exists());
    }
}
