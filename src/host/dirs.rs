use std::env;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{Error, OrFailed, Result};

/// Whose machine this is: the host's, one user's, or a folder's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Root: `/etc`, `/var/lib`, `/run`.
    System,
    /// An ordinary user: the XDG folders.
    Session,
    /// `--root DIR`: the three trees below one folder, and nothing outside it.
    Rooted,
}

/// Where everything lies.
#[derive(Debug, Clone)]
pub struct Dirs {
    pub mode: Mode,
    /// `config.toml` and `config.d/`.
    pub config: PathBuf,
    /// The database, `cache/`, and `vm/<uuid>/` with disks, seed and logs.
    pub state: PathBuf,
    /// `vm/<uuid>/` with the sockets of one running VM, in `hv/` those of its hypervisor.
    pub runtime: PathBuf,
}

impl Dirs {
    /// The folders for this caller. `root` is what `--root` or `VIRSHLE_ROOT` named.
    pub fn find(root: Option<&Path>) -> Result<Self> {
        if let Some(root) = root {
            let root = std::path::absolute(root).or_failed(|| format!("cannot use `{}` as root", root.display()))?;
            return Ok(Self {
                mode: Mode::Rooted,
                config: root.join("etc/virshle"),
                state: root.join("var/lib/virshle"),
                runtime: root.join("run/virshle"),
            });
        }
        if rustix::process::geteuid().is_root() {
            return Ok(Self::of_the_host());
        }
        let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let xdg = |variable: &str, below_home: &str| {
            env::var_os(variable)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .or_else(|| home.as_ref().map(|home| home.join(below_home)))
                .ok_or_else(|| {
                    Error::usage(format!("neither `{variable}` nor `HOME` is set"))
                        .hint("name a folder with `--root DIR`")
                })
        };
        let state = xdg("XDG_DATA_HOME", ".local/share")?.join("virshle");
        // Without a login session there is no XDG_RUNTIME_DIR; sockets then live beside the state.
        let runtime = env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute() && path.is_dir())
            .map_or_else(|| state.join("run"), |path| path.join("virshle"));
        Ok(Self { mode: Mode::Session, config: xdg("XDG_CONFIG_HOME", ".config")?.join("virshle"), state, runtime })
    }

    /// The host's own, whoever asks.
    pub fn of_the_host() -> Self {
        Self {
            mode: Mode::System,
            config: "/etc/virshle".into(),
            state: "/var/lib/virshle".into(),
            runtime: "/run/virshle".into(),
        }
    }

    /// What `--root` names, when it was given.
    pub fn root(&self) -> Option<&Path> {
        (self.mode == Mode::Rooted).then(|| self.config.parent()?.parent()).flatten()
    }

    /// Where root's helper listens for the members of the group `virshle`.
    pub fn helper_socket(&self) -> PathBuf {
        self.runtime.join("virshle.sock")
    }

    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    pub fn drop_ins(&self) -> PathBuf {
        self.config.join("config.d")
    }

    pub fn database(&self) -> PathBuf {
        self.state.join("virshle.sqlite")
    }

    pub fn cache(&self) -> PathBuf {
        self.state.join("cache")
    }

    pub fn vms(&self) -> PathBuf {
        self.state.join("vm")
    }

    /// The folder of one VM's disks, seed and logs.
    pub fn vm(&self, vm: Uuid) -> PathBuf {
        self.vms().join(vm.to_string())
    }

    /// The folder of one running VM's sockets.
    pub fn run(&self, vm: Uuid) -> PathBuf {
        self.runtime.join("vm").join(vm.to_string())
    }
}
