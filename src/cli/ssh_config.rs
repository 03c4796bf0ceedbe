use std::fmt::Write;
use std::path::Path;

use clap::Args;

use super::door::{Door, quoted};
use super::ui::Ui;
use super::vm::Host;
use crate::error::Result;
use crate::host::Dirs;
use crate::vm::{self, Site};

/// Print an ssh configuration with which `ssh vm/NAME` logs in to a VM
///
/// It needs no DNS; a guest that listens on its vsock needs no network either. Write it to a file,
/// `v ssh-config > ~/.ssh/vms`, and put the line `Include vms` at the beginning of ~/.ssh/config;
/// each user writes their own, for the host keys are kept apart. A VM that was made since is reached
/// too, as ssh's own user: write it again for the VM's own user and host keys.
#[derive(Debug, Args)]
pub(super) struct SshConfig {}

impl SshConfig {
    pub(super) fn run(&self, site: &Site, ui: &Ui) -> Result<()> {
        let known_hosts = |host: &Host| site.known_hosts(host.uuid).display().to_string();
        ui.data(text(&Host::all(site)?, known_hosts, &Door::of(&site.dirs)?)?);
        Ok(())
    }

    /// Of the VMs that root's helper told; what is learnt of the host keys is the caller's own.
    pub(super) fn run_from_afar(hosts: &[Host], dirs: &Dirs, root: Option<&Path>, ui: &Ui) -> Result<()> {
        let folder = dirs.state.join("known_hosts");
        vm::make_private(&folder)?;
        let known_hosts = |host: &Host| folder.join(host.uuid.to_string()).display().to_string();
        ui.data(text(hosts, known_hosts, &Door::by_root(root)?)?);
        Ok(())
    }
}

fn text(hosts: &[Host], known_hosts: impl Fn(&Host) -> String, door: &Door) -> Result<String> {
    let mut text = "# Written by `v ssh-config`: `ssh vm/NAME` logs in to a VM.\n".to_owned();
    for host in hosts {
        let _ = writeln!(text, "\nHost vm/{}", host.name);
        // ssh would expand or split anything else.
        let plain = |login: &&String| login.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if let Some(login) = host.login.as_ref().filter(plain) {
            let _ = writeln!(text, "    User {login}");
        }
        // Not the name: that may change, and the key is the VM's.
        let _ = writeln!(text, "    HostKeyAlias {}", host.uuid);
        let _ = writeln!(text, "    UserKnownHostsFile {}", quoted(&known_hosts(host)));
    }
    let _ = write!(
        text,
        "\nHost vm/*\n    ProxyCommand {}\n    ProxyUseFdpass yes\n    StrictHostKeyChecking accept-new\n    CheckHostIP no",
        door.proxy_command("%n")?
    );
    Ok(text)
}
