//! A long-lived process: started with its own descriptors and a clean environment, watched by
//! pidfd, named by pid and start time (a pid alone may belong to somebody else by now).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid,
};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

/// A process to start.
#[derive(Debug)]
pub struct Spawn {
    program: PathBuf,
    args: Vec<OsString>,
    fds: Vec<(OwnedFd, i32)>,
    stdin: Option<OwnedFd>,
    output: Option<[OwnedFd; 2]>,
    log: Option<File>,
    env: Vec<(OsString, OsString)>,
    clean_env: bool,
    detach: bool,
}

impl Spawn {
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            fds: Vec::new(),
            stdin: None,
            output: None,
            log: None,
            env: Vec::new(),
            clean_env: true,
            detach: false,
        }
    }

    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Gives the child `fd` under the number `number`; nothing else above 2 is inherited.
    #[must_use]
    pub fn fd(mut self, fd: OwnedFd, number: i32) -> Self {
        self.fds.push((fd, number));
        self
    }

    /// Its standard input; without one it is empty.
    #[must_use]
    pub fn stdin(mut self, stdin: OwnedFd) -> Self {
        self.stdin = Some(stdin);
        self
    }

    /// Its standard output and error, each its own.
    #[must_use]
    pub fn output(mut self, stdout: OwnedFd, stderr: OwnedFd) -> Self {
        self.output = Some([stdout, stderr]);
        self
    }

    /// Where its standard output and error go; without a log they are thrown away.
    #[must_use]
    pub fn log(mut self, log: File) -> Self {
        self.log = Some(log);
        self
    }

    /// Lets it see this process's environment; by default it gets an empty one.
    #[must_use]
    pub fn keep_env(mut self) -> Self {
        self.clean_env = false;
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// A process group of its own: Ctrl-C at the terminal does not reach it.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.detach = true;
        self
    }

    /// The numbers of the descriptors it is given.
    pub(super) fn numbers(&self) -> Vec<i32> {
        self.fds.iter().map(|(_, number)| *number).collect()
    }

    /// The same process, begun by another program, which gets this one's argv after `args`.
    pub(super) fn begun_by(mut self, program: &std::path::Path, mut args: Vec<OsString>) -> io::Result<Self> {
        let own = std::mem::replace(&mut self.program, program.to_owned());
        // The other may change its folder before it comes to that.
        args.push(std::path::absolute(own)?.into());
        args.append(&mut self.args);
        self.args = args;
        Ok(self)
    }

    #[allow(clippy::disallowed_methods)]
    pub fn start(self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(self.stdin.map_or_else(Stdio::null, Stdio::from));
        if self.clean_env {
            command.env_clear();
        }
        command.envs(self.env);
        match (self.output, self.log) {
            (Some([stdout, stderr]), _) => command.stdout(stdout).stderr(stderr),
            (None, Some(log)) => command.stdout(log.try_clone()?).stderr(log),
            (None, None) => command.stdout(Stdio::null()).stderr(Stdio::null()),
        };
        if self.detach {
            command.process_group(0);
        }
        let mappings = self.fds.into_iter().map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Child { handle: Handle::of(pid)?, pidfd, ours: true, adopted: false })
    }
}

/// Becomes another program; returns only if that failed.
#[allow(clippy::disallowed_methods)]
pub fn exec(program: impl AsRef<OsStr>, args: &[OsString]) -> io::Error {
    Command::new(program).args(args).exec()
}

/// From now on what this process makes is its user's alone, whatever its caller's umask was.
pub fn keep_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// The file this program was started from, by the name it was started under: a link on the way to
/// it is kept, so that it leads to the next program once this one is replaced.
pub fn own_program() -> io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    let same = |path: &PathBuf| same_file(path, &running);
    let started_as = std::env::args_os().next().and_then(super::find_program);
    Ok(started_as.and_then(|path| std::path::absolute(path).ok()).filter(same).unwrap_or(running))
}

/// Whether this is the file that this process runs, which may have been replaced since.
pub fn is_own_program(path: &std::path::Path) -> bool {
    same_file(path, "/proc/self/exe".as_ref())
}

fn same_file(one: &std::path::Path, other: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

/// SIGHUP does nothing from here on, and not in the program that this one becomes either, until it
/// listens for it.
#[allow(unsafe_code)] // The standard library has no signals.
pub fn ignore_hangup() {
    // SAFETY: no handler is set that could run at a bad moment; this one is the kernel's own.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}

/// Begins a session of this process's own, without a terminal.
pub fn leave_terminal() {
    // It fails only in a process that leads a group already, which no terminal's keys reach.
    let _ = rustix::process::setsid();
}

/// Makes this process one that serves another: it ends when that one does, and Ctrl-C and SIGTERM
/// do what they do by default, whatever was set where the server was started.
#[allow(unsafe_code)] // A signal's disposition has no safe wrapper in rustix.
pub fn as_a_servant() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: SIG_DFL runs no code of ours, and no other thread has begun.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?)
}

/// A descriptor that whoever started this process certainly passed on under `number`. Call it once
/// for each number, before any file is opened.
#[allow(unsafe_code)] // Only the caller of this program knows that the number is a descriptor.
pub fn inherited_file(number: i32) -> io::Result<File> {
    // SAFETY: F_GETFD only looks; a number that is no descriptor is answered with an error.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and nothing else in this process owns it: it was opened before we began.
    let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd.into())
}

/// A pipe or socket that whoever started this process passed on under `number`; `None` when there
/// is nothing under it. Call it once for each number, before any file is opened.
#[allow(unsafe_code)] // Only the caller of this program knows that the number is a descriptor.
pub fn inherited_pipe(number: i32) -> Option<OwnedFd> {
    // SAFETY: F_GETFD only looks; a number that is no descriptor is answered with an error.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and nothing else in this process owns it: it was opened before we began.
    let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) };
    let file_type = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd).ok()?.st_mode);
    if !matches!(file_type, rustix::fs::FileType::Fifo | rustix::fs::FileType::Socket) {
        // Some other file of the caller's: left open as it was.
        let _ = std::os::fd::IntoRawFd::into_raw_fd(fd);
        return None;
    }
    // Not for the hypervisor.
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
    /// It has ended, and only its parent could have seen how.
    Unseen,
}

/// A process that we watch: a child, or one that another process started. Dropping it kills it, so that work given up half way leaves no process;
/// one that shall outlive us is [left](Child::leave).
#[derive(Debug)]
pub struct Child {
    handle: Handle,
    pidfd: OwnedFd,
    /// It ends with this value.
    ours: bool,
    /// Its parent is another process, or was.
    adopted: bool,
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ours {
            // Its status is for whoever watches it next.
            return;
        }
        if matches!(self.try_wait(), Ok(None)) {
            // The only failure is that it has just ended by itself.
            let _ = self.signal(Signal::KILL);
        }
        // Takes the status of one that has ended, so that no zombie is left behind.
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

impl Child {
    /// Takes over the watch on a process; `None` when it is gone. How one that another process
    /// started will end cannot be seen, only that it does; of a child of an earlier program of this
    /// very process it can.
    pub fn adopt(handle: Handle) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(handle.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The pidfd pins the pid: what is alive now under this start time is what it stands for.
        if !handle.is_alive() {
            return Ok(None);
        }
        let adopted = !is_child(&pidfd)?;
        Ok(Some(Self { handle, pidfd, ours: true, adopted }))
    }

    /// How a child that an earlier program of this process started has ended, if it has. Its
    /// status is taken: asked again, there is none.
    pub fn ended(handle: Handle) -> io::Result<Option<ExitStatus>> {
        let Some(pid) = Pid::from_raw(handle.pid) else { return Ok(None) };
        if !matches!(stat(handle.pid), Ok(('Z', start)) if start == handle.start_time) {
            return Ok(None);
        }
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(status) => Ok(status.as_ref().and_then(exit_status)),
            Err(rustix::io::Errno::CHILD) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Lets it live on without us.
    pub fn leave(mut self) {
        self.ours = false;
    }

    pub fn pid(&self) -> i32 {
        self.handle.pid
    }

    /// The exit status, if it has ended.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        if self.adopted {
            let ended = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&Timespec::default()))? > 0;
            return Ok(ended.then_some(ExitStatus::Unseen));
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let Some(status) = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)? else {
            return Ok(None);
        };
        Ok(exit_status(&status))
    }

    /// Waits for its end. May be dropped and called again.
    #[allow(unsafe_code)] // `AsyncFd` asks for a promise that a type cannot make.
    pub async fn wait(&self) -> io::Result<ExitStatus> {
        let pidfd = self.pidfd.try_clone()?;
        // SAFETY: the clone is owned by `watch`, stays open as long as it and is never exchanged.
        let watch = unsafe { AsyncFd::register_with_interest(pidfd, tokio::io::Interest::READABLE)? };
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            let mut ready = watch.readable().await?;
            ready.clear_ready();
        }
    }

    /// Ends it, and returns when it is gone, or when it is stuck in the kernel.
    pub(super) fn end(self, patience: Timespec) -> io::Result<()> {
        self.signal(Signal::KILL)?;
        poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&patience))?;
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn exit_status(status: &WaitIdStatus) -> Option<ExitStatus> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(ExitStatus::Code(code)),
        (_, Some(signal)) => Some(ExitStatus::Signal(signal)),
        _ => None,
    }
}

/// Whether a process is this one's child: an `exec` in between changes nothing about it.
fn is_child(pidfd: &OwnedFd) -> io::Result<bool> {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::PidFd(pidfd.as_fd()), look) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::CHILD) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A process that may not be our child, named so that no other can be taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    pub pid: i32,
    /// Clock ticks after boot, as in field 22 of `/proc/<pid>/stat`, and above [`TICKS`] which boot
    /// it was: a host that starts the same things in the same order gives the same pids at almost
    /// the same ticks. Versions before 0.2 did not note the boot.
    pub start_time: u64,
}

/// The low bits, which hold the ticks: enough for centuries.
const TICKS: u32 = 40;

impl Handle {
    pub fn current() -> io::Result<Self> {
        Self::of(rustix::process::getpid())
    }

    /// Whatever process has this pid now.
    pub fn of_pid(pid: i32) -> io::Result<Self> {
        let pid = (pid > 0).then(|| Pid::from_raw(pid)).flatten();
        Self::of(pid.ok_or(io::ErrorKind::InvalidInput)?)
    }

    fn of(pid: Pid) -> io::Result<Self> {
        let pid = pid.as_raw_nonzero().get();
        Ok(Self { pid, start_time: start_time(pid)? })
    }

    /// The user that this very process runs as.
    pub fn user(self) -> Option<u32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let effective = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().nth(1)?;
        // Only now: the status was this process's if it is still there.
        self.is_alive().then(|| effective.parse().ok())?
    }

    /// Whether this very process still exists (a zombie does not count).
    pub fn is_alive(self) -> bool {
        match stat(self.pid) {
            Ok((state, start)) => self.began(start) && !matches!(state, 'Z' | 'X'),
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => false,
            // We cannot look (too many open files, a hidden /proc). What may live is not taken for
            // dead: its disks would be given to another process.
            Err(_) => Pid::from_raw(self.pid)
                .is_some_and(|pid| !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))),
        }
    }

    /// Waits until this very process has ended. Nothing happens to it when nobody waits any more.
    pub async fn gone(self) -> io::Result<()> {
        let Some(mut watched) = Child::adopt(self)? else { return Ok(()) };
        watched.ours = false;
        watched.wait().await.map(drop)
    }

    fn began(self, start: u64) -> bool {
        let without_boot = self.start_time >> TICKS == 0;
        self.start_time == start || without_boot && self.start_time == start & ((1 << TICKS) - 1)
    }

    /// Sends a signal, unless the pid has passed to another process. `false`: it was gone.
    pub fn signal(self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // The pidfd pins the pid: what `is_alive` sees now is what the signal reaches.
        if !self.is_alive() {
            return Ok(false);
        }
        match pidfd_send_signal(&pidfd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn start_time(pid: i32) -> io::Result<u64> {
    stat(pid).map(|(_, start)| start)
}

/// State letter and start time.
fn stat(pid: i32) -> io::Result<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has an unknown form"));
    let (state, ticks) = parse_stat(&text).ok_or_else(invalid)?;
    Ok((state, boot() << TICKS | ticks))
}

/// The command's name may hold spaces and brackets, so the fields are counted from the last `)`.
/// The first thread of a process that is being killed is a zombie before the others have ended; as
/// long as they have not, its files, taps and locks are held.
fn parse_stat(text: &str) -> Option<(char, u64)> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    let ticks = fields.nth(1)?.parse().ok()?;
    Some((if state == 'Z' && threads > 1 { 'D' } else { state }, ticks))
}

/// Some bits of the kernel's id of this boot; 0 where it has none.
fn boot() -> u64 {
    static BOOT: OnceLock<u64> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.get(..6).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_when_its_last_thread_is() {
        let line = |state: char, threads: u32| {
            format!(
                "7 (a ) b) {state} 1 7 7 0 -1 4194560 90 0 0 0 1 2 0 0 20 0 {threads} 0 4711 0 0 18446744073709551615"
            )
        };
        let rows = [('S', 3, 'S'), ('Z', 3, 'D'), ('Z', 1, 'Z'), ('Z', 0, 'Z'), ('X', 0, 'X')];
        for (state, threads, expected) in rows {
            assert_eq!(parse_stat(&line(state, threads)), Some((expected, 4711)), "{state} {threads}");
        }
        assert_eq!(parse_stat("7 (a) S 1"), None);
        let me = stat(rustix::process::getpid().as_raw_nonzero().get()).unwrap();
        assert_eq!(me.1, Handle::current().unwrap().start_time);
    }

    #[test]
    fn a_handle_knows_its_own_process_only() {
        let me = Handle::current().unwrap();
        assert!(me.is_alive());
        let other = Handle { start_time: me.start_time + 1, ..me };
        assert!(!other.is_alive());
        assert!(!other.signal(Signal::KILL).unwrap());
    }

    #[test]
    fn a_process_of_another_boot_is_another_process() {
        let me = Handle::current().unwrap();
        assert_ne!(me.start_time >> TICKS, 0, "this kernel has a boot id");
        let before = Handle { start_time: me.start_time ^ 1 << (TICKS + 3), ..me };
        assert!(!before.is_alive());
        assert!(!before.signal(Signal::KILL).unwrap());
        // As an earlier version recorded it.
        let old = Handle { start_time: me.start_time & ((1 << TICKS) - 1), ..me };
        assert!(old.is_alive());
        assert!(!Handle { start_time: old.start_time + 1, ..old }.is_alive());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_adopted_process_is_seen_to_end() {
        // Its parent is a shell, which waits for its end.
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 60 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
        let shell = Spawn::new("/bin/sh").args(["-c", &script]).start().unwrap();
        while !pid.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let handle = Handle::of(Pid::from_raw(pid).unwrap()).unwrap();
        let adopted = Child::adopt(handle).unwrap().unwrap();
        assert_eq!(adopted.try_wait().unwrap(), None);
        assert!(handle.signal(Signal::KILL).unwrap());
        assert_eq!(adopted.wait().await.unwrap(), ExitStatus::Unseen);
        assert_eq!(shell.wait().await.unwrap(), ExitStatus::Code(0));
        assert!(Child::adopt(handle).unwrap().is_none());
        assert_eq!(Child::ended(handle).unwrap(), None);
    }

    /// As after an `exec`: nothing is known of the child but its handle.
    #[tokio::test(flavor = "current_thread")]
    async fn the_end_of_an_own_child_is_seen_by_its_handle_alone() {
        let sleeping = || {
            let child = Spawn::new("/bin/sleep").args(["60"]).start().unwrap();
            let handle = child.handle();
            child.leave();
            handle
        };
        let handle = sleeping();
        let again = Child::adopt(handle).unwrap().unwrap();
        assert_eq!(Child::ended(handle).unwrap(), None);
        again.signal(Signal::SYS).unwrap();
        assert_eq!(again.wait().await.unwrap(), ExitStatus::Signal(31));

        // It ends while nobody looks.
        let handle = sleeping();
        handle.signal(Signal::KILL).unwrap();
        while handle.is_alive() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert!(Child::adopt(handle).unwrap().is_none());
        assert_eq!(Child::ended(handle).unwrap(), Some(ExitStatus::Signal(9)));
        assert_eq!(Child::ended(handle).unwrap(), None, "no zombie is left");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn exit_codes_and_signals_are_told_apart() {
        let child = Spawn::new("/bin/sh").args(["-c", "exit 7"]).start().unwrap();
        assert_eq!(child.wait().await.unwrap(), ExitStatus::Code(7));
        let child = Spawn::new("/bin/sleep").args(["60"]).start().unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(child.handle().is_alive());
        child.signal(Signal::KILL).unwrap();
        assert_eq!(child.wait().await.unwrap(), ExitStatus::Signal(9));
        assert!(!child.handle().is_alive());
    }
}
