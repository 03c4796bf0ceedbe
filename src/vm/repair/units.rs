//! Units of systemd whose VM does not run: `virshle-vm@<uuid>.service`, in system mode only.

use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use super::rest::{Rest, Standing, Standings};
use super::{Action, Finding, Kind, Remedy};
use crate::error::{OrFailed, Result};
use crate::host::{self, Mode, Program, bound_sockets};
use crate::store::Store;
use crate::vm::Site;

/// There exactly when process 1 is systemd.
const SYSTEMD: &str = "/run/systemd/system";
const PREFIX: &str = "virshle-vm@";
const SUFFIX: &str = ".service";
/// A unit that has just begun takes its VM's lock long before.
const BEGINNING: Duration = Duration::from_secs(1);

#[derive(Debug, PartialEq, Eq)]
struct Unit {
    name: String,
    vm: Uuid,
    failed: bool,
}

pub(super) fn survey(site: &Site, standings: &Standings) -> Result<Vec<Finding>> {
    if site.dirs.mode != Mode::System || !Path::new(SYSTEMD).exists() {
        return Ok(Vec::new());
    }
    let listed = systemctl(&["list-units", "--all", "--no-legend", "--plain", "virshle-vm@*"])?;
    let mut found = Vec::new();
    for unit in parse(&listed) {
        let standing = standings.standing(unit.vm);
        if !matches!(standing, Standing::AtRest | Standing::Unknown) || is_starting(unit.vm)? {
            continue;
        }
        let (what, action) = match unit.failed {
            true => ("a failed unit of a VM that does not run", Action::Reset),
            false => ("an active unit of a VM that does not run", Action::Stop),
        };
        let (place, vm) = (unit.name.clone(), Some(standings.name(unit.vm)));
        let remedy = Remedy::Unit(unit.vm, unit.name);
        found.push(Finding { kind: Kind::Unit, what: what.to_owned(), place, action, vm, remedy });
    }
    Ok(found)
}

/// `NAME LOAD ACTIVE SUB DESCRIPTION`. One that is merely loaded is nothing that is left.
fn parse(listed: &str) -> Vec<Unit> {
    let unit = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (name, active) = (words.next()?, words.nth(1)?);
        let vm = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()?;
        (active != "inactive").then(|| Unit { name: name.to_owned(), vm, failed: active == "failed" })
    };
    listed.lines().filter_map(unit).collect()
}

/// Who launches a supervisor awaits its word on a socket.
fn is_starting(vm: Uuid) -> Result<bool> {
    let socket = format!("{vm}.start");
    let bound = bound_sockets().or_failed(|| "cannot see which sockets are in use".to_owned())?;
    Ok(bound.iter().any(|path| Path::new(path).ends_with(&socket)))
}

pub(super) fn collect(site: &Site, store: &Store, vm: Uuid, name: &str) -> Result<bool> {
    let now = || -> Result<Option<Unit>> {
        let listed = systemctl(&["list-units", "--all", "--no-legend", "--plain", name])?;
        Ok(parse(&listed).into_iter().next())
    };
    let Some(seen) = now()? else { return Ok(false) };
    if !seen.failed {
        host::pause(BEGINNING);
    }
    // A unit that is at its VM's beginning has the lock by now. It is given back before the unit is
    // stopped, because a supervisor's end is one that wants it.
    if is_starting(vm)? || Rest::hold(site, store, vm)?.is_none() || now()? != Some(seen) {
        return Ok(false);
    }
    systemctl(&["stop", name])?;
    // One that stopped in order is not there to be reset.
    let _ = systemctl(&["reset-failed", name]);
    Ok(now()?.is_none())
}

fn systemctl(args: &[&str]) -> Result<String> {
    let output = Program::new("systemctl").args(args).deadline(Duration::from_secs(90)).run();
    Ok(output.or_failed(|| format!("`systemctl {}` failed", args.join(" ")))?.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_as_systemctl_lists_them() {
        let vm = "6f1b0a1e-91a7-4d2c-9d52-0123456789ab";
        let name = format!("virshle-vm@{vm}.service");
        let unit = |failed| vec![Unit { name: name.clone(), vm: vm.parse().unwrap(), failed }];
        let rows = [
            (format!("{name} loaded active running Virtual machine\n"), unit(false)),
            (format!("{name} loaded activating start Virtual machine\n"), unit(false)),
            (format!("{name} not-found failed failed {name}\n"), unit(true)),
            (format!("{name} loaded inactive dead Virtual machine\n"), Vec::new()),
            ("virshle-vm@web.service loaded active running x\n".to_owned(), Vec::new()),
            ("sshd@x.service loaded active running x\n\n".to_owned(), Vec::new()),
            (String::new(), Vec::new()),
        ];
        for (listed, expected) in rows {
            assert_eq!(parse(&listed), expected, "{listed}");
        }
    }
}
