//! A small client of cloud-hypervisor's REST API.
//!
//! One connection per call: the server has ten, and answers one call at a time, so a call that
//! hangs must not hold up the next one's connection. A call without a body sends none at all: even
//! `{}` is refused. Deadlines are the caller's; a dropped call closes its connection.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::{Method, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::UnixStream;

use super::config::{Info, Ping};
use super::descriptor::WithDescriptor;

/// More than any reply we read needs.
const MAX_REPLY: usize = 1 << 20;

/// One call of the API.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) route: &'static str,
    pub(super) body: Option<Value>,
}

impl Request {
    pub(super) fn get(route: &'static str) -> Self {
        Self { method: Method::GET, route, body: None }
    }

    pub(super) fn put(route: &'static str) -> Self {
        Self { method: Method::PUT, route, body: None }
    }

    pub(super) fn put_json(route: &'static str, body: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self { method: Method::PUT, route, body: Some(serde_json::to_value(body)?) })
    }

    pub(super) fn path(&self) -> String {
        format!("/api/v1/{}", self.route)
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The server answered, and refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("no connection to cloud-hypervisor's API socket")]
    Connect(#[source] io::Error),
    #[error("the connection to cloud-hypervisor broke during `{route}`")]
    Broken { route: &'static str, source: Box<dyn StdError + Send + Sync> },
    #[error("cloud-hypervisor gave an answer to `{route}` that cannot be read")]
    Answer { route: &'static str, source: Box<dyn StdError + Send + Sync> },
}

/// An error reply: its words from the outermost to the root cause, never empty.
#[derive(Debug)]
pub(super) struct Refused {
    route: &'static str,
    status: u16,
    causes: Option<Box<Cause>>,
}

impl Refused {
    fn of(route: &'static str, status: StatusCode, body: &[u8]) -> Self {
        let words = serde_json::from_slice::<Vec<String>>(body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(body).split_whitespace().collect::<Vec<_>>().join(" ");
            if text.is_empty() { Vec::new() } else { vec![text] }
        });
        // The first only says that it was the API that was asked.
        let words = words.into_iter().filter(|word| word != "Error from API");
        let causes = words.rev().fold(None, |source, text| Some(Box::new(Cause { text, source })));
        Self { route, status: status.as_u16(), causes }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cloud-hypervisor refused `{}` (status {})", self.route, self.status)
    }
}

impl StdError for Refused {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.causes.as_deref().map(|cause| cause as _)
    }
}

#[derive(Debug)]
struct Cause {
    text: String,
    source: Option<Box<Cause>>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(super) async fn ping(&self) -> Result<Ping, CallError> {
        let request = Request::get("vmm.ping");
        let reply = self.call(&request).await?;
        serde_json::from_slice(&reply)
            .map_err(|source| CallError::Answer { route: request.route, source: source.into() })
    }

    pub(super) async fn info(&self) -> Result<Info, CallError> {
        let request = Request::get("vm.info");
        let reply = self.call(&request).await?;
        serde_json::from_slice(&reply)
            .map_err(|source| CallError::Answer { route: request.route, source: source.into() })
    }

    /// Makes the call; any status but a 2xx is an error.
    pub(super) async fn call(&self, request: &Request) -> Result<Bytes, CallError> {
        let stream = self.connect().await?;
        exchange(request, TokioIo::new(stream)).await
    }

    /// Makes the call with a descriptor beside its first bytes.
    pub(super) async fn call_with(&self, request: &Request, descriptor: OwnedFd) -> Result<Bytes, CallError> {
        let stream = self.connect().await?;
        exchange(request, TokioIo::new(WithDescriptor::new(stream, descriptor))).await
    }

    async fn connect(&self) -> Result<UnixStream, CallError> {
        UnixStream::connect(&self.socket).await.map_err(CallError::Connect)
    }
}

async fn exchange<I>(request: &Request, io: I) -> Result<Bytes, CallError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let route = request.route;
    let broken = |source: hyper::Error| CallError::Broken { route, source: source.into() };
    let answer = |source: Box<dyn StdError + Send + Sync>| CallError::Answer { route, source };

    let mut builder =
        hyper::Request::builder().method(&request.method).uri(request.path()).header(header::HOST, "localhost");
    let mut body = Bytes::new();
    if let Some(value) = &request.body {
        body = Bytes::from(value.to_string());
        builder = builder.header(header::CONTENT_TYPE, "application/json");
    }
    let message = builder.body(Full::new(body)).map_err(|source| answer(source.into()))?;

    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(broken)?;
    let reply = async {
        let reply = sender.send_request(message).await.map_err(broken)?;
        let status = reply.status();
        let body = Limited::new(reply.into_body(), MAX_REPLY).collect().await.map_err(|source| {
            if source.is::<LengthLimitError>() { answer(source) } else { CallError::Broken { route, source } }
        })?;
        Ok::<_, CallError>((status, body.to_bytes()))
    };
    tokio::pin!(reply);
    let (status, body) = tokio::select! {
        reply = &mut reply => reply?,
        // The connection may be done before its last reply has been taken in.
        ended = connection => {
            ended.map_err(broken)?;
            reply.await?
        }
    };
    if status.is_success() { Ok(body) } else { Err(Refused::of(route, status, &body).into()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    fn words(error: &dyn StdError) -> Vec<String> {
        let mut words = vec![error.to_string()];
        let mut next = error.source();
        while let Some(cause) = next {
            words.push(cause.to_string());
            next = cause.source();
        }
        words
    }

    #[test]
    fn error_replies_captured_from_the_program() {
        let rows: [(u16, &str, &[&str]); 4] = [
            (
                500,
                r#"["Error from API","The VM could not boot","Cannot open kernel file","No such file or directory (os error 2)"]"#,
                &["The VM could not boot", "Cannot open kernel file", "No such file or directory (os error 2)"],
            ),
            (400, r#"["Bad Request"]"#, &["Bad Request"]),
            (
                400,
                "{ \"error\": \"Invalid HTTP Method: Unsupported HTTP method.\nAll previous unanswered requests will be dropped.\" }",
                &[
                    "{ \"error\": \"Invalid HTTP Method: Unsupported HTTP method. All previous unanswered requests will be dropped.\" }",
                ],
            ),
            (503, "", &[]),
        ];
        for (status, body, expected) in rows {
            let refused = Refused::of("vm.boot", StatusCode::from_u16(status).unwrap(), body.as_bytes());
            let mut all = vec![format!("cloud-hypervisor refused `vm.boot` (status {status})")];
            all.extend(expected.iter().map(|&text| text.to_owned()));
            assert_eq!(words(&refused), all, "{body}");
        }
    }

    /// Answers one connection with fixed bytes and gives back what it was sent.
    async fn against(answer: &str, request: Request) -> (Result<Bytes, CallError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = answer.to_owned();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut sent = vec![0; 4096];
            let length = stream.read(&mut sent).unwrap();
            // The client may stop reading before the end.
            let _ = stream.write_all(answer.as_bytes());
            sent.truncate(length);
            String::from_utf8(sent).unwrap()
        });
        let result = Client::new(socket).call(&request).await;
        (result, server.join().unwrap())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn bodies_are_sent_only_when_there_is_one() {
        let ok = "HTTP/1.1 204 No Content\r\n\r\n";
        let (result, sent) = against(ok, Request::put("vm.boot")).await;
        assert!(result.unwrap().is_empty());
        assert!(sent.starts_with("PUT /api/v1/vm.boot HTTP/1.1\r\n"), "{sent}");
        assert!(sent.ends_with("\r\n\r\n") && !sent.contains("chunked"), "{sent}");

        let request = Request::put_json("vm.create", &serde_json::json!({ "a": 1 })).unwrap();
        let (result, sent) = against(ok, request).await;
        result.unwrap();
        assert!(sent.ends_with("\r\n\r\n{\"a\":1}") && sent.contains("content-length: 7\r\n"), "{sent}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn answers_that_are_none() {
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(MAX_REPLY + 1));
        let rows: [(&str, &str); 4] = [
            ("", "broke"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "broke"),
            (&endless, "cannot be read"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "broke"),
        ];
        for (answer, expected) in rows {
            let (result, _) = against(answer, Request::get("vmm.ping")).await;
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{answer:?}: {error}");
        }
    }
}
