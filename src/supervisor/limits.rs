use crate::host::{self, Unit};
use crate::spec::{Limits, VmSpec};

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
    let properties = properties(limits);
    match Unit::of(spec.uuid).limit(&properties) {
        Ok(()) => tracing::info!(limits = properties.join(" "), "limited"),
        Err(error) => tracing::error!(%error, "it is not held to its limits"),
    }
}

/// Memory is what is resident. Swap is not bounded: a guest that is swapped out is slow, and one
/// that may not be is killed.
fn properties(limits: &Limits) -> Vec<String> {
    let cpus = limits.millicpus.map(|millicpus| format!("CPUQuota={}.{}%", millicpus / 10, millicpus % 10));
    let memory = limits.memory.map(|memory| format!("MemoryMax={}", memory.bytes()));
    cpus.into_iter().chain(memory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Size;

    #[test]
    fn limits_in_systemd_s_words() {
        let rows = [
            (Limits { millicpus: Some(1500), memory: None }, vec!["CPUQuota=150.0%"]),
            (
                Limits { millicpus: Some(1), memory: Some(Size::from_bytes(1 << 30)) },
                vec!["CPUQuota=0.1%", "MemoryMax=1073741824"],
            ),
            (Limits::default(), vec![]),
        ];
        for (limits, expected) in rows {
            assert_eq!(properties(&limits), expected, "{limits:?}");
        }
    }
}
