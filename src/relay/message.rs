//! What goes over the socket. The caller sends one order: a line of JSON with its three standard
//! descriptors beside it, then as many bytes as the order counts; and later a byte for each signal.
//! The helper answers in lines of JSON.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::error::{Error, OrFailed, Result};
use crate::host;
use crate::vm::control::Failure;

/// The number under which a command finds what its caller enclosed.
pub const ENCLOSED_FD: i32 = 3;

/// Command lines are short; file names in them are the longest part.
const LONGEST_LINE: usize = 64 << 10;
/// As much as a first-boot volume takes, in JSON.
const MOST_ENCLOSED: usize = 20 << 20;
const PROTOCOL: u32 = 1;

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    protocol: u32,
    /// Without the program's name.
    pub words: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// How many bytes follow the line: what the caller's files hold.
    enclosed: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Answer {
    /// The command was started.
    Accepted,
    /// It ended.
    Ended { code: u8 },
    /// It was not started.
    Refused { failure: Failure },
}

/// What a helper received.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) order: Order,
    pub(super) stdio: [OwnedFd; 3],
    pub(super) enclosed: Vec<u8>,
}

impl Order {
    pub fn new(words: Vec<String>, environment: BTreeMap<String, String>) -> Self {
        Self { protocol: PROTOCOL, words, environment, enclosed: 0 }
    }

    /// The order on the wire, with what is enclosed behind it.
    pub(super) fn encode(&self, enclosed: &[u8]) -> Result<Vec<u8>> {
        let order = Self { enclosed: enclosed.len(), ..self.clone() };
        let mut bytes = serde_json::to_vec(&order).or_failed(|| "cannot write the order".to_owned())?;
        bytes.push(b'\n');
        if bytes.len() > LONGEST_LINE {
            return Err(Error::usage("the command line is too long for root's helper"));
        }
        if enclosed.len() > MOST_ENCLOSED {
            return Err(Error::usage("the user data is too large").hint("let the guest fetch large files itself"));
        }
        bytes.extend_from_slice(enclosed);
        Ok(bytes)
    }
}

/// Reads an order, all of it until `deadline`. `None`: the caller left without a word.
pub(super) fn receive(stream: &UnixStream, deadline: Instant) -> Result<Option<Received>> {
    let wrong = |what: &str| Error::usage(format!("this is no order: {what}"));
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::failed("the order did not come in time"),
        io::ErrorKind::InvalidData => wrong(&error.to_string()),
        _ => Error::failed("cannot read the order").source(error),
    };
    let mut buffer = vec![0; LONGEST_LINE];
    wait_until(stream, deadline).map_err(failed)?;
    let (mut filled, stdio) = host::receive_with(stream, &mut buffer).map_err(failed)?;
    if filled == 0 {
        return Ok(None);
    }
    let end = loop {
        if let Some(end) = buffer[..filled].iter().position(|byte| *byte == b'\n') {
            break end;
        }
        if filled == buffer.len() {
            return Err(wrong("its first line does not end"));
        }
        filled += match read(stream, &mut buffer[filled..], deadline).map_err(failed)? {
            0 => return Err(wrong("it is cut off")),
            count => count,
        };
    };
    let order: Order = serde_json::from_slice(&buffer[..end])
        .map_err(|error| wrong("it is not understood").source(error).hint("is this `v` of another version?"))?;
    if order.protocol != PROTOCOL {
        return Err(wrong(&format!("its protocol is {}, not {PROTOCOL}", order.protocol))
            .hint("is this `v` of another version?"));
    }
    let stdio = <[OwnedFd; 3]>::try_from(stdio).map_err(|_| wrong("three descriptors belong to it"))?;
    for fd in &stdio {
        if !host::is_plain(fd).map_err(failed)? {
            return Err(wrong("its input and output must be terminals, pipes, sockets or plain files"));
        }
    }
    if order.enclosed > MOST_ENCLOSED {
        return Err(wrong("too much is enclosed"));
    }
    let mut enclosed = buffer[end + 1..filled].to_vec();
    while enclosed.len() < order.enclosed {
        let wanted = buffer.len().min(order.enclosed - enclosed.len());
        match read(stream, &mut buffer[..wanted], deadline).map_err(failed)? {
            0 => return Err(wrong("what is enclosed is cut off")),
            count => enclosed.extend_from_slice(&buffer[..count]),
        }
    }
    if enclosed.len() > order.enclosed {
        return Err(wrong("more follows than it counts"));
    }
    Ok(Some(Received { order, stdio, enclosed }))
}

fn read(mut stream: &UnixStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    wait_until(stream, deadline)?;
    stream.read(buffer)
}

/// The next read ends at `deadline`.
fn wait_until(stream: &UnixStream, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(set_socket_timeout(stream, Timeout::Recv, Some(left))?)
}

/// A signal as its byte; those that a terminal or a session sends.
pub(super) fn of_signal(signal: Signal) -> u8 {
    if signal == Signal::INT { b'i' } else { b't' }
}

pub(super) fn signal_of(byte: u8) -> Option<Signal> {
    match byte {
        b'i' => Some(Signal::INT),
        b't' => Some(Signal::TERM),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    /// What the helper makes of bytes that come with `fds` descriptors, and of the end after them.
    fn sent(bytes: &[u8], fds: usize) -> Result<Option<Received>> {
        let (caller, helper) = UnixStream::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || {
            let fds = vec![null.as_fd(); fds];
            let count = if bytes.is_empty() { 0 } else { host::send_with(&caller, &bytes, &fds).unwrap() };
            // The helper may stop reading in the middle.
            let _ = io::Write::write_all(&mut &caller, &bytes[count..]);
        });
        let received = receive(&helper, Instant::now() + Duration::from_secs(20));
        drop(helper);
        writer.join().unwrap();
        received
    }

    #[test]
    fn an_order_arrives_whole() {
        let environment = BTreeMap::from([("TERM".to_owned(), "xterm".to_owned())]);
        let order = Order::new(vec!["vm".into(), "create".into(), "-n".into(), "é\n\"".into()], environment);
        for enclosed in [Vec::new(), b"x".to_vec(), vec![7; 300_000]] {
            let received = sent(&order.encode(&enclosed).unwrap(), 3).unwrap().unwrap();
            assert_eq!((&received.order.words, &received.order.environment), (&order.words, &order.environment));
            assert!(received.enclosed == enclosed);
        }
        assert!(sent(b"", 0).unwrap().is_none());
        assert!(order.encode(&vec![0; MOST_ENCLOSED + 1]).is_err());
        assert!(Order::new(vec!["x".repeat(LONGEST_LINE)], BTreeMap::new()).encode(b"").is_err());
    }

    #[test]
    fn what_is_no_order_is_refused() {
        let good = Order::new(vec!["vm".into()], BTreeMap::new()).encode(b"").unwrap();
        let text = String::from_utf8(good.clone()).unwrap();
        let rows: [(Vec<u8>, usize, &str); 10] = [
            (good.clone(), 2, "three descriptors"),
            (good.clone(), 0, "three descriptors"),
            (good.clone(), 4, "three descriptors"),
            (good[..good.len() - 1].to_vec(), 3, "cut off"),
            (b"GET / HTTP/1.1\n\n".to_vec(), 3, "not understood"),
            (vec![b'x'; 200_000], 3, "does not end"),
            (text.replace("\"enclosed\":0", "\"enclosed\":5").into_bytes(), 3, "enclosed is cut off"),
            (text.replace("\"enclosed\":0", "\"enclosed\":99999999999").into_bytes(), 3, "too much"),
            (text.replace("\"protocol\":1", "\"protocol\":2").into_bytes(), 3, "its protocol is 2"),
            ([good.clone(), b"more".to_vec()].concat(), 3, "more follows"),
        ];
        for (bytes, fds, expected) in rows {
            let error = sent(&bytes, fds).unwrap_err();
            assert!(error.message().contains(expected), "{expected}: {:?}", error.chain());
        }
    }

    #[test]
    fn one_who_says_nothing_is_not_waited_for() {
        let (_caller, helper) = UnixStream::pair().unwrap();
        let error = receive(&helper, Instant::now() + Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.message(), "the order did not come in time");
    }
}
