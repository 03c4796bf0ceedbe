//! Runs a program to its end, under a deadline: an argv, never a shell string.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Cancel, memory_file};

#[derive(Debug, Clone)]
pub struct Program {
    name: OsString,
    args: Vec<OsString>,
    input: Vec<u8>,
    deadline: Duration,
    cancel: Option<Cancel>,
}

/// What a program that ended with exit code 0 wrote.
#[derive(Debug, Clone)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("`{program}` is not installed")]
    Missing { program: String },
    #[error("cannot run `{program}`")]
    Spawn { program: String, source: io::Error },
    #[error("`{program}` did not answer in {} s", deadline.as_secs_f32())]
    Deadline { program: String, deadline: Duration },
    #[error("interrupted")]
    Interrupted { program: String },
    #[error("`{program}` failed ({status}){}", last_words(stderr))]
    Failed { program: String, status: String, code: Option<i32>, stderr: String },
    #[error("`{program}` gave an answer that cannot be read: {reason}")]
    Answer { program: String, reason: String },
}

fn last_words(stderr: &str) -> String {
    let text = stderr.trim();
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl Program {
    pub fn new(name: impl AsRef<OsStr>) -> Self {
        Self {
            name: name.as_ref().to_owned(),
            args: Vec::new(),
            input: Vec::new(),
            deadline: Duration::from_secs(10),
            cancel: None,
        }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Kills it soon after `cancel` is set; for programs that run long.
    #[must_use]
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }

    /// Runs it. A non-zero exit code, a signal and a missed deadline are errors; a program that
    /// misses its deadline is killed.
    #[allow(clippy::disallowed_methods)]
    pub fn run(&self) -> Result<Output, ProgramError> {
        let program = self.name.to_string_lossy().into_owned();
        let spawn_error = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => ProgramError::Missing { program: program.clone() },
            _ => ProgramError::Spawn { program: program.clone(), source },
        };
        // Not a pipe: a program that is fed through one takes half of its input for all of it when
        // this process is killed.
        let stdin = match self.input.is_empty() {
            true => Stdio::null(),
            false => memory_file(&self.input).map_err(spawn_error)?.into(),
        };
        let mut child = Command::new(&self.name)
            .args(&self.args)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(spawn_error)?;
        let started = Instant::now();

        // A thread for each pipe: a program that fills one while we wait on another never stalls.
        let collect = |pipe: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
                bytes
            })
        };
        let stdout = collect(child.stdout.take().map(|pipe| Box::new(pipe) as _));
        let stderr = collect(child.stderr.take().map(|pipe| Box::new(pipe) as _));

        let wait = wait_until(child.id(), started + self.deadline, self.cancel.as_ref()).map_err(spawn_error)?;
        if wait != Wait::Ended {
            // Its children may hold the pipes open, so the readers are left to end by themselves.
            let _ = child.kill();
            let _ = child.wait();
            return Err(match wait {
                Wait::Cancelled => ProgramError::Interrupted { program },
                _ => ProgramError::Deadline { program, deadline: self.deadline },
            });
        }
        let status = child.wait().map_err(spawn_error)?;
        let stdout = stdout.join().unwrap_or_default();
        let stderr = stderr.join().unwrap_or_default();
        if status.success() {
            return Ok(Output { stdout, stderr });
        }
        Err(ProgramError::Failed {
            program,
            code: status.code(),
            status: match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, signal) => format!("signal {}", signal.unwrap_or(0)),
            },
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Ended,
    Deadline,
    Cancelled,
}

/// How often a wait looks whether it was cancelled.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// Waits on a pidfd, so that a deadline needs no polling; a cancellation does.
fn wait_until(pid: u32, deadline: Instant, cancel: Option<&Cancel>) -> io::Result<Wait> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let kill = |why| {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        Ok(why)
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let slice = if cancel.is_some() { left.min(CANCEL_INTERVAL) } else { left };
        let timeout = Timespec { tv_sec: slice.as_secs().cast_signed(), tv_nsec: slice.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) if slice == left => return kill(Wait::Deadline),
            Ok(0) => {}
            Ok(_) => return Ok(Wait::Ended),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if cancel.is_some_and(Cancel::is_set) {
            return kill(Wait::Cancelled);
        }
    }
}

/// The program's path: as it is when it names one, else the first on `PATH` that can be executed.
pub fn find_program(name: impl AsRef<Path>) -> Option<PathBuf> {
    let name = name.as_ref();
    let executable = |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if name.components().count() > 1 {
        return executable(name).then(|| name.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| executable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_input_and_failures() {
        let output = Program::new("cat").input("x\n".repeat(100_000)).run().unwrap();
        assert_eq!(output.stdout.len(), 200_000);
        assert!(matches!(Program::new("no-such-program").run(), Err(ProgramError::Missing { .. })));
        let failed = Program::new("ls").arg("/no/such/place").run().unwrap_err();
        assert!(failed.to_string().contains("/no/such/place"), "{failed}");
    }

    #[test]
    fn a_deadline_kills() {
        let slow = Program::new("sleep").arg("60").deadline(Duration::from_millis(50)).run();
        assert!(matches!(slow, Err(ProgramError::Deadline { .. })), "{slow:?}");
    }

    #[test]
    fn a_cancellation_kills() {
        let cancel = Cancel::default();
        let started = Instant::now();
        let stopper = std::thread::spawn({
            let cancel = cancel.clone();
            move || {
                std::thread::sleep(Duration::from_millis(50));
                cancel.set();
            }
        });
        let slow = Program::new("sleep").arg("60").deadline(Duration::from_secs(60)).cancel(&cancel).run();
        stopper.join().unwrap();
        assert!(matches!(slow, Err(ProgramError::Interrupted { .. })), "{slow:?}");
        assert!(started.elapsed() < Duration::from_secs(10));
        let quick = Program::new("true").cancel(&Cancel::default()).run();
        assert!(quick.is_ok(), "{quick:?}");
    }
}
