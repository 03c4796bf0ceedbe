use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ssh_proxy::PREFIX;
use crate::cli::complete;
use crate::cli::door::{Door, quoted};
use crate::cli::ui::Ui;
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Dirs};
use crate::spec::{Name, State};
use crate::store::Record;
use crate::vm::{self, Site};

/// Log in to a VM, or run a command in it, with the system's ssh
///
/// Address, port, user and host keys are the VM's own; what stands behind `--` is ssh's.
#[derive(Debug, Args)]
pub(crate) struct Ssh {
    /// A name, a number, or a uuid (its first 4 digits are enough)
    #[arg(value_name = "VM", add = complete::vm_names())]
    vm: String,
    /// Log in as this user instead of the first one that the VM was created with
    #[arg(short, long, value_name = "USER")]
    login: Option<String>,
    /// Prove who you are with this private key, not with ssh's usual ones
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    identity: Option<PathBuf>,
    /// A command for the guest
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Print where `v vm ssh` goes, as JSON (asked by the `v` of one who is not root)
#[derive(Debug, Args)]
pub(crate) struct SshTarget {
    vm: String,
}

/// What ssh must know of a VM.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    uuid: Uuid,
    name: Name,
    /// Without one, only its own line leads there.
    address: Option<SocketAddr>,
    /// Whether it has a line to this host, which needs no network.
    line: bool,
    login: Option<String>,
}

impl Ssh {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let target = target(site, &self.vm)?;
        let known_hosts = site.known_hosts(target.uuid);
        self.log_in(target, &known_hosts, &Door::of(&site.dirs)?, ui)
    }

    /// What to ask root's helper for.
    pub(crate) fn question(&self) -> [String; 4] {
        ["vm", "ssh-target", "--", &self.vm].map(str::to_owned)
    }

    /// Goes where root's helper said; what is learnt of the host keys is the caller's own.
    pub(crate) fn run_from_afar(self, target: Target, dirs: &Dirs, root: Option<&Path>, ui: &Ui) -> Result<()> {
        let folder = dirs.state.join("known_hosts");
        vm::make_private(&folder)?;
        let known_hosts = folder.join(target.uuid.to_string());
        self.log_in(target, &known_hosts, &Door::by_root(root)?, ui)
    }

    fn log_in(self, target: Target, known_hosts: &Path, door: &Door, ui: &Ui) -> Result<()> {
        // By whatever way there is, where there is more than one.
        let (way, host): (Vec<OsString>, String) = match target.address.filter(|_| !target.line) {
            Some(address) => (vec!["-p".into(), address.port().to_string().into()], address.ip().to_string()),
            None => {
                let proxy = door.proxy_command(&target.uuid.to_string())?;
                let options = [format!("ProxyCommand={proxy}"), "ProxyUseFdpass=yes".into(), "CheckHostIP=no".into()];
                let options = options.into_iter().flat_map(|option| ["-o".into(), option.into()]);
                (options.collect(), format!("{PREFIX}{}", target.name))
            }
        };
        let mut args: Vec<OsString> = way;
        args.extend([
            "-o".into(),
            option("UserKnownHostsFile", &known_hosts.display().to_string()),
            "-o".into(),
            "StrictHostKeyChecking=accept-new".into(),
            "-o".into(),
            // Not the name: that may change, and the key is the VM's.
            option("HostKeyAlias", &target.uuid.to_string()),
        ]);
        if let Some(login) = self.login.as_ref().or(target.login.as_ref()) {
            args.extend(["-l".into(), login.into()]);
        }
        if let Some(identity) = &self.identity {
            args.extend(["-i".into(), identity.into()]);
        }
        if ui.verbose == 0 {
            // The first login would tell that the key was noted; a changed key is told all the same.
            args.extend(["-o".into(), "LogLevel=ERROR".into()]);
        }
        args.push(host.into());
        args.extend(self.command);
        let error = host::exec("ssh", &args);
        Err(Error::failed("cannot run `ssh`").source(error).hint("install the package `openssh-client`"))
    }
}

impl SshTarget {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let target = serde_json::to_string(&target(site, &self.vm)?).or_failed(|| "cannot write JSON".into())?;
        ui.data(target);
        Ok(())
    }
}

fn target(site: &Site, vm: &str) -> Result<Target> {
    let record = running(site, vm)?;
    let (spec, address) = (&record.spec, vm::endpoint(&record));
    let line = record.runtime.as_ref().is_some_and(|runtime| runtime.vsock.is_some());
    if address.is_none() && !line {
        return Err(Error::failed(format!("`{}` has no address that this host knows", spec.name))
            .hint("give its network a `subnet`, or use a `user` network"));
    }
    Ok(Target { uuid: spec.uuid, name: spec.name.clone(), address, line, login: spec.login.clone() })
}

/// The VM, which must be one that can be logged in to.
pub(super) fn running(site: &Site, vm: &str) -> Result<Record> {
    let mut store = site.store()?;
    let record = store.find(vm)?;
    let observed = vm::reconcile(site, &mut store, record)?;
    let name = &observed.record.spec.name;
    if matches!(observed.state, State::Running | State::Stopping) {
        return Ok(observed.record);
    }
    let error = Error::refused(format!("cannot log in to `{name}`: it is {}", observed.state));
    Err(match observed.state {
        State::Stopped | State::Crashed => error.hint(format!("`v vm start --wait {name}`")),
        State::Paused => error.hint(format!("`v vm resume {name}`")),
        State::Starting => error.hint(format!("`v vm wait {name}`")),
        _ => error,
    })
}

fn option(name: &str, value: &str) -> OsString {
    format!("{name}={}", quoted(value)).into()
}
