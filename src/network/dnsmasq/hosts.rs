//! What dnsmasq serves: a file for each NIC's names, and one for the addresses it is given.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::process::Signal;

use super::release;
use super::server::{DHCP, HOSTS, NEW, host_side, make_folders, trim_log};
use crate::error::{OrFailed, Result};
use crate::host::Handle;
use crate::network::names::Host;
use crate::spec::{HostSide, NetworkSpec};

/// Makes `hosts` what the network's server knows, and nothing else: all NICs on the network, or it
/// forgets some. Without a server it is what the next one begins with. One caller at a time.
pub fn publish(spec: &NetworkSpec, dir: &Path, hosts: &[Host], server: Option<Handle>) -> Result<()> {
    let side = host_side(spec)?;
    make_folders(dir)?;
    trim_log(dir);
    let file = |host: &Host| format!("{}.{}", host.vm, host.nic);
    let names = hosts.iter().map(|host| (file(host), names(side, host))).collect();
    let addresses = hosts.iter().filter(|_| side.dhcp).map(|host| (file(host), addresses(side, host))).collect();
    fill(dir, HOSTS, names)?;
    fill(dir, DHCP, addresses)?;
    if let Some(server) = server {
        if side.dhcp {
            release::conflicting(spec, side, dir, hosts)?;
        }
        if is_stale(dir) {
            let failed = || format!("cannot tell dnsmasq of the network `{}` to look again", spec.name);
            server.signal(Signal::HUP).or_failed(failed)?;
        }
    }
    match fs::remove_file(dir.join(NEW).join(STALE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).or_failed(|| format!("cannot remove `{}`", dir.join(NEW).join(STALE).display()))
        }
        _ => Ok(()),
    }
}

/// Empty, and there from before a file is changed or taken away until dnsmasq was told: one who is
/// killed in between leaves it to the next. An address that was not given up here would be refused
/// to its new owner.
const STALE: &str = "stale";

fn is_stale(dir: &Path) -> bool {
    dir.join(NEW).join(STALE).exists()
}

fn names(side: &HostSide, host: &Host) -> String {
    let name = format!("{}.{}\n", host.name, side.domain);
    let line6 = host.ip6.map(|ip6| format!("{ip6} {name}")).unwrap_or_default();
    format!("{} {name}{line6}", host.ip)
}

fn addresses(side: &HostSide, host: &Host) -> String {
    let ip6 = host.ip6.filter(|_| side.address6.is_some()).map(|ip6| format!("[{ip6}],")).unwrap_or_default();
    format!("{},{},{ip6}{}\n", host.mac, host.ip, host.name)
}

/// Makes the folder hold these files and no others. If one is changed, or taken away, which dnsmasq
/// does not see by itself, that is [noted](STALE).
fn fill(dir: &Path, folder: &str, mut wanted: BTreeMap<String, String>) -> Result<()> {
    let path = dir.join(folder);
    let failed = |doing: &str, name: &std::ffi::OsStr| format!("cannot {doing} `{}`", path.join(name).display());
    let note = || {
        let note = dir.join(NEW).join(STALE);
        fs::write(&note, "").or_failed(|| format!("cannot write `{}`", note.display()))
    };
    let entries = fs::read_dir(&path).or_failed(|| format!("cannot list `{}`", path.display()))?;
    for entry in entries {
        let name = entry.or_failed(|| format!("cannot list `{}`", path.display()))?.file_name();
        let text = name.to_str().and_then(|name| wanted.get(name));
        match text {
            Some(text) if fs::read(path.join(&name)).is_ok_and(|there| there == text.as_bytes()) => {
                name.to_str().map(|name| wanted.remove(name));
            }
            Some(_) => note()?,
            None => {
                note()?;
                fs::remove_file(path.join(&name)).or_failed(|| failed("remove", &name))?;
            }
        }
    }
    for (name, text) in wanted {
        put(dir, &path.join(&name), &text).or_failed(|| failed("write", name.as_ref()))?;
    }
    Ok(())
}

/// The file is whole when it gets its name, which is when dnsmasq reads it. Not synced: a host that
/// starts anew publishes anew.
fn put(dir: &Path, target: &Path, text: &str) -> io::Result<()> {
    let partial = dir.join(NEW).join("file");
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&partial)?;
    // Whatever the caller's umask is.
    file.set_permissions(PermissionsExt::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    // Closed under its new name it would be read twice.
    drop(file);
    fs::rename(&partial, target)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::{Duration, Instant};

    use uuid::Uuid;

    use super::*;
    use crate::host::{ExitStatus, Spawn};
    use crate::spec::Mac;

    fn spec(dhcp: bool) -> NetworkSpec {
        NetworkSpec::sample("main").with_host(|side| {
            side.address6 = Some("fd00::1/64".parse().unwrap());
            side.dhcp = dhcp;
        })
    }

    fn host(name: &str, number: u8) -> Host {
        let vm = Uuid::from_u128(u128::from(number));
        let ip = Ipv4Addr::new(10, 44, 0, number);
        let ip6 = format!("fd00::{number}").parse().ok();
        Host { vm, nic: 0, name: name.parse().unwrap(), mac: Mac::of(vm, 0), ip, ip6 }
    }

    fn files(dir: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
            .collect()
    }

    #[test]
    fn files_are_what_was_published_last() {
        let dir = tempfile::tempdir().unwrap();
        let (web, db) = (host("web", 5), host("db", 6));
        publish(&spec(true), dir.path(), &[web.clone(), db.clone()], None).unwrap();
        let file = "00000000-0000-0000-0000-000000000005.0";
        let (names, addresses) = (files(&dir.path().join(HOSTS)), files(&dir.path().join(DHCP)));
        assert_eq!((names.len(), addresses.len()), (2, 2));
        assert_eq!(names[file], "10.44.0.5 web.vm\nfd00::5 web.vm\n");
        assert_eq!(addresses[file], format!("{},10.44.0.5,[fd00::5],web\n", web.mac));
        assert!(files(&dir.path().join(NEW)).is_empty());
        let mode = fs::metadata(dir.path().join(HOSTS).join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);

        // Only what differs is written.
        let age = |name: &str| {
            fs::metadata(dir.path().join(HOSTS).join(name)).map(|meta| std::os::unix::fs::MetadataExt::ino(&meta))
        };
        let before = age(file).unwrap();
        let shop = Host { name: "shop".parse().unwrap(), ip6: None, ..db.clone() };
        publish(&spec(true), dir.path(), &[web, shop], None).unwrap();
        assert_eq!(age(file).unwrap(), before);
        let names = files(&dir.path().join(HOSTS));
        assert_eq!(names["00000000-0000-0000-0000-000000000006.0"], "10.44.0.6 shop.vm\n");
        publish(&spec(false), dir.path(), &[db], None).unwrap();
        assert_eq!(files(&dir.path().join(HOSTS)).len(), 1);
        assert!(files(&dir.path().join(DHCP)).is_empty(), "nobody is given an address");
    }

    #[test]
    fn only_what_was_served_needs_a_signal() {
        let dir = tempfile::tempdir().unwrap();
        make_folders(dir.path()).unwrap();
        let is_stale_after = |files: &[(&str, &str)]| {
            let _ = fs::remove_file(dir.path().join(NEW).join(STALE));
            let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
            fill(dir.path(), HOSTS, files).unwrap();
            is_stale(dir.path())
        };
        assert!(!is_stale_after(&[("a", "1")]));
        assert!(!is_stale_after(&[("a", "1"), ("b", "1")]), "a new one is seen");
        assert!(!is_stale_after(&[("a", "1"), ("b", "1")]));
        assert!(is_stale_after(&[("a", "2"), ("b", "1")]));
        assert!(is_stale_after(&[("a", "2")]));
    }

    #[test]
    fn a_signal_that_was_not_sent_is_sent_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        // Any program that SIGHUP ends, also where these tests were started to outlive a terminal.
        let stand_in = Spawn::new("/usr/bin/env").args(["--default-signal=HUP", "sleep", "60"]).start().unwrap();
        let server = stand_in.handle();
        let deadline = Instant::now() + Duration::from_secs(20);
        while fs::read_to_string(format!("/proc/{}/comm", server.pid)).unwrap() != "sleep\n" {
            assert!(Instant::now() < deadline);
            crate::host::pause(Duration::from_millis(5));
        }
        let web = [host("web", 5)];
        publish(&spec(false), dir.path(), &web, Some(server)).unwrap();
        assert_eq!(stand_in.try_wait().unwrap(), None, "nothing was served before");
        // Killed before it could tell.
        fill(dir.path(), HOSTS, BTreeMap::new()).unwrap();
        publish(&spec(false), dir.path(), &[], Some(server)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let ended = loop {
            match stand_in.try_wait().unwrap() {
                None if Instant::now() < deadline => crate::host::pause(Duration::from_millis(5)),
                ended => break ended,
            }
        };
        assert_eq!(ended, Some(ExitStatus::Signal(1)));
        assert!(!is_stale(dir.path()));
    }
}
