//! What the kernel is set to so that packets pass from one network to another. What must change is
//! planned first, with the values before, because they must be noted before they are changed.
//!
//! Forwarding is one switch of the kernel that turns others: each interface's own, and whether it
//! listens to routers and redirects. Those are planned for too, so that all comes back as it was.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{OrFailed, Result};

const ROOT: &str = "/proc/sys/net";
const V4: &str = "ipv4/ip_forward";
const V6: &str = "ipv6/conf/all/forwarding";

/// Paths are below `/proc/sys/net`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What will be another value, and what it is now.
    pub notes: Vec<(String, String)>,
    /// In this order.
    pub writes: Vec<(String, String)>,
}

/// A setting's value; `None`: this kernel, or this host, has no such thing.
pub fn read_setting(path: &str) -> Result<Option<String>> {
    read_below(Path::new(ROOT), path)
}

fn read_below(root: &Path, path: &str) -> Result<Option<String>> {
    match fs::read_to_string(root.join(path)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).or_failed(|| format!("cannot read `{}`", root.join(path).display())),
    }
}

/// Whether a new interface has IPv6.
pub fn has_ipv6() -> Result<bool> {
    for which in ["all", "default"] {
        if read_setting(&format!("ipv6/conf/{which}/disable_ipv6"))?.as_deref() != Some("0") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What must be set so that this host passes packets on; nothing where it does already.
pub fn plan_forwarding(ipv6: bool) -> Result<Plan> {
    plan_below(Path::new(ROOT), ipv6)
}

fn plan_below(root: &Path, ipv6: bool) -> Result<Plan> {
    let mut plan = Plan::default();
    if read_below(root, V4)?.as_deref() == Some("0") {
        plan.change(V4, "0", "1");
        plan.keep(root, "ipv4/conf/all/accept_redirects", None)?;
        for interface in interfaces(root, "ipv4")? {
            // One that passes packets on by itself would not any more once the switch is turned back.
            plan.keep(root, &format!("ipv4/conf/{interface}/forwarding"), Some("1"))?;
        }
    }
    if ipv6 && read_below(root, V6)?.as_deref() == Some("0") {
        for interface in interfaces(root, "ipv6")? {
            plan.keep(root, &format!("ipv6/conf/{interface}/forwarding"), Some("1"))?;
            // A router listens to no other one, unless it is told to: the host would lose its way out.
            let listens = format!("ipv6/conf/{interface}/accept_ra");
            let one = !matches!(interface.as_str(), "all" | "default" | "lo");
            if one && read_below(root, &listens)?.as_deref() == Some("1") {
                plan.change(&listens, "1", "2");
            }
        }
        plan.change(V6, "0", "1");
    }
    Ok(plan)
}

impl Plan {
    fn change(&mut self, path: &str, before: &str, after: &str) {
        self.notes.push((path.to_owned(), before.to_owned()));
        self.writes.push((path.to_owned(), after.to_owned()));
    }

    /// Notes what changes along; with `only`, where it has that value.
    fn keep(&mut self, root: &Path, path: &str, only: Option<&str>) -> Result<()> {
        if let Some(value) = read_below(root, path)?.filter(|value| only.is_none_or(|only| only == value)) {
            self.notes.push((path.to_owned(), value));
        }
        Ok(())
    }
}

fn interfaces(root: &Path, family: &str) -> Result<Vec<String>> {
    let dir: PathBuf = root.join(family).join("conf");
    let failed = || format!("cannot look at `{}`", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).or_failed(failed)? {
        names.extend(entry.or_failed(failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// Sets what was planned.
pub fn write_settings(plan: &Plan) -> Result<()> {
    plan.writes.iter().try_for_each(|(path, value)| write_below(Path::new(ROOT), path, value))
}

fn write_below(root: &Path, path: &str, value: &str) -> Result<()> {
    match fs::write(root.join(path), value) {
        // An interface that has gone since.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.or_failed(|| format!("cannot set `{}` to {value}", root.join(path).display())),
    }
}

/// Puts back what was noted: first the switches that turn others.
pub fn restore_settings(notes: &[(String, String)]) -> Result<()> {
    restore_below(Path::new(ROOT), notes)
}

fn restore_below(root: &Path, notes: &[(String, String)]) -> Result<()> {
    let (switches, others): (Vec<_>, Vec<_>) = notes.iter().partition(|(path, _)| path == V4 || path == V6);
    for (path, value) in switches.into_iter().chain(others) {
        // What is so already is not written again: writing a switch turns the others.
        if read_below(root, path)?.as_ref() != Some(value) {
            write_below(root, path, value)?;
        }
    }
    Ok(())
}

/// What the network's own device is set to; it ends with the device.
pub fn settle_device(device: &str) -> Result<()> {
    let root = Path::new(ROOT);
    // This host is the router there: it listens to no other, and its link-local address serves at once.
    for (path, value) in [("accept_ra", "0"), ("accept_dad", "0")] {
        write_below(root, &format!("ipv6/conf/{device}/{path}"), value)?;
    }
    // So that what is sent to 127.0.0.1 can be passed on to a guest.
    write_below(root, &format!("ipv4/conf/{device}/route_localnet"), "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host whose `/proc/sys/net` is a folder.
    fn host(settings: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for family in ["ipv4", "ipv6"] {
            fs::create_dir_all(dir.path().join(family).join("conf")).unwrap();
        }
        for (path, value) in settings {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{value}\n")).unwrap();
        }
        dir
    }

    #[test]
    fn a_host_that_is_a_router_already_is_left_alone() {
        let dir = host(&[(V4, "1"), (V6, "1"), ("ipv6/conf/eth0/accept_ra", "1")]);
        assert_eq!(plan_below(dir.path(), true).unwrap(), Plan::default());
    }

    #[test]
    fn what_changes_is_planned_and_comes_back() {
        let dir = host(&[
            (V4, "0"),
            ("ipv4/conf/all/accept_redirects", "1"),
            ("ipv4/conf/eth0/forwarding", "0"),
            ("ipv4/conf/eth1/forwarding", "1"),
            (V6, "0"),
            ("ipv6/conf/eth0/accept_ra", "1"),
            ("ipv6/conf/eth1/accept_ra", "0"),
            ("ipv6/conf/lo/accept_ra", "1"),
            ("ipv6/conf/default/accept_ra", "1"),
        ]);
        let plan = plan_below(dir.path(), true).unwrap();
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(plan.writes, pairs(&[(V4, "1"), ("ipv6/conf/eth0/accept_ra", "2"), (V6, "1")]));
        let notes = [
            (V4, "0"),
            ("ipv4/conf/all/accept_redirects", "1"),
            ("ipv4/conf/eth1/forwarding", "1"),
            ("ipv6/conf/eth0/accept_ra", "1"),
            (V6, "0"),
        ];
        assert_eq!(plan.notes, pairs(&notes));
        for (path, value) in &plan.writes {
            write_below(dir.path(), path, value).unwrap();
        }
        assert_eq!(plan_below(dir.path(), true).unwrap(), Plan::default());
        restore_below(dir.path(), &plan.notes).unwrap();
        assert_eq!(plan_below(dir.path(), true).unwrap(), plan);
        assert_eq!(plan_below(dir.path(), false).unwrap().writes, pairs(&[(V4, "1")]), "IPv4 alone");
    }
}
