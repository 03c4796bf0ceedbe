//! The drivers against a real switch, in a network namespace of their own.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use uuid::Uuid;

use super::netns::in_private_network;
use super::ovs::{Datapath, Ovs, Sight, Sightings, follow};
use super::private_ovs::PrivateOvs;
use super::{Driver, Port, driver};
use crate::error::Kind;
use crate::host::NetDevice;
use crate::spec::{Link, Nic, Switch};

/// Runs it in a namespace with a switch of its own, or says why not.
pub(super) fn with_switch(dpdk: bool, test: impl FnOnce(&PrivateOvs, &Ovs) + Send) {
    with(|| PrivateOvs::start(dpdk), test);
}

/// The same without DPDK, beside others.
pub(super) fn with_switch_beside(test: impl FnOnce(&PrivateOvs, &Ovs) + Send) {
    with(|| PrivateOvs::start_beside("kept"), test);
}

fn with(start: impl FnOnce() -> Result<PrivateOvs, String> + Send, test: impl FnOnce(&PrivateOvs, &Ovs) + Send) {
    let done = in_private_network(|| {
        let switch = start()?;
        test(&switch, &Ovs::new(Some(switch.db.clone())).for_state(Path::new("/var/lib/we \"b, =x")));
        Ok(())
    });
    if let Err(reason) = done.and_then(|done| done) {
        eprintln!("skipped: {reason}");
    }
}

pub(super) struct Machine {
    pub(super) uuid: Uuid,
    pub(super) number: u32,
    pub(super) nic: Nic,
}

impl Machine {
    pub(super) fn new(number: u32, link: Link) -> Self {
        let uuid = Uuid::new_v4();
        let nic = Nic::new(uuid, 0, "main".parse().unwrap(), link);
        Self { uuid, number, nic }
    }

    pub(super) fn port<'a>(&'a self, ovs: &'a Ovs) -> Port<'a> {
        Port { vm: self.uuid, vm_number: self.number, vm_name: "we\"b, =x", nic: &self.nic, ovs }
    }

    pub(super) fn driver(&self) -> &'static dyn Driver {
        driver(&self.nic.link)
    }
}

pub(super) fn vhost(bridge: &str, create: bool) -> Link {
    Link::Vhost { bridge: bridge.into(), create }
}

pub(super) fn tap(bridge: &str, switch: Switch, create: bool) -> Link {
    Link::Tap { bridge: bridge.into(), switch, create }
}

/// Waits until the switch has connected to the socket.
fn is_connected(listener: &UnixListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    let give_up = Instant::now() + Duration::from_secs(3);
    while Instant::now() < give_up {
        match listener.accept() {
            Ok(_) => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("{error}"),
        }
    }
    false
}

pub(super) fn row(switch: &PrivateOvs, table: &str, port: &str, column: &str) -> String {
    switch.vsctl(&["get", table, port, column]).unwrap().trim().to_owned()
}

#[test]
fn a_vhost_port_from_check_to_release() {
    with_switch(true, |switch, ovs| {
        let vm = Machine::new(1, vhost("vsbr0", false));
        let (driver, port) = (vm.driver(), vm.port(ovs));

        let error = driver.check(&port.nic.network, &port.nic.link, port.ovs).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.hint_text().unwrap().contains("datapath_type=netdev"), "{error:?}");
        let error = driver.connect(&port, Path::new("/tmp/n0.sock")).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "no bridge at connect: {error:?}");
        switch.vsctl(&["--no-wait", "add-br", "sysbr"]).unwrap();
        let other = Machine::new(2, vhost("sysbr", true));
        let error = other.driver().check(&other.nic.network, &other.nic.link, ovs).unwrap_err();
        assert!(error.message().contains("needs `netdev`"), "{error:?}");
        let creating = Machine::new(3, vhost("vsbr0", true));
        creating.driver().check(&creating.nic.network, &creating.nic.link, ovs).unwrap();
        assert_eq!(ovs.bridge("vsbr0").unwrap(), None, "a look makes nothing");
        super::bridge::ovs(ovs, "vsbr0", true, &Datapath::Netdev).unwrap();
        driver.check(&port.nic.network, &port.nic.link, port.ovs).unwrap();
        assert_eq!(ovs.bridge("vsbr0").unwrap().unwrap().datapath, Datapath::Netdev);

        let folder = switch.dir.join("a \"b\", c=d {}[]\\");
        std::fs::create_dir(&folder).unwrap();
        let (first, second) = (folder.join("n0.sock"), folder.join("n1.sock"));
        let listener = UnixListener::bind(&first).unwrap();
        assert!(driver.prepare(&port).unwrap().is_none());
        driver.connect(&port, &first).unwrap();
        assert!(is_connected(&listener), "the switch finds a socket with an odd path");
        for table in ["Port", "Interface"] {
            assert_eq!(row(switch, table, "v1n0", "external_ids:virshle-vm"), format!("{:?}", vm.uuid.to_string()));
            assert_eq!(row(switch, table, "v1n0", "external_ids:attached-mac"), format!("\"{}\"", vm.nic.mac));
        }
        let renamed = Port { vm_name: "other", ..port };
        driver.rename(&renamed).unwrap();
        for table in ["Port", "Interface"] {
            assert_eq!(row(switch, table, "v1n0", "external_ids:virshle-name"), "other");
        }
        driver.rename(&port).unwrap();
        let owner = ovs.port_owner("v1n0").unwrap().unwrap();
        assert_eq!(ovs.is_ours(&owner), Some(true));
        let elsewhere = ovs.clone().for_state(Path::new("/elsewhere"));
        assert_eq!(elsewhere.is_ours(&owner), Some(false));
        assert_eq!(
            (owner.bridge.as_str(), owner.vm, owner.vm_name.as_deref()),
            ("vsbr0", Some(vm.uuid), Some("we\"b, =x"))
        );
        assert_eq!(ovs.ports_of_virshle().unwrap(), [owner]);
        assert_eq!(ovs.port_state("v1n0").unwrap().unwrap().link_up, Some(false), "no guest has answered");

        let before = row(switch, "Interface", "v1n0", "_uuid");
        driver.connect(&port, &first).unwrap();
        assert_eq!(row(switch, "Interface", "v1n0", "_uuid"), before, "a working port is left as it is");
        let listener = UnixListener::bind(&second).unwrap();
        driver.connect(&port, &second).unwrap();
        assert!(is_connected(&listener), "a replaced port goes to the new socket");
        assert_ne!(row(switch, "Interface", "v1n0", "_uuid"), before);

        let thief = Machine::new(1, vhost("vsbr0", false));
        for error in [
            thief.driver().prepare(&thief.port(ovs)).unwrap_err(),
            thief.driver().connect(&thief.port(ovs), &first).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Refused);
            assert!(error.message().contains(&vm.uuid.to_string()), "{error:?}");
        }
        thief.driver().release(&thief.port(ovs)).unwrap();
        thief.driver().rename(&Port { vm_name: "thief", ..thief.port(ovs) }).unwrap();
        assert_ne!(row(switch, "Port", "v1n0", "external_ids:virshle-name"), "thief");
        assert!(ovs.port_owner("v1n0").unwrap().is_some(), "another VM's release removes nothing");
        switch.vsctl(&["del-br", "vsbr0"]).unwrap();
        creating.driver().connect(&creating.port(ovs), &second).unwrap();
        assert_eq!(ovs.port_owner("v3n0").unwrap().unwrap().bridge, "vsbr0", "the bridge is made again");
        creating.driver().release(&creating.port(ovs)).unwrap();
        driver.release(&port).unwrap();
        driver.release(&port).unwrap();
        assert_eq!(ovs.port_owner("v1n0").unwrap(), None);
        assert_eq!(ovs.ports_of_virshle().unwrap(), []);

        switch.vsctl(&["add-port", "vsbr0", "v1n0", "--", "set", "Interface", "v1n0", "type=internal"]).unwrap();
        let error = driver.prepare(&port).unwrap_err();
        assert!(error.message().contains("was not made by virshle"), "{error:?}");
        driver.release(&port).unwrap();
        assert!(ovs.port_owner("v1n0").unwrap().is_some(), "a foreign port stays");
        ovs.del_port(Some("vsbr0"), "v1n0").unwrap();

        let mut times: Vec<Duration> = (0..10)
            .map(|_| {
                let start = Instant::now();
                ovs.add_vhost_port("vsbr0", "v1n0", &first, &port.tag(), port.line(None)).unwrap();
                let took = start.elapsed();
                driver.release(&port).unwrap();
                took
            })
            .collect();
        times.sort();
        eprintln!("add_vhost_port: median {:?}, {:?} to {:?}", times[5], times[0], times[9]);
    });
}

#[test]
fn a_switch_that_does_not_act_leaves_nothing_behind() {
    with_switch(false, |switch, ovs| {
        let vm = Machine::new(1, vhost("vsbr0", false));
        let error = vm.driver().check(&vm.nic.network, &vm.nic.link, ovs).unwrap_err();
        assert!(error.hint_text().unwrap().contains("tap"), "DPDK is off: {error:?}");
        switch.add_bridge("vsbr0").unwrap();
        let error = vm.driver().connect(&vm.port(ovs), Path::new("/tmp/n0.sock")).unwrap_err();
        assert!(error.chain()[1].contains("could not open"), "the switch's own words: {error:?}");
        assert!(error.hint_text().unwrap().contains("DPDK"), "{error:?}");
        assert_eq!(ovs.port_owner("v1n0").unwrap(), None);

        if !ovs.can_system_datapath() {
            ovs.add_bridge("sysbr", &Datapath::System).unwrap_err();
            assert_eq!(ovs.bridge("sysbr").unwrap(), None, "a bridge that cannot be made is not left");
        }

        let stopping = Machine::new(2, tap("vsbr0", Switch::Ovs, false));
        let fd = stopping.driver().prepare(&stopping.port(ovs)).unwrap();
        switch.kill_switch();
        let start = Instant::now();
        let error = std::thread::scope(|scope| {
            let released = scope.spawn(|| stopping.driver().release(&stopping.port(ovs)));
            let error = vm.driver().connect(&vm.port(ovs), Path::new("/tmp/n0.sock")).unwrap_err();
            released.join().unwrap().unwrap();
            error
        });
        drop(fd);
        assert_eq!(ovs.ports_of_virshle().unwrap(), [], "a port is released without the switch");
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        assert!(error.message().contains("did not act"), "{error:?}");
        assert_eq!(ovs.port_owner("v1n0").unwrap(), None, "its row is gone");

        switch.stop_database();
        let error = vm.driver().connect(&vm.port(ovs), Path::new("/tmp/n0.sock")).unwrap_err();
        assert!(error.message().contains("cannot reach") && error.message().contains(&switch.db), "{error:?}");
        assert!(error.hint_text().unwrap().contains("start it"), "{error:?}");
        vm.driver().release(&vm.port(ovs)).unwrap_err();
    });
}

pub(super) const HEADER: usize = 12;

pub(super) fn send(tap: &OwnedFd, header: [u8; HEADER], frame: &[u8]) {
    let bytes = [&header[..], frame].concat();
    assert_eq!(rustix::io::write(tap, &bytes).unwrap(), bytes.len());
}

/// The first frame of that ethertype that comes out of the tap.
fn receive(tap: &OwnedFd, ethertype: [u8; 2]) -> Option<Vec<u8>> {
    let give_up = Instant::now() + Duration::from_secs(3);
    let tick = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut buffer = [0; 2048];
    while Instant::now() < give_up {
        if poll(&mut [PollFd::new(tap, PollFlags::IN)], Some(&tick)).unwrap() == 0 {
            continue;
        }
        let length = rustix::io::read(tap, &mut buffer).unwrap();
        if length > HEADER + 14 && buffer[HEADER + 12..HEADER + 14] == ethertype {
            return Some(buffer[HEADER..length].to_vec());
        }
    }
    None
}

fn frame(ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &ethertype, payload].concat()
}

/// A UDP datagram whose checksum the guest left to the host, and its virtio-net header.
fn unfinished_datagram() -> ([u8; HEADER], Vec<u8>) {
    let (from, to) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 255));
    let data = b"checksum me!";
    let length = u16::try_from(8 + data.len()).unwrap();
    let pseudo = sum([&from.octets()[..], &to.octets(), &[0, 17], &length.to_be_bytes()].concat().as_slice());
    let mut ip = vec![0x45, 0];
    ip.extend((20 + length).to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    ip.extend(from.octets());
    ip.extend(to.octets());
    let ip_sum = !sum(&ip);
    ip[10..12].copy_from_slice(&ip_sum.to_be_bytes());
    ip.extend([0x30, 0x39, 0x30, 0x39]);
    ip.extend(length.to_be_bytes());
    ip.extend(pseudo.to_be_bytes());
    ip.extend(data);
    // VIRTIO_NET_HDR_F_NEEDS_CSUM, from byte 34, into byte 6 of what follows.
    ([1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0], frame([8, 0], &ip))
}

pub(super) fn sum(bytes: &[u8]) -> u16 {
    let total: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b))).sum();
    let folded = (total & 0xffff) + (total >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

/// Whether the UDP checksum in this frame is right.
fn is_finished(frame: &[u8]) -> bool {
    let (ip, udp) = (&frame[14..34], &frame[34..]);
    let pseudo = [&ip[12..20], &[0, 17], &udp[4..6]].concat();
    sum(&[&pseudo, udp].concat()) == 0xffff
}

#[test]
fn taps_on_an_open_vswitch_bridge() {
    with_switch(false, |switch, ovs| {
        let machines = [1, 2].map(|number| Machine::new(number, tap("vsbr0", Switch::Ovs, true)));
        for vm in &machines {
            vm.driver().check(&vm.nic.network, &vm.nic.link, ovs).unwrap();
        }
        let [a, b] = machines.each_ref().map(|vm| vm.driver().prepare(&vm.port(ovs)).unwrap().unwrap());
        send(&a, [0; HEADER], &frame([0x88, 0xb5], b"over the switch"));
        let seen = receive(&b, [0x88, 0xb5]).expect("the frame crosses the switch");
        assert!(seen.ends_with(b"over the switch"), "{seen:?}");
        let (header, datagram) = unfinished_datagram();
        send(&a, header, &datagram);
        let seen = receive(&b, [8, 0]).expect("a datagram");
        let offload = machines[0].driver().offload(&machines[0].port(ovs)).unwrap();
        assert_eq!(offload, is_finished(&seen), "what the hypervisor is told is what the switch does");
        assert_eq!(ovs.ports_of_virshle().unwrap().len(), 2);

        let vm = &machines[0];
        let error = vm.driver().prepare(&vm.port(ovs)).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "the device is in use: {error:?}");
        drop(a);
        assert!(NetDevice::find("v1n0").unwrap().is_none(), "the device ends with its descriptor");
        let leftover = Machine { uuid: vm.uuid, number: 1, nic: vm.nic.clone() };
        let c = leftover.driver().prepare(&leftover.port(ovs)).unwrap().unwrap();
        send(&c, [0; HEADER], &frame([0x88, 0xb6], b"again"));
        assert!(receive(&b, [0x88, 0xb6]).is_some(), "a tap takes over the port that an earlier life left");
        drop((b, c));
        for vm in &machines {
            vm.driver().release(&vm.port(ovs)).unwrap();
        }
        assert_eq!(ovs.ports_of_virshle().unwrap(), []);
        assert_eq!(switch.vsctl(&["list-ports", "vsbr0"]).unwrap(), "");

        switch.vsctl(&["del-br", "vsbr0"]).unwrap();
        let unwilling = Machine::new(1, tap("vsbr0", Switch::Ovs, false));
        assert_eq!(unwilling.driver().prepare(&unwilling.port(ovs)).unwrap_err().kind(), Kind::NotFound);
        let d = leftover.driver().prepare(&leftover.port(ovs)).unwrap().unwrap();
        assert_eq!(switch.vsctl(&["list-ports", "vsbr0"]).unwrap().trim(), "v1n0", "the bridge is made again");
        drop(d);
        leftover.driver().release(&leftover.port(ovs)).unwrap();
    });
}

/// Waits until the switch's database tells it.
async fn sees(
    told: &mut tokio::sync::watch::Receiver<Option<Sightings>>,
    what: &str,
    is: impl Fn(Option<&Sight>) -> bool,
) {
    let seen = told.wait_for(|seen| is(seen.as_ref().and_then(|seen| seen.get("v1n0"))));
    let seen = tokio::time::timeout(Duration::from_secs(15), seen).await;
    seen.unwrap_or_else(|_| panic!("not seen: {what}")).unwrap();
}

#[test]
fn a_port_that_is_deleted_is_seen_and_put_back() {
    with_switch(false, |switch, ovs| {
        let vm = Machine::new(1, tap("vsbr0", Switch::Ovs, true));
        let (driver, port) = (vm.driver(), vm.port(ovs));
        driver.check(&vm.nic.network, &vm.nic.link, ovs).unwrap();
        let fd = driver.prepare(&port).unwrap().unwrap();
        let nowhere = Path::new("/nowhere");
        let ours = |seen: Option<&Sight>| matches!(seen, Some(Sight::Present { vm: Some(uuid), error: None, .. }) if *uuid == vm.uuid);
        let missing = |seen: Option<&Sight>| seen == Some(&Sight::Missing);
        let (tell, mut told) = tokio::sync::watch::channel(None);
        let names = ["v1n0".to_owned()];
        let story = async {
            let told = &mut told;
            sees(told, "the port", ours).await;
            assert!(!driver.restore(&port, nowhere).unwrap(), "nothing to put back");
            switch.vsctl(&["del-port", "v1n0"]).unwrap();
            sees(told, "its end", missing).await;
            assert!(driver.restore(&port, nowhere).unwrap());
            sees(told, "its return", ours).await;
            switch.vsctl(&["del-br", "vsbr0"]).unwrap();
            sees(told, "the end of its bridge", missing).await;
            let unwilling = Machine {
                uuid: vm.uuid,
                number: 1,
                nic: Nic { link: tap("vsbr0", Switch::Ovs, false), ..vm.nic.clone() },
            };
            assert_eq!(unwilling.driver().restore(&unwilling.port(ovs), nowhere).unwrap_err().kind(), Kind::NotFound);
            assert!(driver.restore(&port, nowhere).unwrap(), "the bridge is made again");
            sees(told, "its return on a new bridge", ours).await;
            switch.stop_database();
            sees(told, "that nobody knows", |seen| seen.is_none()).await;
            switch.start_database().unwrap();
            sees(told, "the port again", ours).await;
            let taken = ["--", "add-port", "vsbr0", "v1n0", "--", "set", "Interface", "v1n0", "type=internal"];
            switch.vsctl(&[&["del-port", "v1n0"], taken.as_slice()].concat()).unwrap();
            sees(told, "another's port", |seen| matches!(seen, Some(Sight::Present { vm: None, .. }))).await;
            assert_eq!(driver.restore(&port, nowhere).unwrap_err().kind(), Kind::Refused);
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                () = follow(ovs, &names, &tell) => unreachable!(),
                () = story => {}
            }
        });
        send(&fd, [0; HEADER], &frame([0x88, 0xb5], b"still open"));
    });
}

#[test]
fn taps_on_a_linux_bridge() {
    let ovs = Ovs::default();
    let done = in_private_network(|| {
        let missing = Machine::new(1, tap("br7", Switch::Bridge, false));
        assert_eq!(
            missing.driver().check(&missing.nic.network, &missing.nic.link, &ovs).unwrap_err().kind(),
            Kind::NotFound
        );
        let odd = Machine::new(1, tap("lo", Switch::Bridge, true));
        assert!(
            odd.driver().check(&odd.nic.network, &odd.nic.link, &ovs).unwrap_err().message().contains("not a bridge")
        );

        let machines = [1, 2].map(|number| Machine::new(number, tap("br7", Switch::Bridge, true)));
        for vm in &machines {
            vm.driver().check(&vm.nic.network, &vm.nic.link, &ovs).unwrap();
        }
        assert!(NetDevice::find("br7").unwrap().is_none(), "a look makes nothing");
        super::bridge::linux("br7", true).unwrap();
        NetDevice::find("br7").unwrap().unwrap().set_mtu(1400).unwrap();
        let [a, b] = machines.each_ref().map(|vm| vm.driver().prepare(&vm.port(&ovs)).unwrap().unwrap());
        assert_eq!(NetDevice::find("v1n0").unwrap().unwrap().mtu().unwrap(), 1400, "the bridge's MTU");
        let ipv6 = std::fs::read_to_string("/proc/sys/net/ipv6/conf/v1n0/disable_ipv6");
        assert!(ipv6.map_or(true, |value| value.trim() == "1"), "the host keeps its IPv6 off");
        send(&a, [0; HEADER], &frame([0x88, 0xb5], b"over the bridge"));
        let seen = receive(&b, [0x88, 0xb5]).expect("the frame crosses the bridge");
        assert!(seen.ends_with(b"over the bridge"), "{seen:?}");
        let (header, datagram) = unfinished_datagram();
        send(&a, header, &datagram);
        let vm = &machines[0];
        assert!(vm.driver().offload(&vm.port(&ovs)).unwrap());
        assert!(is_finished(&receive(&b, [8, 0]).unwrap()), "the kernel finishes a checksum");
        let error = vm.driver().prepare(&vm.port(&ovs)).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "the name is taken: {error:?}");
        let restore = || vm.driver().restore(&vm.port(&ovs), Path::new("/nowhere")).unwrap();
        assert!(!restore(), "nothing to put back");
        for away in [&["link", "set", "v1n0", "nomaster"][..], &["link", "del", "br7"]] {
            crate::host::Program::new("ip").args(away).run().unwrap();
            assert!(restore(), "{away:?}");
            assert!(!restore(), "{away:?}");
        }
        vm.driver().release(&vm.port(&ovs)).unwrap();
        drop((a, b));
        assert!(NetDevice::find("v1n0").unwrap().is_none(), "the device ends with its descriptor");

        // What a host has lost when it starts again.
        crate::host::Program::new("ip").args(["link", "del", "br7"]).run().unwrap();
        assert_eq!(missing.driver().prepare(&missing.port(&ovs)).unwrap_err().kind(), Kind::NotFound);
        assert!(NetDevice::find("v1n0").unwrap().is_none(), "no device is left of it");
        let c = vm.driver().prepare(&vm.port(&ovs)).unwrap().unwrap();
        assert!(NetDevice::find("br7").unwrap().unwrap().is_bridge().unwrap(), "the bridge is made again");
        drop(c);
    });
    if let Err(reason) = done {
        eprintln!("skipped: {reason}");
    }
}
