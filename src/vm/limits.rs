//! What holds a VM, with its hypervisor, to what it may take: its unit of systemd.

use uuid::Uuid;

use crate::error::{Error, OrFailed, Result};
use crate::host::{Activity, ProgramError, Unit};
use crate::spec::{Limits, Size};

/// Holds the VM's unit to its limits, whatever it was held to.
pub fn limit(vm: Uuid, limits: &Limits) -> Result<(), ProgramError> {
    Unit::of(vm).limit(&properties(limits))
}

/// The same while the VM runs: the kernel would end one that has more memory than it may.
pub(super) fn limit_live(vm: Uuid, limits: &Limits) -> Result<()> {
    let unit = Unit::of(vm);
    let failed = || format!("cannot limit `{}`", unit.name());
    if unit.activity().or_failed(failed)? == Activity::Inactive {
        tracing::warn!("nothing holds it to its limits: it is no unit of systemd");
        return Ok(());
    }
    if let (Some(memory), Some(taken)) = (limits.memory, unit.memory().or_failed(failed)?)
        && taken > memory.bytes()
    {
        return Err(Error::refused(format!("it has {} of memory, and {memory} would end it", Size::from_bytes(taken)))
            .hint("limit it once it is stopped, or to more"));
    }
    limit(vm, limits).or_failed(failed)
}

/// All of them, so that one that is gone is gone. Memory is what is resident. Swap is not bounded: a
/// guest that is swapped out is slow, and one that may not be is killed.
fn properties(limits: &Limits) -> Vec<String> {
    let cpus = limits.millicpus.map(|millicpus| format!("{}.{}%", millicpus / 10, millicpus % 10));
    let memory = limits.memory.map_or_else(|| "infinity".to_owned(), |memory| memory.bytes().to_string());
    vec![format!("CPUQuota={}", cpus.unwrap_or_default()), format!("MemoryMax={memory}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_in_systemd_s_words() {
        let rows = [
            (Limits { millicpus: Some(1500), memory: None }, ["CPUQuota=150.0%", "MemoryMax=infinity"]),
            (
                Limits { millicpus: Some(1), memory: Some(Size::from_bytes(1 << 30)) },
                ["CPUQuota=0.1%", "MemoryMax=1073741824"],
            ),
            (Limits::default(), ["CPUQuota=", "MemoryMax=infinity"]),
        ];
        for (limits, expected) in rows {
            assert_eq!(properties(&limits), expected, "{limits:?}");
        }
    }
}
