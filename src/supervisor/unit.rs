//! The supervisor as the main process of `virshle-vm@<uuid>.service`.
//!
//! Whoever started the unit, it does what is right for the VM: what a launcher orders; without one,
//! a guest that runs is taken over, and one that does not is started, unless systemd only brings
//! back a supervisor that was killed. An exit code is never a reason for systemd to start it again.

use std::time::Duration;

use uuid::Uuid;

use super::handover::Handed;
use super::owner::supervise;
use crate::error::{Error, Result};
use crate::host::{self, Unit};
use crate::spec::{Actor, State, VmSpec};
use crate::vm::{self, Purpose, Site, take_order};

/// For a hypervisor to come up, where nobody said how long.
const DEADLINE: Duration = Duration::from_secs(60);

pub fn supervise_as_unit(site: &Site, vm: Uuid) -> Result<()> {
    match take_order(site, vm) {
        Some((order, ready)) => supervise(
            site,
            vm,
            order.purpose,
            &order.actor,
            Duration::from_secs(order.deadline),
            Some(ready),
            Handed::default(),
        ),
        None => supervise(site, vm, purpose(site, vm)?, &Actor::Supervisor, DEADLINE, None, Handed::default()),
    }
}

/// What systemd alone wants of the VM.
fn purpose(site: &Site, vm: Uuid) -> Result<Purpose> {
    let Some(record) = site.store()?.get(vm)? else {
        return Err(Error::not_found(format!("there is no VM `{vm}`")).hint("`v vm ls -v` shows the uuids"));
    };
    let runs = record.runtime.and_then(|runtime| runtime.hypervisor).is_some_and(|handle| handle.is_alive());
    // One that cannot be asked brings nothing up that may have been stopped.
    let restarted = || Unit::of(vm).is_restarted().unwrap_or(true);
    Ok(if runs || restarted() { Purpose::Adopt } else { Purpose::Start })
}

/// In `systemctl status`: the VM's name, and where it stands.
pub(super) fn tell_state(spec: &VmSpec, state: State) {
    host::tell_manager(&format!("STATUS={}: {state}", spec.name));
}

/// After the unit's main process has ended. Only a supervisor that systemd killed because it did not
/// stop in its time leaves something to do: the VM was to end.
pub fn after_unit(site: &Site, vm: Uuid) -> Result<()> {
    if std::env::var_os("SERVICE_RESULT").is_none_or(|result| result != "timeout") {
        return Ok(());
    }
    let exit = vm::kill_unwatched(site, &mut site.store()?, vm)?;
    tracing::warn!(%exit, "its supervisor hung: the power was cut");
    Ok(())
}
