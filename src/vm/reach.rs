//! A stream to a port of a guest, by whatever way there is: its line to this host, which needs no
//! network; its address; for ssh the port of this host that leads to it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Site;
use crate::error::{Error, Result};
use crate::host::connect_vsock;
use crate::store::{Line, Record};

const SSH: u16 = 22;
/// How long a guest may take to accept on its line: nothing is between it and this host. One that
/// has no driver for it never says that nobody listens.
const ACCEPT: Duration = Duration::from_secs(1);
/// An answer is `OK` and a number.
const ANSWER: usize = 32;

/// Connects to a port of a VM that runs. What listens there is the same on every way.
pub fn reach(_: &Site, record: &Record, port: u16, deadline: Duration) -> Result<OwnedFd> {
    let spec = &record.spec;
    let until = Instant::now() + deadline;
    let failed = || format!("cannot reach port {port} of `{}`", spec.name);
    let Some(runtime) = record.runtime.as_ref().filter(|_| record.state.is_run()) else {
        return Err(Error::refused(failed())
            .source(Error::refused(format!("it is {}", record.state)))
            .hint(format!("`v vm start {}`", spec.name)));
    };
    let mut tried = Vec::new();
    let mut note = |way: String, error: io::Error| tried.push(format!("by {way}: {error}"));
    if let Some(line) = &runtime.vsock {
        match by_line(line, port, left(until).min(ACCEPT)) {
            Ok(stream) => return Ok(stream),
            Err(error) => note("vsock".to_owned(), error),
        }
    }
    let forwarded = runtime.ssh.filter(|_| port == SSH);
    if let Some(address) = spec.address() {
        // There may be another way yet.
        let patience = if forwarded.is_some() { left(until) / 2 } else { left(until) };
        match by_address(SocketAddr::from((address, port)), patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => note(format!("its address {address}"), error),
        }
    }
    if let Some(host) = forwarded {
        match by_address(host.into(), left(until)) {
            Ok(stream) => return Ok(stream),
            Err(error) => note(format!("the forwarded port {host}"), error),
        }
    }
    if tried.is_empty() {
        return Err(Error::failed(failed())
            .source(Error::failed("it has neither a vsock nor an address that this host knows"))
            .hint("give its network a `subnet`, or use a `user` network"));
    }
    let error = Error::failed(failed()).source(Error::failed(tried.join("; ")));
    Err(error.hint(format!("what listens in the guest? Look at its console: `v vm console {}`", spec.name)))
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn by_line(line: &Line, port: u16, patience: Duration) -> io::Result<OwnedFd> {
    match line {
        Line::Cid(cid) => connect_vsock(*cid, port.into(), patience),
        Line::Socket(path) => through_socket(path, port, patience),
    }
}

fn by_address(address: SocketAddr, patience: Duration) -> io::Result<OwnedFd> {
    TcpStream::connect_timeout(&address, patience).map(OwnedFd::from)
}

/// `CONNECT PORT`, and `OK …` when the guest has accepted. What follows that line is the guest's, so
/// not a byte more is read.
fn through_socket(path: &Path, port: u16, patience: Duration) -> io::Result<OwnedFd> {
    let until = Instant::now() + patience;
    let mut stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(left(until)))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        if answer.len() == ANSWER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it answers in a language of its own"));
        }
        stream.set_read_timeout(Some(left(until)))?;
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => return Err(nobody()),
            Ok(_) => answer.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(nobody()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the guest does not answer"));
            }
            Err(error) => return Err(error),
        }
    }
    if !answer.starts_with(b"OK") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it answers in a language of its own"));
    }
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok(stream.into())
}

fn nobody() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there in the guest")
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddrV4, TcpListener};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::thread;

    use super::*;
    use crate::error::Kind;
    use crate::host::{Dirs, Handle};
    use crate::spec::{State, VmSpec};
    use crate::store::Runtime;

    fn record(line: Option<PathBuf>, ssh: Option<SocketAddrV4>) -> Record {
        let mut runtime = Runtime::of(Handle { pid: 1, start_time: 1 });
        runtime.vsock = line.map(Line::Socket);
        runtime.ssh = ssh;
        Record::running(VmSpec::sample(uuid::Uuid::nil()), runtime)
    }

    fn site() -> Site {
        Site::new(Dirs::of_the_host())
    }

    /// A line whose other end answers each client in its own way.
    fn line(dir: &Path, answers: &'static [&'static [u8]]) -> PathBuf {
        let path = dir.join("vsock.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let mut clients = Vec::new();
            for answer in answers {
                let (mut client, _) = listener.accept().unwrap();
                let mut asked = [0; 11];
                client.read_exact(&mut asked).unwrap();
                assert_eq!(&asked, b"CONNECT 22\n");
                client.write_all(answer).unwrap();
                if answer.is_empty() {
                    drop(client);
                } else {
                    clients.push(client);
                }
            }
            // The others keep their connection until the test is over.
            let _ = listener.accept();
        });
        path
    }

    #[test]
    fn the_line_comes_first_and_what_follows_the_answer_is_the_guests() {
        let dir = tempfile::tempdir().unwrap();
        let record = record(Some(line(dir.path(), &[b"OK 1073741824\nSSH-2.0"])), None);
        let stream = reach(&site(), &record, 22, Duration::from_secs(60)).unwrap();
        let mut greeting = [0; 7];
        UnixStream::from(stream).read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"SSH-2.0");
    }

    #[test]
    fn a_guest_that_does_not_listen_there_is_reached_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(ssh) = listener.local_addr().unwrap() else { unreachable!() };
        let answers: &[&[u8]] = &[b"", b"OK", b"what is this, that is longer than an answer can be?\n", b"NO\n"];
        let record = record(Some(line(dir.path(), answers)), Some(ssh));
        for answer in answers {
            let started = Instant::now();
            reach(&site(), &record, 22, Duration::from_secs(60)).unwrap();
            assert!(started.elapsed() < Duration::from_secs(30), "{answer:?}");
            listener.accept().unwrap();
        }
    }

    #[test]
    fn what_was_tried_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let std::net::SocketAddr::V4(ssh) = free else { unreachable!() };
        let error = reach(&site(), &record(Some(dir.path().join("none")), Some(ssh)), 22, ACCEPT).unwrap_err();
        let words = error.chain().join(": ");
        for part in ["port 22 of `web`", "by vsock", &format!("the forwarded port {ssh}")] {
            assert!(words.contains(part), "{words}");
        }
        let error = reach(&site(), &record(None, Some(ssh)), 80, ACCEPT).unwrap_err();
        assert!(error.chain().join(": ").contains("neither"), "the forwarded port is ssh's alone");
        let mut stopped = record(None, None);
        (stopped.state, stopped.runtime) = (State::Stopped, None);
        assert_eq!(reach(&site(), &stopped, 22, ACCEPT).unwrap_err().kind(), Kind::Refused);
    }
}
