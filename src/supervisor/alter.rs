//! What a guest that runs is given: each thing is recorded as soon as it is there, so that a
//! supervisor which is killed in between leaves nothing recorded that is not so. What was done and
//! not recorded is found done by whoever asks again.

use std::path::Path;

use crate::error::{Error, OrFailed, Result};
use crate::hypervisor::{Machine, forwards};
use crate::spec::{Actor, Event, Forward, Link, Name, Nic, Size, State};
use crate::store::Record;
use crate::vm;

use super::owner::Supervisor;

impl Supervisor<'_> {
    pub(super) async fn resize(
        &self,
        machine: &mut dyn Machine,
        vcpu: Option<u32>,
        vram: Option<Size>,
        actor: &Actor,
    ) -> Result<State> {
        let record = self.running()?;
        vm::check_resize(&record.spec, vcpu, vram)?;
        if let Some(vram) = vram {
            vm::check_limit(&record.spec, vram)?;
            machine.grow_memory(vram).await.map_err(or_anew)?;
            self.update_by(actor, |record| {
                record.spec.vram = vram;
                Ok(())
            })?;
        }
        if let Some(vcpu) = vcpu {
            machine.add_cpus(vcpu).await.map_err(or_anew)?;
            self.update_by(actor, |record| {
                record.spec.vcpu = vcpu;
                Ok(())
            })?;
        }
        Ok(record.state)
    }

    pub(super) async fn grow_disk(
        &self,
        machine: &mut dyn Machine,
        disk: &Name,
        size: Size,
        actor: &Actor,
    ) -> Result<State> {
        let record = self.running()?;
        let Some(position) = record.spec.disks.iter().position(|found| found.name == *disk) else {
            return Err(Error::not_found(format!("it has no disk `{disk}`")));
        };
        let path = self.site.dirs.vm(self.spec.uuid).join(record.spec.disks[position].file());
        // Never made smaller, and told to the guest once more where it is as large already.
        if length(&path)? <= size {
            machine.grow_disk(position, disk, size).await.map_err(or_anew)?;
        }
        let now = length(&path)?;
        if now < size {
            return Err(or_anew(Error::failed(format!("the disk `{disk}` has {now}, and {size} was asked for"))));
        }
        self.update_by(actor, |record| {
            record.spec.disks[position].size = Some(size);
            Ok(())
        })?;
        Ok(record.state)
    }

    pub(super) async fn forward(&self, machine: &mut dyn Machine, nic: u8, ports: Vec<Forward>) -> Result<State> {
        let record = self.recorded()?;
        record.state.after(&Event::Alter)?;
        let found = record.spec.nics.iter().find(|found| found.index == nic);
        let Some(found) = found.filter(|found| matches!(found.link, Link::User)) else {
            return Err(Error::not_found(format!("it has no `user` NIC {nic}")));
        };
        let wanted = Nic { forwards: ports, ..found.clone() };
        let ssh = record.runtime.as_ref().and_then(|runtime| runtime.ssh);
        machine.forward(&wanted, &forwards(&record.spec, &wanted, ssh)).await?;
        Ok(record.state)
    }

    /// The record of a guest that takes what it is given. One that is paused does not: a device of
    /// it that is woken for the change would go on alone.
    fn running(&self) -> Result<Record> {
        let record = self.recorded()?;
        record.state.after(&Event::Alter)?;
        match record.state {
            State::Paused => Err(Error::refused("it is paused")
                .hint(format!("`v vm resume {}` lets it go on; then type it again", record.spec.name))),
            _ => Ok(record),
        }
    }

    /// As it is by now: a guest that runs may have been given other things since it was started.
    pub(super) fn recorded(&self) -> Result<Record> {
        self.site.store()?.get(self.spec.uuid)?.ok_or_else(|| Error::not_found("the VM is gone"))
    }
}

fn length(path: &Path) -> Result<Size> {
    let meta = path.metadata().or_failed(|| format!("cannot look at `{}`", path.display()))?;
    Ok(Size::from_bytes(meta.len()))
}

fn or_anew(error: Error) -> Error {
    match error.hint_text() {
        Some(_) => error,
        None => error.hint("`v apply --restart` starts it anew with it"),
    }
}
