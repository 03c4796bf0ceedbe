//! 4 · What a VM boots from: clones of images, and the first-boot seed.
//!
//! A clone is a reflink where the file system can (instant, shares its blocks), else a copy that
//! keeps the source's holes. The source is opened read-only and never changes. A clone is written
//! under a temporary name, grown, synced and renamed: a file with its final name is whole.
//!
//! What may fail: the source is missing, empty, no plain file, larger than the size asked for, or
//! changes while it is copied; the target exists; the disk is full. Each leaves nothing behind.

mod clone;
mod cloud_init;
#[cfg(test)]
mod file_systems;
mod grow;
mod mime;
mod rename_seed;
mod seed;
mod sparse;
mod vendor;
mod volume;

pub use crate::host::{Progress, Quiet};
pub use clone::{Cloned, Method, blank, bytes_needed, clone, free_space};
pub use grow::grow;
pub use mime::Part;
pub use rename_seed::{check_seed, rename_seed, write_network};
pub use seed::{Seed, write_seed};
