use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use libtest_mimic::Trial;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use super::{Club, LIMIT};
use crate::lifecycle::kill;
use crate::trials;
use crate::world::{Outcome, eventually, need_program};

pub fn trials() -> Vec<Trial> {
    trials![the_console_of_a_member]
}

/// A terminal with a program in it.
struct Screen {
    keys: File,
    terminal: File,
    seen: std::sync::mpsc::Receiver<Vec<u8>>,
    text: String,
    child: Child,
}

impl Screen {
    /// The program leads a session of its own, whose terminal this is, as in a terminal's window.
    fn of(command: &Command) -> Self {
        let keys: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&keys).and_then(|()| unlockpt(&keys)).expect("its other end");
        let name = ptsname(&keys, Vec::new()).expect("its name").into_string().expect("a path");
        let terminal = File::options().read(true).write(true).open(name).expect("it opens");
        let mut leader = Command::new("setsid");
        leader.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
        leader.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let end = || terminal.try_clone().expect("a handle");
        let child = leader.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts");
        let keys = File::from(keys);
        let (sender, seen) = std::sync::mpsc::channel();
        let mut screen = keys.try_clone().expect("a handle");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { keys, terminal, seen, text: String::new(), child }
    }

    #[track_caller]
    fn shows(&mut self, word: &str) {
        eventually(&format!("{word:?} is shown"), LIMIT, || {
            self.text.extend(self.seen.try_iter().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
            self.text.contains(word)
        });
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("it is typed");
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).expect("its modes").local_modes.contains(LocalModes::ICANON)
    }
}

fn the_console_of_a_member() -> Outcome {
    need_program("setsid")?;
    let club = Club::new()?;
    club.v(["vm", "create", "-t", "echo", "-n", "parrot", "--start"]).ok();
    let attach = || {
        let mut screen = Screen::of(&club.member(["vm", "console", "parrot"]));
        screen.shows("attached to `parrot`");
        screen.shows("virshle payload");
        eventually("every key is handed over", LIMIT, || screen.is_raw());
        screen
    };
    let mut screen = attach();
    screen.types("hello?");
    screen.shows("hello?");
    screen.types("\u{1d}");
    assert_eq!(screen.child.wait().expect("it ends").code(), Some(0), "{}", screen.text);
    assert!(!screen.is_raw(), "the terminal is as it was");
    // Ended from outside, kindly or not.
    for (signal, code) in [(Signal::TERM, Some(1)), (Signal::HUP, Some(1)), (Signal::KILL, None)] {
        let mut screen = attach();
        kill(i32::try_from(screen.child.id()).expect("a pid"), signal);
        assert_eq!(screen.child.wait().expect("it ends").code(), code, "{signal:?}: {}", screen.text);
        eventually("the terminal is as it was", LIMIT, || !screen.is_raw());
        eventually("nobody reads from it", LIMIT, || club.commands().is_empty());
    }
    // Ctrl-C at the terminal reaches a command that does not read keys.
    let mut screen = Screen::of(&club.member(["vm", "log", "--follow", "parrot"]));
    screen.shows("hello?");
    screen.types("\u{3}");
    assert_eq!(screen.child.wait().expect("it ends").code(), Some(130), "{}", screen.text);
    club.close();
    Ok(())
}
