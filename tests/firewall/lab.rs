//! A host, its guests behind veth pairs, and others beside it: each a thread in a network namespace
//! of its own, all gone with the test.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use virshle::network::firewall::{self, Port};
use virshle::spec::{Address, Guard, HostSide, Mac, NetworkSpec, Switch};

use crate::fixtures::netns::in_private_network;
use crate::world::{Outcome, Skip, exercised, need_program, need_root};

/// How long silence is taken for a refusal.
const SILENCE: Duration = Duration::from_millis(700);
const ANSWER: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// One end of wires: a namespace with a thread in it.
pub struct Node {
    work: mpsc::Sender<Work>,
    /// What `ip link set … netns` takes.
    namespace: String,
}

impl Node {
    pub fn new() -> Self {
        let (work, inbox) = mpsc::channel::<Work>();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            in_private_network(move || {
                let tid = rustix::thread::gettid().as_raw_nonzero();
                tell.send(format!("/proc/{}/task/{tid}/ns/net", std::process::id())).expect("the test waits");
                inbox.into_iter().for_each(|work| work());
            })
            .expect("a namespace of its own");
        });
        let node = Self { work, namespace: told.recv().expect("a namespace") };
        node.run(|| ip("link set lo up"));
        node
    }

    /// Does it inside.
    pub fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        let (tell, told) = mpsc::channel();
        self.work.send(Box::new(move || drop(tell.send(work())))).expect("the node is alive");
        told.recv().expect("the work ended well")
    }

    pub fn ip(&self, command: &str) {
        let command = command.to_owned();
        self.run(move || ip(&command));
    }

    /// Answers TCP and UDP at that port with the address it sees.
    pub fn serve(&self, port: u16) {
        self.run(move || serve(port));
    }

    /// Whom a TCP server there sees; `None`: it is not reached.
    pub fn tcp(&self, to: &str) -> Option<IpAddr> {
        let to: SocketAddr = to.parse().expect("an address with a port");
        self.run(move || tcp(to))
    }

    pub fn udp(&self, to: &str) -> Option<IpAddr> {
        let to: SocketAddr = to.parse().expect("an address with a port");
        self.run(move || udp(to))
    }

    /// Whether it reaches TCP 22, UDP 80 and ping of another, by IPv4 and IPv6 alike; all at once,
    /// because silence takes its time.
    pub fn reaches(&self, ip4: &str, ip6: &str) -> [bool; 3] {
        let (ip4, ip6) = (ip4.to_owned(), ip6.to_owned());
        let [four, six] = self.run(move || {
            std::thread::scope(|scope| {
                // Threads of this one are in its namespace too.
                [ip4.clone(), ip6.clone()]
                    .map(|ip| {
                        let at = move |port| SocketAddr::new(ip.parse().expect("an address"), port);
                        let (tcp_at, udp_at) = (at(22), at(80));
                        [
                            scope.spawn(move || tcp(tcp_at).is_some()),
                            scope.spawn(move || udp(udp_at).is_some()),
                            scope.spawn(move || ping(&tcp_at.ip().to_string())),
                        ]
                    })
                    .map(|probes| probes.map(|probe| probe.join().expect("a probe")))
            })
        });
        assert_eq!(four, six, "IPv4 and IPv6 differ");
        four
    }

    pub fn ping(&self, to: &str) -> bool {
        let to = to.to_owned();
        self.run(move || ping(&to))
    }
}

fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Answers TCP and UDP of both versions with the address it sees, in the namespace of the caller.
pub fn serve(port: u16) {
    let tcp = TcpListener::bind(("::", port)).expect("a TCP server");
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let peer = stream.peer_addr().map(|peer| plain(peer.ip()).to_string()).unwrap_or_default();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
    serve_udp(UdpSocket::bind(("0.0.0.0", port)).expect("a UDP server"));
    serve_udp(ip6_only(port));
}

fn ip6_only(port: u16) -> UdpSocket {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    let socket = socket(AddressFamily::INET6, SocketType::DGRAM, None).expect("a socket");
    sockopt::set_ipv6_v6only(&socket, true).expect("IPv6 alone");
    let any: SocketAddr = format!("[::]:{port}").parse().expect("an address");
    bind(&socket, &any).expect("a UDP server");
    socket.into()
}

fn serve_udp(socket: UdpSocket) {
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(plain(peer.ip()).to_string().as_bytes(), peer);
        }
    });
}

pub fn tcp(to: SocketAddr) -> Option<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&to, SILENCE).ok()?;
    stream.set_read_timeout(Some(ANSWER)).expect("a timeout");
    let mut seen = String::new();
    stream.read_to_string(&mut seen).ok()?;
    seen.parse().ok()
}

pub fn udp(to: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).expect("a socket");
    socket.connect(to).ok()?;
    socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
    socket.send(b"who am I").ok()?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    std::str::from_utf8(&buffer[..length]).ok()?.parse().ok()
}

/// Whether an echo request is answered.
pub fn ping(to: &str) -> bool {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket, sockopt};
    static LAST: AtomicU16 = AtomicU16::new(1);
    let id = LAST.fetch_add(1, Ordering::Relaxed);
    let ip: IpAddr = to.parse().expect("an address");
    let (family, protocol, request, reply, header) = match ip {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0, 20),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129, 0),
    };
    let socket = socket(family, SocketType::RAW, Some(protocol)).expect("root");
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(SILENCE)).expect("a timeout");
    let [high, low] = id.to_be_bytes();
    let mut message = [request, 0, 0, 0, high, low, 0, 1];
    // Of IPv6 the kernel makes it.
    let sum = (u32::from(request) << 8) + u32::from(id) + 1;
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("16 bits");
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    if sendto(&socket, &message, SendFlags::empty(), &SocketAddr::new(ip, 0)).is_err() {
        return false;
    }
    let started = Instant::now();
    let mut buffer = [0; 256];
    while started.elapsed() < ANSWER {
        let Ok((length, _)) = recv(&socket, &mut buffer[..], RecvFlags::empty()) else { return false };
        let answer = buffer.get(header..length).unwrap_or_default();
        if answer.len() >= 8 && answer[0] == reply && answer[4..6] == id.to_be_bytes() {
            return true;
        }
    }
    false
}

/// `ip` with these words, in the namespace of the caller.
pub fn ip(command: &str) {
    let output = Command::new("ip").args(command.split_whitespace()).output().expect("ip runs");
    assert!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn nft(args: &[&str]) -> String {
    let output = Command::new("nft").args(args).output().expect("nft runs");
    assert!(output.status.success(), "nft {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

pub fn nft_reads(text: &str, args: &[&str]) {
    let mut child = Command::new("nft")
        .args(args)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nft runs");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("nft ends");
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a test in the host's place: a namespace with forwarding, where nothing is yet.
pub fn as_host(test: impl FnOnce() + Send) -> Outcome {
    need_root()?;
    for program in ["nft", "ip"] {
        need_program(program)?;
    }
    exercised("firewall", "nft");
    in_private_network(|| {
        ip("link set lo up");
        for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{path}"), "1").expect("a setting");
        }
        for scope in ["all", "default"] {
            quiet_ip6(scope);
        }
        filter_bridged(false);
        test();
    })
    .map_err(Skip)
}

/// Whether frames within a bridge meet the host's other rules too; `false`: the kernel cannot.
pub fn filter_bridged(on: bool) -> bool {
    ["iptables", "ip6tables", "arptables"].iter().all(|tables| {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{tables}");
        std::fs::write(path, if on { "1" } else { "0" }).is_ok()
    })
}

/// Addresses are used at once, so that no test waits for what nobody else could have.
fn quiet_ip6(scope: &str) {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0").expect("a setting");
}

/// A bridge with the host's addresses, as the host's side of a network makes it.
pub fn bridge(name: &str, addresses: &[&str]) {
    ip(&format!("link add {name} type bridge"));
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1").expect("a setting");
    for address in addresses {
        ip(&format!("addr add {address} dev {name}"));
    }
    ip(&format!("link set {name} up"));
}

/// Joins a node to a bridge of the host (or to nothing) with a veth pair: `port` here, `eth0` there.
pub fn wire(node: &Node, port: &str, bridge: Option<&str>, mac: Mac, addresses: &[&str]) {
    ip(&format!("link add {port} type veth peer name eth0 address {mac} netns {}", node.namespace));
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{port}/disable_ipv6"), bridge.map_or("0", |_| "1"))
        .expect("a setting");
    if let Some(bridge) = bridge {
        ip(&format!("link set {port} master {bridge}"));
    }
    ip(&format!("link set {port} up"));
    node.run(|| quiet_ip6("eth0"));
    for address in addresses {
        node.ip(&format!("addr add {address} dev eth0 {}", if address.contains(':') { "nodad" } else { "" }));
    }
    node.ip("link set eth0 up");
}

/// A guest of a network with the addresses that it was given, and its port.
pub struct Guest {
    pub node: Node,
    pub port: Port,
}

impl Guest {
    /// The `number`th of the network, whose MAC ends in it too.
    pub fn new(network: &NetworkSpec, number: u8, guard: Option<Guard>) -> Self {
        let port = port(network, number, guard);
        let node = Node::new();
        let address = port.address.clone().expect("an address");
        let mut addresses = vec![address.ip.to_string()];
        addresses.extend(address.ip6.map(|ip| ip.to_string()));
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        wire(&node, &port.port, Some(&network.bridge), port.mac, &addresses);
        for gateway in [address.gateway.map(IpAddr::from), address.gateway6.map(IpAddr::from)].into_iter().flatten() {
            node.ip(&format!("route add default via {gateway}"));
        }
        Self { node, port }
    }

    pub fn ip(&self) -> String {
        self.port.address.as_ref().expect("an address").ip.addr().to_string()
    }

    pub fn ip6(&self) -> String {
        self.port.address.as_ref().and_then(|address| address.ip6).expect("an address").addr().to_string()
    }
}

/// What Virshle would record of that guest's NIC.
pub fn port(network: &NetworkSpec, number: u8, guard: Option<Guard>) -> Port {
    let host = network.host.as_ref().expect("a served network");
    let ip = u32::from(host.address.network()) + u32::from(number);
    let ip6 = host.address6.map(|net| {
        let ip6 = u128::from(net.network()) + u128::from(number);
        ipnet::Ipv6Net::new(ip6.into(), 64).expect("a subnet")
    });
    let third = host.address.addr().octets()[1];
    Port {
        port: format!("v{third}x{number}n0"),
        network: network.name.clone(),
        switch: Switch::Bridge,
        mac: format!("02:00:00:00:{third:02x}:{number:02x}").parse().expect("a MAC"),
        address: Some(Address {
            gateway: Some(host.address.addr()),
            ip6,
            gateway6: host.address6.map(|net| net.addr()),
            ..Address::new(ipnet::Ipv4Net::new(ip.into(), host.address.prefix_len()).expect("a subnet"), None, vec![])
        }),
        guard,
        forwards: Vec::new(),
    }
}

/// `10.<number>.0.0/24` and `fd00:<number>::/64` on the bridge `br<number>`.
pub fn network(name: &str, number: u8) -> NetworkSpec {
    NetworkSpec {
        name: name.parse().expect("a name"),
        switch: Switch::Bridge,
        bridge: format!("br{number}"),
        datapath: None,
        vlan: None,
        mtu: None,
        uplink: None,
        host: Some(HostSide {
            address: format!("10.{number}.0.1/24").parse().expect("a subnet"),
            address6: Some(format!("fd00:{number}::1/64").parse().expect("a subnet")),
            dhcp: true,
            pool: None,
            nat: true,
            isolated: false,
            domain: "vm".to_owned(),
            upstream: Vec::new(),
        }),
    }
}

pub fn make(network: &NetworkSpec) {
    let host = network.host.as_ref().expect("a served network");
    bridge(&network.bridge, &[&host.address.to_string(), &host.address6.expect("IPv6").to_string()]);
}

/// Somebody beyond the host, on a wire of its own: `198.51.<number>.2` and `2001:db8:<number>::2`;
/// the host has the 1. Its way to guests leads through the host.
pub fn outside(number: u8) -> Node {
    let node = Node::new();
    let mac = format!("02:00:00:01:00:{number:02x}").parse().expect("a MAC");
    let there = [format!("198.51.{number}.2/24"), format!("2001:db8:{number}::2/64")];
    let port = format!("out{number}");
    wire(&node, &port, None, mac, &[&there[0], &there[1]]);
    ip(&format!("addr add 198.51.{number}.1/24 dev {port}"));
    ip(&format!("addr add 2001:db8:{number}::1/64 dev {port} nodad"));
    node.ip(&format!("route add 10.0.0.0/8 via 198.51.{number}.1"));
    node.ip(&format!("route add fd00::/8 via 2001:db8:{number}::1"));
    node
}

pub const TABLE: &str = "virshle_0badcafe";

pub fn apply(networks: &[&NetworkSpec], ports: &[&Port]) {
    let networks: Vec<NetworkSpec> = networks.iter().map(|network| (*network).clone()).collect();
    let ports: Vec<Port> = ports.iter().map(|port| (*port).clone()).collect();
    firewall::apply(TABLE, &networks, &ports).unwrap_or_else(|error| panic!("{:?}", error.chain()));
}
