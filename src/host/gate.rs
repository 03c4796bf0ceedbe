//! A gate: the process that is to become a hypervisor, held back until a record names it.
//!
//! ```text
//! v supervise ── spawns ──► v gate … -- program args     (waits on a socket to its keeper)
//!      │ the process is recorded                ▲
//!      └────────── one byte ────────────────────┘ ──► privileges dropped ──► exec, same pid
//! ```
//!
//! A keeper that is killed closes the socket, and the gate ends: no hypervisor can exist that no
//! record names. What cannot be done is told over the same socket, which closes when the program
//! is there. Another user's program gets that user, its groups and nothing else; the caller's own
//! loses what capabilities it was lent. Root stays root when that is asked for, capabilities too.
#![allow(unsafe_code)] // Capability and identity calls have no safe wrapper for a whole process.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use super::process::{Child, Handle, Spawn, exec, inherited_pipe};

/// The gate's end of the socket: between the descriptors that hypervisors are told of (3 and 4) and
/// their taps (10 and up).
const GATE_FD: i32 = 9;
/// How long a gate waits for its keeper's word: a record is written in milliseconds.
const WORD: Duration = Duration::from_secs(60);
/// How long a gate that may pass can take to become its program.
const PASSAGE: Duration = Duration::from_secs(10);

/// A user that programs are run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Beside `gid`; nothing is taken over from the caller.
    pub groups: Vec<u32>,
}

/// What holds a process back, and as whom it goes on.
#[derive(Debug, Clone)]
pub struct Gate {
    /// This program, which has `gate` as a subcommand.
    pub program: PathBuf,
    /// As whom; `None`: as the caller.
    pub runner: Option<Runner>,
}

/// A process that waits at its gate. Dropping it ends it.
#[derive(Debug)]
pub struct Gated {
    child: Child,
    keeper: UnixStream,
}

/// What a gate could not do before it became its program.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
struct NotPassed {
    step: String,
    source: io::Error,
}

impl Spawn {
    /// Starts the process behind a gate.
    pub fn start_at(self, gate: &Gate) -> io::Result<Gated> {
        let (keeper, theirs) = UnixStream::pair()?;
        let mut args: Vec<OsString> = vec!["gate".into()];
        if let Some(runner) = &gate.runner {
            let groups: Vec<String> = runner.groups.iter().map(u32::to_string).collect();
            args.extend(["--uid".into(), runner.uid.to_string().into(), "--gid".into(), runner.gid.to_string().into()]);
            args.extend(["--groups".into(), groups.join(",").into()]);
        }
        let numbers: Vec<String> = self.numbers().iter().map(i32::to_string).collect();
        args.extend(["--fds".into(), numbers.join(",").into()]);
        args.push("--".into());
        let child = self.begun_by(&gate.program, args)?.fd(OwnedFd::from(theirs), GATE_FD).start()?;
        Ok(Gated { child, keeper })
    }
}

impl Gated {
    pub fn handle(&self) -> Handle {
        self.child.handle()
    }

    /// Lets it become its program, and returns when it has. The error of a program that cannot be
    /// run is the system's own; on any error the process is ended.
    pub fn open(mut self) -> io::Result<Child> {
        match self.pass() {
            Ok(()) => Ok(self.child),
            Err(error) => {
                self.child.end(Timespec { tv_sec: PASSAGE.as_secs().cast_signed(), tv_nsec: 0 })?;
                Err(error)
            }
        }
    }

    fn pass(&mut self) -> io::Result<()> {
        self.keeper.set_read_timeout(Some(PASSAGE))?;
        self.keeper.write_all(&[1])?;
        let mut word = String::new();
        (&self.keeper).take(1024).read_to_string(&mut word)?;
        if word.is_empty() {
            return Ok(());
        }
        let told = word.split_once(' ').and_then(|(code, step)| Some((code.parse().ok()?, step)));
        let Some((code, step)) = told else { return Err(io::Error::other(word)) };
        let source = io::Error::from_raw_os_error(code);
        Err(if step == EXEC { source } else { io::Error::other(NotPassed { step: step.to_owned(), source }) })
    }
}

/// The step whose error is the program's.
const EXEC: &str = "run";

/// The inside of a gate: returns when the keeper is gone, or when what follows failed and was told.
/// Of the descriptors above 2 only `fds` are passed on.
pub fn pass_gate(runner: Option<&Runner>, fds: &[u32], program: &OsStr, args: &[OsString]) -> io::Result<()> {
    let Some(keeper) = inherited_pipe(GATE_FD) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "nobody holds this gate"));
    };
    let mut keeper = UnixStream::from(keeper);
    keeper.set_read_timeout(Some(WORD))?;
    match keeper.read(&mut [0]) {
        Ok(1) => {}
        // Its keeper was killed, or hangs.
        _ => return Ok(()),
    }
    close_others(fds);
    let (step, error) = match confine(runner) {
        Ok(()) => (EXEC, exec(program, args)),
        Err(failed) => failed,
    };
    let code = error.raw_os_error().unwrap_or(libc::EINVAL);
    keeper.write_all(format!("{code} {step}").as_bytes())
}

/// What whoever started the command had open, and did not mean for anybody, ends with the exec. An
/// old kernel that cannot do it leaves things as they were.
fn close_others(fds: &[u32]) {
    let mut kept = fds.to_vec();
    kept.sort_unstable();
    let mut first = 3;
    for last in kept.iter().map(|fd| fd.saturating_sub(1)).chain([u32::MAX]) {
        if first <= last {
            // SAFETY: plain numbers; nothing is closed before the exec, which ends all owners.
            unsafe { libc::close_range(first, last, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
        }
        first = last.saturating_add(2);
    }
}

/// Gives up all that the program has no need of.
fn confine(runner: Option<&Runner>) -> Result<(), (&'static str, io::Error)> {
    let named = |step| move |error: rustix::io::Errno| (step, io::Error::from(error));
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::chdir("/").map_err(named("enter `/`"))?;
    // A guest's memory has no place in a core file.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(named("forbid core files"))?;
    if let Some(runner) = runner {
        become_runner(runner).map_err(|(step, error)| (step, io::Error::from(error)))?;
    }
    if !rustix::process::geteuid().is_root() {
        drop_capabilities().map_err(named("give up its capabilities"))?;
    }
    set_no_new_privs(true).map_err(named("forbid itself new privileges"))
}

fn become_runner(runner: &Runner) -> Result<(), (&'static str, rustix::io::Errno)> {
    let done = |result: libc::c_int, step| match result {
        0 => Ok(()),
        _ => Err((step, last_error())),
    };
    // While it still may: afterwards no exec could bring any of them back.
    drop_bounds();
    // SAFETY: the pointer and the length are those of one slice; the calls change this process only.
    done(unsafe { libc::setgroups(runner.groups.len(), runner.groups.as_ptr()) }, "leave the caller's groups")?;
    // SAFETY: plain numbers; the calls change this process only.
    done(unsafe { libc::setresgid(runner.gid, runner.gid, runner.gid) }, "become another group")?;
    // SAFETY: as above.
    done(unsafe { libc::setresuid(runner.uid, runner.uid, runner.uid) }, "become another user")
}

/// Takes every capability from what an exec could give. Who may not do that has none to give.
fn drop_bounds() {
    for capability in 0..64 {
        // SAFETY: plain numbers; one that does not exist is answered with an error.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

fn drop_capabilities() -> Result<(), rustix::io::Errno> {
    drop_bounds();
    // SAFETY: plain numbers; it changes this process only.
    if unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) } != 0 {
        return Err(last_error());
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

fn last_error() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::INVAL)
}

#[cfg(test)]
impl Gate {
    /// That of the program which is built beside the tests (`cargo build --bins`).
    pub(crate) fn of_tests() -> Self {
        let tests = std::env::current_exe().unwrap();
        let program = tests.parent().and_then(std::path::Path::parent).unwrap().join("v");
        assert!(program.is_file(), "{} is built by `cargo build`", program.display());
        Self { program, runner: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ExitStatus;

    fn waiting(program: &str, args: &[&str]) -> Gated {
        Spawn::new(program).args(args).start_at(&Gate::of_tests()).unwrap()
    }

    fn cmdline(gated: &Gated) -> String {
        let bytes = std::fs::read(format!("/proc/{}/cmdline", gated.handle().pid)).unwrap();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    }

    #[tokio::test(flavor = "current_thread")]
    async fn it_becomes_its_program_when_it_may_and_keeps_its_pid() {
        let gated = waiting("/bin/sh", &["-c", "exit 7"]);
        let (handle, before) = (gated.handle(), cmdline(&gated));
        assert!(handle.is_alive() && before.contains(" gate "), "{before}");
        let child = gated.open().unwrap();
        assert_eq!(child.handle(), handle);
        assert_eq!(child.wait().await.unwrap(), ExitStatus::Code(7));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_keeper_that_is_gone_ends_it() {
        let Gated { child, keeper } = waiting("/bin/sleep", &["600"]);
        // As the kernel does when the keeper is killed.
        drop(keeper);
        assert_eq!(child.wait().await.unwrap(), ExitStatus::Code(0), "not by a signal: nobody ended it");
    }

    #[test]
    fn a_program_that_cannot_be_run_is_told_as_the_system_tells_it() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "x").unwrap();
        for (program, kind) in
            [("/no/such/program".as_ref(), io::ErrorKind::NotFound), (plain.as_path(), io::ErrorKind::PermissionDenied)]
        {
            let gated = waiting(program.to_str().unwrap(), &[]);
            let handle = gated.handle();
            assert_eq!(gated.open().unwrap_err().kind(), kind, "{}", program.display());
            assert!(!handle.is_alive(), "nothing is left of it");
        }
    }

    #[test]
    fn what_it_gives_up() {
        let given = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let sleep = Spawn::new("/bin/sleep").args(["600"]).fd(given(), 6).fd(given(), 4);
        let child = sleep.start_at(&Gate::of_tests()).unwrap().open().unwrap();
        let pid = child.pid();
        let proc = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let status = proc("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
            line.trim().to_owned()
        };
        assert_eq!(field("NoNewPrivs"), "1");
        assert_eq!(field("Umask"), "0077");
        assert_eq!(proc("environ"), "");
        let core = proc("limits").lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
        assert_eq!(core.split_ascii_whitespace().rev().nth(1), Some("0"), "{core}");
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), std::path::Path::new("/"));
        let mut open: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        open.sort();
        assert_eq!(open, ["0", "1", "2", "4", "6"], "what it was given, and nothing of its keeper's");
        if !rustix::process::geteuid().is_root() {
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(field(set), "0000000000000000", "{set}");
            }
        }
    }
}
