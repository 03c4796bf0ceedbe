//! The guest's serial console: this process is the hypervisor's only client, for good, so every
//! byte is logged and whoever attaches sees the history first. Any number may attach at once.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

use super::log::RotatingLog;
use super::ports::appears;
use crate::error::{OrFailed, Result};
use crate::host;

/// The console log's size before it is rotated.
const LOG_LIMIT: u64 = 4 << 20;
/// What one who attaches is shown of the past.
const HISTORY: u64 = 64 << 10;
/// How many may be attached at once, and how many descriptors are kept for everything else.
const MOST_CLIENTS: usize = 64;
const RESERVED: usize = 28;
/// How often a client whose input has ended is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How long the hypervisor may take to make the socket it was told of.
const CONNECT: Duration = Duration::from_secs(5);

/// A console that is connected, and not yet served.
#[derive(Debug)]
pub(super) struct Console {
    serial: UnixStream,
    path: PathBuf,
    hypervisor: i32,
    log: RotatingLog,
}

/// Only to a socket that this hypervisor itself has made: one that was taken over could put a link
/// to another's console in its place.
async fn connect(serial: &Path, hypervisor: i32) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(serial).await?;
    match stream.peer_cred()?.pid() {
        Some(pid) if pid == hypervisor => Ok(stream),
        _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, "its socket is another process's")),
    }
}

impl Console {
    /// Connects before the guest runs, so that not one byte is lost.
    pub(super) async fn connect(serial: &Path, log: &Path, hypervisor: i32) -> Result<Self> {
        let path = serial.to_owned();
        appears(&path, Instant::now() + CONNECT).await?;
        let serial =
            connect(serial, hypervisor).await.or_failed(|| "cannot connect to the serial console".to_owned())?;
        let log = RotatingLog::open(log, LOG_LIMIT).or_failed(|| format!("cannot open `{}`", log.display()))?;
        Ok(Self { serial, path, hypervisor, log })
    }

    /// Serves it until the task is ended: logs, and lets clients attach at `socket`.
    pub(super) async fn serve(self, socket: UnixListener) {
        let log = Rc::new(RefCell::new(self.log));
        let mut logging = true;
        let (output, _) = broadcast::channel::<Vec<u8>>(64);
        let (input, mut typed) = mpsc::channel::<Vec<u8>>(16);
        // They end with this task: a client is told that way.
        let mut clients = JoinSet::new();
        clients.spawn_local(accept(socket, Rc::clone(&log), output.clone(), input));
        let mut serial = self.serial;
        loop {
            let (mut read, mut write) = serial.into_split();
            let mut buffer = vec![0; 4096];
            loop {
                tokio::select! {
                    bytes = read.read(&mut buffer) => match bytes {
                        Ok(0) | Err(_) => break,
                        Ok(count) => {
                            let written = log.borrow_mut().write(&buffer[..count]);
                            // A full disk is told once, not with every byte.
                            match (&written, logging) {
                                (Err(error), true) => tracing::warn!(%error, "console log not written"),
                                (Ok(()), false) => tracing::info!("console log written again"),
                                _ => {}
                            }
                            logging = written.is_ok();
                            // An error only says that nobody is attached.
                            let _ = output.send(buffer[..count].to_vec());
                        }
                    },
                    Some(bytes) = typed.recv() => {
                        if write.write_all(&bytes).await.is_err() {
                            break;
                        }
                    }
                }
            }
            // A guest's reboot makes some hypervisors make the socket anew.
            serial = loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if let Ok(serial) = connect(&self.path, self.hypervisor).await {
                    break serial;
                }
            };
        }
    }
}

async fn accept(
    socket: UnixListener,
    log: Rc<RefCell<RotatingLog>>,
    output: broadcast::Sender<Vec<u8>>,
    input: mpsc::Sender<Vec<u8>>,
) {
    let attached = Rc::new(());
    let most = most_clients();
    let mut clients = JoinSet::new();
    loop {
        // The tasks of those who left are taken away.
        while clients.try_join_next().is_some() {}
        let Ok((client, _)) = socket.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if Rc::strong_count(&attached) > most {
            let words = format!("[virshle: {most} terminals are attached already]\r\n");
            // Without waiting: a new socket has room for a line.
            let _ = client.try_write(words.as_bytes());
            continue;
        }
        // Subscribed and read in one go, without awaiting: no byte is missed or shown twice.
        let live = output.subscribe();
        let history = log.borrow().tail(HISTORY).unwrap_or_default();
        let (read, write) = client.into_split();
        let (input, attached) = (input.clone(), Rc::clone(&attached));
        clients.spawn_local(async move {
            // One to whom nothing can be shown any more may have typed something before it left.
            let showing = async {
                let _ = show(write, history, live).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = showing => {}
                () = forward_input(read, input) => {}
            }
            drop(attached);
        });
    }
}

/// So many that the descriptors left are enough for everything else: the hypervisor's sockets, the
/// database, whoever asks for a stop.
fn most_clients() -> usize {
    host::descriptor_limit().saturating_sub(RESERVED).clamp(1, MOST_CLIENTS)
}

/// Ends when the client is gone. One that has only ended its own input still wants to see.
async fn forward_input(mut read: OwnedReadHalf, input: mpsc::Sender<Vec<u8>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = read.read(&mut buffer).await {
        if input.send(buffer[..count].to_vec()).await.is_err() {
            return;
        }
    }
    while !host::closed_within(read.as_ref(), Duration::ZERO) {
        tokio::time::sleep(LOOK).await;
    }
}

async fn show(
    mut write: tokio::net::unix::OwnedWriteHalf,
    history: Vec<u8>,
    mut live: broadcast::Receiver<Vec<u8>>,
) -> io::Result<()> {
    write.write_all(&history).await?;
    loop {
        match live.recv().await {
            Ok(bytes) => write.write_all(&bytes).await?,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                write
                    .write_all(b"\r\n[virshle: output skipped, this terminal was too slow; it is in the log]\r\n")
                    .await?;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}
