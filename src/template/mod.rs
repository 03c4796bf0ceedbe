//! 1 · What a VM may be: the catalogue of templates, the user data, and how one becomes a
//! [`VmSpec`](crate::spec::VmSpec). Pure: it opens no file and asks no clock.

mod instantiate;
mod nics;
mod user_data;

pub use instantiate::{Identity, Overrides, Resolved, disks, find, instantiate};
pub use nics::{PlannedNic, Settled, keep_named, lay_over, nics};
pub use user_data::{Ssh, User, UserData};
