//! The host's service manager: whether it is systemd, and what is asked of it. Only the system's,
//! never a user's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::{Program, ProgramError};

/// Who starts and keeps services on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceManager {
    /// Not systemd: pid 1 is something else.
    None,
    /// systemd, without the unit of a VM.
    WithoutUnits,
    /// systemd, and the file of the VMs' unit.
    Systemd(PathBuf),
}

/// As in systemd.unit(5), without what generators make.
const UNIT_PATHS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const TEMPLATE: &str = "virshle-vm@.service";
/// The unit of a network's name server.
pub const NETWORK_UNIT: &str = "virshle-network@.service";

/// systemd answers at once, unless it is reloading.
const DEADLINE: Duration = Duration::from_secs(25);

impl ServiceManager {
    /// A look at a few files: no program is run.
    pub fn find() -> Self {
        Self::below(Path::new("/"))
    }

    fn below(root: &Path) -> Self {
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        // What sd_booted(3) looks at.
        if !at("/run/systemd/system").is_dir() {
            return Self::None;
        }
        let unit = UNIT_PATHS.iter().map(|path| at(path).join(TEMPLATE)).find(|path| path.is_file());
        unit.map_or(Self::WithoutUnits, Self::Systemd)
    }

    /// Whether the file of that unit is installed.
    pub fn has_unit(file: &str) -> bool {
        UNIT_PATHS.iter().any(|path| Path::new(path).join(file).is_file())
    }
}

/// The unit of one VM, or of one network.
#[derive(Debug, Clone)]
pub struct Unit(String);

/// Where a unit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It said that it is ready.
    Active,
    /// On its way up or down, or about to be.
    Busy,
    /// Nothing runs, and nothing is about to.
    Inactive,
}

impl Unit {
    pub fn of(vm: Uuid) -> Self {
        Self(format!("virshle-vm@{vm}.service"))
    }

    pub fn of_network(name: &str) -> Self {
        Self(format!("virshle-network@{name}.service"))
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Asks for its start, and does not wait for it.
    pub fn start(&self) -> Result<(), ProgramError> {
        systemctl(&["start", "--no-block", &self.0]).map(drop)
    }

    /// Ends it, and waits for that.
    pub fn stop(&self) -> Result<(), ProgramError> {
        systemctl(&["stop", &self.0]).map(drop)
    }

    /// Its main process, while it has one.
    pub fn main_pid(&self) -> Result<Option<i32>, ProgramError> {
        let shown = self.show("MainPID")?;
        let pid = shown.trim().strip_prefix("MainPID=").and_then(|pid| pid.parse().ok());
        Ok(pid.filter(|pid| *pid > 0))
    }

    pub fn activity(&self) -> Result<Activity, ProgramError> {
        self.show("ActiveState,Job").map(|shown| activity(&shown))
    }

    /// Whether systemd started it anew because its process was killed.
    pub fn is_restarted(&self) -> Result<bool, ProgramError> {
        self.show("NRestarts").map(|shown| shown.trim() != "NRestarts=0")
    }

    /// Bounds what its processes may take together, until it is forgotten or the host restarts.
    pub fn limit(&self, limits: &[String]) -> Result<(), ProgramError> {
        let limits = limits.iter().map(String::as_str);
        systemctl(&["set-property", "--runtime", &self.0].into_iter().chain(limits).collect::<Vec<_>>()).map(drop)
    }

    /// Removes what [`Unit::limit`] left.
    pub fn forget(&self) -> Result<(), ProgramError> {
        systemctl(&["revert", &self.0]).map(drop)
    }

    /// How much memory its processes have, in bytes, where that is counted.
    pub fn memory(&self) -> Result<Option<u64>, ProgramError> {
        let shown = self.show("MemoryCurrent")?;
        Ok(shown.trim().strip_prefix("MemoryCurrent=").and_then(|bytes| bytes.parse().ok()))
    }

    fn show(&self, properties: &str) -> Result<String, ProgramError> {
        systemctl(&["show", "--property", properties, &self.0]).map(|output| output.text())
    }
}

fn systemctl(args: &[&str]) -> Result<super::Output, ProgramError> {
    Program::new("systemctl").args(["--system", "--no-ask-password", "--quiet"]).args(args).deadline(DEADLINE).run()
}

fn activity(shown: &str) -> Activity {
    // A job is one line of its number; without one there is no such line, or a zero.
    let job = shown.lines().filter_map(|line| line.strip_prefix("Job=")).any(|job| !matches!(job, "" | "0"));
    match shown.lines().find_map(|line| line.strip_prefix("ActiveState=")) {
        _ if job => Activity::Busy,
        Some("inactive" | "failed") => Activity::Inactive,
        Some("active" | "reloading") => Activity::Active,
        _ => Activity::Busy,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_service_manager_is_what_its_files_say() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(ServiceManager::below(root), ServiceManager::None);
        let unit = root.join("usr/lib/systemd/system").join(TEMPLATE);
        fs::create_dir_all(unit.parent().unwrap()).unwrap();
        fs::write(&unit, "").unwrap();
        // Installed, and not what runs.
        assert_eq!(ServiceManager::below(root), ServiceManager::None);
        fs::create_dir_all(root.join("run/systemd/system")).unwrap();
        assert_eq!(ServiceManager::below(root), ServiceManager::Systemd(unit.clone()));
        fs::remove_file(&unit).unwrap();
        assert_eq!(ServiceManager::below(root), ServiceManager::WithoutUnits);
    }

    #[test]
    fn activities() {
        let rows = [
            ("ActiveState=active\n", Activity::Active),
            ("ActiveState=active\nJob=0\n", Activity::Active),
            ("ActiveState=inactive\nJob=\n", Activity::Inactive),
            ("ActiveState=failed\n", Activity::Inactive),
            ("Job=412\nActiveState=inactive\n", Activity::Busy),
            ("ActiveState=active\nJob=7\n", Activity::Busy),
            ("ActiveState=activating\n", Activity::Busy),
            ("ActiveState=deactivating\n", Activity::Busy),
            ("", Activity::Busy),
        ];
        for (shown, expected) in rows {
            assert_eq!(activity(shown), expected, "{shown:?}");
        }
    }
}
