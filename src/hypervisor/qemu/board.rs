//! What differs between the machines that QEMU is asked for, by the host's architecture.
//!
//! Every PCI device has a fixed slot of the root bus, because guests name their interfaces after
//! it: the NIC with index 0 is always `enp0s16`, whatever else is plugged in.
//!
//! | slot        | device                     |
//! |-------------|----------------------------|
//! | 0x01        | the watchdog               |
//! | 0x02        | random numbers; and, as its second function, the line to this host |
//! | 0x03 - 0x0f | disks in order, seed last  |
//! | 0x10 - 0x1e | NICs by index              |

use crate::error::{Error, Result};

/// One architecture's machine.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) arch: &'static str,
    /// `-machine`, without the parts that depend on the VM.
    machine: &'static str,
    /// Added to it under KVM.
    machine_kvm: &'static str,
}

const BOARDS: [Board; 2] = [
    // Under TCG the HPET stays: without hardware virtualisation guests calibrate their clock on it.
    Board { arch: "x86_64", machine: "q35,usb=off,vmport=off,dump-guest-core=off", machine_kvm: ",hpet=off" },
    Board { arch: "aarch64", machine: "virt,usb=off,gic-version=max,dump-guest-core=off", machine_kvm: "" },
];

impl Board {
    pub(super) fn of(arch: &str) -> Result<&'static Board> {
        BOARDS.iter().find(|board| board.arch == arch).ok_or_else(|| {
            Error::usage(format!("no QEMU machine is known for the architecture `{arch}`"))
                .hint("QEMU guests run on x86_64 and aarch64 hosts")
        })
    }

    pub(super) fn machine(&self, kvm: bool) -> String {
        format!("{}{}", self.machine, if kvm { self.machine_kvm } else { "" })
    }
}

pub(super) const WATCHDOG_SLOT: &str = "0x1";
pub(super) const RNG_SLOT: &str = "0x2";
/// No slot is free, and none of the others may move.
pub(super) const VSOCK_SLOT: &str = "0x2.1";

const DISKS: std::ops::RangeInclusive<usize> = 0x03..=0x0f;
const NICS: std::ops::RangeInclusive<usize> = 0x10..=0x1e;

/// The slot of the disk at `position`.
pub(super) fn disk_slot(position: usize) -> Result<String> {
    slot(DISKS, position).ok_or_else(|| {
        let most = DISKS.count();
        Error::usage(format!("the VM has more than {most} disks, and {most} are the most under QEMU"))
            .hint("the first-boot volume counts as one; cloud-hypervisor takes more")
    })
}

/// The slot of the NIC with this index.
pub(super) fn nic_slot(index: u8) -> Result<String> {
    slot(NICS, index.into()).ok_or_else(|| {
        let most = NICS.count();
        Error::usage(format!("the VM has a NIC with index {index}, and {} is the highest under QEMU", most - 1))
            .hint(format!("plug in at most {most} NICs; cloud-hypervisor takes more"))
    })
}

fn slot(slots: std::ops::RangeInclusive<usize>, position: usize) -> Option<String> {
    let slot = slots.start().checked_add(position)?;
    slots.contains(&slot).then(|| format!("{slot:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_never_meet() {
        assert_eq!(disk_slot(0).unwrap(), "0x3");
        assert_eq!(disk_slot(12).unwrap(), "0xf");
        assert!(disk_slot(13).is_err());
        assert_eq!(nic_slot(0).unwrap(), "0x10");
        assert_eq!(nic_slot(14).unwrap(), "0x1e");
        assert!(nic_slot(15).is_err());
        assert!(nic_slot(255).is_err());
    }

    #[test]
    fn an_unknown_architecture_is_named() {
        assert!(Board::of("riscv64").unwrap_err().message().contains("`riscv64`"));
    }
}
