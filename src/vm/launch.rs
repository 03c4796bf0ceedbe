use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::Site;
use super::control::{self, Failure, Reply, Request};
use super::unit::{self, Met};
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Mode, Spawn, open_log};
use crate::spec::{Actor, Name, VmSpec};

/// The descriptor on which a supervisor says that the VM runs, or why not.
pub const READY_FD: i32 = 3;

/// What a supervisor is launched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// To start the VM.
    Start,
    /// To go on for a supervisor that was killed: to watch over its guest, or, when that is gone too, to
    /// record its end and do what the VM's policy says.
    Adopt,
}

/// A supervisor that is launched, and whose word is awaited.
#[derive(Debug)]
pub struct Starting {
    name: Name,
    word: Word,
}

/// Whose word it is, and how it comes.
#[derive(Debug)]
enum Word {
    /// A new supervisor's.
    Pipe { ready: File, deadline: Instant },
    /// The same, of one that systemd starts.
    Unit { launched: unit::Launched, deadline: Instant },
    /// That of one which is there: it is asked when the answer is awaited.
    Answer { socket: PathBuf, deadline: Duration },
}

/// Launches a VM's supervisor, which outlives this process. Several can be under way at once;
/// [`Starting::wait`] ends each.
///
/// On a host that runs systemd it is a unit, so that it has limits, is brought back when it is
/// killed, and ends before the network when the host shuts down. Elsewhere, and for an ordinary
/// user, it is a process of its own.
pub(super) fn launch(site: &Site, spec: &VmSpec, purpose: Purpose, deadline: Duration) -> Result<Starting> {
    let failed = || format!("cannot launch the supervisor of `{}`", spec.name);
    // Its own deadlines come first: this one only catches a supervisor that hangs.
    let until = Instant::now() + patience(deadline);
    if unit::serves(site)
        && let Some(launched) = unit::launch(site, spec, purpose, deadline, until)?
    {
        return Ok(Starting { name: spec.name.clone(), word: Word::Unit { launched, deadline: until } });
    }
    let (ready, word) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).or_failed(failed)?;
    let log = site.supervisor_log(spec.uuid);
    let log = open_log(&log)
        .or_failed(|| format!("cannot write the log `{}`", log.display()))
        .map_err(|error| error.context(failed()))?;
    let program = host::own_program().or_failed(failed)?;
    Spawn::new(program)
        .args(arguments(site, &spec.uuid.to_string(), purpose, deadline))
        .keep_env()
        // Whoever launches it may be a unit, and this process is not.
        .env("NOTIFY_SOCKET", "")
        .log(log)
        .fd(word, READY_FD)
        .start()
        .or_failed(failed)?
        .leave();
    Ok(Starting { name: spec.name.clone(), word: Word::Pipe { ready: File::from(ready), deadline: until } })
}

/// A supervisor's own deadlines come first: this one only catches one that hangs.
fn patience(deadline: Duration) -> Duration {
    deadline * 2 + Duration::from_secs(10)
}

/// What a supervisor is started with.
pub fn arguments(site: &Site, uuid: &str, purpose: Purpose, deadline: Duration) -> Vec<OsString> {
    let mut args = Vec::new();
    if site.dirs.mode == Mode::Rooted
        && let Some(root) = site.dirs.config.parent().and_then(|etc| etc.parent())
    {
        args.push("--root".into());
        args.push(root.into());
    }
    args.extend(["supervise".into(), uuid.into(), "--deadline".into(), deadline.as_secs().max(1).to_string().into()]);
    if purpose == Purpose::Adopt {
        args.push("--adopt".into());
    }
    if let Actor::User { uid, .. } = host::caller() {
        args.extend(["--by".into(), uid.to_string().into()]);
    }
    args
}

impl Starting {
    /// The start of a VM whose supervisor waits for the next attempt.
    pub(super) fn at_once(site: &Site, spec: &VmSpec, deadline: Duration) -> Self {
        let word = Word::Answer { socket: site.control_socket(spec.uuid), deadline: patience(deadline) };
        Self { name: spec.name.clone(), word }
    }

    /// Waits until the VM runs. The error is the supervisor's own.
    pub fn wait(self) -> Result<()> {
        let failed = || format!("cannot start `{}`", self.name);
        let (mut ready, deadline, log) = match self.word {
            Word::Pipe { ready, deadline } => (ready, deadline, format!("v vm log --supervisor {}", self.name)),
            Word::Unit { launched, deadline } => match launched.meet().map_err(|error| error.context(failed()))? {
                Met::Supervisor(ready, log) => (ready, deadline, log),
                Met::Running => return Ok(()),
            },
            Word::Answer { socket, deadline } => {
                let answer = control::ask(&socket, &Request::StartNow, deadline);
                return match answer.map_err(|error| error.context(failed()))? {
                    Some(Reply::State { .. }) => Ok(()),
                    Some(Reply::Failed { failure }) => Err(Error::from(failure).context(failed())),
                    Some(Reply::Ended { exit }) => Err(Error::failed(failed()).source(Error::failed(exit.to_string()))),
                    Some(Reply::HandingOver | Reply::StillRunning) | None => Err(Error::refused(failed())
                        .source(Error::failed("its supervisor has just changed"))
                        .hint(format!("try again: `v vm start {}`", self.name))),
                };
            }
        };
        let mut word = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&ready, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => {
                    return Err(Error::failed(failed()).source(Error::failed("its supervisor does not answer")));
                }
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Error::failed(failed()).source(error)),
            }
            let mut chunk = [0; 4096];
            let read = ready.read(&mut chunk).or_failed(failed)?;
            word.extend_from_slice(&chunk[..read]);
            if read == 0 || word.ends_with(b"\n") {
                break;
            }
        }
        if word.is_empty() {
            return Err(Error::failed(failed())
                .source(Error::failed("its supervisor ended without a word"))
                .hint(format!("its log: `{log}`")));
        }
        match serde_json::from_slice::<Option<Failure>>(&word).or_failed(failed)? {
            None => Ok(()),
            Some(failure) => Err(Error::from(failure)),
        }
    }
}
