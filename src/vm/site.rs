use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::config::{self, Config};
use crate::error::{Error, OrFailed, Result};
use crate::host::Dirs;
use crate::network::ovs::Ovs;
use crate::store::Store;

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

    pub fn ovs(&self, config: &Config) -> Ovs {
        Ovs::new(config.node.ovs_db.clone())
    }

    /// The lock that a VM's supervisor holds as long as it lives. It lies with the disks, so that a
    /// cleared runtime folder cannot let two supervisors in.
    pub fn lock(&self, vm: Uuid) -> PathBuf {
        self.dirs.vm(vm).join("lock")
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

    pub fn supervisor_log(&self, vm: Uuid) -> PathBuf {
        self.dirs.vm(vm).join("supervisor.log")
    }

    /// The guest's host keys, so that a name used again never meets an old key.
    pub fn known_hosts(&self, vm: Uuid) -> PathBuf {
        self.dirs.vm(vm).join("known_hosts")
    }
}

/// Makes a folder that only its owner can enter, and what is above it.
pub fn make_private(dir: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).or_failed(|| format!("cannot make `{}`", dir.display()))
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
