//! What a guest does on its network: it asks for addresses and names. In a network namespace of its
//! own, behind one end of a veth pair.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sockopt};

use super::super::netns::in_private_network;
use crate::host::Program;

type Work = Box<dyn FnOnce() + Send>;

/// A namespace, and the thread that is in it.
pub(super) struct Guest {
    work: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    tid: i32,
}

/// Its only interface.
pub(super) const DEVICE: &str = "eth0";

pub(super) fn ip(args: &str) {
    Program::new("ip").args(args.split(' ')).run().unwrap_or_else(|error| panic!("ip {args}: {error}"));
}

impl Guest {
    pub(super) fn new() -> Self {
        let (work, queue) = mpsc::channel::<Work>();
        let (told, tid) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let done = in_private_network(move || {
                told.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
                queue.into_iter().for_each(|work| work());
            });
            done.expect("a namespace inside a namespace");
        });
        Self { work: Some(work), thread: Some(thread), tid: tid.recv().unwrap() }
    }

    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    /// Plugs it into a bridge of the caller's namespace, as `port`.
    pub(super) fn plug(&self, bridge: &str, port: &str) {
        ip(&format!("link add {port} type veth peer name {DEVICE} netns {}", self.tid));
        ip(&format!("link set {port} master {bridge} up"));
        self.run(|| {
            ip("link set lo up");
            ip(&format!("link set {DEVICE} up"));
        });
    }

    pub(super) fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        let (done, result) = mpsc::channel();
        let work = Box::new(move || drop(done.send(work())));
        self.work.as_ref().unwrap().send(work).unwrap();
        result.recv().expect("the work did not panic")
    }

    /// The address that a NIC with this MAC is given, and all that it was told.
    pub(super) fn dhcp(&self, mac: &str) -> (Ipv4Addr, Options) {
        let mac = mac.to_owned();
        self.run(move || {
            become_nic(&mac);
            let socket = UdpSocket::bind("0.0.0.0:68").unwrap();
            socket.set_broadcast(true).unwrap();
            let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            // Clones of one image: the same client id whoever asks.
            let (offered, offer) = exchange(&socket, &bytes, &[53, 1, 1, 61, 3, 0, 1, 2]);
            assert_eq!(offer[&53], [2], "an offer");
            let mut request = vec![53, 1, 3, 61, 3, 0, 1, 2, 50, 4];
            request.extend(offered.octets());
            request.extend([54, 4]);
            request.extend(&offer[&54]);
            let (given, told) = exchange(&socket, &bytes, &request);
            assert_eq!((told[&53].as_slice(), given), (&[5_u8][..], offered), "an acknowledgement");
            (given, told)
        })
    }

    /// The IPv6 address that a NIC with this MAC is given, if any; it has just called for its router.
    pub(super) fn dhcp6(&self, mac: &str) -> Option<Ipv6Addr> {
        let mac = mac.to_owned();
        self.run(move || {
            become_nic(&mac);
            let scope = scope();
            let socket = bind_when_there(|| UdpSocket::bind(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 546, 0, 0)));
            let mut client = vec![0, 3, 0, 1];
            client.extend(mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()));
            let who = option6(1, &client);
            // An address for interface 7; without one that is asked for.
            let wanted = option6(3, &[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
            let solicit = [&[1, 1, 2, 3][..], &who, &wanted].concat();
            let advertise = exchange6(&socket, scope, &solicit, 2);
            let server = option6(2, &find6(&advertise[4..], 2)?);
            let offered = find6(&advertise[4..], 3)?;
            find6(&offered[12..], 5)?;
            let request = [&[3, 1, 2, 4][..], &who, &server, &option6(3, &offered)].concat();
            let reply = exchange6(&socket, scope, &request, 7);
            let given = find6(&find6(&reply[4..], 3)?[12..], 5)?;
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(&given[..16]).unwrap()))
        })
    }

    /// What the router says of itself, when it is called for.
    pub(super) fn router(&self) -> Advertisement {
        self.run(|| {
            let scope = scope();
            let socket = rustix::net::socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
            sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_millis(500))).unwrap();
            let routers = SocketAddrV6::new("ff02::2".parse().unwrap(), 0, 0, scope);
            let started = Instant::now();
            while started.elapsed() < LIMIT {
                // Without a link-local address yet it cannot be sent.
                let _ = rustix::net::sendto(&socket, &[133, 0, 0, 0, 0, 0, 0, 0], SendFlags::empty(), &routers);
                let mut packet = [0; 1500];
                if let Ok((length, _)) = rustix::net::recv(&socket, &mut packet, rustix::net::RecvFlags::empty())
                    && packet[0] == 134
                {
                    return Advertisement::parse(&packet[..length]);
                }
            }
            panic!("no router has announced itself");
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.work.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

pub(super) const LIMIT: Duration = Duration::from_secs(20);

pub(super) type Options = std::collections::BTreeMap<u8, Vec<u8>>;

fn become_nic(mac: &str) {
    ip(&format!("link set {DEVICE} down"));
    ip(&format!("link set {DEVICE} address {mac}"));
    ip(&format!("link set {DEVICE} up"));
    ip(&format!("route replace default dev {DEVICE}"));
}

/// One message of a client without an address, and the answer to it.
fn exchange(socket: &UdpSocket, mac: &[u8], options: &[u8]) -> (Ipv4Addr, Options) {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[1, 1, 6]);
    // A late second offer is no answer to the request.
    let id = [b'm', b'e', 0, options[2]];
    message[4..8].copy_from_slice(&id);
    // Answered to all, as it cannot be reached by an address.
    message[10] = 0x80;
    message[28..34].copy_from_slice(mac);
    message[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    message.extend(options);
    // What it wants to be told.
    message.extend([55, 7, 1, 3, 6, 12, 15, 26, 119, 255]);
    let answer = ask(socket, "255.255.255.255:67".parse().unwrap(), &message, |answer| answer.get(4..8) == Some(&id));
    let given = Ipv4Addr::from(<[u8; 4]>::try_from(&answer[16..20]).unwrap());
    let mut told = Options::new();
    let mut rest = &answer[240..];
    while let [code, length, values @ ..] = rest
        && *code != 255
    {
        let (value, behind) = values.split_at(usize::from(*length));
        told.insert(*code, value.to_owned());
        rest = behind;
    }
    (given, told)
}

/// Asks again until there is an answer: a port that has just got its carrier may lose what is sent.
fn ask(socket: &UdpSocket, server: SocketAddr, message: &[u8], fits: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        let _ = socket.send_to(message, server);
        let mut answer = vec![0; 1500];
        while let Ok(length) = socket.recv(&mut answer) {
            if fits(&answer[..length]) {
                answer.truncate(length);
                return answer;
            }
        }
    }
    panic!("no answer from {server}");
}

fn scope() -> u32 {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    rustix::net::netdevice::name_to_index(&socket, DEVICE).expect("the guest has its interface")
}

fn bind_when_there(bind: impl Fn() -> std::io::Result<UdpSocket>) -> UdpSocket {
    let started = Instant::now();
    loop {
        match bind() {
            Ok(socket) => return socket,
            Err(error) if started.elapsed() > LIMIT => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn exchange6(socket: &UdpSocket, scope: u32, message: &[u8], kind: u8) -> Vec<u8> {
    let servers = SocketAddrV6::new("ff02::1:2".parse().unwrap(), 547, 0, scope);
    ask(socket, servers.into(), message, |answer| answer.first() == Some(&kind) && answer[1..4] == message[1..4])
}

fn option6(code: u8, value: &[u8]) -> Vec<u8> {
    [&[0, code][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

fn find6(mut options: &[u8], code: u8) -> Option<Vec<u8>> {
    while let [0, kind, high, low, rest @ ..] = options {
        let (value, behind) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        if *kind == code {
            return Some(value.to_owned());
        }
        options = behind;
    }
    None
}

/// A router's own words.
#[derive(Debug)]
pub(super) struct Advertisement {
    pub managed: bool,
    pub lifetime: u16,
    /// The prefix, and whether guests make up addresses in it.
    pub prefix: Option<(Ipv6Addr, u8, bool)>,
    pub mtu: Option<u32>,
}

impl Advertisement {
    fn parse(packet: &[u8]) -> Self {
        let mut found = Self {
            managed: packet[5] & 0x80 != 0,
            lifetime: u16::from_be_bytes([packet[6], packet[7]]),
            prefix: None,
            mtu: None,
        };
        let mut rest = &packet[16..];
        while rest.len() >= 8 {
            let (option, behind) = rest.split_at(usize::from(rest[1]) * 8);
            match option[0] {
                3 => {
                    let prefix = Ipv6Addr::from(<[u8; 16]>::try_from(&option[16..32]).unwrap());
                    found.prefix = Some((prefix, option[2], option[3] & 0x40 != 0));
                }
                5 => found.mtu = Some(u32::from_be_bytes(option[4..8].try_into().unwrap())),
                _ => {}
            }
            rest = behind;
        }
        found
    }
}

/// The answer to one DNS question: its code, and the addresses or names in it.
pub(super) fn dns(server: IpAddr, name: &str, kind: u16) -> (u8, Vec<String>) {
    let labels: Vec<u8> = name
        .split('.')
        .flat_map(|label| [&[u8::try_from(label.len()).unwrap()][..], label.as_bytes()].concat())
        .collect();
    let question = [&b"me\x01\0\0\x01\0\0\0\0\0\0"[..], &labels, &[0], &kind.to_be_bytes(), &[0, 1]].concat();
    let local: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = bind_when_there(|| UdpSocket::bind((local, 0)));
    let answer = ask(&socket, (server, 53).into(), &question, |answer| answer.starts_with(b"me"));
    let mut records = Vec::new();
    let mut at = question.len();
    for _ in 0..u16::from_be_bytes([answer[6], answer[7]]) {
        at = behind_name(&answer, at);
        let length = usize::from(u16::from_be_bytes([answer[at + 8], answer[at + 9]]));
        let value = &answer[at + 10..at + 10 + length];
        records.push(match u16::from_be_bytes([answer[at], answer[at + 1]]) {
            1 => Ipv4Addr::from(<[u8; 4]>::try_from(value).unwrap()).to_string(),
            28 => Ipv6Addr::from(<[u8; 16]>::try_from(value).unwrap()).to_string(),
            _ => name_at(&answer, at + 10),
        });
        at += 10 + length;
    }
    records.sort();
    (answer[3] & 15, records)
}

fn behind_name(message: &[u8], mut at: usize) -> usize {
    loop {
        match message[at] {
            0 => return at + 1,
            length if length >= 0xc0 => return at + 2,
            length => at += usize::from(length) + 1,
        }
    }
}

fn name_at(message: &[u8], mut at: usize) -> String {
    let mut labels = Vec::new();
    loop {
        match usize::from(message[at]) {
            0 => return labels.join("."),
            length if length >= 0xc0 => at = (length & 0x3f) << 8 | usize::from(message[at + 1]),
            length => {
                labels.push(String::from_utf8_lossy(&message[at + 1..=at + length]).into_owned());
                at += length + 1;
            }
        }
    }
}
