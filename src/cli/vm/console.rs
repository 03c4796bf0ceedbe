use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use clap::Args;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::select::One;
use crate::cli::ui::Ui;
use crate::error::{Error, OrFailed, Result};
use crate::host::Cancel;
use crate::vm::{self, Site};

/// Attach to a VM's serial console
///
/// The recent past is shown first. Ctrl-] leaves. A serial line does not carry the terminal's
/// size: Ctrl-^ types `stty rows R cols C` at the guest's shell.
#[derive(Debug, Args)]
pub(crate) struct Console {
    #[command(flatten)]
    vm: One,
}

/// Ctrl-], as in telnet and virsh.
const LEAVE: u8 = 0x1d;
/// Ctrl-^.
const SIZE: u8 = 0x1e;
/// How often it is looked whether SIGTERM came.
const POLL: Duration = Duration::from_millis(100);

impl Console {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let mut store = site.store()?;
        let record = self.vm.find(&store)?;
        let observed = vm::reconcile(site, &mut store, record)?;
        let spec = &observed.record.spec;
        if !observed.state.is_run() {
            return Err(Error::refused(format!("cannot attach to `{}`: it is {}", spec.name, observed.state))
                .hint(format!("what it wrote is in `v vm log {}`", spec.name)));
        }
        if observed.unwatched {
            return Err(Error::refused(format!("cannot attach to `{}`: nobody watches it", spec.name))
                .hint(format!("its hypervisor does not answer; `v vm stop --force {}` ends it", spec.name)));
        }
        let stream = UnixStream::connect(site.console_socket(spec.uuid))
            .or_failed(|| format!("cannot attach to `{}`", spec.name))?;
        ui.say(format!("attached to `{}`; Ctrl-] leaves, Ctrl-^ sends the terminal's size", spec.name));
        // Ended from outside, it still puts the terminal back.
        let cancel = Cancel::on_interrupt();
        let raw = Raw::enter().or_failed(|| "cannot set up the terminal".to_owned())?;
        let ended = relay(&stream, &cancel).or_failed(|| format!("lost the console of `{}`", spec.name));
        drop(raw);
        match ended? {
            Ended::Key => ui.say(""),
            Ended::Vm => ui.say(format!("\n`{}` has ended", spec.name)),
            Ended::Signal => return Err(Error::failed("interrupted")),
        }
        Ok(())
    }
}

enum Ended {
    Key,
    Vm,
    Signal,
}

/// Keyboard to guest on this thread's side, guest to screen on another's.
fn relay(stream: &UnixStream, cancel: &Cancel) -> io::Result<Ended> {
    let mut from_guest = stream.try_clone()?;
    let (sender, receiver) = std::sync::mpsc::channel();
    let by_vm = sender.clone();
    std::thread::spawn(move || {
        let result = copy_to_screen(&mut from_guest);
        let _ = by_vm.send(result.map(|()| Ended::Vm));
    });
    let mut to_guest = stream.try_clone()?;
    std::thread::spawn(move || {
        let result = copy_keys(&mut to_guest);
        // At the end of a piped stdin the guest's answer is still wanted: only a key leaves.
        match result {
            Ok(false) => {
                let _ = to_guest.shutdown(Shutdown::Write);
            }
            Ok(true) => {
                let _ = sender.send(Ok(Ended::Key));
            }
            Err(error) => {
                let _ = sender.send(Err(error));
            }
        }
    });
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(ended) => return ended,
            Err(RecvTimeoutError::Disconnected) => return Ok(Ended::Vm),
            Err(RecvTimeoutError::Timeout) if cancel.is_set() => return Ok(Ended::Signal),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn copy_to_screen(stream: &mut UnixStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut screen = io::stdout().lock();
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => {
                screen.write_all(&buffer[..count])?;
                screen.flush()?;
            }
        }
    }
}

/// `true` when the leave key was typed, `false` at the end of input.
fn copy_keys(stream: &mut UnixStream) -> io::Result<bool> {
    let mut buffer = [0; 1024];
    let mut keys = io::stdin().lock();
    loop {
        let count = keys.read(&mut buffer)?;
        if count == 0 {
            return Ok(false);
        }
        for piece in buffer[..count].split_inclusive(|byte| matches!(*byte, LEAVE | SIZE)) {
            match piece.split_last() {
                Some((&LEAVE, typed)) => {
                    stream.write_all(typed)?;
                    return Ok(true);
                }
                Some((&SIZE, typed)) => {
                    stream.write_all(typed)?;
                    if let Ok(size) = tcgetwinsize(io::stdout().as_fd()) {
                        write!(stream, "stty rows {} cols {}\r", size.ws_row, size.ws_col)?;
                    }
                }
                _ => stream.write_all(piece)?,
            }
        }
    }
}

/// A terminal that hands every key over; as it was before when dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, before);
        }
    }
}
