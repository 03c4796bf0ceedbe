use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Site;
use super::control::{self, Failure, Reply, Request};
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Mode, Spawn};
use crate::spec::{Name, VmSpec};

/// The descriptor on which a supervisor says that the VM runs, or why not.
pub const READY_FD: i32 = 3;

/// What a supervisor is launched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// That of one which is there: it is asked when the answer is awaited.
    Answer { socket: PathBuf, deadline: Duration },
}

/// Launches a VM's supervisor, which outlives this process. Several can be under way at once;
/// [`Starting::wait`] ends each.
pub(super) fn launch(site: &Site, spec: &VmSpec, purpose: Purpose, deadline: Duration) -> Result<Starting> {
    let failed = || format!("cannot launch the supervisor of `{}`", spec.name);
    let (ready, word) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).or_failed(failed)?;
    let log = append(&site.supervisor_log(spec.uuid)).or_failed(failed)?;
    let program = host::own_program().or_failed(failed)?;
    Spawn::new(program)
        .args(arguments(site, &spec.uuid.to_string(), purpose, deadline))
        .keep_env()
        .log(log)
        .fd(word, READY_FD)
        .start()
        .or_failed(failed)?
        .leave();
    let word = Word::Pipe { ready: File::from(ready), deadline: Instant::now() + patience(deadline) };
    Ok(Starting { name: spec.name.clone(), word })
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
    args
}

fn append(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
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
        let (mut ready, deadline) = match self.word {
            Word::Pipe { ready, deadline } => (ready, deadline),
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
                .hint(format!("its log: `v vm log --supervisor {}`", self.name)));
        }
        match serde_json::from_slice::<Option<Failure>>(&word).or_failed(failed)? {
            None => Ok(()),
            Some(failure) => Err(Error::from(failure)),
        }
    }
}
