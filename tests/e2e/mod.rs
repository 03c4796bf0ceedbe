//! A real Debian guest, under QEMU without hardware virtualisation: made from a template, booted by
//! its UEFI firmware, reached by ssh, shut down in order. Slow, and the proof of the whole.

mod clean_stop;
mod liar;
mod line;
mod network;
mod side;
mod user_network;
mod vhost_network;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::fixtures::guest::{Guest, guest};
use crate::world::{Skip, World, exercised, need_program, run};

pub fn trials() -> Vec<Trial> {
    [user_network::trials(), vhost_network::trials(), network::trials(), line::trials()].into_iter().flatten().collect()
}

/// Under emulation on two cores, with other tests beside it.
pub const BOOT: &str = "400";

/// Where guests with talk.py answer.
pub const PORT: u16 = 7007;

/// A world with QEMU, the guest's image, and a key of its own.
pub struct Stage {
    pub world: World,
    pub guest: Guest,
    pub key: PathBuf,
}

impl Stage {
    pub fn new() -> Result<Self, Skip> {
        let qemu = need_program("qemu-system-x86_64")?;
        need_program("ssh")?;
        let version = run(
            {
                let mut command = Command::new(qemu);
                command.arg("--version");
                command
            },
            Duration::from_secs(20),
        );
        exercised("hypervisor", &format!("{} (TCG)", version.stdout.lines().next().unwrap_or_default()));
        let guest = guest().unwrap_or_else(|reason| panic!("{reason}"));
        let world = World::new();
        let key = world.home().join(".ssh/id_ed25519");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test \"it's\" $(id)", "-f"]).arg(&key);
        run(keygen, Duration::from_secs(20)).ok();
        Ok(Self { world, guest, key })
    }

    /// The guest's kernel and initrd where a QEMU of another user, who reads no more than nobody may, finds them.
    pub fn for_others(&self) -> (PathBuf, PathBuf) {
        fs::set_permissions(self.world.dir(), Permissions::from_mode(0o711)).expect("others pass through");
        let public = |file: &Path| {
            let copy = self.world.dir().join(file.file_name().expect("a name"));
            fs::copy(file, &copy).expect("a copy");
            fs::set_permissions(&copy, Permissions::from_mode(0o644)).expect("everybody may read it");
            copy
        };
        (public(&self.guest.kernel), public(&self.guest.initrd))
    }

    /// The options that give a guest this test's user, and talk.py, which serves.
    pub fn with_talk(&self) -> [String; 4] {
        let key = fs::read_to_string(self.key.with_extension("pub")).expect("the key");
        let users = format!("[[user]]\nname = \"tester\"\n[user.ssh]\nauthorized_keys = ['''{}''']\n", key.trim());
        let talk = format!(
            "#cloud-config\nwrite_files:\n- path: /usr/local/bin/talk.py\n  permissions: '0755'\n  content: {}\n\
             runcmd:\n- [systemd-run, --quiet, /usr/local/bin/talk.py, serve, '{PORT}']\n",
            serde_json::to_string(include_str!("../guest/talk.py")).expect("JSON")
        );
        let file = |name: &str, text: String| self.world.file(name, text).to_str().expect("a path").to_owned();
        ["-u".to_owned(), file("users.toml", users), "-u".to_owned(), file("talk.yaml", talk)]
    }

    pub fn kill_supervisor(&self, name: &str, signal: rustix::process::Signal) {
        let pid = self.world.info(name)["supervisor_pid"].as_i64().expect("a pid");
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("the signal is sent");
    }

    /// Runs a command in the guest. The key is named: ssh looks for its own in the home that the
    /// system knows, not in `HOME`.
    pub fn ssh(&self, name: &str, command: &str) -> crate::world::Run {
        let key = self.key.to_str().expect("a path");
        run(self.world.command(["vm", "ssh", name, "-i", key, "--", command]), Duration::from_secs(120))
    }
}

/// What a user supplies that would break YAML, a shell, or a FAT name.
pub const ODD: &str = "it's \"quoted\": #no comment, $(reboot) `reboot` \\n {{ x }} %s ü → 漢 - [a]";
