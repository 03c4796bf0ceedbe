//! 2 · Where disks come from: a raw image is used as it is; qcow2, vmdk, vdi and vhdx are
//! converted to raw once, into the cache, keyed by their content.

mod convert;
mod format;

pub use convert::raw_image;
pub use format::{Format, ImageInfo, inspect};
