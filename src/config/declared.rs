//! VMs that the config declares: `[[vm]]`, and what it comes to with its template below it.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::file::{DiskEntry, HypervisorSetting, NetEntry, Template};
use super::limits::{MAX_DISKS, MAX_NICS, MAX_SECONDS, MAX_VCPU};
use super::policy::LimitsEntry;
use crate::spec::{Labels, Name, OnRemove, Restart, Size};

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

/// A VM that `v apply` makes, and keeps as it stands here. What it says itself comes before what its template says.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct VmEntry {
    /// Its name.
    pub(super) name: Name,
    /// The name of the template that it is made from.
    pub(super) template: Name,
    /// Whether it runs; `"leave"` leaves that to whoever starts and stops it.
    #[serde(default)]
    pub(super) running: Running,
    /// What becomes of it when it stands here no more: it is shut down and kept, runs on, or is deleted with its disks.
    #[serde(default)]
    pub(super) on_remove: OnRemove,
    /// What its first boot is told: files of users and keys, or one of raw cloud-init user-data.
    #[serde(default)]
    pub(super) user_data: UserDataEntry,
    /// How many processors.
    #[schemars(range(min = 1, max = MAX_VCPU))]
    pub(super) vcpu: Option<u32>,
    /// How much memory, in whole MiB.
    pub(super) vram: Option<Size>,
    /// How many processors it can come to while it runs.
    #[schemars(range(min = 1, max = MAX_VCPU))]
    pub(super) vcpu_max: Option<u32>,
    /// How much memory it can come to while it runs, a multiple of 128 MiB more than `vram`.
    pub(super) vram_max: Option<Size>,
    /// The hypervisor.
    pub(super) hypervisor: Option<HypervisorSetting>,
    /// A kernel that is booted directly, instead of the template's firmware.
    pub(super) kernel: Option<PathBuf>,
    /// The kernel's initial RAM disk.
    pub(super) initramfs: Option<PathBuf>,
    /// The kernel's command line.
    pub(super) cmdline: Option<String>,
    /// The firmware, instead of the template's kernel.
    pub(super) firmware: Option<PathBuf>,
    /// What follows the end of a run that nobody asked for: nothing, a new run after a crash, or always a new run.
    pub(super) restart: Option<Restart>,
    /// Whether the guest gets a watchdog: once it feeds it and then hangs, it is reset.
    pub(super) watchdog: Option<bool>,
    /// Whether it is started with the host; `false` lays the template's order and delay aside.
    pub(super) autostart: Option<bool>,
    /// Its place among those that are started with the host, lower ones first.
    pub(super) autostart_order: Option<u32>,
    /// Seconds to wait after it is started with the host, before the next order begins.
    #[schemars(range(max = MAX_SECONDS))]
    pub(super) autostart_delay: Option<u32>,
    /// What it may take of the host, beside the template's other limits.
    #[serde(default)]
    pub(super) limits: LimitsEntry,
    /// Seconds that the guest gets to shut down.
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub(super) stop_timeout: Option<u32>,
    /// Whether it cannot be deleted.
    pub(super) protect: Option<bool>,
    /// What people note about it, beside the template's other labels.
    #[serde(default)]
    pub(super) labels: Labels,
    /// Disks: one of the name of a template's disk changes that one by the keys it has, another comes after them.
    #[serde(default, rename = "disk")]
    #[schemars(length(max = MAX_DISKS))]
    pub(super) disks: Vec<DiskEntry>,
    /// Network interfaces: the first of a network changes the template's first of that network by the keys it has, and so on; another comes after them.
    #[serde(default, rename = "net")]
    #[schemars(length(max = MAX_NICS))]
    pub(super) nets: Vec<NetEntry>,
}

/// Whether a declared VM runs: `true`, `false`, or `"leave"`, which is up to whoever starts and stops it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Running {
    #[default]
    Yes,
    No,
    Leave,
}

impl<'de> Deserialize<'de> for Running {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Running;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false` or `\"leave\"`")
            }

            fn visit_bool<E: de::Error>(self, runs: bool) -> Result<Running, E> {
                Ok(if runs { Running::Yes } else { Running::No })
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Running, E> {
                match word {
                    "leave" => Ok(Running::Leave),
                    "true" | "false" => Err(E::custom(format!("write `{word}` without quotes"))),
                    _ => {
                        Err(E::custom(format!("must be `true`, `false` or `\"leave\"`, not `{}`", word.escape_debug())))
                    }
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
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

impl JsonSchema for Running {
    fn schema_name() -> Cow<'static, str> {
        "Running".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, { "type": "string", "enum": ["leave"] }] })
    }
}

/// One file, or several.
#[derive(Debug)]
pub(super) enum UserDataEntry {
    One(PathBuf),
    Several(Vec<PathBuf>),
}

impl UserDataEntry {
    pub(super) fn paths(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }
}

impl Default for UserDataEntry {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl<'de> Deserialize<'de> for UserDataEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = UserDataEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path or a list of paths")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<UserDataEntry, E> {
                Ok(UserDataEntry::One(path.into()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<UserDataEntry, A::Error> {
                let mut paths = Vec::new();
                while let Some(path) = list.next_element()? {
                    paths.push(path);
                }
                Ok(UserDataEntry::Several(paths))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for UserDataEntry {
    fn schema_name() -> Cow<'static, str> {
        "UserDataEntry".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }
}
