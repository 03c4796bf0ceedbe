//! The kernel's settings that let packets pass, noted before they are changed.

use crate::error::Result;
use crate::network::keep;
use crate::spec::NetworkSpec;
use crate::store::Store;

/// Whether packets pass through this host from and to the network.
fn is_routed(spec: &NetworkSpec) -> bool {
    spec.host.as_ref().is_some_and(|host| !host.isolated)
}

pub(super) fn switch_on(store: &mut Store, spec: &NetworkSpec) -> Result<()> {
    if !is_routed(spec) {
        return Ok(());
    }
    let plan = keep::plan_forwarding(spec.host.as_ref().is_some_and(|host| host.address6.is_some()))?;
    for (path, before) in &plan.notes {
        store.note_setting(path, before)?;
    }
    keep::write_settings(&plan)
}

/// Puts back what was changed, once no other network needs it.
pub(super) fn switch_off(store: &mut Store, spec: &NetworkSpec) -> Result<()> {
    if store.networks()?.iter().any(|other| other.spec.name != spec.name && is_routed(&other.spec)) {
        return Ok(());
    }
    let notes = store.settings()?;
    if notes.is_empty() {
        return Ok(());
    }
    keep::restore_settings(&notes)?;
    store.forget_settings()
}
