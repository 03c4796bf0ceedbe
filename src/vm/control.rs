//! How a command talks to a VM's supervisor: one request and one reply, each a line of JSON, over
//! `control.sock` in the VM's runtime folder.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::host;
use crate::spec::{Actor, Exit, Forward, Intent, Name, Size, State};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    Status,
    Pause,
    Resume,
    /// Presses the power button and answers when the VM has ended, or after `timeout_ms`; with the
    /// intent to restart, when it runs again.
    Stop {
        timeout_ms: u64,
        intent: Intent,
    },
    /// Cuts the power and answers when the VM has ended; with the intent to restart, when it runs again.
    ForceStop {
        intent: Intent,
    },
    /// More vCPUs and memory for the guest, as far as its spec leaves room; recorded when done.
    Resize {
        vcpu: Option<u32>,
        vram: Option<Size>,
    },
    /// A larger disk; recorded when done.
    GrowDisk {
        disk: Name,
        size: Size,
    },
    /// The ports that lead to a `user` NIC, beside the one for ssh. Not recorded.
    Forwards {
        nic: u8,
        forwards: Vec<Forward>,
    },
    /// Starts a VM that waits for its next attempt, and answers when it runs or has failed to.
    StartNow,
}

/// A request on its way. Who asks is seen by the kernel and not told; only root, who may do
/// anything anyway, says for whom it asks (sudo, a relay).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    #[serde(flatten)]
    pub request: Request,
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<u32>,
}

impl Envelope {
    /// Of this process.
    fn of(request: &Request) -> Self {
        let own = rustix::process::getuid().as_raw();
        let on_behalf_of = match host::caller() {
            Actor::User { uid, .. } if uid != own => Some(uid),
            _ => None,
        };
        Self { request: request.clone(), on_behalf_of }
    }

    /// Who asks, when `peer` is the user at the other end.
    pub fn actor(&self, peer: u32) -> Actor {
        host::actor(self.on_behalf_of.filter(|_| peer == 0).unwrap_or(peer))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    State {
        state: State,
    },
    Ended {
        exit: Exit,
    },
    /// The power button was pressed and the VM still runs.
    StillRunning,
    Failed {
        failure: Failure,
    },
    /// The supervisor is about to become another program: ask that one. A connection that ends
    /// without a word comes to the same, unless no supervisor is left.
    HandingOver,
}

/// An [`Error`] on its way to another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    exit_code: u8,
    /// From the outermost to the root cause; never empty.
    chain: Vec<String>,
    hint: Option<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self { exit_code: error.kind().exit_code(), chain: error.chain(), hint: error.hint_text().map(str::to_owned) }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let kind = [Kind::Usage, Kind::NotFound, Kind::Refused]
            .into_iter()
            .find(|kind| kind.exit_code() == failure.exit_code)
            .unwrap_or(Kind::Failed);
        let mut links = failure.chain.into_iter().rev();
        let innermost = links.next().unwrap_or_else(|| "the supervisor gave no reason".to_owned());
        let error = links.fold(Error::new(kind, innermost), |cause, message| cause.context(message));
        match failure.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// Asks, and waits for the answer at most `deadline`. `None`: no supervisor listens, or it has
/// ended without an answer.
pub fn ask(socket: &Path, request: &Request, deadline: Duration) -> Result<Option<Reply>> {
    let failed = |error: io::Error| {
        let what = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("the VM's supervisor did not answer in {} s", deadline.as_secs())
            }
            _ => "cannot talk to the VM's supervisor".to_owned(),
        };
        Error::failed(what).source(error)
    };
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    stream.set_read_timeout(Some(deadline)).map_err(failed)?;
    stream.set_write_timeout(Some(deadline)).map_err(failed)?;
    let mut line = serde_json::to_vec(&Envelope::of(request)).map_err(io::Error::other).map_err(failed)?;
    line.push(b'\n');
    let mut answer = String::new();
    let exchanged = stream.write_all(&line).and_then(|()| BufReader::new(stream).read_line(&mut answer));
    match exchanged {
        Ok(0) => Ok(Some(Reply::HandingOver)),
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(Some(Reply::HandingOver))
        }
        Ok(_) => serde_json::from_str(&answer).map(Some).map_err(|error| failed(error.into())),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_asks_for_others() {
        let rows = [
            (r#"{"op":"stop","timeout_ms":5,"intent":"stop"}"#, 1000, 1000),
            (r#"{"op":"stop","timeout_ms":5,"intent":"stop","for":1001}"#, 1000, 1000),
            (r#"{"op":"stop","timeout_ms":5,"intent":"stop","for":1001}"#, 0, 1001),
            (r#"{"op":"pause"}"#, 0, 0),
            (r#"{"op":"pause","for":1001}"#, 0, 1001),
        ];
        for (line, peer, expected) in rows {
            let envelope: Envelope = serde_json::from_str(line).unwrap();
            let Actor::User { uid, .. } = envelope.actor(peer) else { panic!("{line}") };
            assert_eq!(uid, expected, "{line} from {peer}");
            assert_eq!(serde_json::to_string(&envelope).unwrap(), line);
        }
        serde_json::from_str::<Envelope>(r#"{"op":"dance"}"#).unwrap_err();
    }

    #[test]
    fn an_error_arrives_as_it_was_sent() {
        let sent = Error::refused("root cause").hint("type this").context("cannot start `a`");
        let failure: Failure = serde_json::from_str(&serde_json::to_string(&Failure::from(&sent)).unwrap()).unwrap();
        let received = Error::from(failure);
        assert_eq!(received.kind(), sent.kind());
        assert_eq!(received.chain(), sent.chain());
        assert_eq!(received.hint_text(), sent.hint_text());
    }
}
