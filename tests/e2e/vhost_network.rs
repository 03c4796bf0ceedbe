use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use virshle::host::Dirs;
use virshle::spec::Size;
use virshle::vm::{self, Site};

use super::clean_stop::Writer;
use super::liar::Lie;
use super::side::Side;
use super::{BOOT, Stage};
use crate::fixtures::netns::on_private_host;
use crate::fixtures::ovs::PrivateOvs;
use crate::fixtures::ping::Ping;
use crate::trials;
use crate::world::{Outcome, eventually, exercised, need_program, skip};

pub fn trials() -> Vec<Trial> {
    trials![a_guest_on_a_real_switch]
}

fn a_guest_on_a_real_switch() -> Outcome {
    for program in ["ip", "nft", "dnsmasq"] {
        need_program(program)?;
    }
    let stage = Stage::new()?;
    let hosts = stage.world.file("hosts", "127.0.0.1 localhost\n");
    match on_private_host(&hosts, || a_guest(&stage)) {
        Ok(outcome) => outcome,
        Err(reason) => skip(reason),
    }
}

fn a_guest(stage: &Stage) -> Outcome {
    let ovs = match PrivateOvs::start(true) {
        Ok(ovs) => ovs,
        Err(reason) => return skip(reason),
    };
    exercised("switch", "Open vSwitch with DPDK (vhost, a real guest)");
    let bridge = "vsbrtest";
    let world = &stage.world;
    // Root makes the port; QEMU runs as nobody.
    let (kernel, initrd) = stage.for_others();
    // The kernel is handed over directly: the other test boots by the firmware.
    world.config(&format!(
        "[node]\nhypervisor = \"qemu\"\naccel = \"tcg\"\nuser = \"nobody\"\novs-db = \"{}\"\n\
         [[network]]\nname = \"main\"\nbridge = \"{bridge}\"\nsubnet = \"10.99.44.0/24\"\n\
         [[template.vm]]\nname = \"xs\"\nvcpu = 1\nvcpu-max = 2\nvram = \"768MiB\"\nvram-max = \"1GiB\"\n\
         kernel = {:?}\ninitramfs = {:?}\ncmdline = {:?}\n\
         [[template.vm.disk]]\nname = \"os\"\npath = {:?}\n\
         [[template.vm.net]]\nname = \"main\"\n[template.vm.net.type.vhost]\n",
        ovs.db, kernel, initrd, stage.guest.cmdline, stage.guest.disk
    ));
    let talk = stage.with_talk();
    let create = ["vm", "create", "-t", "xs", "-n", "plugged", "--start"];
    world.v(create.into_iter().chain(talk.iter().map(String::as_str))).ok();
    assert_eq!(world.row("plugged")["address"], "10.99.44.2");
    assert_eq!(world.info("plugged")["hypervisor_user"], "nobody");
    exercised("privileges", "root, with a QEMU that runs as another user (vhost)");
    world.v(["vm", "wait", "plugged", "--timeout", BOOT]).ok();
    let said = |command: &str| stage.ssh("plugged", command).ok().stdout.trim().to_owned();
    assert_eq!(said("hostname"), "plugged");
    assert_eq!(said("id -un"), "tester");
    let addresses = said("ip -4 -o address show scope global");
    assert!(addresses.contains("10.99.44.2/24"), "its static address: {addresses}");
    let mac = world.row("plugged")["nics"][0]["mac"].as_str().expect("a MAC").to_owned();
    assert!(said("ip -o link").contains(&mac), "its MAC");
    assert!(said("ip route show default").contains("10.99.44.1"), "its gateway");
    // Switched, not looped back: the port's own counters have seen it.
    let statistics = ovs.vsctl(&["get", "Interface", "v1n0", "statistics:rx_packets"]).expect("statistics");
    assert!(statistics.trim().parse::<u64>().expect("a count") > 10, "{statistics}");
    it_grows(stage);
    a_liar_is_not_heard(stage);
    the_switch_fails(stage, &ovs, bridge);
    // A switch that was started anew, and a port that was made anew, have the guard as well.
    a_liar_is_not_heard(stage);

    let writer = Writer::start(stage, "plugged", "v-vm-stop");
    world.v(["vm", "stop", "plugged", "--timeout", "120"]).ok();
    assert_eq!(world.row("plugged")["last_exit"]["reason"], "stopped");
    writer.check(stage, "plugged", "v-vm-stop");
    assert_eq!(ovs.vsctl(&["list-ports", bridge]).expect("ports").trim(), "");
    world.v(["vm", "delete", "plugged"]).ok();
    world.v(["network", "down", "--all"]).ok();
    assert_eq!(ovs.vsctl(&["list-br"]).expect("bridges").trim(), "");
    world.assert_empty();
    Ok(())
}

/// The guest uses what it is given, and so does the switch, which maps its memory.
fn it_grows(stage: &Stage) {
    let world = &stage.world;
    let guest = Side::of(stage, "plugged");
    let count = |command: &str| guest.said(command).parse::<u64>().expect("a number");
    let memory = || count("awk '/MemTotal/ { print $2 }' /proc/meminfo") >> 10;
    let disk = || count("cat /sys/block/vda/size") >> 11;
    let (memory_before, disk_before) = (memory(), disk());
    assert_eq!(count("nproc"), 1);
    let hypervisor = world.info("plugged")["hypervisor_pid"].clone();

    let site = Site::new(Dirs::find(Some(&world.root())).expect("the folders"));
    let mut store = site.store().expect("the store opens");
    let uuid = world.info("plugged")["uuid"].as_str().and_then(|uuid| uuid.parse().ok()).expect("a UUID");
    vm::resize(&site, &mut store, uuid, Some(2), Some(Size::gib(1))).expect("it is given more");
    let os = "os".parse().expect("a name");
    vm::grow_disk(&site, &mut store, uuid, &os, Size::mib(disk_before + 64)).expect("its disk grows");
    eventually("the guest uses it", Duration::from_secs(60), || {
        (count("nproc"), memory().saturating_sub(memory_before), disk() - disk_before) == (2, 256, 64)
    });
    // Its memory's pages come from what was added, too: the switch reads and writes them.
    let sum = guest.said("head -c 300000000 /dev/zero | tail -c 300000000 | wc -c");
    assert_eq!(sum, "300000000");
    assert_eq!(world.info("plugged")["hypervisor_pid"], hypervisor, "the same run");
    exercised("grown while it runs", "a real guest, with its vhost NIC");
}

/// There is no neighbour whose address it could take: any other is none of its own.
fn a_liar_is_not_heard(stage: &Stage) {
    let guest = Side::of(stage, "plugged");
    let segments = guest.ip6.segments();
    let ip6 = [&segments[..7], &[0x4d]].concat();
    let ip6 = <[u16; 8]>::try_from(ip6).expect("eight").into();
    guest.lies(&Lie { ip: Ipv4Addr::new(10, 99, 44, 77), ip6, mac: "52:54:00:00:00:77".to_owned() });
}

/// While the host pings the guest: whatever is done to the switch, the loss ends by itself.
fn the_switch_fails(stage: &Stage, ovs: &PrivateOvs, bridge: &str) {
    let world = &stage.world;
    let ping = Ping::start(Ipv4Addr::new(10, 99, 44, 2));
    eventually("the guest answers", Duration::from_secs(30), || ping.answers());
    let rows: [(&str, &dyn Fn()); 4] = [
        ("its port was deleted", &|| drop(ovs.vsctl(&["del-port", bridge, "v1n0"]).expect("del-port"))),
        ("ovs-vswitchd was killed", &|| {
            ovs.kill_switch();
            ovs.start_switch().expect("ovs-vswitchd");
        }),
        ("ovsdb-server was restarted", &|| {
            ovs.stop_database();
            ovs.start_database().expect("ovsdb-server");
        }),
        ("its port was deleted after that", &|| drop(ovs.vsctl(&["del-port", bridge, "v1n0"]).expect("del-port"))),
    ];
    for (what, harm) in rows {
        let before = Instant::now();
        harm();
        // What was on its way may still be answered.
        std::thread::sleep(Duration::from_secs(2));
        eventually(what, Duration::from_secs(90), || ping.answers());
        eventually("all is well again", Duration::from_secs(30), || {
            world.row("plugged")["troubles"].as_array().is_some_and(Vec::is_empty)
        });
        exercised(
            &format!("seconds without the guest when {what}"),
            &format!("{:.1}", ping.silence(before).as_secs_f32()),
        );
    }
    assert_eq!(ovs.vsctl(&["list-ports", bridge]).expect("ports").trim(), "v1n0");
    let log = world.v(["vm", "log", "--supervisor", "plugged"]).ok().stdout;
    assert_eq!(log.matches("is gone from its switch").count(), 2, "{log}");
}
