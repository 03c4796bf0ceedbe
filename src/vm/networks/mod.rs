//! The networks that this host keeps: brought up by need, and taken down to the last setting.
//!
//! ```text
//! up      plan ─► checks ─► recorded `coming-up` ─► bridge ─► addresses ─► uplink ─► forwarding ─► firewall
//!           ─► names and addresses served ─► firewalld's zone ─► names announced ─► recorded `up`
//! down    no VM on it ─► recorded `going-down` ─► the same, undone in reverse ─► forgotten
//! ensure  before a VM's ports: its networks up, its forwards free, the firewall with its NICs in it
//! ```
//!
//! One process at a time, by a lock beside the store. What is to be made is recorded first, and each
//! step does nothing where it is done already: after a kill anywhere the next `up`, `down` or
//! `repair` finishes. What is undone is what the record says, whatever the config says by then.

mod around;
mod as_unit;
mod down;
mod ensure;
mod firewall;
mod forwarding;
mod hosts;
mod lock;
mod plan;
mod see;
mod server;
mod step;
mod up;
mod work;

pub use crate::network::keep::has_ipv6;
pub use around::{Around, Lease, around};
pub use as_unit::up_as_unit;
pub use down::{Fallen, down};
pub(super) use ensure::check_forwards;
pub use ensure::{ensure, restore};
pub(super) use firewall::settle_as;
pub use firewall::{settle, settle_after};
pub use hosts::publish;
pub(super) use hosts::publish_after;
pub(super) use lock::hold;
pub use plan::kept;
pub use see::{Condition, View, users, views};
pub(super) use see::{remove_stray, strays, unwell};
pub(super) use up::mend;
pub use up::{Raised, repair, up};
