use crate::host;
use crate::spec::{Limits, VmSpec};
use crate::vm;

/// Holds the unit that this process is, and the hypervisor it is about to start, to the VM's limits.
/// A VM that comes up without them is better than none; whoever started it was warned.
pub(super) fn apply(spec: &VmSpec) {
    let limits = &spec.policy.limits;
    if *limits == Limits::default() {
        return;
    }
    if !host::is_unit() {
        tracing::warn!("nothing holds it to its limits: it is no unit of systemd");
        return;
    }
    match vm::limit(spec.uuid, limits) {
        Ok(()) => tracing::info!(?limits, "limited"),
        Err(error) => tracing::error!(%error, "it is not held to its limits"),
    }
}
