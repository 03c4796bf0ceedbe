//! 8 · What is remembered: one sqlite file, and the only SQL.
//!
//! Every change is one `IMMEDIATE` transaction, so two processes that decide at once decide one
//! after the other. Migrations go forward only; a newer schema is refused, and a database that
//! cannot be opened or fails its integrity check is left as it is and reported: it is never made anew.

mod address;
mod migrations;
mod record;
mod vms;

pub use record::{Record, Runtime, Selector};
pub use vms::{Draft, Reserved, Store};
