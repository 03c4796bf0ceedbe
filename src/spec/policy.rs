use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Size;

/// How a VM is kept: what follows its end, what it may take of the host, when it comes up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    pub restart: Restart,
    /// A watchdog device: a guest that feeds it and then hangs is reset.
    pub watchdog: bool,
    /// Started with the host.
    pub autostart: Option<Autostart>,
    pub limits: Limits,
    /// Seconds that the guest gets to shut down.
    pub stop_timeout: u32,
    /// It cannot be deleted as long as this is set.
    #[serde(skip_serializing_if = "is_false")]
    pub protect: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            restart: Restart::No,
            watchdog: false,
            autostart: None,
            limits: Limits::default(),
            stop_timeout: Self::STOP_TIMEOUT,
            protect: false,
        }
    }
}

impl Policy {
    /// Seconds for a guest to shut down where nobody said how long.
    pub const STOP_TIMEOUT: u32 = 60;

    pub fn stop_timeout(&self) -> Duration {
        Duration::from_secs(self.stop_timeout.into())
    }
}

/// What follows the end of a run that nobody asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Nothing.
    #[default]
    No,
    /// A new run after a crash; a guest that powers itself off stays off.
    OnCrash,
    /// A new run whatever the reason was.
    Always,
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Restart::No => "no",
            Restart::OnCrash => "on-crash",
            Restart::Always => "always",
        })
    }
}

/// When a VM is started with its host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Autostart {
    /// Lower ones first; those of one order together.
    pub order: u32,
    /// Seconds to wait after it, before the next order begins.
    pub delay: u32,
}

/// What a VM with its hypervisor may take of the host, where the host can enforce it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Processor time, in thousandths of one processor.
    pub millicpus: Option<u32>,
    /// Memory, the guest's and the hypervisor's own together.
    pub memory: Option<Size>,
}
