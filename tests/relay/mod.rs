//! Members of the group `virshle` without root: a helper of root's on a folder of the test's own, in
//! a mount namespace whose `/etc/group` has the group with one member, and people of every kind.

mod files;
mod host;
mod life;
mod strangers;
mod terminal;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::lifecycle::{Kind, Stage, kill};
use crate::world::{Run, Skip, World, eventually, need_program, need_root, run, skip};

pub fn trials() -> Vec<Trial> {
    [files::trials(), host::trials(), life::trials(), strangers::trials(), terminal::trials()]
        .into_iter()
        .flatten()
        .collect()
}

pub const LIMIT: Duration = Duration::from_secs(30);
/// `nobody`, the group's only member; and `daemon`, a stranger. Debian has both.
pub const MEMBER: u32 = 65534;
pub const STRANGER: u32 = 1;
const GROUP: u32 = 4242;

pub struct Club {
    pub stage: Stage,
    helper: Child,
}

/// Who listens.
#[derive(Debug, Clone, Copy)]
pub enum Door {
    /// `v relay --listen`.
    Own,
    /// systemd's own program for trying what a socket unit with `Accept=yes` starts.
    Systemd,
}

impl Club {
    pub fn new() -> Result<Self, Skip> {
        Self::with(Door::Own)
    }

    pub fn with(door: Door) -> Result<Self, Skip> {
        need_root()?;
        if matches!(door, Door::Systemd) {
            need_program("systemd-socket-activate")?;
        }
        let (unshare, _) = (need_program("unshare")?, need_program("setpriv")?);
        if !Command::new(&unshare).args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
            return skip("no mount namespace can be made");
        }
        let mut stage = Stage::new(Kind::Fake)?;
        let world = &mut stage.world;
        let groups = fs::read_to_string("/etc/group").expect("the host's groups");
        let groups = world.file("group", format!("{groups}virshle:x:{GROUP}:nobody\n"));
        // Where everybody may run it.
        let program = world.dir().join("v");
        fs::hard_link(crate::world::v(), &program)
            .or_else(|_| fs::copy(crate::world::v(), &program).map(drop))
            .expect("a copy of v");
        world.use_program(&program);
        for dir in [world.dir().to_owned(), world.root()] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("all may look");
        }
        for path in [world.home(), world.home().join(".ssh")] {
            chown(path, Some(MEMBER), Some(MEMBER)).expect("the member's home");
        }
        let log = fs::File::create(world.dir().join("helper.log")).expect("a log");
        let mut command = Command::new(unshare);
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/group && exec \"$@\""]).arg(groups);
        let socket = world.root().join("run/virshle/virshle.sock");
        match door {
            Door::Own => command.arg(&program).arg("--root").arg(world.root()).args(["relay", "--listen"]),
            Door::Systemd => {
                fs::create_dir_all(socket.parent().expect("a folder")).expect("the runtime folder");
                command.args(["systemd-socket-activate", "-E", "PATH", "-E", "HOME", "--accept", "--inetd", "-l"]);
                command.arg(&socket).arg(&program).arg("--root").arg(world.root()).arg("relay")
            }
        };
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", "/root");
        let helper = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("the helper starts");
        let club = Self { stage, helper };
        if matches!(door, Door::Systemd) {
            // What `SocketGroup` and `SocketMode` do.
            eventually("systemd listens", LIMIT, || club.socket().exists());
            chown(club.socket(), None, Some(GROUP)).expect("its group");
            fs::set_permissions(club.socket(), fs::Permissions::from_mode(0o660)).expect("its mode");
        }
        let listens = || fs::metadata(club.socket()).is_ok_and(|file| file.permissions().mode() & 0o777 == 0o660);
        eventually("the helper listens", LIMIT, listens);
        Ok(club)
    }

    pub fn world(&self) -> &World {
        &self.stage.world
    }

    pub fn socket(&self) -> PathBuf {
        self.world().root().join("run/virshle/virshle.sock")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.world().dir().join("helper.log")).expect("the helper's log")
    }

    /// A command of a user, whose session has these groups beside its main one.
    pub fn of(&self, uid: u32, groups: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let v = self.world().command(args);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string()]);
        match groups {
            "" => command.arg("--clear-groups"),
            groups => command.args(["--groups", groups]),
        };
        command
            .arg(v.get_program())
            .args(v.get_args())
            .env_clear()
            .stdin(Stdio::null())
            .current_dir(self.world().home());
        command.envs(v.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    pub fn member(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        self.of(MEMBER, &GROUP.to_string(), args)
    }

    /// Runs `v` as the member.
    pub fn v(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        run(self.member(args), Duration::from_secs(120))
    }

    pub fn rows(&self) -> Vec<Value> {
        serde_json::from_str(&self.v(["vm", "ls", "-o", "json"]).ok().stdout).expect("ls prints JSON")
    }

    pub fn state_of(&self, name: &str) -> String {
        let rows = self.rows();
        let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no `{name}` in {rows:?}"));
        row["state"].as_str().expect("a state").to_owned()
    }

    /// The pids of commands that root runs for members of this world.
    pub fn commands(&self) -> Vec<i32> {
        let root = self.world().root().display().to_string();
        let processes = fs::read_dir("/proc").expect("processes").flatten();
        let ours = processes.filter_map(|entry| {
            let words = fs::read(entry.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).into_owned();
            (words.contains(&root) && words.contains("\0--run\0")).then(|| entry.file_name().to_str()?.parse().ok())?
        });
        ours.collect()
    }

    /// Ends the helper as init does, and nothing of it is left.
    pub fn close(mut self) {
        kill(i32::try_from(self.helper.id()).expect("a pid"), rustix::process::Signal::TERM);
        assert!(self.helper.wait().expect("it ends").success(), "{}", self.log());
        assert!(!self.socket().exists(), "the socket is removed");
        eventually("every command has ended", LIMIT, || self.commands().is_empty());
    }
}

impl Drop for Club {
    fn drop(&mut self) {
        let _ = self.helper.kill();
        let _ = self.helper.wait();
    }
}
