use uuid::Uuid;

use super::resize::{ask, recorded};
use crate::disk;
use crate::error::{Error, Result};
use crate::spec::{Name, Size};
use crate::store::Store;
use crate::vm::control::Request;
use crate::vm::{Site, reconcile};

/// Makes a disk so large, also while the guest runs. One that is larger already stays as it is, and
/// counts as what was asked for.
pub fn grow_disk(site: &Site, store: &mut Store, vm: Uuid, disk: &Name, size: Size) -> Result<()> {
    let observed = reconcile(site, store, recorded(store, vm)?)?;
    let spec = &observed.record.spec;
    let failed = || format!("cannot grow a disk of `{}`", spec.name);
    let Some(found) = spec.disks.iter().find(|found| found.name == *disk) else {
        return Err(Error::not_found(format!("`{}` has no disk `{disk}`", spec.name)));
    };
    if observed.state.is_live() {
        let request = Request::GrowDisk { disk: disk.clone(), size };
        return ask(site, store, vm, "grow a disk of", &request);
    }
    let path = site.dirs.vm(vm).join(found.file());
    disk::grow(&path, size).map_err(|error| error.context(failed()))?;
    store.update(vm, |record| {
        if let Some(found) = record.spec.disks.iter_mut().find(|found| found.name == *disk) {
            found.size = Some(size);
        }
        Ok(())
    })
}
