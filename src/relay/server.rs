//! One connection: look who it is, take the order, run the command as a child, pass signals in and
//! the exit code back.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::AsyncReadExt;

use super::admit::{Guest, admit};
use super::environment::passed_on;
use super::message::{Answer, ENCLOSED_FD, Received, receive, signal_of};
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Child, Dirs, ExitStatus, Spawn, User};
use crate::vm::control::Failure;

/// How long an order may take to come, all of it.
const ORDER: Duration = Duration::from_secs(10);
/// How long a caller may take to read an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a command whose caller is gone gets to undo what it did.
const UNDO: Duration = Duration::from_secs(60);

/// Serves one connection to its end. `never` is the user that hypervisors run as; `allow` looks at the
/// words of a command and refuses those that are not for members. The error is this process's own:
/// what was refused has been told to the caller.
pub fn serve(dirs: &Dirs, stream: &UnixStream, never: &str, allow: impl Fn(&[String]) -> Result<()>) -> Result<()> {
    // A session without a terminal, so that no caller's terminal can become ours; and what the
    // command makes is root's alone.
    host::leave_terminal();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::chdir("/").or_failed(|| "cannot enter `/`".to_owned())?;
    stream.set_write_timeout(Some(ANSWER)).or_failed(|| "cannot use the connection".to_owned())?;

    let started = take(dirs, stream, never, allow);
    let (guest, child) = match started {
        Ok(Some(started)) => started,
        Ok(None) => return Ok(()),
        Err(error) => {
            tracing::warn!("refused: {}", error.chain().join(": "));
            // One who does not listen is not told.
            let _ = tell(stream, &Answer::Refused { failure: Failure::from(&error) });
            return Ok(());
        }
    };
    // One who is gone already is noticed below.
    let _ = tell(stream, &Answer::Accepted);
    let failed = || "lost sight of the command".to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_failed(failed)?;
    let code = runtime.block_on(attend(stream, &child)).or_failed(failed)?;
    tracing::info!(uid = guest.uid, code, "ended");
    let _ = stream.set_nonblocking(false);
    let _ = tell(stream, &Answer::Ended { code });
    Ok(())
}

/// From the connection to the running command; `None` when nothing was ordered.
fn take(
    dirs: &Dirs,
    stream: &UnixStream,
    never: &str,
    allow: impl Fn(&[String]) -> Result<()>,
) -> Result<Option<(Guest, Child)>> {
    let guest = admit(dirs, stream, never)?;
    let Some(received) = receive(stream, Instant::now() + ORDER)? else { return Ok(None) };
    let words = &received.order.words;
    tracing::info!(uid = guest.uid, user = %guest.name, words = %format!("{words:?}"), "asked");
    allow(words)?;
    let child = start(dirs, &guest, received).or_failed(|| "cannot start the command".to_owned())?;
    Ok(Some((guest, child)))
}

fn start(dirs: &Dirs, guest: &Guest, received: Received) -> io::Result<Child> {
    let Received { order, stdio: [stdin, stdout, stderr], enclosed } = received;
    let mut args: Vec<OsString> = Vec::new();
    if let Some(root) = dirs.root() {
        args.extend(["--root".into(), root.into()]);
    }
    args.extend(["relay".into(), "--run".into(), "--".into()]);
    args.extend(order.words.into_iter().map(OsString::from));
    let mut spawn = Spawn::new(std::env::current_exe()?).args(args).stdin(stdin).output(stdout, stderr);
    // Filtered here too: the caller's own filter is the caller's.
    for (name, value) in passed_on(order.environment) {
        spawn = spawn.env(name, value);
    }
    if let Some(path) = std::env::var_os("PATH") {
        spawn = spawn.env("PATH", path);
    }
    // What `~` in a template means to root; systemd sets none, and sudo may leave the caller's.
    if let Some(root) = User::by_uid(0) {
        spawn = spawn.env("HOME", root.home);
    }
    let (name, value) = host::on_behalf_of(guest.uid);
    spawn.env(name, value).fd(host::memory_file(&enclosed)?, ENCLOSED_FD).start()
}

/// Passes signals on until the command has ended; its exit code, as a shell counts them. A caller
/// that is gone, or talks nonsense, cancels it.
async fn attend(stream: &UnixStream, child: &Child) -> io::Result<u8> {
    stream.set_nonblocking(true)?;
    let mut caller = tokio::net::UnixStream::from_std(stream.try_clone()?)?;
    let mut gone = None;
    let status = loop {
        let mut bytes = [0; 16];
        tokio::select! {
            status = child.wait() => break status?,
            read = caller.read(&mut bytes), if gone.is_none() => {
                let signals = bytes[..read.unwrap_or(0)].iter().map(|byte| signal_of(*byte)).collect::<Option<Vec<_>>>();
                match signals.filter(|signals| !signals.is_empty()) {
                    Some(signals) => signals.into_iter().try_for_each(|signal| child.signal(signal))?,
                    None => {
                        child.signal(Signal::TERM)?;
                        gone = Some(tokio::time::Instant::now() + UNDO);
                    }
                }
            }
            () = tokio::time::sleep_until(gone.unwrap_or_else(tokio::time::Instant::now)), if gone.is_some() => {
                child.signal(Signal::KILL)?;
                gone = Some(tokio::time::Instant::now() + UNDO);
            }
        }
    };
    Ok(match status {
        ExitStatus::Code(code) => u8::try_from(code).unwrap_or(1),
        ExitStatus::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
        ExitStatus::Unseen => 1,
    })
}

fn tell(mut stream: &UnixStream, answer: &Answer) -> Result<()> {
    let failed = || "cannot answer".to_owned();
    let mut line = serde_json::to_vec(answer).map_err(|error| Error::failed(failed()).source(error))?;
    line.push(b'\n');
    stream.write_all(&line).or_failed(failed)
}
