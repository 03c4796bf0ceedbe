//! As whom hypervisors run, and what of a VM becomes theirs.
//!
//! Root in system mode: as the user of `[node] user`, else as `virshle-vm`. Root below a root of
//! its own (`--root`): as that user if one is named. Everybody else: as the caller. `user = "root"`
//! says that root is meant.
//!
//! ```text
//! run/<uuid>/      root's, passed through      control.sock console.sock
//! run/<uuid>/hv/   the hypervisor's, 0700      api.sock serial.sock n<i>.sock events
//! vm/<uuid>/       root's, passed through      lock, logs: root's; disks, seed, UEFI variables: the hypervisor's, 0600
//! ```
//!
//! A switch that is to open `n<i>.sock` runs as root (Debian, NixOS) or as the hypervisors' own user:
//! as another (Fedora's `openvswitch`) it may not enter `hv/`, and `v doctor` says so.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Site;
use crate::config::Config;
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Access, Mode, Runner, User, let_through, may_access};
use crate::spec::{Accel, Boot, VmSpec};

/// The user of system mode, made by the package.
pub const DEFAULT_USER: &str = "virshle-vm";

const KVM: &str = "/dev/kvm";

/// As whom this host's hypervisors run; `None`: as the caller.
pub fn runner(site: &Site, config: &Config) -> Result<Option<Runner>> {
    let root = rustix::process::geteuid().is_root();
    let Some(name) = wanted(root, site.dirs.mode, config.node.user.as_deref()) else { return Ok(None) };
    let user = User::by_name(name).ok_or_else(|| no_user(name))?;
    Ok((user.uid != 0).then_some(Runner { name: user.name, uid: user.uid, gid: user.gid, groups: Vec::new() }))
}

fn wanted(root: bool, mode: Mode, named: Option<&str>) -> Option<&str> {
    match (root, mode) {
        (false, _) => None,
        (true, Mode::System) => Some(named.unwrap_or(DEFAULT_USER)),
        (true, Mode::Rooted | Mode::Session) => named,
    }
}

fn no_user(name: &str) -> Error {
    Error::failed(format!("the user `{name}`, as whom hypervisors are to run, does not exist")).hint(format!(
        "make it: `useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {name}`, \
         or name another in `[node] user`"
    ))
}

/// The same for one VM: in the group that the hypervisor needs, and no other.
pub fn runner_of(site: &Site, config: &Config, spec: &VmSpec) -> Result<Option<Runner>> {
    let Some(mut runner) = runner(site, config)? else { return Ok(None) };
    if spec.accel == Accel::Kvm {
        runner.groups.extend(group_for_kvm(&runner)?);
    }
    Ok(Some(runner))
}

/// The group that opens this host's `/dev/kvm` for a user, if it needs one; an error when none does.
pub fn group_for_kvm(runner: &Runner) -> Result<Option<u32>> {
    match Path::new(KVM).metadata() {
        Ok(meta) => kvm_group(runner, meta.uid(), meta.gid(), meta.mode()),
        // The hypervisor says that it is missing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::failed(format!("cannot look at `{KVM}`")).source(error)),
    }
}

/// The group that opens `/dev/kvm` for this user, if it needs one.
fn kvm_group(runner: &Runner, uid: u32, gid: u32, mode: u32) -> Result<Option<u32>> {
    let opens = |shift: u32| (mode >> shift) & 0o6 == 0o6;
    // The kernel asks the first class that fits: a member of the group is not one of the others.
    if uid == runner.uid && opens(6) || opens(0) && gid != runner.gid || opens(3) && gid == runner.gid {
        return Ok(None);
    }
    if opens(3) && uid != runner.uid {
        return Ok(Some(gid));
    }
    Err(Error::failed(format!("the user `{}`, as whom hypervisors run, may not open `{KVM}`", runner.name))
        .source(Error::failed(format!("its mode is {:04o}: neither its group nor everybody may", mode & 0o7777)))
        .hint(
            "give it to the group kvm, with a udev rule for good (`KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0660\"`): \
             `groupadd --system --force kvm; chgrp kvm /dev/kvm; chmod 0660 /dev/kvm`",
        ))
}

/// What of a VM's folder the hypervisor opens.
pub(super) fn files(spec: &VmSpec) -> Vec<String> {
    let mut files: Vec<String> = spec.disks.iter().map(|disk| disk.file()).collect();
    if spec.seed {
        files.push(VmSpec::SEED.to_owned());
    }
    if let Boot::Firmware { vars: Some(_), .. } = &spec.boot {
        files.push(VmSpec::EFI_VARS.to_owned());
    }
    files
}

/// Hands a VM's files to whom its hypervisor runs as: when they are made, and again at each start,
/// for those that were made before this user was named.
pub fn hand_over(site: &Site, spec: &VmSpec, runner: Option<&Runner>) -> Result<()> {
    host::hand_over(&site.dirs.vm(spec.uuid), &files(spec), runner)
}

/// Makes a way to a VM's folders for `runner`, and refuses what it could not open at its end.
pub fn admit(site: &Site, spec: &VmSpec, program: &Path, runner: &Runner) -> Result<()> {
    let (dir, run) = (site.dirs.vm(spec.uuid), site.dirs.run(spec.uuid));
    // Beside the way: whoever knows a name could read an image.
    host::shut_out(&site.dirs.cache())?;
    for (folder, top) in [(&dir, top(site, &site.dirs.state)), (&run, top(site, &site.dirs.runtime))] {
        for folder in folder.ancestors().take_while(|folder| *folder != top) {
            let_through(folder)?;
        }
    }
    let mut needed = vec![(program, Access::Execute)];
    match &spec.boot {
        Boot::Firmware { code, .. } => needed.push((code.as_path(), Access::Read)),
        Boot::Kernel { kernel, initramfs, .. } => {
            needed.push((kernel.as_path(), Access::Read));
            needed.extend(initramfs.as_deref().map(|initramfs| (initramfs, Access::Read)));
        }
    }
    let own: Vec<PathBuf> = files(spec).iter().map(|file| dir.join(file)).collect();
    needed.extend(own.iter().map(|file| (file.as_path(), Access::ReadWrite)));
    let sockets = site.hypervisor_run(spec.uuid);
    needed.push((&sockets, Access::Execute));
    needed.into_iter().try_for_each(|(path, access)| check(runner, path, access))
}

/// Above what is Virshle's own to open up.
fn top(site: &Site, folder: &Path) -> PathBuf {
    let above = match site.dirs.mode {
        // `DIR/etc/virshle`
        Mode::Rooted => site.dirs.config.ancestors().nth(2),
        Mode::System | Mode::Session => folder.parent(),
    };
    above.unwrap_or(Path::new("/")).to_owned()
}

fn check(runner: &Runner, path: &Path, access: Access) -> Result<()> {
    let allowed = may_access(runner, path, access).or_failed(|| format!("cannot look at `{}`", path.display()))?;
    let Err(denied) = allowed else { return Ok(()) };
    let verb = if access == Access::Execute { "run" } else { "open" };
    let at = denied.at.display();
    let error = Error::failed(format!(
        "the user `{}`, as whom hypervisors run, may not {verb} `{}`",
        runner.name,
        path.display()
    ))
    .source(Error::failed(format!("the mode of `{at}` is {:04o}", denied.mode)));
    Err(error.hint(match (denied.at.is_dir(), access) {
        (true, _) => format!("let others pass through (`chmod o+x {at}`), or put the file elsewhere"),
        (false, Access::Execute) => format!("`chmod o+rx {at}`"),
        (false, _) => format!("`chmod o+r {at}`"),
    }))
}

/// Refuses what is no plain file where the hypervisor itself opens it: a device or a pipe would
/// be read as a kernel, or waited for without an end.
pub fn check_boot(boot: &Boot) -> Result<()> {
    let named = match boot {
        Boot::Firmware { code, vars } => [("firmware", Some(code)), ("UEFI variable store", vars.as_ref())],
        Boot::Kernel { kernel, initramfs, .. } => [("kernel", Some(kernel)), ("initramfs", initramfs.as_ref())],
    };
    let mut named = named.into_iter().filter_map(|(what, path)| Some((what, path?)));
    named.try_for_each(|(what, path): (&str, &PathBuf)| {
        let Ok(meta) = path.metadata() else { return Ok(()) };
        let kind = meta.file_type();
        let is = match () {
            () if kind.is_file() => return Ok(()),
            () if kind.is_dir() => "a directory",
            () if kind.is_fifo() => "a named pipe",
            () if kind.is_socket() => "a socket",
            () => "a device",
        };
        Err(Error::usage(format!("the {what} `{}` is {is}, not a plain file", path.display()))
            .hint("name the file itself in the template"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_whom() {
        let rows = [
            (true, Mode::System, None, Some("virshle-vm")),
            (true, Mode::System, Some("anon"), Some("anon")),
            (true, Mode::System, Some("root"), Some("root")),
            (true, Mode::Rooted, None, None),
            (true, Mode::Rooted, Some("anon"), Some("anon")),
            (false, Mode::Rooted, Some("anon"), None),
            (false, Mode::Session, Some("anon"), None),
        ];
        for (root, mode, named, expected) in rows {
            assert_eq!(wanted(root, mode, named), expected, "{root} {mode:?} {named:?}");
        }
        let hint = no_user("virshle-vm").hint_text().unwrap().to_owned();
        assert!(hint.contains("useradd --system") && hint.contains("virshle-vm"), "{hint}");
    }

    #[test]
    fn what_opens_kvm() {
        let vm = Runner { name: "vm".to_owned(), uid: 900, gid: 900, groups: Vec::new() };
        let rows = [
            ((0, 36, 0o660), Some(Some(36)), "Debian"),
            ((0, 36, 0o666), Some(None), "Fedora, NixOS"),
            ((0, 0, 0o666), Some(None), "everybody"),
            ((0, 900, 0o660), Some(None), "its own group"),
            ((900, 0, 0o600), Some(None), "its own"),
            ((0, 0, 0o600), None, "root's alone"),
            ((0, 36, 0o640), None, "the group only reads"),
            ((0, 900, 0o606), None, "all but its own group"),
        ];
        for ((uid, gid, mode), expected, why) in rows {
            let group = kvm_group(&vm, uid, gid, mode);
            assert_eq!(group.as_ref().ok(), expected.as_ref(), "{why}");
            if let Err(error) = group {
                assert!(error.hint_text().unwrap().contains("udev"), "{why}");
            }
        }
    }
}
