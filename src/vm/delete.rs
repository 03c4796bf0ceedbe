use super::site::remove_tree;
use super::steps::{Step, run_all};
use super::{Site, force_stop, reconcile};
use crate::error::{Error, OrFailed, Result};
use crate::host::Handle;
use crate::network::{self, Port};
use crate::spec::{Event, Intent, VmSpec};
use crate::store::{Record, Store};

/// Removes a VM, its disks and its addresses. A running one is refused unless `force`, which cuts
/// its power first.
pub fn delete(site: &Site, store: &mut Store, record: Record, force: bool) -> Result<()> {
    let observed = reconcile(site, store, record)?;
    let spec = observed.record.spec;
    if observed.state.is_live() {
        if !force {
            return Err(Error::refused(format!("cannot delete `{}`: it is {}", spec.name, observed.state)).hint(
                format!(
                    "stop it first with `v vm stop {0}`, or cut its power with `v vm delete --force {0}` (its disks are lost either way)",
                    spec.name
                ),
            ));
        }
        force_stop(site, store, spec.uuid, Intent::Delete)?;
    }
    let owner = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    store.update(spec.uuid, |record| {
        if record.owner.is_some_and(|other| other != owner && other.is_alive()) {
            return Err(Error::refused(format!("cannot delete `{}`: another command is at work on it", spec.name)));
        }
        record
            .apply(&Event::Delete)
            .map_err(|refusal| Error::refused(format!("cannot delete `{}`: {refusal}", spec.name)))?;
        record.owner = Some(owner);
        Ok(())
    })?;
    finish(site, store, &spec)
}

/// The rest of a delete whose intent is recorded. It has no undo: it can only be finished.
pub(super) fn finish(site: &Site, store: &mut Store, spec: &VmSpec) -> Result<()> {
    let no_undo = || Ok(());
    run_all(&[
        Step::new("ports", || release_ports(site, spec), no_undo),
        Step::new("runtime folder", || remove_tree(&site.dirs.run(spec.uuid)), no_undo),
        Step::new("folder", || remove_tree(&site.dirs.vm(spec.uuid)), no_undo),
    ])?;
    store.remove(spec.uuid)
}

/// Ports are normally gone with the run; one is left only when its supervisor was killed. A switch
/// that cannot be asked must not keep a VM from being deleted: the port names its VM, so it can
/// still be found and collected.
fn release_ports(site: &Site, spec: &VmSpec) -> Result<()> {
    for_each_port(site, spec, |port| {
        if let Err(error) = network::driver(&port.nic.link).release(port) {
            tracing::warn!(vm = %spec.name, port = port.name(), error = %error.chain().join(": "), "port not released");
        }
    });
    Ok(())
}

/// The VM's ports, whether they are there or not.
pub(super) fn for_each_port(site: &Site, spec: &VmSpec, mut act: impl FnMut(&Port<'_>)) {
    let config = site.config().ok();
    let ovs = config.map_or_else(|| crate::network::ovs::Ovs::new(None), |config| site.ovs(&config));
    for nic in &spec.nics {
        act(&Port { vm: spec.uuid, vm_number: spec.number, vm_name: spec.name.as_str(), nic, ovs: &ovs });
    }
}
