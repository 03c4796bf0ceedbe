use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::host::Gate;
use crate::hypervisor::qemu::sample;

fn with_paths(dir: &str, run: &str, spec: &VmSpec, ssh: Option<u16>) -> Result<Vec<String>> {
    let launch = Launch {
        spec,
        program: Path::new("/usr/bin/qemu-system-x86_64"),
        dir: Path::new(dir),
        run: Path::new(run),
        gate: Gate { program: PathBuf::new(), runner: None },
        landlock: true,
        taps: Vec::new(),
        ssh: ssh.map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)),
        vsock: spec.vsock.map(|_| Vsock::Program),
        log: Path::new("/vm/launch.log"),
        deadline: Duration::from_secs(5),
    };
    argv_for(Board::of("x86_64").unwrap(), &launch)
}

fn of(spec: &VmSpec) -> Vec<String> {
    with_paths("/vm", "/run/vm", spec, None).unwrap()
}

/// One option and its value per line.
fn lines(argv: &[String]) -> String {
    let mut text = String::new();
    for word in argv {
        text.push(if word.starts_with('-') { '\n' } else { ' ' });
        text.push_str(word);
    }
    text.trim_start().to_owned()
}

fn assert_lines(argv: &[String], expected: &str) {
    // Rows that are the same for every VM are left out of the tables below, but not forgotten.
    let common = [
        "-name guest=web-1,debug-threads=on",
        "-uuid 6f1b0a1e-91a7-4d2c-9d52-0123456789ab",
        "-nodefaults",
        "-no-user-config",
        "-S",
        "-boot strict=on",
        "-smp 2",
        "-serial chardev:serial",
        r#"-device {"driver":"virtio-rng-pci","id":"rng","bus":"pcie.0","addr":"0x2"}"#,
        "-display none",
        "-vga none",
        "-rtc base=utc",
        "-chardev socket,id=qmp,fd=3,server=on,wait=off",
        "-mon chardev=qmp,mode=control",
        "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ];
    let text = lines(argv);
    let mut rest: Vec<&str> = text.lines().collect();
    for row in common {
        let at = rest.iter().position(|line| *line == row).unwrap_or_else(|| panic!("no `{row}` in\n{text}"));
        rest.remove(at);
    }
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(rest, expected, "\n{}", rest.join("\n"));
}

fn value<'a>(argv: &'a [String], option: &str) -> Vec<&'a str> {
    argv.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
}

fn devices(argv: &[String]) -> Vec<Value> {
    value(argv, "-device").iter().map(|json| serde_json::from_str(json).unwrap()).collect()
}

#[test]
fn user_nic_and_firmware_under_tcg() {
    let mut spec = sample::spec(sample::firmware());
    spec.disks = vec![sample::disk("os", false), sample::disk("a-name-of-more-than-twenty-bytes", true)];
    spec.seed = true;
    spec.nics = vec![sample::nic(spec.uuid, 0, Link::User), sample::nic(spec.uuid, 1, Link::User)];
    spec.nics[0].forwards = vec!["8080:80".parse().unwrap()];
    spec.nics[1].forwards = vec!["127.0.0.1:5353:53/udp".parse().unwrap()];
    let argv = with_paths("/vm", "/run/vm", &spec, Some(2222)).unwrap();
    assert_lines(
        &argv,
        r#"
        -blockdev {"driver":"raw","node-name":"code","read-only":true,"discard":"unmap","file":{"driver":"file","filename":"/usr/share/OVMF/OVMF_CODE_4M.fd","aio":"threads","locking":"on","discard":"unmap"}}
        -blockdev {"driver":"raw","node-name":"vars","read-only":false,"discard":"unmap","file":{"driver":"file","filename":"/vm/efivars.fd","aio":"threads","locking":"on","discard":"unmap"}}
        -machine q35,usb=off,vmport=off,dump-guest-core=off,pflash0=code,pflash1=vars
        -accel tcg,thread=multi
        -cpu max
        -m size=64M
        -blockdev {"driver":"raw","node-name":"disk0","read-only":false,"discard":"unmap","file":{"driver":"file","filename":"/vm/os.raw","aio":"threads","locking":"on","discard":"unmap"}}
        -device {"driver":"virtio-blk-pci","id":"disk0","drive":"disk0","bus":"pcie.0","addr":"0x3","serial":"os","bootindex":1}
        -blockdev {"driver":"raw","node-name":"disk1","read-only":true,"discard":"unmap","file":{"driver":"file","filename":"/vm/a-name-of-more-than-twenty-bytes.raw","aio":"threads","locking":"on","discard":"unmap"}}
        -device {"driver":"virtio-blk-pci","id":"disk1","drive":"disk1","bus":"pcie.0","addr":"0x4"}
        -blockdev {"driver":"raw","node-name":"disk2","read-only":true,"discard":"unmap","file":{"driver":"file","filename":"/vm/seed.img","aio":"threads","locking":"on","discard":"unmap"}}
        -device {"driver":"virtio-blk-pci","id":"disk2","drive":"disk2","bus":"pcie.0","addr":"0x5"}
        -netdev user,id=net0,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=tcp::8080-:80
        -device {"driver":"virtio-net-pci","id":"nic0","netdev":"net0","mac":"6e:1b:0a:1e:91:a7","bus":"pcie.0","addr":"0x10","romfile":""}
        -netdev user,id=net1,net=10.0.3.0/24,hostfwd=udp:127.0.0.1:5353-:53
        -device {"driver":"virtio-net-pci","id":"nic1","netdev":"net1","mac":"6e:1b:0a:1e:91:a8","bus":"pcie.0","addr":"0x11","romfile":""}
        -chardev socket,id=serial,path=/run/vm/serial.sock,server=on,wait=off
        "#,
    );
}

#[test]
fn vhost_and_tap_under_kvm() {
    let mut spec = sample::spec(Boot::Firmware { code: "/fw/code.fd".into(), vars: None });
    spec.accel = Accel::Kvm;
    spec.vram = Size::from_bytes(2 * Size::GIB - 1);
    spec.nics = vec![sample::nic(spec.uuid, 0, sample::vhost()), sample::nic(spec.uuid, 3, sample::tap())];
    assert_lines(
        &of(&spec),
        r#"
        -object {"qom-type":"memory-backend-memfd","id":"mem","size":2147483648,"share":true}
        -blockdev {"driver":"raw","node-name":"code","read-only":true,"discard":"unmap","file":{"driver":"file","filename":"/fw/code.fd","aio":"threads","locking":"on","discard":"unmap"}}
        -machine q35,usb=off,vmport=off,dump-guest-core=off,hpet=off,memory-backend=mem,pflash0=code
        -accel kvm
        -cpu host
        -m size=2048M
        -chardev socket,id=net0-socket,path=/run/vm/n0.sock,server=on,wait=off
        -netdev vhost-user,id=net0,chardev=net0-socket
        -device {"driver":"virtio-net-pci","id":"nic0","netdev":"net0","mac":"6e:1b:0a:1e:91:a7","bus":"pcie.0","addr":"0x10","romfile":""}
        -netdev tap,id=net3,fd=13
        -device {"driver":"virtio-net-pci","id":"nic3","netdev":"net3","mac":"6e:1b:0a:1e:91:aa","bus":"pcie.0","addr":"0x13","romfile":""}
        -chardev socket,id=serial,path=/run/vm/serial.sock,server=on,wait=off
        "#,
    );
}

fn with_vsock(spec: &VmSpec, vsock: Vsock) -> Result<Vec<String>> {
    let launch = Launch {
        spec,
        program: Path::new("/usr/bin/qemu-system-x86_64"),
        dir: Path::new("/vm"),
        run: Path::new("/run/vm"),
        gate: Gate { program: PathBuf::new(), runner: None },
        landlock: true,
        taps: Vec::new(),
        ssh: None,
        vsock: Some(vsock),
        log: Path::new("/vm/launch.log"),
        deadline: Duration::from_secs(5),
    };
    argv_for(Board::of("x86_64").unwrap(), &launch)
}

#[test]
fn the_line_to_this_host_by_the_kernel_or_by_a_program() {
    let mut spec = sample::spec(sample::firmware());
    spec.nics = vec![sample::nic(spec.uuid, 0, sample::tap())];
    let without = devices(&with_vsock(&spec, Vsock::Kernel(None)).unwrap());
    spec.vsock = Some(1_073_741_900);
    let rows = [
        (
            Vsock::Program,
            json!({
                "driver": "vhost-user-vsock-pci", "id": "vsock", "chardev": "vsock-socket",
                "bus": "pcie.0", "addr": "0x2.1", "vectors": 0,
            }),
            true,
        ),
        (
            Vsock::Kernel(None),
            json!({
                "driver": "vhost-vsock-pci", "id": "vsock", "guest-cid": 1_073_741_900, "vhostfd": "4",
                "bus": "pcie.0", "addr": "0x2.1",
            }),
            false,
        ),
    ];
    for (vsock, device, shared) in rows {
        let argv = with_vsock(&spec, vsock).unwrap();
        let found = devices(&argv);
        let at = found.iter().position(|found| *found == device).unwrap_or_else(|| panic!("{found:?}"));
        let mut rest: Vec<_> = found.clone();
        rest.remove(at);
        // The function before it must say that there is one.
        let rng = rest.iter_mut().find(|device| device["id"] == "rng").unwrap();
        assert_eq!(rng.as_object_mut().unwrap().remove("multifunction"), Some(json!(true)));
        assert_eq!(rest, without, "nothing else moves");
        assert_eq!(value(&argv, "-object").iter().any(|object| object.contains("memfd")), shared);
        let chardev = value(&argv, "-chardev").contains(&"socket,id=vsock-socket,path=/run/vm/line.sock");
        assert_eq!(chardev, shared);
    }
    spec.accel = Accel::Kvm;
    let argv = with_vsock(&spec, Vsock::Program).unwrap();
    let found = devices(&argv).into_iter().find(|device| device["id"] == "vsock").unwrap();
    assert_eq!(found.get("vectors"), None, "only TCG needs it");
}

#[test]
fn room_for_more_changes_two_words() {
    let spec = VmSpec { vcpu_max: Some(2), vram_max: Some(Size::mib(64)), ..sample::spec(sample::firmware()) };
    let without = of(&VmSpec { vcpu_max: None, vram_max: None, ..spec.clone() });
    assert_eq!(of(&spec), without, "no more than it begins with");
    let roomy = of(&VmSpec { vcpu_max: Some(8), vram_max: Some(Size::mib(64 + 256)), ..spec });
    assert_eq!(value(&roomy, "-smp"), ["2,maxcpus=8"]);
    assert_eq!(value(&roomy, "-m"), ["size=64M,slots=8,maxmem=320M"]);
    let others = |argv: &[String]| {
        argv.iter().filter(|word| !word.starts_with("2") && !word.starts_with("size=")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(others(&roomy), others(&without));
}

#[test]
fn a_kernel_and_odd_paths() {
    let mut spec = sample::spec(Boot::Kernel {
        kernel: "/k,1/vm linuz=é".into(),
        initramfs: Some("/k,1/initrd \"x\"".into()),
        cmdline: "console=ttyS0 a=b,c -- x".to_owned(),
    });
    spec.disks = vec![sample::disk("os", false)];
    spec.nics = vec![sample::nic(spec.uuid, 0, sample::vhost())];
    let argv = with_paths("/v,m/\"a=b\" é\\", "/r,n/c d=é,", &spec, None).unwrap();
    assert_lines(
        &argv,
        r#"
        -object {"qom-type":"memory-backend-memfd","id":"mem","size":67108864,"share":true}
        -machine q35,usb=off,vmport=off,dump-guest-core=off,memory-backend=mem
        -accel tcg,thread=multi
        -cpu max
        -m size=64M
        -kernel /k,1/vm linuz=é
        -initrd /k,1/initrd "x"
        -append console=ttyS0 a=b,c -- x
        -blockdev {"driver":"raw","node-name":"disk0","read-only":false,"discard":"unmap","file":{"driver":"file","filename":"/v,m/\"a=b\" é\\/os.raw","aio":"threads","locking":"on","discard":"unmap"}}
        -device {"driver":"virtio-blk-pci","id":"disk0","drive":"disk0","bus":"pcie.0","addr":"0x3","serial":"os"}
        -chardev socket,id=net0-socket,path=/r,,n/c d=é,,/n0.sock,server=on,wait=off
        -netdev vhost-user,id=net0,chardev=net0-socket
        -device {"driver":"virtio-net-pci","id":"nic0","netdev":"net0","mac":"6e:1b:0a:1e:91:a7","bus":"pcie.0","addr":"0x10","romfile":"","vectors":0}
        -chardev socket,id=serial,path=/r,,n/c d=é,,/serial.sock,server=on,wait=off
        "#,
    );
}

#[test]
fn a_watchdog_resets() {
    let mut spec = sample::spec(sample::kernel("/k"));
    assert_eq!(value(&of(&spec), "-action"), [""; 0]);
    spec.policy.watchdog = true;
    let argv = of(&spec);
    assert_eq!(value(&argv, "-action"), ["watchdog=reset"]);
    let device = devices(&argv).into_iter().find(|device| device["driver"] == "i6300esb").unwrap();
    assert_eq!(device, json!({"driver": "i6300esb", "id": "watchdog", "bus": "pcie.0", "addr": "0x1"}));
}

#[test]
fn no_value_is_taken_for_an_option() {
    let spec = sample::spec(sample::kernel("-S"));
    let error = with_paths("/vm", "/run/vm", &spec, None).unwrap_err();
    assert!(error.message().contains("`-S`"), "{error}");
}

#[test]
fn two_devices_never_share_a_slot() {
    let mut spec = sample::spec(sample::firmware());
    spec.disks = (0..12).map(|index| sample::disk(&format!("d{index}"), false)).collect();
    spec.seed = true;
    spec.policy.watchdog = true;
    spec.nics = (0..15).map(|index| sample::nic(spec.uuid, index, sample::tap())).collect();
    let devices: Vec<Value> = devices(&of(&spec));
    for key in ["id", "addr"] {
        let all: std::collections::BTreeSet<String> = devices.iter().map(|device| device[key].to_string()).collect();
        assert_eq!(all.len(), 2 + 13 + 15, "{key}");
    }
    spec.disks.push(sample::disk("d12", false));
    let error = with_paths("/vm", "/run/vm", &spec, None).unwrap_err();
    assert!(error.message().contains("13 are the most"), "{error}");
}

#[test]
fn what_cannot_work_is_refused_before_anything_runs() {
    let spec = sample::spec(sample::firmware());
    let no_user = with_paths("/vm", "/run/vm", &spec, Some(2222)).unwrap_err();
    assert!(no_user.message().contains("no `user` NIC"), "{no_user}");

    let long = format!("/{}", "x".repeat(107 - "//serial.sock".len()));
    with_paths("/vm", &long, &spec, None).unwrap();
    let too_long = with_paths("/vm", &format!("{long}x"), &spec, None).unwrap_err();
    assert!(too_long.message().contains("108 bytes"), "{too_long}");

    let bytes = Path::new(std::ffi::OsStr::from_bytes(b"/k\xff"));
    let not_text = with_paths("/vm", "/run/vm", &sample::spec(sample::kernel(bytes)), None).unwrap_err();
    assert!(not_text.message().contains("not valid UTF-8"), "{not_text}");
}

#[test]
fn arm_has_its_own_machine() {
    let spec = sample::spec(sample::firmware());
    let launch = Launch {
        spec: &spec,
        program: Path::new("/usr/bin/qemu-system-aarch64"),
        dir: Path::new("/vm"),
        run: Path::new("/run/vm"),
        gate: Gate { program: PathBuf::new(), runner: None },
        landlock: true,
        taps: Vec::new(),
        ssh: None,
        vsock: None,
        log: Path::new("/vm/launch.log"),
        deadline: Duration::from_secs(5),
    };
    let argv = argv_for(Board::of("aarch64").unwrap(), &launch).unwrap();
    let machine = "virt,usb=off,gic-version=max,dump-guest-core=off,pflash0=code,pflash1=vars";
    assert_eq!(value(&argv, "-machine"), [machine]);
}
