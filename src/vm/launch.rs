use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Site;
use super::control::Failure;
use crate::error::{Error, OrFailed, Result};
use crate::host::{Mode, Spawn, open_log};
use crate::spec::{Name, VmSpec};

/// The descriptor on which a supervisor says that the VM runs, or why not.
pub const READY_FD: i32 = 3;

/// What a supervisor is launched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To start the VM.
    Start,
    /// To watch over a guest whose supervisor was killed.
    Adopt,
}

/// A supervisor that is launched, and whose word is awaited.
#[derive(Debug)]
pub struct Starting {
    name: Name,
    ready: File,
    deadline: Instant,
}

/// Launches a VM's supervisor, which outlives this process. Several can be under way at once;
/// [`Starting::wait`] ends each.
pub(super) fn launch(site: &Site, spec: &VmSpec, purpose: Purpose, deadline: Duration) -> Result<Starting> {
    let failed = || format!("cannot launch the supervisor of `{}`", spec.name);
    let (ready, word) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).or_failed(failed)?;
    let log = site.supervisor_log(spec.uuid);
    let log = open_log(&log)
        .or_failed(|| format!("cannot write the log `{}`", log.display()))
        .map_err(|error| error.context(failed()))?;
    let program = std::env::current_exe().or_failed(failed)?;
    Spawn::new(program)
        .args(arguments(site, &spec.uuid.to_string(), purpose, deadline))
        .keep_env()
        .log(log)
        .fd(word, READY_FD)
        .start()
        .or_failed(failed)?
        .leave();
    Ok(Starting {
        name: spec.name.clone(),
        ready: File::from(ready),
        // Its own deadlines come first: this one only catches a supervisor that hangs.
        deadline: Instant::now() + deadline * 2 + Duration::from_secs(10),
    })
}

fn arguments(site: &Site, uuid: &str, purpose: Purpose, deadline: Duration) -> Vec<OsString> {
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

impl Starting {
    /// Waits until the VM runs. The error is the supervisor's own.
    pub fn wait(mut self) -> Result<()> {
        let failed = || format!("cannot start `{}`", self.name);
        let mut word = Vec::new();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.ready, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => {
                    return Err(Error::failed(failed()).source(Error::failed("its supervisor does not answer")));
                }
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Error::failed(failed()).source(error)),
            }
            let mut chunk = [0; 4096];
            let read = self.ready.read(&mut chunk).or_failed(failed)?;
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
