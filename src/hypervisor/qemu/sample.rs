//! A VM for this folder's tests, and the smallest guest that shows it lives.

use std::path::PathBuf;

use uuid::Uuid;

use crate::spec::{Accel, Boot, Disk, HypervisorKind, Link, Name, Nic, Switch, VmSpec};

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Without disks and NICs, under TCG.
pub(super) fn spec(boot: Boot) -> VmSpec {
    VmSpec {
        number: 7,
        name: name("web-1"),
        hypervisor: HypervisorKind::Qemu,
        accel: Accel::Tcg,
        vcpu: 2,
        boot,
        ..VmSpec::sample(Uuid::parse_str("6f1b0a1e-91a7-4d2c-9d52-0123456789ab").unwrap())
    }
}

pub(super) fn disk(text: &str, readonly: bool) -> Disk {
    Disk { name: name(text), source: None, size: None, readonly }
}

pub(super) fn nic(vm: Uuid, index: u8, link: Link) -> Nic {
    Nic::new(vm, index, name("main"), link)
}

pub(super) fn vhost() -> Link {
    Link::Vhost { bridge: "vsbr0".to_owned(), create: true }
}

pub(super) fn tap() -> Link {
    Link::Tap { bridge: "br0".to_owned(), switch: Switch::Bridge, create: true }
}

pub(super) fn firmware() -> Boot {
    Boot::Firmware {
        code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
        vars: Some("/usr/share/OVMF/OVMF_VARS_4M.fd".into()),
    }
}

pub(super) fn kernel(path: impl Into<PathBuf>) -> Boot {
    Boot::Kernel { kernel: path.into(), initramfs: None, cmdline: String::new() }
}

/// What the guest does after it has written [`LINE`] to the serial port.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    Halt,
    /// Through the chipset's ACPI registers, which SeaBIOS puts at 0x600.
    PowerOff,
    /// Through the chipset's reset register.
    Reset,
}

pub(super) const LINE: &str = "the guest is here\r\n";

/// A 64-bit ELF with a PVH note, whose 32-bit code QEMU's firmware jumps to.
pub(super) fn payload(then: Then) -> Vec<u8> {
    const BASE: u64 = 0x10_0000;
    const HEADERS: u64 = 64 + 2 * 56;
    const NOTE: u64 = 24;
    const ENTRY: u64 = BASE + HEADERS + NOTE;
    // lodsb; test al, al; jz +7; mov dx, 0x3f8; out dx, al; jmp -12
    let print = [0xac, 0x84, 0xc0, 0x74, 0x07, 0x66, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf4];
    let then: &[u8] = match then {
        Then::Halt => &[],
        // mov dx, 0x604; mov ax, 0x2000; out dx, ax
        Then::PowerOff => &[0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef],
        // mov dx, 0xcf9; mov al, 6; out dx, al
        Then::Reset => &[0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee],
    };
    // hlt; jmp -3
    let halt = [0xf4, 0xeb, 0xfd];
    let line_at = ENTRY as usize + 5 + print.len() + then.len() + halt.len();
    // mov esi, line
    let mut code = vec![0xbe];
    code.extend((line_at as u32).to_le_bytes());
    code.extend([print.as_slice(), then, &halt, LINE.as_bytes(), &[0]].concat());
    let size = HEADERS + NOTE + code.len() as u64;

    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let half = |elf: &mut Vec<u8>, values: &[u16]| elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let word = |elf: &mut Vec<u8>, values: &[u32]| elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let long = |elf: &mut Vec<u8>, values: &[u64]| elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    half(&mut elf, &[2, 62]); // executable, x86-64
    word(&mut elf, &[1]);
    long(&mut elf, &[ENTRY, 64, 0]);
    word(&mut elf, &[0]);
    half(&mut elf, &[64, 56, 2, 0, 0, 0]);
    word(&mut elf, &[1, 7]); // PT_LOAD, rwx
    long(&mut elf, &[0, BASE, BASE, size, size, 4096]);
    word(&mut elf, &[4, 4]); // PT_NOTE, r
    long(&mut elf, &[HEADERS, BASE + HEADERS, BASE + HEADERS, NOTE, NOTE, 4]);
    word(&mut elf, &[4, 8, 18]); // XEN_ELFNOTE_PHYS32_ENTRY
    elf.extend(b"Xen\0");
    long(&mut elf, &[ENTRY]);
    elf.extend(code);
    elf
}
