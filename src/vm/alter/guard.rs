use uuid::Uuid;

use super::ports::nic;
use super::standing;
use crate::error::{Error, OrFailed, Result};
use crate::host::Handle;
use crate::network::{self, Port};
use crate::spec::{Guard, VmSpec};
use crate::store::Store;
use crate::vm::{Site, networks};

/// Gives ports of a VM, by the index of their NIC, other guards. Those of one that runs let nothing else
/// through when this returns; what is under way is only stopped by a rule that denies it.
pub fn set_guard(site: &Site, store: &mut Store, vm: Uuid, nics: &[(u8, Guard)]) -> Result<()> {
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    let Some(record) = store.get(vm)? else {
        return Err(Error::not_found("cannot change the guards of the VM: it was deleted"));
    };
    let failed = |error: Error| error.context(format!("cannot change the guards of `{}`", record.spec.name));
    let before = record.spec.clone();
    let mut after = before.clone();
    change(&mut after, nics).map_err(failed)?;
    if after == before {
        return Ok(());
    }
    let runs = standing::runs(&record).map_err(failed)?;
    let _lock = if runs { Some(networks::hold(site)?) } else { None };
    let recorded = store.update(vm, |record| {
        standing::is_free(record, us)?;
        standing::is_still(record, runs)?;
        change(&mut record.spec, nics)?;
        Ok(record.spec.clone())
    });
    let after = recorded.map_err(failed)?;
    if !runs {
        return Ok(());
    }
    follow(site, &after, &before).or_else(|error| {
        let back = store.update(vm, |record| {
            for old in &before.nics {
                nic(&mut record.spec, old.index)?.guard.clone_from(&old.guard);
            }
            Ok(record.spec.clone())
        })?;
        if let Err(undo) = follow(site, &back, &after) {
            tracing::warn!(vm = %before.name, error = %undo.chain().join(": "), "its guards may be half changed");
        }
        Err(failed(error))
    })
}

fn change(spec: &mut VmSpec, nics: &[(u8, Guard)]) -> Result<()> {
    for (index, guard) in nics {
        let nic = nic(spec, *index)?;
        if nic.guard.is_none() {
            return Err(Error::refused(format!(
                "its network `{}` is not Virshle's: there is no guard on it",
                nic.network
            )));
        }
        nic.guard = Some(guard.clone());
    }
    Ok(())
}

/// Puts in the guards that are others than before, for a holder of the networks' lock.
fn follow(site: &Site, spec: &VmSpec, before: &VmSpec) -> Result<()> {
    networks::settle_held(site)?;
    let ovs = site.ovs(&site.config()?);
    let run = site.hypervisor_run(spec.uuid);
    for nic in
        spec.nics.iter().filter(|nic| before.nics.iter().all(|old| old.index != nic.index || old.guard != nic.guard))
    {
        let port = Port { vm: spec.uuid, vm_number: spec.number, vm_name: spec.name.as_str(), nic, ovs: &ovs };
        network::driver(&nic.link).restore(&port, &run.join(nic.socket()))?;
    }
    Ok(())
}
