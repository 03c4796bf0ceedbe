//! A VM that is there becomes another.

mod forwards;
mod grow_disk;
mod resize;

pub use forwards::live_forwards;
pub use grow_disk::grow_disk;
pub use resize::{check_resize, resize};
