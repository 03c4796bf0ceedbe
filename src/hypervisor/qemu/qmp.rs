//! QEMU's machine protocol: one JSON value per line, over a unix socket.
//!
//! ```text
//! connect ──► greeting ──► qmp_capabilities ──► execute … reply
//!                                               events at any time, also between the two
//! ```
//!
//! Events that come while a reply is awaited are queued. Every method may be dropped at any await:
//! what was read in part and what was written in part stay in the client, and the reply to a call
//! that nobody waits for any more is known by its id and thrown away.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::version::Version;

/// The command that leaves the negotiation mode.
pub(super) const NEGOTIATE: &str = "qmp_capabilities";

/// No answer or event that is used here comes near it; a longer line is not QMP.
const LONGEST_LINE: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    #[error("QEMU closed its QMP socket")]
    Closed,
    #[error("QEMU did not answer `{command}` in {} s", deadline.as_secs_f32())]
    Deadline { command: String, deadline: Duration },
    #[error("QEMU refused `{command}`: {desc} ({class})")]
    Refused { command: String, class: String, desc: String },
    #[error("QEMU sent what is not QMP: {0}")]
    Protocol(String),
    #[error("cannot talk to QEMU over its QMP socket")]
    Io(#[from] io::Error),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct QmpEvent {
    pub(super) event: String,
    #[serde(default)]
    pub(super) data: Value,
}

#[derive(Debug)]
enum Message {
    Greeting(Version),
    Event(QmpEvent),
    Return { id: u64, value: Value },
    Refusal { id: Option<u64>, class: String, desc: String },
}

#[derive(Debug)]
pub(super) struct Qmp {
    stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    events: VecDeque<QmpEvent>,
    next_id: u64,
    closed: bool,
}

impl Qmp {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, incoming: Vec::new(), outgoing: Vec::new(), events: VecDeque::new(), next_id: 1, closed: false }
    }

    /// Waits for the greeting, however long QEMU takes to start (the caller has the deadline), and
    /// leaves the negotiation mode.
    pub(super) async fn handshake(&mut self, deadline: Duration) -> Result<Version, QmpError> {
        let version = loop {
            match self.message().await? {
                Message::Greeting(version) => break version,
                Message::Event(event) => self.events.push_back(event),
                other => return Err(QmpError::Protocol(format!("{other:?} in place of the greeting"))),
            }
        };
        self.execute(NEGOTIATE, None, deadline).await?;
        Ok(version)
    }

    /// Sends a command and waits for its own reply.
    pub(super) async fn execute(
        &mut self,
        command: &str,
        arguments: Option<Value>,
        deadline: Duration,
    ) -> Result<Value, QmpError> {
        match tokio::time::timeout(deadline, self.call(command, arguments)).await {
            Ok(result) => result,
            Err(_) => Err(QmpError::Deadline { command: command.to_owned(), deadline }),
        }
    }

    async fn call(&mut self, command: &str, arguments: Option<Value>) -> Result<Value, QmpError> {
        if self.closed {
            return Err(QmpError::Closed);
        }
        let own_id = self.next_id;
        self.next_id += 1;
        let mut request = json!({"execute": command, "id": own_id});
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        self.outgoing.extend_from_slice(request.to_string().as_bytes());
        self.outgoing.push(b'\n');
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing).await {
                Ok(written) => drop(self.outgoing.drain(..written)),
                // It has ended; what it said last may still be waiting to be read.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error.into()),
            }
        }
        loop {
            match self.message().await? {
                Message::Event(event) => self.events.push_back(event),
                Message::Return { id, value } if id == own_id => return Ok(value),
                // QEMU leaves the id out when it could not read the request.
                Message::Refusal { id, class, desc } if id.is_none_or(|id| id == own_id) => {
                    return Err(QmpError::Refused { command: command.to_owned(), class, desc });
                }
                Message::Return { .. } | Message::Refusal { .. } => {}
                Message::Greeting(_) => return Err(QmpError::Protocol("a second greeting".to_owned())),
            }
        }
    }

    /// The next event that is already here.
    pub(super) fn queued(&mut self) -> Option<QmpEvent> {
        self.events.pop_front()
    }

    pub(super) fn has_queued(&self, event: &str) -> bool {
        self.events.iter().any(|queued| queued.event == event)
    }

    /// Waits until there is one more event, or the socket is closed (for good: see [`Qmp::is_closed`]).
    pub(super) async fn fill(&mut self) {
        while !self.closed {
            match self.message().await {
                Ok(Message::Event(event)) => return self.events.push_back(event),
                Ok(_) => {}
                Err(error) => {
                    if !matches!(error, QmpError::Closed) {
                        tracing::warn!(error = &error as &dyn std::error::Error, "QMP is given up");
                    }
                    self.closed = true;
                }
            }
        }
    }

    /// Reads what is left, to the end.
    pub(super) async fn drain(&mut self) {
        while !self.closed {
            self.fill().await;
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    async fn message(&mut self) -> Result<Message, QmpError> {
        loop {
            if let Some(end) = self.incoming.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.incoming.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return parse(&line);
            }
            if self.incoming.len() > LONGEST_LINE {
                return Err(QmpError::Protocol(format!("a line of more than {LONGEST_LINE} bytes")));
            }
            match self.stream.read_buf(&mut self.incoming).await {
                Ok(0) => {
                    self.closed = true;
                    return Err(QmpError::Closed);
                }
                Ok(_) => {}
                // A QEMU that ends before it took the connection resets it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    self.closed = true;
                    return Err(QmpError::Closed);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Message, QmpError> {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(rename = "QMP")]
        greeting: Option<Greeting>,
        event: Option<String>,
        data: Option<Value>,
        #[serde(default, rename = "return", deserialize_with = "present")]
        value: Option<Value>,
        error: Option<Refusal>,
        id: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Greeting {
        version: GreetingVersion,
    }
    #[derive(Deserialize)]
    struct GreetingVersion {
        qemu: Numbers,
    }
    #[derive(Deserialize)]
    struct Numbers {
        major: u32,
        minor: u32,
        micro: u32,
    }
    #[derive(Deserialize)]
    struct Refusal {
        class: String,
        desc: String,
    }
    /// `"return": null` is an answer too.
    fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
        Value::deserialize(deserializer).map(Some)
    }

    let shown = || String::from_utf8_lossy(line).chars().take(200).collect::<String>().trim_end().to_owned();
    let wire: Wire =
        serde_json::from_slice(line).map_err(|error| QmpError::Protocol(format!("{error} in {:?}", shown())))?;
    if let Some(Greeting { version: GreetingVersion { qemu: Numbers { major, minor, micro } } }) = wire.greeting {
        return Ok(Message::Greeting(Version { major, minor, micro }));
    }
    if let Some(event) = wire.event {
        return Ok(Message::Event(QmpEvent { event, data: wire.data.unwrap_or_default() }));
    }
    if let Some(Refusal { class, desc }) = wire.error {
        return Ok(Message::Refusal { id: wire.id, class, desc });
    }
    match (wire.value, wire.id) {
        (Some(value), Some(id)) => Ok(Message::Return { id, value }),
        _ => Err(QmpError::Protocol(format!("{:?}", shown()))),
    }
}

#[cfg(test)]
#[path = "qmp_tests.rs"]
mod tests;
