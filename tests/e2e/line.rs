//! The way into a guest that needs no network: its NIC is down, and ssh still gets in.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;

use super::{BOOT, Stage};
use crate::trials;
use crate::world::{Outcome, exercised, need_program, need_root, run, v};

pub fn trials() -> Vec<Trial> {
    trials![ssh_without_a_network]
}

/// `nobody`.
const NOBODY: u32 = 65534;

fn ssh_without_a_network() -> Outcome {
    let by = match Path::new("/dev/vhost-vsock").exists() {
        true => "vhost-vsock of the kernel",
        false => {
            need_program("vhost-device-vsock")?;
            "vhost-device-vsock"
        }
    };
    let mut stage = Stage::new()?;
    let (kernel, initrd) = stage.for_others();
    let disk = stage.world.dir().join("debian.raw");
    // The image may lie where an ordinary user cannot look: a link to its blocks, not a copy.
    std::fs::hard_link(&stage.guest.disk, &disk)
        .or_else(|_| std::fs::copy(&stage.guest.disk, &disk).map(drop))
        .expect("the image");
    stage.world.config(&format!(
        "[node]\nhypervisor = \"qemu\"\naccel = \"tcg\"\n\
         [[template.vm]]\nname = \"xs\"\nvcpu = 1\nvram = \"512MiB\"\n\
         kernel = {kernel:?}\ninitramfs = {initrd:?}\ncmdline = {:?}\n\
         [[template.vm.disk]]\nname = \"os\"\npath = {disk:?}\n\
         [[template.vm.net]]\nname = \"slirp\"\ntype = \"user\"\n",
        stage.guest.cmdline
    ));
    if need_root().is_ok() {
        let program = stage.world.dir().join("v");
        std::fs::copy(v(), &program).expect("a copy of v");
        stage.world.use_program(&program);
        stage.world.become_user(NOBODY, NOBODY);
    }
    let world = &stage.world;
    world.v(["vm", "create", "-t", "xs", "-n", "quiet", "--start"]).ok();
    world.v(["vm", "wait", "quiet", "--timeout", BOOT]).ok();
    exercised("guest's line (AF_VSOCK)", &format!("{by}, an ordinary user's QEMU"));

    let config = world.file("ssh_config", world.v(["ssh-config"]).ok().stdout);
    let (config, key) = (config.to_str().expect("a path"), stage.key.to_str().expect("a path"));
    let ssh = |command: &str| {
        run(world.other("ssh", ["-F", config, "-i", key, "vm/quiet", command]), Duration::from_secs(120))
    };
    assert_eq!(ssh("hostname").ok().stdout.trim(), "quiet", "while its network is there");

    let nic = stage.ssh("quiet", "basename $(ls -d /sys/class/net/*/device | xargs dirname)").ok().stdout;
    let down = format!("sudo ip link set {0} down; ip -o link show {0}; ip -o address show scope global", nic.trim());
    let link = stage.ssh("quiet", &down).ok().stdout;
    assert!(link.contains("state DOWN"), "{link}");
    assert!(!link.contains("inet "), "it has no address: {link}");

    assert_eq!(ssh("hostname; id -un").ok().stdout, "quiet\ntester\n", "ssh vm/quiet");
    let state = format!("cat /sys/class/net/{}/operstate", nic.trim());
    assert_eq!(stage.ssh("quiet", &state).ok().stdout.trim(), "down", "`v vm ssh`, and its network is still down");
    let long = ssh("head -c 3000000 /dev/zero | tr '\\0' x").ok().stdout;
    assert!(long.len() == 3_000_000 && long.bytes().all(|byte| byte == b'x'), "{} bytes came", long.len());

    world.v(["vm", "delete", "--force", "quiet"]).ok();
    world.assert_empty();
    Ok(())
}
