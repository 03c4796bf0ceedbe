//! systemd-resolved: each link may have servers of its own, for the domains that are theirs.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::error::{OrFailed, Result};
use crate::host::{self, NetDevice, Program};
use crate::network::dnsmasq::{reverse_zone6, reverse_zones};
use crate::spec::HostSide;

const SOCKET: &str = "/run/systemd/resolve/io.systemd.Resolve";

pub(super) fn is_running() -> bool {
    UnixStream::connect(SOCKET).is_ok()
}

/// Whether it runs, and programs of this host ask it.
pub(super) fn is_used() -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    is_running() && is_asked(&read("/etc/resolv.conf"), &read("/etc/nsswitch.conf"))
}

/// By its address, or by the C library's own way to it.
fn is_asked(resolv_conf: &str, nsswitch: &str) -> bool {
    let words = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let stub = |line: Vec<String>| {
        line.first().is_some_and(|key| key == "nameserver")
            && line.get(1).is_some_and(|server| matches!(server.as_str(), "127.0.0.53" | "127.0.0.54"))
    };
    let module = |line: &str| {
        let sources = line.split('#').next().unwrap_or_default().trim().strip_prefix("hosts:");
        sources.is_some_and(|sources| sources.split_ascii_whitespace().any(|source| source == "resolve"))
    };
    resolv_conf.lines().map(words).any(stub) || nsswitch.lines().any(module)
}

/// It may hear of a new interface later than we do, and refuses what it is told of one until then.
pub(super) fn announce(device: &str, side: &HostSide) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match commands(device, side).into_iter().try_for_each(run) {
            Err(_) if Instant::now() < deadline => host::pause(Duration::from_millis(50)),
            told => return told,
        }
    }
}

pub(super) fn withdraw(device: &str) -> Result<()> {
    let there = NetDevice::find(device).or_failed(|| format!("cannot look for the interface `{device}`"))?;
    // What was told of a link ends with it.
    there.map_or(Ok(()), |_| run(vec!["revert".to_owned(), device.to_owned()]))
}

fn run(args: Vec<String>) -> Result<()> {
    let told = Program::new("resolvectl").args(&args).run();
    told.map(drop).or_failed(|| format!("cannot tell systemd-resolved (`resolvectl {}`)", args.join(" ")))
}

/// The domain and the addresses of the network are its server's to tell, and nothing else is.
fn commands(device: &str, host: &HostSide) -> Vec<Vec<String>> {
    let command = |verb: &str, values: Vec<String>| [vec![verb.to_owned(), device.to_owned()], values].concat();
    let servers = [Some(host.address.addr().to_string()), host.address6.map(|net| net.addr().to_string())];
    let reverse = reverse_zones(host.address).into_iter().chain(host.address6.map(reverse_zone6));
    let domains = std::iter::once(host.domain.clone()).chain(reverse).map(|domain| format!("~{domain}"));
    vec![
        // Before the server is known: it is never asked for anything else.
        command("default-route", vec!["no".to_owned()]),
        command("domain", domains.collect()),
        // It signs and encrypts nothing, whatever the host wants of others.
        command("dnssec", vec!["no".to_owned()]),
        command("dnsovertls", vec!["no".to_owned()]),
        command("dns", servers.into_iter().flatten().collect()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::NetworkSpec;

    #[test]
    fn what_it_is_told() {
        let host = NetworkSpec::sample("main").host.unwrap();
        let lines: Vec<String> = commands("vbr0", &host).iter().map(|args| args.join(" ")).collect();
        assert_eq!(
            lines,
            [
                "default-route vbr0 no",
                "domain vbr0 ~vm ~0.44.10.in-addr.arpa ~3.0.0.0.2.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa",
                "dnssec vbr0 no",
                "dnsovertls vbr0 no",
                "dns vbr0 10.44.0.1 fd00:1:2:3::1",
            ]
        );
    }

    #[test]
    fn whether_programs_ask_it() {
        let nss = "passwd: files\nhosts:\tfiles resolve [!UNAVAIL=return] dns # mine\n";
        let rows = [
            ("nameserver 127.0.0.53\noptions edns0\n", "", true),
            ("nameserver 192.0.2.53\n", nss, true),
            ("nameserver 192.0.2.53\n", "hosts: files dns # resolve\nnetworks: resolve\n", false),
            ("# nameserver 127.0.0.53\nnameserver 127.0.0.1\n", "hosts: files dns\n", false),
            ("", "", false),
        ];
        for (resolv_conf, nsswitch, asked) in rows {
            assert_eq!(is_asked(resolv_conf, nsswitch), asked, "{resolv_conf} {nsswitch}");
        }
    }
}
