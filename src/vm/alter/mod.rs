//! A VM that is there becomes another.
//!
//! ```text
//! runs      size, disks, policy, forwards, guards: recorded, and what runs follows at once, or the record
//!           is put back
//! at rest   the same, recorded; and by `reshape` all that a template says
//! ```

mod cut_short;
mod files;
mod forwards;
mod grow_disk;
mod guard;
mod live;
mod policy;
mod ports;
mod reshape;
mod resize;
mod rest;
#[cfg(test)]
mod tests;

pub use cut_short::{disk_file, finish_all, finish_held};
pub(super) use cut_short::{finish, is_cut_short, is_recorded};
pub use forwards::live_forwards;
pub use grow_disk::grow_disk;
pub use guard::set_guard;
pub use policy::set_policy;
pub use ports::set_ports;
pub use reshape::{Reshape, reshape, reshape_all};
pub use resize::{check_limit, check_resize, resize};
