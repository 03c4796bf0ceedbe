//! The process: its folder, its argv, its start and its end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::config;
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Access, Child, Gate, Handle, NetDevice, NewFile, Program, Runner, Spawn, User};
use crate::spec::{HostSide, NetworkSpec};

const CONFIG: &str = "dnsmasq.conf";
const LOG: &str = "dnsmasq.log";
pub(super) const LEASES: &str = "leases";
pub(super) const HOSTS: &str = "hosts";
pub(super) const DHCP: &str = "dhcp";
pub(super) const NEW: &str = "new";

/// How long a server may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// What a log may grow to: dnsmasq has a line for each file, each time it reads them.
const LOG_LIMIT: u64 = 1 << 20;

/// The argv that serves a network in the foreground, for a service manager; all it needs in `dir`
/// is made.
pub fn command(spec: &NetworkSpec, dir: &Path) -> Result<(PathBuf, Vec<OsString>)> {
    let host = host_side(spec)?;
    // A user's PATH often is without the folders of the administrator's programs.
    let program = find(&["dnsmasq", "/usr/sbin/dnsmasq"])?;
    let user = user();
    make_folders(dir)?;
    write_config(&dir.join(CONFIG), &config::text(spec, host)?)?;
    if let Some(user) = &user {
        admit(dir, user)?;
    }
    let named = |option: &str, path: PathBuf| {
        let mut arg = OsString::from(option);
        arg.push(path);
        arg
    };
    let mut args: Vec<OsString> = vec![
        "--keep-in-foreground".into(),
        named("--conf-file=", dir.join(CONFIG)),
        named("--hostsdir=", dir.join(HOSTS)),
    ];
    if host.dhcp {
        args.push(named("--dhcp-hostsdir=", dir.join(DHCP)));
        args.push(named("--dhcp-leasefile=", dir.join(LEASES)));
    }
    args.extend(user.map(|user| OsString::from(format!("--user={}", user.name))));
    Ok((program, args))
}

/// Starts it, and returns once it answers. It outlives this process.
pub fn start(spec: &NetworkSpec, dir: &Path) -> Result<Handle> {
    launch(spec, dir, |server| server.start().or_failed(|| failed(spec)))
}

/// The same, behind a gate: it becomes dnsmasq only when it is noted, so that there is none that
/// nobody knows of, whenever this process is killed.
pub fn start_noted(
    spec: &NetworkSpec,
    dir: &Path,
    gate: &Gate,
    note: impl FnOnce(Handle) -> Result<()>,
) -> Result<Handle> {
    launch(spec, dir, |server| {
        let waiting = server.start_at(gate).or_failed(|| failed(spec))?;
        note(waiting.handle())?;
        waiting.open().or_failed(|| failed(spec))
    })
}

fn failed(spec: &NetworkSpec) -> String {
    format!("cannot serve the network `{}`", spec.name)
}

fn launch(spec: &NetworkSpec, dir: &Path, start: impl FnOnce(Spawn) -> Result<Child>) -> Result<Handle> {
    let host = host_side(spec)?;
    let (program, args) = command(spec, dir)?;
    let failed = || failed(spec);
    let (device, address) = (spec.device(), host.address.addr());
    if NetDevice::find(&device).or_failed(failed)?.is_none() {
        // dnsmasq would wait for it.
        return Err(Error::failed(failed()).source(Error::failed(format!("there is no interface `{device}`"))));
    }
    check_free(address).map_err(|error| error.context(failed()))?;
    let path = dir.join(LOG);
    let log = host::open_log(&path).or_failed(|| format!("cannot open `{}`", path.display()))?;
    let from = log.metadata().or_failed(failed)?.len();
    let child = start(Spawn::new(program).args(args).log(log).detached())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if child.try_wait().or_failed(failed)?.is_some() {
            return Err(explain(host, last_words(&path, from)).context(failed()));
        }
        if answers(address) {
            break;
        }
        if Instant::now() > deadline {
            let words = last_words(&path, from).unwrap_or_else(|| "it says nothing".to_owned());
            return Err(Error::failed(failed()).source(Error::failed(format!(
                "dnsmasq did not answer at {address} in {} s: {words}",
                PATIENCE.as_secs()
            ))));
        }
        host::pause(POLL);
    }
    let handle = child.handle();
    child.leave();
    Ok(handle)
}

/// Ends it. One that is gone already is as good.
pub fn stop(server: Handle) -> Result<()> {
    let failed = || format!("cannot stop the dnsmasq with the pid {}", server.pid);
    let Some(child) = Child::adopt(server).or_failed(failed)? else { return Ok(()) };
    child.signal(Signal::TERM).or_failed(failed)?;
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().or_failed(failed)?.is_none() && Instant::now() < deadline {
        host::pause(POLL);
    }
    // Dropped, it is killed if it has not heard.
    Ok(())
}

/// Empties a log that has grown too long; dnsmasq appends to it.
pub(super) fn trim_log(dir: &Path) {
    let path = dir.join(LOG);
    let long = path.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() > LOG_LIMIT);
    if long && let Err(error) = host::open_log(&path).and_then(|log| log.set_len(0)) {
        tracing::warn!(path = %path.display(), %error, "cannot empty the log of dnsmasq");
    }
}

pub(super) fn host_side(spec: &NetworkSpec) -> Result<&HostSide> {
    spec.host.as_ref().ok_or_else(|| Error::failed(format!("this host serves nothing on the network `{}`", spec.name)))
}

fn find(names: &[&str]) -> Result<PathBuf> {
    names.iter().find_map(host::find_program).ok_or_else(|| {
        Error::failed("`dnsmasq` is not installed: it gives guests their names and addresses")
            .hint("install it: `apt install dnsmasq-base`, elsewhere the package `dnsmasq`")
    })
}

/// Whom dnsmasq becomes. It does so only when root starts it.
fn user() -> Option<Runner> {
    let user = ["dnsmasq", "nobody"].iter().find_map(|name| User::by_name(name))?;
    Some(Runner { name: user.name, uid: user.uid, gid: user.gid, groups: Vec::new() })
}

/// The folder's own and what dnsmasq lists. Names are no secret: it tells them to who asks.
pub(super) fn make_folders(dir: &Path) -> Result<()> {
    host::make_private(dir)?;
    for (name, mode) in [(HOSTS, 0o755), (DHCP, 0o755), (NEW, 0o700)] {
        let path = dir.join(name);
        host::make_private(&path)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(mode))
            .or_failed(|| format!("cannot open up `{}`", path.display()))?;
    }
    Ok(())
}

/// Lets dnsmasq's user through to the folders that it reads; it can list and change nothing else.
fn admit(dir: &Path, user: &Runner) -> Result<()> {
    // `<network>`, `net`, and `virshle`, `run` and what `--root` named above them: all Virshle's own.
    dir.ancestors().take(5).try_for_each(host::let_through)?;
    let path = dir.join(HOSTS);
    let allowed =
        host::may_access(user, &path, Access::Read).or_failed(|| format!("cannot look at `{}`", path.display()))?;
    let Err(denied) = allowed else { return Ok(()) };
    let at = denied.at.display();
    Err(Error::failed(format!("the user `{}`, as whom dnsmasq runs, may not read `{}`", user.name, path.display()))
        .source(Error::failed(format!("the mode of `{at}` is {:04o}", denied.mode)))
        .hint(format!("let others pass through (`chmod o+x {at}`), or name another folder with `--root`")))
}

fn write_config(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let new = NewFile::replacing(path, 0o600)?;
        new.file().write_all(text.as_bytes())?;
        new.keep()
    };
    write().or_failed(|| format!("cannot write `{}`", path.display()))
}

/// A question for a name that only this server knows about; whatever the answer, it is there.
fn answers(address: Ipv4Addr) -> bool {
    // Id, one question, then `virshle` as an address in the Internet.
    const QUESTION: &[u8] = b"vi\x01\0\0\x01\0\0\0\0\0\0\x07virshle\0\0\x01\0\x01";
    let ask = || -> io::Result<bool> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((address, 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        socket.send(QUESTION)?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        Ok(length >= 12 && answer[..2] == QUESTION[..2])
    };
    ask().unwrap_or(false)
}

/// Another server's answer would be taken for ours.
fn check_free(address: Ipv4Addr) -> Result<()> {
    match UdpSocket::bind((address, 53)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(taken(address, 53)),
        // What else is wrong dnsmasq tells better.
        _ => Ok(()),
    }
}

fn taken(address: Ipv4Addr, port: u16) -> Error {
    let what = if port == 53 { "DNS" } else { "DHCP" };
    let who = holder(address, port).map_or_else(|| "another program".to_owned(), |who| format!("`{who}`"));
    Error::refused(format!("{who} has the port {port} ({what}) of {address} already")).hint(format!(
        "keep it to its own addresses (dnsmasq: `bind-dynamic`, `except-interface`; others: a list of addresses), \
         stop it, or see what it is: `ss -lunp 'sport = :{port}'`"
    ))
}

/// Who has a UDP port, as `name (pid)`.
fn holder(address: Ipv4Addr, port: u16) -> Option<String> {
    let listed = Program::new("ss").args(["-H", "-l", "-u", "-n", "-p"]).arg(format!("sport = :{port}")).run();
    parse_holder(&listed.ok()?.text(), address)
}

fn parse_holder(listed: &str, address: Ipv4Addr) -> Option<String> {
    listed.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let local = fields.get(3)?.rsplit_once(':')?.0;
        let local = local.split('%').next()?;
        if local != address.to_string() && !matches!(local, "0.0.0.0" | "*" | "[::]") {
            return None;
        }
        let process = line.split_once("users:((\"")?.1;
        let (name, rest) = process.split_once('"')?;
        let pid = rest.strip_prefix(",pid=")?.split(',').next()?;
        Some(format!("{name} ({pid})"))
    })
}

fn explain(host: &HostSide, words: Option<String>) -> Error {
    let Some(words) = words else { return Error::failed("dnsmasq ended without a word") };
    if words.contains("Address already in use") {
        let port = if words.contains("DHCP") { 67 } else { 53 };
        return taken(host.address.addr(), port).source(Error::failed(format!("dnsmasq: {words}")));
    }
    Error::failed(format!("dnsmasq: {words}"))
}

/// What it said last, of what it has said since `from`.
fn last_words(log: &Path, from: u64) -> Option<String> {
    let read = || {
        let mut file = File::open(log)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(1 << 16).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    let bytes = read().ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let said = |line: &str| {
        let words = line.trim().strip_prefix("dnsmasq")?.split_once(": ")?.1.trim();
        (!words.is_empty() && words != "FAILED to start up").then(|| words.to_owned())
    };
    text.lines().rev().find_map(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_with_its_package() {
        let error = find(&["no-such-dnsmasq", "/no/such/dnsmasq"]).unwrap_err();
        assert!(error.hint_text().is_some_and(|hint| hint.contains("dnsmasq-base")), "{error:?}");
    }

    #[test]
    fn who_has_a_port() {
        let listed = "\
UNCONN 0      0          10.45.0.1:53        0.0.0.0:*    users:((\"named\",pid=7,fd=8))
UNCONN 0      0      10.44.0.1%vbr0:53       0.0.0.0:*    users:((\"dns masq\",pid=13334,fd=8),(\"x\",pid=1,fd=2))
UNCONN 0      0               [::]:67             *:*
";
        let holder = |address: &str| parse_holder(listed, address.parse().unwrap());
        assert_eq!(holder("10.44.0.1").as_deref(), Some("dns masq (13334)"));
        assert_eq!(holder("10.46.0.1"), None);
        let everywhere = "UNCONN 0 0 0.0.0.0:53 0.0.0.0:* users:((\"unbound\",pid=9,fd=3))\n";
        assert_eq!(parse_holder(everywhere, Ipv4Addr::LOCALHOST).as_deref(), Some("unbound (9)"));
    }

    #[test]
    fn its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join(LOG);
        let said = "dnsmasq[4]: started, version 2.90\n";
        let words = "dnsmasq: failed to create listening socket for 10.44.0.1: Address already in use\n\
                     dnsmasq[5]: FAILED to start up\n";
        fs::write(&log, format!("{said}{words}")).unwrap();
        let expected = "failed to create listening socket for 10.44.0.1: Address already in use";
        assert_eq!(last_words(&log, said.len() as u64).as_deref(), Some(expected));
        assert_eq!(last_words(&log, (said.len() + words.len()) as u64), None);
    }

    #[test]
    fn a_log_that_is_too_long_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join(LOG);
        fs::write(&log, "short").unwrap();
        trim_log(dir.path());
        assert_eq!(fs::read(&log).unwrap(), b"short");
        File::create(&log).unwrap().set_len(LOG_LIMIT + 1).unwrap();
        trim_log(dir.path());
        assert_eq!(fs::metadata(&log).unwrap().len(), 0);
    }
}
