use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::HypervisorKind;

/// What the config once said of a VM that it declares, as far as the VM's spec does not hold it. A
/// VM made by hand has none, and no plan ever touches it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Declared {
    /// What follows when the config declares it no more.
    pub on_remove: OnRemove,
    /// The hypervisor that was named; `None`: the choice was left to Virshle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<HypervisorKind>,
    /// The firmware that was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<PathBuf>,
    /// What its first boot was told, as a SHA-256 in hex; `None`: nothing was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// It was declared and is no more: from then on it is left alone, and the config may take it back.
    #[serde(skip_serializing_if = "is_false")]
    pub removed: bool,
    /// It was stopped for the sake of a change, and is to run again.
    #[serde(skip_serializing_if = "is_false")]
    pub start_again: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// What becomes of a declared VM that the config declares no more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnRemove {
    /// It is shut down and kept, with its disks.
    #[default]
    Stop,
    /// It runs on.
    Keep,
    /// It is shut down and deleted, with its disks.
    Delete,
}

impl fmt::Display for OnRemove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            OnRemove::Stop => "stop",
            OnRemove::Keep => "keep",
            OnRemove::Delete => "delete",
        })
    }
}
