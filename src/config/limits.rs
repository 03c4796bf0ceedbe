//! How large a VM may be; the same limits hold for a template and for what `create` overrides.

use crate::spec::{Size, VmSpec};

/// What both hypervisors can number.
pub const MAX_VCPU: u32 = 255;
/// Below this no firmware starts.
pub const MIN_VRAM: Size = Size::mib(16);
/// Far above any host; it catches a unit that was meant otherwise.
pub const MAX_VRAM: Size = Size::gib(16 * 1024);
/// Together with [`MAX_DISKS`], the first-boot volume and the hypervisor's own devices they fit
/// into the 32 slots of one PCI bus.
pub const MAX_NICS: usize = 8;
pub const MAX_DISKS: usize = 16;
/// A day: what waits longer was meant otherwise.
pub(super) const MAX_SECONDS: u32 = 86_400;
/// Disks are made of whole sectors.
pub(super) const SECTOR: u64 = 512;

/// The reason completes the sentence "`vcpu` …".
pub fn check_vcpu(vcpu: u32) -> Result<(), String> {
    if (1..=MAX_VCPU).contains(&vcpu) {
        return Ok(());
    }
    Err(format!("must be from 1 to {MAX_VCPU}, not `{vcpu}`"))
}

/// The reason completes the sentence "`vram` …".
pub fn check_vram(vram: Size) -> Result<(), String> {
    if vram < MIN_VRAM || vram > MAX_VRAM {
        return Err(format!("must be from {MIN_VRAM} to {MAX_VRAM}, not `{vram}`"));
    }
    if !vram.bytes().is_multiple_of(Size::MIB) {
        return Err(format!("must be whole MiB, like `{}MiB`, not `{vram}`", vram.bytes() / Size::MIB));
    }
    Ok(())
}

/// The reason completes the sentence "`vcpu-max` …".
pub fn check_vcpu_max(vcpu: u32, max: u32) -> Result<(), String> {
    check_vcpu(max)?;
    if max < vcpu {
        return Err(format!("is {max}, less than the `vcpu` of {vcpu}"));
    }
    Ok(())
}

/// The reason completes the sentence "`vram-max` …".
pub fn check_vram_max(vram: Size, max: Size) -> Result<(), String> {
    check_vram(max)?;
    let step = VmSpec::MEMORY_STEP;
    // None more: a guest that has come to all of it.
    let more = max.bytes().checked_sub(vram.bytes());
    if !more.is_some_and(|more| more.is_multiple_of(step.bytes())) {
        return Err(format!("is {max}, and must be the `vram` of {vram}, or more by a multiple of {step}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        for (vcpu, fits) in [(0, false), (1, true), (255, true), (256, false), (u32::MAX, false)] {
            assert_eq!(check_vcpu(vcpu).is_ok(), fits, "{vcpu}");
        }
        let rows = [
            (Size::mib(15), false),
            (Size::mib(16), true),
            (Size::gib(2), true),
            (Size::from_bytes(2 * Size::GIB + 1), false),
            (Size::gib(16 * 1024), true),
            (Size::gib(16 * 1024 + 1), false),
        ];
        for (vram, fits) in rows {
            assert_eq!(check_vram(vram).is_ok(), fits, "{vram}");
        }
    }

    #[test]
    fn room_to_grow() {
        for (vcpu, max, fits) in [(1, 1, true), (1, 255, true), (2, 1, false), (1, 256, false)] {
            assert_eq!(check_vcpu_max(vcpu, max).is_ok(), fits, "{vcpu} {max}");
        }
        let rows = [
            (Size::gib(2), Size::gib(2), true),
            (Size::gib(2), Size::gib(1), false),
            (Size::gib(2), Size::mib(2048 + 64), false),
            (Size::gib(2), Size::mib(2048 + 128), true),
            (Size::mib(300), Size::mib(300 + 256), true),
            (Size::gib(2), Size::gib(16 * 1024), true),
            (Size::gib(2), Size::gib(16 * 1024 + 2), false),
        ];
        for (vram, max, fits) in rows {
            assert_eq!(check_vram_max(vram, max).is_ok(), fits, "{vram} {max}");
        }
    }
}
