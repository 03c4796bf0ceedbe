use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, OrFailed, Result};
use crate::spec::Actor;
use crate::vm::control::{Envelope, Failure, Reply, Request};

/// A request is one line: the longest names the ports of a NIC.
const REQUEST_LIMIT: u64 = 64 << 10;
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// A request with the place for its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    /// On whose behalf: what the request changes is noted as theirs.
    pub(super) actor: Actor,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// Listens on the control socket; each connection is one request.
pub(super) fn listen(socket: &Path) -> Result<mpsc::Receiver<Asked>> {
    let listener = UnixListener::bind(socket).or_failed(|| format!("cannot listen on `{}`", socket.display()))?;
    let (sender, receiver) = mpsc::channel(16);
    tokio::task::spawn_local(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    tokio::task::spawn_local(serve(stream, sender.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "control connection refused");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(receiver)
}

async fn serve(stream: UnixStream, sender: mpsc::Sender<Asked>) {
    let Ok(peer) = stream.peer_cred() else { return };
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(REQUEST_LIMIT));
    let received = tokio::time::timeout(REQUEST_DEADLINE, reader.read_line(&mut line)).await;
    let answer = match (received, serde_json::from_str::<Envelope>(&line)) {
        (Ok(Ok(_)), Ok(envelope)) => {
            let (reply, answer) = oneshot::channel();
            let actor = envelope.actor(peer.uid());
            if sender.send(Asked { request: envelope.request, actor, reply }).await.is_err() {
                return;
            }
            // Without an answer the run is over; closing the connection says so.
            let Ok(answer) = answer.await else { return };
            answer
        }
        (_, parsed) => {
            let error = Error::usage("not a control request");
            let error = match parsed {
                Err(cause) => error.source(cause),
                Ok(_) => error,
            };
            Reply::Failed { failure: Failure::from(&error) }
        }
    };
    if let Ok(mut line) = serde_json::to_vec(&answer) {
        line.push(b'\n');
        // One who asked and went away does not want to know.
        let _ = write.write_all(&line).await;
    }
}
