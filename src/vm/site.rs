use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::config::{self, Config};
use crate::error::{Error, Result};
pub use crate::host::make_private;
use crate::host::{Dirs, Mode};
use crate::network::ovs::Ovs;
use crate::spec::Serves;
use crate::store::Store;

/// The longest path a unix socket can have, without its closing zero.
const SOCKET_PATH_LIMIT: usize = 107;

/// This host as the verbs see it: its folders, and through them its config and its store.
#[derive(Debug, Clone)]
pub struct Site {
    pub dirs: Dirs,
}

impl Site {
    pub fn new(dirs: Dirs) -> Self {
        Self { dirs }
    }

    /// The config as it stands now; a wrong one is an error, and nothing is changed.
    pub fn config(&self) -> Result<Config> {
        config::load(&self.dirs.config_file(), &self.dirs.drop_ins())
    }

    /// The store; made when there is none yet.
    pub fn store(&self) -> Result<Store> {
        Store::open(&self.dirs.database())
    }

    /// The store as one who only looks needs it: a full disk or a writer who is busy is no
    /// obstacle. Where there is none, there is no VM either. Not to be kept open: on a full disk
    /// others wait for it.
    pub fn reader(&self) -> Result<Store> {
        Store::open_read_only(&self.dirs.database())?
            .ok_or_else(|| Error::not_found("there are no VMs").hint("make one with `v vm create -t TEMPLATE`"))
    }

    pub fn ovs(&self, config: &Config) -> Ovs {
        Ovs::new(config.node.ovs_db.clone()).for_state(&self.dirs.state)
    }

    /// Refuses a root so deep that a VM's sockets could not be made, before anything else is. The
    /// hypervisor's own could be reached by no shorter way than their path.
    pub fn check_socket_paths(&self, vm: Uuid) -> Result<()> {
        // None has a longer name.
        let longest = self.dirs.run(vm).join("hv/serial.sock");
        let length = longest.as_os_str().len();
        if length <= SOCKET_PATH_LIMIT {
            return Ok(());
        }
        let below = length - self.dirs.runtime.as_os_str().len();
        Err(Error::usage(format!(
            "the path `{}` has {length} bytes, and a socket's can have {SOCKET_PATH_LIMIT}",
            longest.display()
        ))
        .hint(match self.dirs.mode {
            Mode::Rooted => {
                let own = "/run/virshle".len();
                format!("name a root with a shorter path: it can have {} bytes", SOCKET_PATH_LIMIT - below - own)
            }
            _ => "set `XDG_RUNTIME_DIR` to a folder with a shorter path, or name one with `--root DIR`".to_owned(),
        }))
    }

    /// The lock that a VM's supervisor holds as long as it lives. It lies with the disks, so that a
    /// cleared runtime folder cannot let two supervisors in.
    pub fn lock(&self, vm: Uuid) -> PathBuf {
        self.dirs.vm(vm).join("lock")
    }

    /// The folder in the runtime folder that belongs to the hypervisor: what it makes and serves.
    pub fn hypervisor_run(&self, vm: Uuid) -> PathBuf {
        self.dirs.run(vm).join("hv")
    }

    pub fn control_socket(&self, vm: Uuid) -> PathBuf {
        self.dirs.run(vm).join("control.sock")
    }

    pub fn console_socket(&self, vm: Uuid) -> PathBuf {
        self.dirs.run(vm).join("console.sock")
    }

    pub fn console_log(&self, vm: Uuid) -> PathBuf {
        self.dirs.vm(vm).join("console.log")
    }

    pub fn hypervisor_log(&self, vm: Uuid) -> PathBuf {
        self.dirs.vm(vm).join("hypervisor.log")
    }

    /// What a program beside the hypervisor last said.
    pub fn helper_log(&self, vm: Uuid, serves: Serves) -> PathBuf {
        let file = match serves {
            Serves::Nic(index) => format!("passt{index}.log"),
            Serves::Line => "line.log".to_owned(),
        };
        self.dirs.vm(vm).join(file)
    }

    pub fn supervisor_log(&self, vm: Uuid) -> PathBuf {
        self.dirs.vm(vm).join("supervisor.log")
    }

    /// The guest's host keys, so that a name used again never meets an old key.
    pub fn known_hosts(&self, vm: Uuid) -> PathBuf {
        self.dirs.vm(vm).join("known_hosts")
    }
}

/// Removes a folder and all below it; one that is not there is fine.
pub fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::failed(format!("cannot remove `{}`", dir.display())).source(error))
        }
        _ => Ok(()),
    }
}
