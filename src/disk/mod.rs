//! 4 · What a VM boots from: clones of images, and the first-boot seed.
//!
//! A clone is a reflink where the file system can (instant, shares its blocks), else a copy that
//! keeps the source's holes. The source is opened read-only and never changes. A clone is written
//! under a temporary name, grown, synced and renamed: a file with its final name is whole.

mod clone;
mod seed;

pub use clone::{Cloned, Method, Progress, Quiet, blank, clone, free_space};
pub use seed::{Seed, write_seed};
