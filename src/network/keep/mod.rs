//! The Linux side of a network that Virshle keeps: its bridge, this host's addresses on it, the
//! uplink, and what the kernel must be set to so that frames and packets pass.
//!
//! ```text
//! bridge     Linux: made here, marked `virshle <state folder>` in its alias; Open vSwitch: by `ovs`
//! addresses  this host's own, on the network's device
//! uplink     the host's interface that is put into the bridge; one with addresses of its own is refused
//! sysctl     ip_forward and its like: what must change is planned first, so that it can be noted
//! ```
//!
//! Everything is idempotent, and decided by looking: what is there already is left as it is.

mod addresses;
mod bridge;
mod ip;
mod sysctl;
mod uplink;

pub use addresses::{give_addresses, take_addresses};
pub use bridge::{Whose, is_bare, is_there, make_bridge, marked_bridges, remove_bridge, remove_marked, whose};
pub use ip::check_program;
pub(super) use ip::ip;
pub use sysctl::{Plan, has_ipv6, plan_forwarding, read_setting, restore_settings, settle_device, write_settings};
pub use uplink::{check_uplink, join_uplink, leave_uplink, uplink_is_down};
