//! The caller's side: finds the helper, sends the order, passes signals on, and ends with the
//! command's exit code. The terminal is the caller's, so the caller puts it back at the end.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::Signal;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};

use super::message::{Answer, Order, of_signal};
use crate::error::{Error, OrFailed, Result};
use crate::host;

/// How long a helper may take to take the connection and the order.
const TAKEN: Duration = Duration::from_secs(10);
/// How long it may take to say that the command runs.
const ACCEPTED: Duration = Duration::from_secs(30);
/// No answer is longer.
const LONGEST_ANSWER: u64 = 64 << 10;

/// What became of an attempt to reach the helper.
#[derive(Debug)]
pub enum Reach {
    Connected(UnixStream),
    /// There is no helper on this host.
    Absent,
    /// There is one, for others.
    Closed,
    /// Its socket is there and nobody answers.
    Dead(io::Error),
}

pub fn reach(path: &Path) -> Reach {
    match connected(path) {
        Ok(stream) => Reach::Connected(stream),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Reach::Absent,
            io::ErrorKind::PermissionDenied => Reach::Closed,
            _ => Reach::Dead(error),
        },
    }
}

fn connected(path: &Path) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(TAKEN))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// What the command reads and writes.
#[derive(Debug)]
pub struct Stdio {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Stdio {
    /// This process's own. A terminal whose keys are not ours at this moment is not read from: the
    /// command is in no job of the shell's, so that nothing else would hold it back.
    pub fn inherited() -> io::Result<Self> {
        let stdin = match in_foreground() {
            true => io::stdin().as_fd().try_clone_to_owned()?,
            false => std::fs::File::open("/dev/null")?.into(),
        };
        Ok(Self {
            stdin,
            stdout: io::stdout().as_fd().try_clone_to_owned()?,
            stderr: io::stderr().as_fd().try_clone_to_owned()?,
        })
    }

    /// The same, writing its data elsewhere.
    #[must_use]
    pub fn stdout(self, stdout: OwnedFd) -> Self {
        Self { stdout, ..self }
    }

    /// The same, without a word to the person.
    pub fn silent(self) -> io::Result<Self> {
        Ok(Self { stderr: std::fs::File::options().write(true).open("/dev/null")?.into(), ..self })
    }

    fn fds(&self) -> [BorrowedFd<'_>; 3] {
        [self.stdin.as_fd(), self.stdout.as_fd(), self.stderr.as_fd()]
    }
}

fn in_foreground() -> bool {
    let stdin = io::stdin();
    // The error says that it is no terminal of our session: no shell hands its keys around.
    tcgetpgrp(stdin.as_fd()).map_or(true, |group| group == rustix::process::getpgrp())
}

/// The terminal that the command may change, put back as it was when dropped.
struct Terminal<'a>(BorrowedFd<'a>, Option<Termios>);

impl<'a> Terminal<'a> {
    fn of(stdin: &'a OwnedFd) -> Self {
        // The error says that it is none.
        Self(stdin.as_fd(), tcgetattr(stdin).ok())
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        if let Some(before) = &self.1 {
            let _ = tcsetattr(self.0, OptionalActions::Now, before);
        }
    }
}

/// Has the helper run a command, with the bytes that the caller's files hold; the command's exit code.
pub fn run(stream: UnixStream, order: &Order, enclosed: &[u8], stdio: Stdio) -> Result<u8> {
    let failed = || "cannot talk to root's helper".to_owned();
    let bytes = order.encode(enclosed)?;
    let stdin = stdio.stdin.try_clone().or_failed(failed)?;
    // As it is before the command can change it.
    let _terminal = Terminal::of(&stdin);
    let sent = send(&stream, &bytes, &stdio);
    // From here on the command alone holds its output open, so that a reader sees its end.
    drop(stdio);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_failed(failed)?;
    match (runtime.block_on(follow(stream)), sent) {
        // One that refuses need not read to the end.
        (Ok(Some(code)), _) => Ok(code),
        (Ok(None), Err(error)) => Err(Error::failed(failed()).source(error)),
        (Ok(None), Ok(())) => Err(Error::failed("root's helper ended before the command did")
            .hint("look what became of it with `v vm ls`; root finds the helper's log in the journal")),
        (Err(error), _) => Err(error),
    }
}

fn send(mut stream: &UnixStream, bytes: &[u8], stdio: &Stdio) -> io::Result<()> {
    let count = host::send_with(stream, bytes, &stdio.fds())?;
    stream.write_all(&bytes[count..])
}

/// Passes signals on until the command has ended. `None`: the helper is gone.
async fn follow(stream: UnixStream) -> Result<Option<u8>> {
    let failed = || "cannot talk to root's helper".to_owned();
    stream.set_nonblocking(true).or_failed(failed)?;
    let (read, mut write) = tokio::net::UnixStream::from_std(stream).or_failed(failed)?.into_split();
    let mut answers = BufReader::new(read.take(LONGEST_ANSWER));
    let mut interrupt = signal(SignalKind::interrupt()).or_failed(failed)?;
    let mut terminate = signal(SignalKind::terminate()).or_failed(failed)?;
    let mut hang_up = signal(SignalKind::hangup()).or_failed(failed)?;
    let accepted = tokio::time::sleep(ACCEPTED);
    tokio::pin!(accepted);
    let mut waiting = true;
    let mut line = Vec::new();
    loop {
        let asked = tokio::select! {
            // It keeps in `line` what it read before another branch was first.
            answer = answers.read_until(b'\n', &mut line) => {
                if !answer.is_ok_and(|count| count > 0) || !line.ends_with(b"\n") {
                    return Ok(None);
                }
                match serde_json::from_slice(&line).or_failed(|| "root's helper gave an answer that cannot be read".to_owned())? {
                    Answer::Accepted => waiting = false,
                    Answer::Ended { code } => return Ok(Some(code)),
                    Answer::Refused { failure } => return Err(failure.into()),
                }
                line.clear();
                continue;
            }
            () = &mut accepted, if waiting => {
                return Err(Error::failed(format!("root's helper does not answer within {} s", ACCEPTED.as_secs())));
            }
            _ = interrupt.recv() => Signal::INT,
            _ = terminate.recv() => Signal::TERM,
            _ = hang_up.recv() => Signal::TERM,
        };
        // A helper that is gone is seen above.
        let _ = write.write_all(&[of_signal(asked)]).await;
    }
}
