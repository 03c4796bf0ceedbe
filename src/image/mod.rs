//! 2 · Where disks come from: a raw image is used as it is; qcow2, vmdk, vdi and vhdx are
//! converted to raw once, into the cache, keyed by their content.
//!
//! ```text
//! inspect (magic, header) ──► raw: the file itself
//!        └──► hash ──► cache/<sha256>.raw is there: that
//!                 └──► checked, measured, converted by qemu-img, synced, renamed
//! ```
//!
//! An image is somebody else's file. Its header is read here and held against the file's length;
//! one that names another file (a backing file, an extent) is refused, because that could be any
//! file of the host. What may fail besides: a format nobody knows, a file that was cut off, a
//! full disk, `qemu-img` not being there. Each leaves nothing in the cache.

mod content;
#[cfg(test)]
mod conversions;
mod convert;
mod format;
mod leftover;
mod qcow2;
mod vdi;
mod vhdx;
mod vmdk;

pub use convert::{RawImage, raw_image};
pub use format::{Format, ImageInfo, inspect};
pub use leftover::{leftovers, remove_leftover};
