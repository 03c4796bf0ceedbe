//! 0 · The file: what a person writes, read strictly.
//!
//! `config.toml`, then `config.d/*.toml` in the order of their names; a drop-in's entry replaces
//! the one of the same name. Unknown keys, wrong types and references to nothing are errors that
//! name file, line, column and the nearest known word; a file that is wrong changes nothing.

mod file;
mod load;
mod schema;

pub use file::{Accelerator, Config, DiskEntry, HypervisorSetting, ImageEntry, LinkEntry, NetEntry, Network, NodeEntry, Template};
pub use load::{check, load};
pub use schema::json_schema;
