//! 8 · What should exist, made to exist: `v plan` and `v apply`.
//!
//! ```text
//! config ([[vm]]) ─┐
//! store (recorded) ├─► look ──► Situation ── compare (pure) ──► Plan ── apply ──► the verbs of `vm`
//! processes, files ┘                                              └──► what a person reads
//! ```
//!
//! A VM of the store is one of three: made by hand (no plan ever touches it), declared, or declared
//! once and removed. Nothing is looked up by starting a program, so planning for a thousand VMs is
//! reading; and a plan is made anew by every command, so a killed `apply` is finished by the next, as soon
//! as [the supervisors](settle) are done with what it had begun.

mod apply;
mod change;
mod compare;
mod digest;
mod export;
mod look;
#[cfg(test)]
pub(crate) mod model;
mod settle;
mod things;

pub use apply::{Apply, Fate, Told};
pub use change::{Alter, Change, Class, DiskField, Field, Item, Need, NicField, Plan, Wishes, Work};
pub use compare::compare;
pub use digest::digest;
pub use export::{export, lacks_user_data};
pub use look::{Seen, Situation, look};
pub use settle::{Wait, settle};
