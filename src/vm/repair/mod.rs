//! What killed processes left behind: found by a *survey* that changes nothing, removed or finished
//! by *collecting* each finding.
//!
//! ```text
//! records   a create, delete, rename or reshape cut short; a run that nobody watches; a run that is over unseen
//! folders   of VMs and of their sockets, without a VM; half-made images, a half-made database
//! ports     of VMs that do not run, by what the port says of its VM and its store
//! units     of systemd, of VMs that do not run
//! networks  half up, half down, or without what their record says; bridges of ours that no record knows
//! ```
//!
//! A survey may be old when it is acted on, so each finding is decided on again: in the store's
//! transaction, or holding the lock without which no supervisor can begin. What a living process
//! is at work on is never touched, and what is not certainly ours is left alone.

mod folders;
mod networks;
mod ports;
mod records;
mod rest;
mod units;

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use uuid::Uuid;

use super::{Site, alter};
use crate::error::Result;
use crate::image;
use crate::network::ovs::Owner;
use crate::spec::Name;
use crate::store::Store;
use rest::Standings;

/// One thing that is not as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub kind: Kind,
    pub what: String,
    /// A path, a port, a process or a unit.
    #[serde(rename = "where")]
    pub place: String,
    pub action: Action,
    /// The VM's name, or the uuid of one that is gone.
    pub vm: Option<String>,
    #[serde(skip)]
    remedy: Remedy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    HalfCreated,
    HalfDeleted,
    HalfRenamed,
    HalfReshaped,
    HalfStarted,
    LostRun,
    UnwatchedGuest,
    StalledRestart,
    VmFolder,
    RuntimeFolder,
    CacheFile,
    DatabaseFile,
    SwitchPort,
    NetworkDevice,
    Unit,
    HalfUpNetwork,
    HalfDownNetwork,
    DamagedNetwork,
    StrayBridge,
    /// Something that could not be looked at.
    Unseen,
}

/// What collecting it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Undo,
    Finish,
    Mend,
    RecordEnd,
    Watch,
    Remove,
    Stop,
    Reset,
    LeaveAlone,
}

/// What collecting it needs to know.
#[derive(Debug, Clone)]
enum Remedy {
    Abandoned(Uuid),
    Rename(Uuid),
    Reshape(Uuid),
    Run(Uuid),
    VmFolder(Uuid),
    Runtime(Uuid, PathBuf),
    Cache(PathBuf),
    Database,
    Port(Box<Owner>),
    Unit(Uuid, String),
    Network(Name),
    Bridge(String),
    None,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::HalfCreated => "half-created",
            Kind::HalfDeleted => "half-deleted",
            Kind::HalfRenamed => "half-renamed",
            Kind::HalfReshaped => "half-reshaped",
            Kind::HalfStarted => "half-started",
            Kind::LostRun => "lost-run",
            Kind::UnwatchedGuest => "unwatched-guest",
            Kind::StalledRestart => "stalled-restart",
            Kind::VmFolder => "vm-folder",
            Kind::RuntimeFolder => "runtime-folder",
            Kind::CacheFile => "cache-file",
            Kind::DatabaseFile => "database-file",
            Kind::SwitchPort => "switch-port",
            Kind::NetworkDevice => "network-device",
            Kind::Unit => "unit",
            Kind::HalfUpNetwork => "half-up-network",
            Kind::HalfDownNetwork => "half-down-network",
            Kind::DamagedNetwork => "damaged-network",
            Kind::StrayBridge => "stray-bridge",
            Kind::Unseen => "unseen",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Action::Undo => "undo",
            Action::Finish => "finish",
            Action::Mend => "mend",
            Action::RecordEnd => "record-end",
            Action::Watch => "watch",
            Action::Remove => "remove",
            Action::Stop => "stop",
            Action::Reset => "reset",
            Action::LeaveAlone => "leave-alone",
        })
    }
}

impl Finding {
    /// One that is only told.
    fn note(kind: Kind, what: impl Into<String>, place: impl Into<String>, vm: Option<String>) -> Self {
        Self { kind, what: what.into(), place: place.into(), action: Action::LeaveAlone, vm, remedy: Remedy::None }
    }

    /// Whether there is anything to do about it.
    pub fn is_left_over(&self) -> bool {
        self.action != Action::LeaveAlone
    }
}

/// All that is left over, what must be done first before the rest. Without a store there was never
/// one. What cannot be looked at is a finding too.
pub fn survey(site: &Site, store: Option<&Store>) -> Result<Vec<Finding>> {
    // The folders before the records: a record is there before its folders, and after them.
    let seen = folders::look(site);
    let records = store.map_or_else(|| Ok(Vec::new()), Store::list)?;
    let standings = Standings::of(site, records)?;
    let mut found = records::survey(site, &standings)?;
    let mut add = |what: &str, part: Result<Vec<Finding>>| match part {
        Ok(findings) => found.extend(findings),
        Err(error) => {
            let what = format!("could not look at {what}: {}", error.chain().join(": "));
            found.push(Finding::note(Kind::Unseen, what, "-", None));
        }
    };
    add("the systemd units", units::survey(site, &standings));
    add("the switch", ports::survey(site, &standings));
    add("the network devices", ports::taps(&standings));
    add("the networks", networks::survey(site, store));
    add("the folders", seen.and_then(|seen| folders::survey(site, store, &standings, &seen)));
    add("the image cache", image::leftovers(&site.dirs.cache()).map(folders::cached));
    add("the database's folder", Store::leftovers(&site.dirs.database()).map(folders::half_made));
    Ok(found)
}

/// Acts on one finding. `false`: there is nothing to do about it any more.
pub fn collect(site: &Site, store: &mut Store, finding: &Finding) -> Result<bool> {
    match &finding.remedy {
        Remedy::Abandoned(vm) => records::collect_abandoned(site, store, *vm),
        Remedy::Rename(vm) => records::finish_rename(site, store, *vm),
        Remedy::Reshape(vm) => alter::finish(site, store, *vm),
        Remedy::Run(vm) => records::tend(site, store, *vm),
        Remedy::VmFolder(vm) => folders::collect_vm(site, store, *vm),
        Remedy::Runtime(vm, path) => folders::collect_runtime(site, store, *vm, path),
        Remedy::Cache(path) => image::remove_leftover(path),
        Remedy::Database => Store::remove_leftovers(&site.dirs.database()).map(|()| true),
        Remedy::Port(owner) => ports::collect(site, store, owner),
        Remedy::Unit(vm, unit) => units::collect(site, store, *vm, unit),
        Remedy::Network(name) => crate::vm::networks::mend(site, name),
        Remedy::Bridge(bridge) => crate::vm::networks::remove_stray(site, bridge),
        Remedy::None => Ok(false),
    }
}
