//! 0 · The file: what a person writes, read strictly.
//!
//! `config.toml`, then `config.d/*.toml` in the order of their names; a drop-in's entry replaces
//! the one of the same name. Unknown keys, wrong types and references to nothing are errors that
//! name file, line, column and the nearest known word; a file that is wrong changes nothing.
//!
//! ```text
//! text ── source ──► positions ── decode ──► file (types) ── draft (merged) ── rules ──► Config
//!                                     a [[vm]] ── overlay (over its template) ──┘
//! ```
//!
//! [`schema`](json_schema) says the same grammar to editors, from the same types.

mod declared;
mod decode;
mod draft;
mod file;
mod limits;
mod link;
mod load;
mod network;
mod overlay;
mod paths;
mod placed;
mod policy;
mod rules;
mod schema;
mod source;
mod subnet6;

pub use declared::{DeclaredVm, Running};
pub use file::{
    Accelerator, CloudHypervisorEntry, Config, DatapathSetting, DiskEntry, HypervisorSetting, ImageEntry, NetEntry,
    Network, NetworkKind, NodeEntry, QemuEntry, Template,
};
pub use limits::{
    MAX_DISKS, MAX_NICS, MAX_VCPU, MAX_VRAM, MIN_VRAM, VRAM_STEP, check_vcpu, check_vcpu_max, check_vram,
    check_vram_max,
};
pub use link::LinkEntry;
#[cfg(test)]
pub(crate) use load::of_text;
pub use load::{check, load};
pub use network::{DEFAULT_BRIDGE, Keeping};
pub(crate) use paths::{home, resolve};
pub use policy::{Cpus, LimitsEntry};
pub use rules::check_address;
pub use schema::json_schema;
pub(crate) use source::{Excerpts, Source, or_one_of};
pub use subnet6::Subnet6;
