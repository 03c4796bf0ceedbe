//! Follows some ports of a switch: one connection to its database that says when they change, and
//! no process while nothing does.
//!
//! ```text
//!          connect, monitor_cond                                a probe, when it is silent for long
//! away ──────────────────────────► told at each change ────────────────────────────────────► away
//!   ▲        refused, ssl: ─► `ovs-vsctl` every 30 s                 closed, no answer           │
//!   └──────────────────────────── back-off, at most 5 s ◄────────────────────────────────────────┘
//! ```

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Ovs;
use super::monitor::{Monitor, Sight, Sightings, Step};
use crate::error::Result;

/// For a connection and for each write.
const DEADLINE: Duration = Duration::from_secs(5);
/// After this long without a word the server is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Where nothing tells of changes.
const POLL: Duration = Duration::from_secs(30);

/// Where the database listens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    Tcp(String, u16),
    /// Only `ovs-vsctl` knows how to talk to it.
    Other,
}

enum Lost {
    Connection(io::Error),
    /// It talks, but not so.
    NoMonitor(String),
}

/// Tells how the ports named `names` stand, for ever; `None` while the database is out of reach.
pub async fn follow(ovs: &Ovs, names: &[String], tell: &watch::Sender<Option<Sightings>>) {
    let address = address(ovs.db.as_deref());
    let mut pause = FIRST_PAUSE;
    loop {
        let lost = match &address {
            Address::Unix(path) => match timeout(DEADLINE, UnixStream::connect(path)).await {
                Ok(Ok(stream)) => monitor(stream, names, tell).await,
                // Another Open vSwitch may have been built with another default.
                Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound && ovs.db.is_none() => {
                    Lost::NoMonitor(format!("`{}` is not there", path.display()))
                }
                Ok(Err(error)) => Lost::Connection(error),
                Err(_) => Lost::Connection(io::ErrorKind::TimedOut.into()),
            },
            Address::Tcp(host, port) => match timeout(DEADLINE, TcpStream::connect((host.as_str(), *port))).await {
                Ok(Ok(stream)) => monitor(stream, names, tell).await,
                Ok(Err(error)) => Lost::Connection(error),
                Err(_) => Lost::Connection(io::ErrorKind::TimedOut.into()),
            },
            Address::Other => Lost::NoMonitor("its address is not `unix:` or `tcp:`".to_owned()),
        };
        match lost {
            Lost::NoMonitor(reason) => {
                tracing::debug!(reason, "the switch's database is asked by `ovs-vsctl`");
                tell.send_replace(ask(ovs, names).await);
                sleep(POLL).await;
            }
            Lost::Connection(error) => {
                if tell.send_replace(None).is_some() {
                    tracing::warn!(%error, "the switch's database is out of reach");
                    pause = FIRST_PAUSE;
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// As `ovs-vsctl --db` reads it; without one, where Debian's and NixOS's programs look.
fn address(db: Option<&str>) -> Address {
    let Some(db) = db else {
        let dir = std::env::var_os("OVS_RUNDIR").filter(|dir| !dir.is_empty());
        return Address::Unix(PathBuf::from(dir.unwrap_or_else(|| "/var/run/openvswitch".into())).join("db.sock"));
    };
    if let Some(path) = db.strip_prefix("unix:").filter(|path| path.starts_with('/') && !path.contains(',')) {
        return Address::Unix(path.into());
    }
    let host_and_port = db.strip_prefix("tcp:").filter(|rest| !rest.contains(',')).and_then(|rest| {
        let (host, port) = rest.rsplit_once(':').filter(|_| !rest.ends_with(']')).unwrap_or((rest, "6640"));
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some((host.to_owned(), port.parse().ok()?))
    });
    host_and_port.map_or(Address::Other, |(host, port)| Address::Tcp(host, port))
}

/// One connection, to its end.
async fn monitor(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    names: &[String],
    tell: &watch::Sender<Option<Sightings>>,
) -> Lost {
    let mut monitor = Monitor::new(names);
    let mut outgoing = vec![monitor.request()];
    let mut buffer = vec![0; 4 << 10];
    let mut probed = true;
    loop {
        for message in outgoing.drain(..) {
            match timeout(DEADLINE, stream.write_all(message.to_string().as_bytes())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Lost::Connection(error),
                Err(_) => return Lost::Connection(io::ErrorKind::TimedOut.into()),
            }
        }
        // The first answer and one to a probe are due soon; else it may be silent.
        let patience = if probed { DEADLINE } else { SILENCE };
        let length = match timeout(patience, stream.read(&mut buffer)).await {
            Ok(Ok(0)) => return Lost::Connection(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(length)) => length,
            Ok(Err(error)) => return Lost::Connection(error),
            Err(_) if probed => return Lost::Connection(io::ErrorKind::TimedOut.into()),
            Err(_) => {
                outgoing.push(Monitor::probe());
                probed = true;
                continue;
            }
        };
        probed = false;
        let steps = match monitor.feed(&buffer[..length]) {
            Ok(steps) => steps,
            Err(reason) => return Lost::Connection(io::Error::new(io::ErrorKind::InvalidData, reason)),
        };
        for step in steps {
            match step {
                Step::Changed => drop(tell.send_replace(Some(monitor.sightings()))),
                Step::Reply(message) => outgoing.push(message),
                Step::Refused(reason) => return Lost::NoMonitor(reason),
            }
        }
    }
}

/// The same, by `ovs-vsctl`.
async fn ask(ovs: &Ovs, names: &[String]) -> Option<Sightings> {
    let (ovs, names) = (ovs.clone(), names.to_vec());
    let asked = tokio::task::spawn_blocking(move || {
        names.into_iter().map(|name| Ok((name.clone(), sight(&ovs, &name)?))).collect::<Result<Sightings>>()
    });
    asked.await.ok()?.inspect_err(|error| tracing::debug!(error = %error.chain().join(": "), "not asked")).ok()
}

fn sight(ovs: &Ovs, name: &str) -> Result<Sight> {
    let Some(owner) = ovs.port_owner(name)? else { return Ok(Sight::Missing) };
    let state = ovs.port_state(name)?;
    Ok(Sight::Present {
        vm: owner.vm,
        error: state.as_ref().and_then(|state| state.error.clone()),
        link_up: state.and_then(|state| state.link_up),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = |host: &str, port| Address::Tcp(host.to_owned(), port);
        let rows = [
            ("unix:/run/x/db.sock", Address::Unix("/run/x/db.sock".into())),
            ("unix:relative.sock", Address::Other),
            ("tcp:127.0.0.1:6641", tcp("127.0.0.1", 6641)),
            ("tcp:127.0.0.1", tcp("127.0.0.1", 6640)),
            ("tcp:[::1]:6641", tcp("::1", 6641)),
            ("tcp:[::1]", tcp("::1", 6640)),
            ("tcp:host:port", Address::Other),
            ("ssl:127.0.0.1:6640", Address::Other),
            ("unix:/a,tcp:b", Address::Other),
            ("", Address::Other),
        ];
        for (db, expected) in rows {
            assert_eq!(address(Some(db)), expected, "{db}");
        }
        assert!(matches!(address(None), Address::Unix(path) if path.ends_with("db.sock")));
    }

    /// The probe, the reply to the server's own, and a server that does not know the method.
    #[tokio::test(flavor = "current_thread")]
    async fn a_talk() {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let (tell, told) = watch::channel::<Option<Sightings>>(None);
        let names = ["v1n0".to_owned()];
        let server = async {
            let mut buffer = vec![0; 4096];
            let length = theirs.read(&mut buffer).await.unwrap();
            assert!(String::from_utf8_lossy(&buffer[..length]).contains("monitor_cond"));
            theirs
                .write_all(br#"{"id":"monitor","result":{},"error":null}{"id":"echo","method":"echo","params":[]}"#)
                .await
                .unwrap();
            let length = theirs.read(&mut buffer).await.unwrap();
            assert!(String::from_utf8_lossy(&buffer[..length]).contains(r#""result":[]"#));
            assert_eq!(told.borrow().as_ref().unwrap()["v1n0"], Sight::Missing);
            theirs.write_all(br#"{"id":"monitor","error":"unknown method"}"#).await.unwrap();
        };
        let (lost, ()) = tokio::join!(monitor(ours, &names, &tell), server);
        assert!(matches!(lost, Lost::NoMonitor(_)));
    }
}
