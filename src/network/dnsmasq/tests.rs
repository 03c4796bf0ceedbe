//! A real dnsmasq, and guests that ask it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use uuid::Uuid;

use super::super::names::Host;
use super::super::netns::in_private_network;
use super::guest::{Guest, LIMIT, dns, ip};
use super::*;
use crate::error::Kind;
use crate::host::{Handle, find_program};
use crate::spec::{HostSide, Mac, NetworkSpec};

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const NXDOMAIN: u8 = 3;
const REFUSED: u8 = 5;

fn spec() -> NetworkSpec {
    let spec = NetworkSpec::sample("main").with_host(|side| {
        side.address6 = Some("fd00:44::1/64".parse().unwrap());
        side.upstream = vec!["192.0.2.53".parse().unwrap()];
    });
    NetworkSpec { mtu: Some(1400), ..spec }
}

fn side(spec: &mut NetworkSpec) -> &mut HostSide {
    spec.host.as_mut().unwrap()
}

fn host(name: &str, number: u16) -> Host {
    let vm = Uuid::from_u128(u128::from(number) << 112 | 5);
    let ip = Ipv4Addr::from_bits(0x0a2c_0000 + u32::from(number));
    Host {
        vm,
        nic: 0,
        name: name.parse().unwrap(),
        mac: Mac::of(vm, 0),
        ip,
        ip6: format!("fd00:44::{number:x}").parse().ok(),
    }
}

/// A bridge with the host's addresses, without a port.
fn make_bridge(spec: &NetworkSpec) {
    let (bridge, host) = (&spec.bridge, spec.host.as_ref().unwrap());
    ip("link set lo up");
    ip(&format!("link add {bridge} type bridge"));
    ip(&format!("addr add {} dev {bridge}", host.address));
    if let Some(address6) = host.address6 {
        ip(&format!("addr add {address6} dev {bridge}"));
    }
    ip(&format!("link set {bridge} up"));
}

/// What one network's server is tried on; it ends with the test, however that ends.
struct Served {
    dir: tempfile::TempDir,
    handle: Option<Handle>,
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
        Self { dir, handle: None }
    }

    fn dir(&self) -> std::path::PathBuf {
        self.dir.path().join("run/virshle/net/main")
    }

    fn file(&self, folder: &str, host: &Host) -> String {
        self.dir().join(folder).join(format!("{}.{}", host.vm, host.nic)).display().to_string()
    }

    fn start(&mut self, spec: &NetworkSpec) -> Handle {
        let handle = start(spec, &self.dir()).unwrap_or_else(|error| panic!("{:?}", error.chain()));
        self.handle = Some(handle);
        handle
    }

    fn publish(&self, spec: &NetworkSpec, hosts: &[Host]) {
        publish(spec, &self.dir(), hosts, self.handle).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.handle.map(stop);
    }
}

/// Runs it in a namespace, or says why not.
fn with_dnsmasq(test: impl FnOnce(&mut Served) + Send) {
    for program in ["dnsmasq", "ip"] {
        if find_program(program).is_none() {
            eprintln!("skipped: {program} is not installed");
            return;
        }
    }
    if let Err(reason) = in_private_network(|| test(&mut Served::new())) {
        eprintln!("skipped: {reason}");
    }
}

/// A change is seen by dnsmasq a moment after it was made.
fn eventually(what: &str, is: impl Fn() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < LIMIT, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 44, 0, 1));

#[test]
fn guests_are_given_their_addresses() {
    with_dnsmasq(|served| {
        let spec = spec();
        make_bridge(&spec);
        let (web, db) = (host("web", 5), host("db", 6));
        served.publish(&spec, std::slice::from_ref(&web));
        let server = served.start(&spec);
        // The first guest's carrier is the first that IPv6 sees of this bridge.
        let guest = Guest::new();
        guest.plug("vbr0", "v1");
        let (given, told) = guest.dhcp(&web.mac.to_string());
        assert_eq!(given, web.ip);
        assert_eq!(told[&3], [10, 44, 0, 1], "the router");
        assert_eq!(told[&6], [10, 44, 0, 1], "the name server");
        assert_eq!(told[&12], b"web", "its name");
        assert_eq!(told[&15], b"vm", "its domain");
        assert_eq!(told[&26], 1400_u16.to_be_bytes());
        assert_eq!(told[&119], b"\x02vm\0", "where short names are looked for");

        let router = guest.router();
        assert!(router.managed && router.lifetime == 1800 && router.mtu == Some(1400), "{router:?}");
        assert_eq!(router.prefix, Some(("fd00:44::".parse().unwrap(), 64, false)), "no address of its own making");
        assert_eq!(guest.dhcp6(&web.mac.to_string()), web.ip6);
        assert_eq!(guest.dhcp6("02:ff:00:00:00:01"), None, "a stranger");

        // A stranger gets one of the pool, and has no name by it.
        let (given, _) = guest.dhcp("02:ff:00:00:00:01");
        assert!((192..=254).contains(&given.octets()[3]), "{given}");
        let given_out = leases(&served.dir()).unwrap();
        let mut seen: Vec<_> = given_out.iter().map(|lease| (lease.ip, lease.mac, lease.name.as_deref())).collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                (web.ip.into(), Some(web.mac), Some("web")),
                (given.into(), Some("02:ff:00:00:00:01".parse().unwrap()), None),
                (web.ip6.unwrap().into(), None, Some("web")),
            ]
        );

        // The address is another VM's by now, though the lease has not ended; the same server tells.
        let heir = Host { ip: web.ip, ip6: web.ip6, ..db };
        served.publish(&spec, std::slice::from_ref(&heir));
        let lease = |ip: IpAddr| leases(&served.dir()).unwrap().into_iter().find(|lease| lease.ip == ip);
        eventually("the address is free", || lease(web.ip.into()).is_none());
        eventually("and that of IPv6", || lease(web.ip6.unwrap().into()).is_none());
        assert_eq!(guest.dhcp(&heir.mac.to_string()).0, web.ip);
        assert_eq!(guest.dhcp6(&heir.mac.to_string()), web.ip6);
        // dnsmasq answers, then writes.
        eventually("it is noted", || {
            lease(web.ip.into()).and_then(|lease| lease.mac) == Some(heir.mac)
                && lease(web.ip6.unwrap().into()).and_then(|lease| lease.name).as_deref() == Some("db")
        });
        assert!(server.is_alive());

        // It is not root, and was let through to what it reads: not to list the folders above it.
        assert_ne!(server.user(), Some(0));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(served.dir.path()), mode(&served.dir())), (0o711, 0o711));
        assert_eq!(mode(&served.dir().join("dnsmasq.conf")), 0o600);
    });
}

#[test]
fn an_isolated_network_leads_nowhere() {
    with_dnsmasq(|served| {
        let mut spec = spec();
        side(&mut spec).isolated = true;
        side(&mut spec).pool = None;
        make_bridge(&spec);
        let web = host("web", 5);
        served.publish(&spec, std::slice::from_ref(&web));
        served.start(&spec);
        let guest = Guest::new();
        guest.plug("vbr0", "v1");
        let (given, told) = guest.dhcp(&web.mac.to_string());
        assert_eq!((given, told.get(&3), told.get(&6)), (web.ip, None, Some(&vec![10, 44, 0, 1])));
        let router = guest.router();
        assert!(router.managed && router.lifetime == 0, "{router:?}");
        assert_eq!(dns(SERVER, "web.vm", A), (0, vec![web.ip.to_string()]));
        assert_eq!(dns(SERVER, "debian.org", A), (REFUSED, vec![]), "nobody is asked");
    });
}

/// Somebody else's name server, that knows one name: it answers whatever is asked with its address.
struct Upstream {
    address: IpAddr,
}

impl Upstream {
    fn start(address: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((address, 53)).unwrap();
        // Ends with the test's process.
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut question) {
                let mut end = 12;
                while end < length && question[end] != 0 {
                    end += usize::from(question[end]) + 1;
                }
                let mut answer = question[..(end + 5).min(length)].to_vec();
                answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 80]);
                let _ = socket.send_to(&answer, client);
            }
        });
        Self { address: address.into() }
    }
}

#[test]
fn names_come_and_go_without_a_restart() {
    with_dnsmasq(|served| {
        let mut spec = spec();
        make_bridge(&spec);
        // Elsewhere: only by its own route.
        let outside = Guest::new();
        ip(&format!("link add up0 type veth peer name eth0 netns {}", outside.tid()));
        ip("addr add 192.0.2.1/24 dev up0");
        ip("link set up0 up");
        let upstream = outside.run(|| {
            ip("addr add 192.0.2.53/24 dev eth0");
            ip("link set eth0 up");
            Upstream::start(Ipv4Addr::new(192, 0, 2, 53)).address
        });
        side(&mut spec).upstream = vec![upstream];
        let guest = Guest::new();
        guest.plug("vbr0", "v1");
        guest.run(|| ip("addr add 10.44.0.100/24 dev eth0"));
        let (web, db) = (host("web", 5), host("db", 6));
        served.publish(&spec, std::slice::from_ref(&web));
        let server = served.start(&spec);
        let ask = |name: &str, kind| {
            let name = name.to_owned();
            guest.run(move || dns(SERVER, &name, kind))
        };
        let own = |host: &Host| (0, vec![host.ip.to_string()]);
        let none = (NXDOMAIN, vec![]);

        eventually("it knows", || ask("web.vm", A) == own(&web));
        assert_eq!(ask("WEB.vm", A), own(&web));
        assert_eq!(ask("web.vm", AAAA), (0, vec![web.ip6.unwrap().to_string()]));
        assert_eq!(ask("5.0.44.10.in-addr.arpa", PTR), (0, vec!["web.vm".to_owned()]));
        let reverse6 = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.4.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(ask(reverse6, PTR), (0, vec!["web.vm".to_owned()]));
        // Its own are never asked for elsewhere, where everything has an address.
        assert_eq!(ask("example.org", A), (0, vec!["192.0.2.80".to_owned()]));
        for unknown in ["db.vm", "a.web.vm", "web", "9.0.44.10.in-addr.arpa"] {
            assert_eq!(ask(unknown, A), none, "{unknown}");
        }

        served.publish(&spec, &[web.clone(), db.clone()]);
        eventually("a new one", || ask("db.vm", A) == own(&db));
        let log = std::fs::read_to_string(served.dir().join("dnsmasq.log")).unwrap();
        let read = log.lines().filter(|line| line.contains(&format!("read {}", served.file("hosts", &db))));
        assert_eq!(read.count(), 1, "once: {log}");
        let shop = Host { name: "shop".parse().unwrap(), ..web.clone() };
        served.publish(&spec, &[shop.clone(), db.clone()]);
        eventually("renamed", || ask("shop.vm", A) == own(&shop) && ask("web.vm", A) == none);
        eventually("renamed", || ask("5.0.44.10.in-addr.arpa", PTR) == (0, vec!["shop.vm".to_owned()]));
        served.publish(&spec, std::slice::from_ref(&db));
        eventually("deleted", || ask("shop.vm", A) == none && ask("5.0.44.10.in-addr.arpa", PTR) == none);
        assert_eq!(ask("db.vm", A), own(&db));

        // A thousand, in one go and one by one.
        let many: Vec<Host> = (10..1010).map(|number| host(&format!("vm{number}"), number)).collect();
        let started = Instant::now();
        served.publish(&spec, &many);
        eprintln!("1,000 published in {:?}", started.elapsed());
        eventually("the last", || ask("vm1009.vm", A) == own(&many[999]));
        eprintln!("and served after {:?}", started.elapsed());
        let started = Instant::now();
        served.publish(&spec, &many[1..]);
        eprintln!("one of 1,000 taken away in {:?}", started.elapsed());
        eventually("the first is gone", || ask("vm10.vm", A) == none);
        eprintln!("and forgotten after {:?}", started.elapsed());
        assert_eq!(ask("vm500.vm", A), own(&many[490]));
        assert!(server.is_alive() && served.handle == Some(server), "the same process");
    });
}

#[test]
fn what_keeps_it_from_serving_is_told() {
    with_dnsmasq(|served| {
        let spec = spec();
        make_bridge(&spec);
        let error = |spec: &NetworkSpec, served: &Served| start(spec, &served.dir()).unwrap_err();
        let me = format!("({})", std::process::id());
        for (port, bind) in [(53, "10.44.0.1:53"), (67, "0.0.0.0:67")] {
            let taker = UdpSocket::bind(bind).unwrap();
            let error = error(&spec, served);
            assert_eq!(error.kind(), Kind::Refused, "{error:?}");
            let chain = error.chain().join(": ");
            assert!(chain.contains("cannot serve the network `main`"), "{chain}");
            assert!(chain.contains(&format!("port {port}")), "{chain}");
            assert!(find_program("ss").is_none() || chain.contains(&me), "{chain}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("ss -lunp")), "{error:?}");
            drop(taker);
        }
        let mut elsewhere = spec.clone();
        elsewhere.bridge = "vbr9".to_owned();
        assert!(error(&elsewhere, served).chain().join(": ").contains("no interface `vbr9`"));
        // Its own words.
        side(&mut elsewhere).domain = format!("{0}.{0}", "v".repeat(70));
        elsewhere.bridge = "vbr0".to_owned();
        let error = error(&elsewhere, served).chain().join(": ");
        assert!(error.contains("dnsmasq: error at line"), "{error}");

        // It lives until it is stopped, and is stopped once.
        let server = served.start(&spec);
        assert!(server.is_alive());
        stop(server).unwrap();
        assert!(!server.is_alive());
        stop(server).unwrap();
        let again = served.start(&spec);
        assert!(again.is_alive() && again != server);
    });
}

#[test]
fn two_networks_have_one_domain() {
    with_dnsmasq(|served| {
        let one = spec();
        let mut two = spec();
        (two.name, two.bridge) = ("lab".parse().unwrap(), "vbr1".to_owned());
        side(&mut two).address = "10.45.0.1/24".parse().unwrap();
        side(&mut two).address6 = None;
        side(&mut two).pool = None;
        make_bridge(&one);
        make_bridge(&two);
        let mut other = Served::new();
        let (web, db) = (host("web", 5), Host { ip: "10.45.0.5".parse().unwrap(), ip6: None, ..host("db", 6) });
        served.publish(&one, std::slice::from_ref(&web));
        other.publish(&two, std::slice::from_ref(&db));
        served.start(&one);
        other.start(&two);
        let second = "10.45.0.1".parse().unwrap();
        assert_eq!(dns(SERVER, "web.vm", A), (0, vec![web.ip.to_string()]));
        assert_eq!(dns(second, "db.vm", A), (0, vec![db.ip.to_string()]));
        // Each knows its own, and says so of the others: who asks both finds both.
        assert_eq!(dns(SERVER, "db.vm", A), (NXDOMAIN, vec![]));
        // Both hand out addresses, each on its own.
        for (bridge, port, host) in [("vbr0", "v1", &web), ("vbr1", "v2", &db)] {
            let guest = Guest::new();
            guest.plug(bridge, port);
            assert_eq!(guest.dhcp(&host.mac.to_string()).0, host.ip);
        }
    });
}
