//! The part of `v doctor` that looks at what a hypervisor could do, if its guest took it over.

use super::doctor::{Add, Health};
use crate::config::Config;
use crate::host::{Handle, Mode, Runner, User, caller, landlock_version};
use crate::network::ovs::Ovs;
use crate::vm::{self, Site};

pub(super) fn examine(add: &mut Add<'_>, site: &Site, config: Option<&Config>) {
    let landlock = match landlock_version() {
        Some(version @ 3..) => format!("Landlock {version}: cloud-hypervisor sees its VM's files only"),
        Some(version) => format!("no Landlock: version 3 is needed, this kernel has {version}"),
        None => "no Landlock in this kernel".to_owned(),
    };
    let as_whom = |who: &str| format!("as {who}; {landlock}");
    let default = Config::default();
    let config = config.unwrap_or(&default);
    let root = rustix::process::geteuid().is_root();
    let runner = match vm::runner(site, config) {
        Ok(runner) => runner,
        Err(error) => {
            add("hypervisors run", Health::Broken, error.message().to_owned(), error.hint_text());
            return;
        }
    };
    match &runner {
        Some(runner) => {
            if let Err(error) = vm::group_for_kvm(runner) {
                add("kvm for hypervisors", Health::Missing, error.chain().join(": "), error.hint_text());
            }
            add("hypervisors run", Health::Ok, as_whom(&format!("`{}` (uid {})", runner.name, runner.uid)), None);
        }
        None if !root => {
            let name = User::by_uid(rustix::process::geteuid().as_raw());
            let who = name.map_or_else(|| caller().to_string(), |user| format!("`{}`", user.name));
            add("hypervisors run", Health::Ok, as_whom(&format!("you, {who}")), None);
        }
        None => add(
            "hypervisors run",
            Health::Missing,
            as_whom("root: a guest that breaks out of one owns this host"),
            Some(match site.dirs.mode {
                Mode::System => "leave `user = \"root\"` out of `[node]`",
                _ => "set `user = \"virshle-vm\"` in `[node]`, after `useradd --system --user-group virshle-vm`",
            }),
        ),
    }
    switch(add, &Ovs::new(config.node.ovs_db.clone()), runner.as_ref());
}

/// A switch that runs as a user of its own may not enter the folders of vhost-user sockets.
fn switch(add: &mut Add<'_>, ovs: &Ovs, runner: Option<&Runner>) {
    let ours = runner.map_or_else(|| rustix::process::geteuid().as_raw(), |runner| runner.uid);
    let Some(uid) = ovs.daemon().and_then(Handle::user).filter(|uid| *uid != 0 && *uid != ours) else { return };
    let name = User::by_uid(uid).map_or_else(|| uid.to_string(), |user| user.name);
    add(
        "vhost sockets",
        Health::Optional,
        format!("ovs-vswitchd runs as `{name}`, which may not open the hypervisors' vhost-user sockets: tap works"),
        Some(&format!(
            "let it run as root (Fedora: `OVS_USER_ID=\"root:root\"` in /etc/sysconfig/openvswitch), or set \
             `user = \"{name}\"` in `[node]`"
        )),
    );
}
