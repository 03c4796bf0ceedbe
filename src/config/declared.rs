//! VMs that the config declares: `[[vm]]`, and what it comes to with its template below it.

use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::file::Template;
use crate::spec::{Name, OnRemove};

/// A declared VM: its template with its own words laid over it. Every reference leads somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeclaredVm {
    pub name: Name,
    /// What it is made from, in the whole: under the name of the template, with all that the VM's
    /// entry says in its place.
    pub template: Template,
    pub running: Running,
    pub on_remove: OnRemove,
    /// Users and keys, or raw cloud-init user-data; absolute.
    pub user_data: Vec<PathBuf>,
}

/// Whether a declared VM runs: `true`, `false`, or `"leave"`, which is up to whoever starts and stops it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Running {
    #[default]
    Yes,
    No,
    Leave,
}

impl Serialize for Running {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Running::Yes => serializer.serialize_bool(true),
            Running::No => serializer.serialize_bool(false),
            Running::Leave => serializer.serialize_str("leave"),
        }
    }
}
