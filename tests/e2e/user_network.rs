use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::time::Duration;

use libtest_mimic::Trial;

use rustix::process::Signal;

use super::clean_stop::{ORDERLY, Writer};
use super::{BOOT, ODD, Stage};
use crate::fixtures::ports::free_port;
use crate::trials;
use crate::world::{Outcome, eventually, exercised, need_root, v};

pub fn trials() -> Vec<Trial> {
    trials![an_ordinary_user_reaches_a_guest]
}

/// What who listens there says first.
fn banner(port: u16) -> String {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    line
}

/// `nobody`: no privileges at all, no group, no /dev/kvm.
const NOBODY: u32 = 65534;

fn an_ordinary_user_reaches_a_guest() -> Outcome {
    let mut stage = Stage::new()?;
    let as_user = need_root().is_ok();
    let dir = stage.world.dir().to_owned();
    stage.world.config(&format!(
        "[node]\nhypervisor = \"qemu\"\naccel = \"tcg\"\n\
         [[template.vm]]\nname = \"xs\"\nvcpu = 2\nvram = \"768MiB\"\n\
         [[template.vm.disk]]\nname = \"os\"\npath = \"{}\"\nsize = \"3G\"\n\
         [[template.vm.net]]\nname = \"slirp\"\ntype = \"user\"\n",
        dir.join("debian.raw").display()
    ));
    // The image may lie where an ordinary user cannot look: a link to its blocks, not a copy.
    std::fs::hard_link(&stage.guest.disk, dir.join("debian.raw"))
        .or_else(|_| std::fs::copy(&stage.guest.disk, dir.join("debian.raw")).map(drop))
        .expect("the image");
    // Odd characters by every way in: a key's comment (made in `Stage`), and raw user-data.
    let raw = format!(
        "#cloud-config\nwrite_files:\n- path: /etc/odd\n  content: {}\n",
        serde_json::to_string(ODD).expect("JSON")
    );
    let raw = stage.world.file("raw.yaml", raw);
    let key = std::fs::read_to_string(stage.key.with_extension("pub")).expect("the key");
    let users = format!("[[user]]\nname = \"anon\"\n[user.ssh]\nauthorized_keys = ['''{}''']\n", key.trim());
    let users = stage.world.file("users.toml", users);
    if as_user {
        // The program may lie where an ordinary user cannot look, too.
        let program = dir.join("v");
        std::fs::copy(v(), &program).expect("a copy of v");
        stage.world.use_program(&program);
        stage.world.become_user(NOBODY, NOBODY);
        exercised("privileges", "an ordinary user (session, user network)");
    }
    let world = &stage.world;
    let args = [
        "vm",
        "create",
        "-t",
        "xs",
        "-n",
        "guest",
        "-u",
        users.to_str().expect("a path"),
        "-u",
        raw.to_str().expect("a path"),
    ];
    world.v(args).ok();
    let started = std::time::Instant::now();
    world.v(["vm", "start", "guest"]).ok();
    world.v(["vm", "wait", "guest", "--timeout", BOOT]).ok();
    exercised("seconds from start to ssh (TCG, UEFI, beside other tests)", &format!("{}", started.elapsed().as_secs()));

    let said = |command: &str| stage.ssh("guest", command).ok().stdout.trim().to_owned();
    assert_eq!(said("hostname"), "guest");
    assert_eq!(said("id -un"), "anon");
    assert_eq!(said("sudo id -un"), "root");
    assert_eq!(said("cat /etc/odd"), ODD, "every character arrived");
    assert!(said("cat ~/.ssh/authorized_keys").contains("test \"it's\" $(id)"));
    let size: u64 = said("df -B1 --output=size / | tail -1").parse().expect("a size");
    assert!(size > 2 << 30, "the root file system has grown: {size}");
    let address = world.row("guest")["address"].as_str().expect("an address").to_owned();
    assert!(address.starts_with("127.0.0.1:"), "ssh is forwarded: {address}");

    // Its supervisor is killed: the guest notices nothing, and the next command watches over it again.
    stage.kill_supervisor("guest", Signal::KILL);
    eventually("it is seen", Duration::from_secs(10), || world.row("guest")["unwatched"] == true);
    assert_eq!(said("hostname"), "guest");
    assert_eq!(world.row("guest")["unwatched"], false);

    // Again, and a stop at once: the new supervisor presses the power button, the guest shuts down
    // in order and loses nothing.
    let writer = Writer::start(&stage, "guest", "stop-after-kill-9");
    stage.kill_supervisor("guest", Signal::KILL);
    world.v(["vm", "stop", "guest", "--timeout", "120"]).ok();
    assert_eq!(world.row("guest")["last_exit"]["reason"], "stopped");
    writer.check(&stage, "guest", "stop-after-kill-9");

    // As a service manager or the host's shutdown ends it.
    world.v(["vm", "start", "--wait", "guest", "--timeout", BOOT]).ok();
    let writer = Writer::start(&stage, "guest", "sigterm");
    stage.kill_supervisor("guest", Signal::TERM);
    world.v(["vm", "wait", "guest", "--for", "stopped", "--timeout", "120"]).ok();
    assert_eq!(world.row("guest")["last_exit"]["reason"], "stopped");
    writer.check(&stage, "guest", "sigterm");

    // It gets another name, and its guest takes it over without taking itself for a new machine.
    world.v(["vm", "rename", "guest", "renamed"]).ok();
    world.v(["vm", "start", "--wait", "renamed", "--timeout", BOOT]).ok();
    let said = |command: &str| stage.ssh("renamed", command).ok().stdout.trim().to_owned();
    assert_eq!(said("hostname; cat /etc/hostname"), "renamed\nrenamed");
    assert_eq!(said("sudo ls /var/lib/cloud/instances | wc -l"), "1", "the same instance");
    // Of all boots: a guest that is shut down early in its first one gets another machine id, and
    // `-b -1` would look for the boots of that machine only.
    let journal = said("sudo journalctl --merge --no-pager -o cat");
    for words in ORDERLY {
        assert_eq!(journal.matches(words).count(), 2, "{words:?}, once for each stop:\n{journal}");
    }
    assert_eq!(said("cat /etc/odd"), ODD, "a later boot finds the same seed and the same disk");

    // A port leads to it while it runs.
    let port = free_port();
    let declared = format!(
        "{}[[vm]]\nname = \"renamed\"\ntemplate = \"xs\"\n\
         [[vm.net]]\nname = \"slirp\"\nports = [\"127.0.0.1:{port}:22\"]\n",
        std::fs::read_to_string(world.config_file()).expect("the config")
    );
    world.config(&declared);
    let process = world.info("renamed")["hypervisor_pid"].clone();
    world.v(["apply", "--yes", "--adopt", "renamed"]).ok();
    assert_eq!(world.info("renamed")["hypervisor_pid"], process, "in the same run");
    assert!(banner(port).starts_with("SSH-2.0-"), "it leads to the guest");

    // From inside.
    drop(stage.ssh("renamed", "sudo systemctl poweroff"));
    world.v(["vm", "wait", "renamed", "--for", "stopped", "--timeout", "120"]).ok();
    assert_eq!(world.row("renamed")["last_exit"]["reason"], "powered-off");
    assert_eq!(world.state_of("renamed"), "stopped");

    // One more NIC, which the guest learns of at its next boot.
    world.config(&format!("{declared}[[vm.net]]\nname = \"slirp\"\ntype = \"user\"\n"));
    world.v(["apply", "--yes"]).ok();
    world.v(["vm", "wait", "renamed", "--timeout", BOOT]).ok();
    let addresses = || said("ip -o -4 address show scope global");
    eventually("both NICs are configured", Duration::from_secs(60), || {
        ["10.0.2.15/", "10.0.3.15/"].iter().all(|address| addresses().contains(address))
    });
    assert_eq!(said("sudo ls /var/lib/cloud/instances | wc -l"), "1", "still the same instance");
    assert!(banner(port).starts_with("SSH-2.0-"), "the port leads there by now from the start");
    world.v(["vm", "stop", "renamed", "--timeout", "120"]).ok();
    let log = world.v(["vm", "log", "renamed"]).ok().stdout;
    assert!(!log.is_empty(), "its console was kept");
    world.v(["vm", "delete", "renamed"]).ok();
    eventually("nothing is left", Duration::from_secs(10), || world.ls().is_empty());
    world.assert_empty();
    Ok(())
}
