//! Real guests on networks of four lines, in a host of the test's own: its network namespace has
//! one cable, to another namespace with a server.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use super::liar::Lie;
use super::side::Side;
use super::{BOOT, PORT, Stage};
use crate::fixtures::echo::{Echo, ask_tcp, ask_udp};
use crate::fixtures::netns::{OUTSIDE, Outside, line, on_private_host};
use crate::fixtures::ping::Ping;
use crate::trials;
use crate::world::{Outcome, eventually, exercised, need_program, need_root, run, skip};

pub fn trials() -> Vec<Trial> {
    trials![guests_on_networks_of_four_lines]
}

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 44, 0, 1);
/// The host's ports that lead there.
const FORWARDED: u16 = 8080;
const FORWARDED_UDP: u16 = 5353;

fn guests_on_networks_of_four_lines() -> Outcome {
    need_root()?;
    for program in ["ip", "nft", "dnsmasq", "ssh", "getent"] {
        need_program(program)?;
    }
    let stage = Stage::new()?;
    let hosts = stage.world.file("hosts", "127.0.0.1 localhost\n::1 localhost\n");
    match on_private_host(&hosts, || guests(&stage)) {
        Ok(()) => Ok(()),
        Err(reason) => skip(reason),
    }
}

fn guests(stage: &Stage) {
    let world = &stage.world;
    let outside = Outside::behind("cable").expect("a cable");
    line(&format!("ip address add {HOST}/24 dev cable"));
    line(&format!("ip address add {HOST6}/64 dev cable nodad"));
    let server = outside.run(|| {
        line(&format!("ip address add {SERVER}/24 dev {OUTSIDE}"));
        line(&format!("ip address add {SERVER6}/64 dev {OUTSIDE} nodad"));
        // Who would come in uninvited knows the way.
        line(&format!("ip route add default via {HOST}"));
        line(&format!("ip -6 route add default via {HOST6}"));
        Echo::serve(PORT).expect("a server")
    });
    eventually("the cable has all its addresses", Duration::from_secs(20), || {
        let addresses = line("ip -o -6 address show dev cable");
        addresses.contains("fe80:") && !addresses.contains("tentative")
    });
    let before = the_host();
    configure(stage);

    let talk = stage.with_talk();
    for (template, name) in [("open", "alpha"), ("plain", "beta"), ("apart", "gamma")] {
        world.v(["vm", "create", "-t", template, "-n", name].into_iter().chain(talk.iter().map(String::as_str))).ok();
    }
    // Before anything runs, and without asking anybody.
    assert_eq!(world.row("alpha")["address"], "10.44.0.2");
    assert_eq!(world.row("beta")["address"], "10.44.0.3");
    assert_eq!(world.row("gamma")["address"], "10.45.0.2");
    let shown = world.v(["vm", "ls"]).ok().stdout;
    assert!(shown.contains("10.44.0.2") && shown.contains("10.45.0.2"), "{shown}");
    world.v(["vm", "start", "alpha", "beta", "gamma"]).ok();
    // Three side by side take their time.
    let wait = world.command(["vm", "wait", "alpha", "beta", "gamma", "--timeout", BOOT]);
    run(wait, Duration::from_secs(500)).ok();
    exercised("networks", "Linux bridge, nftables, dnsmasq; Debian guests under QEMU (TCG)");

    let alpha = Side::of(stage, "alpha");
    let beta = Side::of(stage, "beta");
    let gamma = Side::of(stage, "gamma");
    // Their line to this host is there before their servers are.
    for guest in [&alpha, &beta, &gamma] {
        eventually("it serves", Duration::from_secs(200), || ask_tcp((guest.ip, PORT), "x").is_ok());
    }
    neighbours_and_the_outside(&alpha, &beta);
    the_host_and_forwards(stage, &outside, &beta);
    the_isolated_one(&outside, &alpha, &gamma, &server);
    a_guest_that_lies(&alpha, &beta);

    world.v(["network", "down", "main"]).fails(4, &["alpha", "beta"]);
    world.v(["vm", "delete", "--force", "--all"]).ok();
    world.v(["network", "down", "--all"]).ok();
    assert_eq!(the_host(), before, "links, addresses, routes, rules and settings are as they were before");
    let hosts = std::fs::read_to_string("/etc/hosts").expect("the hosts file");
    assert_eq!(hosts, "127.0.0.1 localhost\n::1 localhost\n");
    world.assert_empty();
}

fn configure(stage: &Stage) {
    let (kernel, initrd) = stage.for_others();
    let guest = &stage.guest;
    let template = |name: &str, network: &str, more: &str| {
        format!(
            "[[template.vm]]\nname = \"{name}\"\nvcpu = 1\nvram = \"512MiB\"\n\
             kernel = {:?}\ninitramfs = {:?}\ncmdline = {:?}\n\
             [[template.vm.disk]]\nname = \"os\"\npath = {:?}\n\
             [[template.vm.net]]\nname = \"{network}\"\n{more}",
            kernel, initrd, guest.cmdline, guest.disk
        )
    };
    stage.world.config(&format!(
        "[node]\nhypervisor = \"qemu\"\naccel = \"tcg\"\nuser = \"nobody\"\nhosts-file = \"/etc/hosts\"\n\
         [[network]]\nname = \"main\"\ntype = \"bridge\"\nbridge = \"vbr0\"\nsubnet = \"10.44.0.0/24\"\n\
         [[network]]\nname = \"apart\"\ntype = \"bridge\"\nbridge = \"vbr1\"\nsubnet = \"10.45.0.0/24\"\nisolated = true\n\
         {}{}{}",
        template(
            "open",
            "main",
            &format!("ports = [\"{FORWARDED}:{PORT}\", \"{FORWARDED_UDP}:{PORT}/udp\"]\n")
        ),
        template("plain", "main", ""),
        template("apart", "apart", ""),
    ));
}

fn talk(kind: &str, to: impl std::fmt::Display, words: &str) -> String {
    format!("talk.py {kind} {to} {PORT} {words}")
}

fn ping(how: &str, to: impl std::fmt::Display) -> String {
    format!("ping {how} -q -c 2 -i 0.2 -W 5 {to} >/dev/null 2>&1 && echo answers || echo silent")
}

fn neighbours_and_the_outside(alpha: &Side<'_>, beta: &Side<'_>) {
    let said = alpha.all_said([
        ping("-4", "beta"),
        ping("-4", "beta.vm"),
        ping("-6", "beta"),
        ping("-6", "beta.vm"),
        "getent ahostsv4 beta.vm | head -n 1 | cut -d' ' -f1".to_owned(),
        "getent ahostsv6 beta.vm | head -n 1 | cut -d' ' -f1".to_owned(),
        talk("tcp", "beta", "neighbour"),
        talk("tcp", beta.ip6, "neighbour"),
        talk("udp", "beta", "neighbour"),
        talk("tcp", SERVER, "out"),
        talk("udp", SERVER, "out"),
        talk("tcp", SERVER6, "out"),
    ]);
    let neighbour = |from: &dyn std::fmt::Display| format!("{from} neighbour");
    assert_eq!(said[..4], ["answers"; 4].map(str::to_owned), "its neighbour, by name, over IPv4 and IPv6");
    assert_eq!(said[4..6], [beta.ip.to_string(), beta.ip6.to_string()], "its neighbour's name");
    // Which of its names' addresses Python takes is the guest's affair.
    assert!([neighbour(&alpha.ip), neighbour(&alpha.ip6)].contains(&said[6]), "by name: {}", said[6]);
    assert_eq!(said[7], neighbour(&alpha.ip6));
    assert!([neighbour(&alpha.ip), neighbour(&alpha.ip6)].contains(&said[8]), "by name: {}", said[8]);
    assert_eq!(said[9..11], [format!("{HOST} out"), format!("{HOST} out")], "the server sees the host");
    assert_eq!(said[11], format!("{HOST6} out"), "by IPv6 too");
    assert_eq!(beta.said(&ping("-6", "alpha")), "answers");
}

fn the_host_and_forwards(stage: &Stage, outside: &Outside, beta: &Side<'_>) {
    // A program that knows nothing of `v`.
    let resolved = line("getent ahostsv4 beta.vm");
    assert!(resolved.starts_with(&beta.ip.to_string()), "{resolved}");
    let resolved = line("getent ahostsv6 beta.vm");
    assert!(resolved.starts_with(&beta.ip6.to_string()), "{resolved}");
    let key = stage.key.to_str().expect("a path");
    let options =
        "-F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR";
    for (family, name) in [("-4", "alpha.vm"), ("-6", "beta.vm")] {
        let said = line(&format!("ssh {family} {options} -i {key} tester@{name} hostname"));
        assert_eq!(format!("{}.vm", said.trim()), name, "ssh by name ({family})");
    }

    // The guest answers whom it sees. The host's own request for 127.0.0.1 comes from its gateway.
    let here = Ipv4Addr::LOCALHOST;
    assert_eq!(ask_tcp((here, FORWARDED), "x").expect("an answer"), format!("{GATEWAY} x"), "TCP, 127.0.0.1");
    assert_eq!(ask_udp((here, FORWARDED_UDP), "x").expect("an answer"), format!("{GATEWAY} x"), "UDP, 127.0.0.1");
    let from_outside = outside.run(|| {
        let tcp = ask_tcp((HOST, FORWARDED), "x").map_err(|error| error.to_string());
        let udp = ask_udp((HOST, FORWARDED_UDP), "x").map_err(|error| error.to_string());
        (tcp, udp)
    });
    let seen = Ok(format!("{SERVER} x"));
    assert_eq!(from_outside, (seen.clone(), seen), "TCP and UDP from outside, under their own address");
    // The neighbour, through the host's address.
    let said = beta.all_said([format!("talk.py tcp {HOST} {FORWARDED} x")]);
    assert!(said[0].ends_with(" x") && !said[0].starts_with("nothing"), "a neighbour through the forward: {}", said[0]);
}

fn the_isolated_one(outside: &Outside, alpha: &Side<'_>, gamma: &Side<'_>, server: &Echo) {
    let said = gamma.all_said([
        // Its network works.
        ping("-4", "10.45.0.1"),
        "getent ahostsv4 gamma.vm | head -n 1 | cut -d' ' -f1".to_owned(),
        ping("-4", alpha.ip),
        ping("-6", alpha.ip6),
        talk("tcp", alpha.ip, "isolated"),
        talk("udp", alpha.ip, "isolated"),
        talk("tcp", SERVER, "isolated"),
        talk("udp", SERVER, "isolated"),
        talk("tcp", SERVER6, "isolated"),
        // Not through the host either.
        format!("talk.py tcp {HOST} {FORWARDED} isolated"),
        format!("talk.py tcp 10.45.0.1 {FORWARDED} isolated"),
    ]);
    assert_eq!(said[..2], ["answers".to_owned(), gamma.ip.to_string()]);
    assert_eq!(said[2..4], ["silent", "silent"].map(str::to_owned), "ping to another network");
    for (row, what) in said[4..].iter().enumerate() {
        assert!(what.starts_with("nothing: "), "from the isolated guest, attempt {row}: {what}");
    }
    let came: Vec<_> = server.heard().into_iter().filter(|(_, words)| words == "isolated").collect();
    assert_eq!(came, [], "what left the isolated network");
    let said = alpha.all_said([ping("-4", gamma.ip), ping("-6", gamma.ip6), talk("tcp", gamma.ip, "x")]);
    assert_eq!(said[..2], ["silent", "silent"].map(str::to_owned));
    assert!(said[2].starts_with("nothing: "), "into the isolated network: {}", said[2]);
    // Nobody comes in uninvited, who knows the way: to the isolated one, and to one behind NAT.
    let guests: [SocketAddr; 4] =
        [(gamma.ip, PORT).into(), (gamma.ip6, PORT).into(), (alpha.ip, PORT).into(), (alpha.ip6, PORT).into()];
    let came = outside.run(move || {
        let asking = guests.map(|guest| std::thread::spawn(move || (guest, ask_tcp(guest, "x").ok())));
        asking.map(|thread| thread.join().expect("it asks"))
    });
    for (guest, answer) in came {
        assert_eq!(answer, None, "from outside to {guest}");
    }
}

/// It takes its neighbour's address, then its MAC: what it tells then is not heard, and the
/// neighbour's traffic goes on.
fn a_guest_that_lies(alpha: &Side<'_>, beta: &Side<'_>) {
    let neighbour = Ping::start(beta.ip);
    eventually("the neighbour answers", Duration::from_secs(30), || neighbour.answers());
    let begun = Instant::now();
    alpha.lies(&Lie { ip: beta.ip, ip6: beta.ip6, mac: beta.mac.clone() });
    assert!(neighbour.answers(), "the neighbour still answers");
    let silence = neighbour.silence(begun);
    assert!(silence < Duration::from_secs(3), "the neighbour was silent for {silence:?}");
    drop(neighbour);
    let known = line(&format!("ip neigh show {}", beta.ip));
    assert!(known.contains(&beta.mac), "the host knows the neighbour as itself: {known}");
    assert_eq!(alpha.said(&ping("-4", "beta")), "answers");
    exercised(
        "longest silence of a neighbour while its address and MAC are taken, in ms",
        &silence.as_millis().to_string(),
    );
}

/// What of a host a network can change: links, addresses, routes, rules, settings.
fn the_host() -> String {
    let mut text = String::new();
    for command in [
        "ip -o link",
        "ip -o address",
        "ip route show table all",
        "ip -6 route show table all",
        "ip rule",
        "nft list ruleset",
    ] {
        let mut words = command.split(' ');
        let mut program = std::process::Command::new(words.next().expect("a program"));
        program.args(words);
        text += &run(program, Duration::from_secs(20)).ok().stdout;
    }
    for file in
        ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/cable/accept_ra", "ipv4/conf/all/route_localnet"]
    {
        text += &format!("{file} {}", std::fs::read_to_string(format!("/proc/sys/net/{file}")).expect("a setting"));
    }
    text
}
