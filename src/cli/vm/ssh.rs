use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::cli::complete;
use crate::cli::ui::Ui;
use crate::error::{Error, Result};
use crate::host;
use crate::spec::State;
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

impl Ssh {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let mut store = site.store()?;
        let record = store.find(&self.vm)?;
        let observed = vm::reconcile(site, &mut store, record)?;
        let spec = &observed.record.spec;
        if !matches!(observed.state, State::Running | State::Stopping) {
            let error = Error::refused(format!("cannot log in to `{}`: it is {}", spec.name, observed.state));
            return Err(match observed.state {
                State::Stopped | State::Crashed => error.hint(format!("`v vm start --wait {}`", spec.name)),
                State::Paused => error.hint(format!("`v vm resume {}`", spec.name)),
                State::Starting | State::Restarting => error.hint(format!("`v vm wait {}`", spec.name)),
                _ => error,
            });
        }
        let Some(address) = vm::endpoint(&observed.record) else {
            return Err(Error::failed(format!("`{}` has no address that this host knows", spec.name))
                .hint("give its network a `subnet`, or use a `user` network"));
        };
        let mut args: Vec<OsString> = vec![
            "-p".into(),
            address.port().to_string().into(),
            "-o".into(),
            option("UserKnownHostsFile", &site.known_hosts(spec.uuid).display().to_string()),
            "-o".into(),
            "StrictHostKeyChecking=accept-new".into(),
            "-o".into(),
            // Not the name: that may change, and the key is the VM's.
            option("HostKeyAlias", &spec.uuid.to_string()),
        ];
        if let Some(login) = self.login.as_ref().or(spec.login.as_ref()) {
            args.extend(["-l".into(), login.into()]);
        }
        if let Some(identity) = &self.identity {
            args.extend(["-i".into(), identity.into()]);
        }
        if ui.verbose == 0 {
            // The first login would tell that the key was noted; a changed key is told all the same.
            args.extend(["-o".into(), "LogLevel=ERROR".into()]);
        }
        args.push(address.ip().to_string().into());
        args.extend(self.command);
        let error = host::exec("ssh", &args);
        Err(Error::failed("cannot run `ssh`").source(error).hint("install the package `openssh-client`"))
    }
}

/// ssh splits an option's value at spaces unless it is quoted, and expands `%`.
fn option(name: &str, value: &str) -> OsString {
    format!("{name}=\"{}\"", value.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"")).into()
}
