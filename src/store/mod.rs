//! 8 · What is remembered: one sqlite file, and the only SQL.
//!
//! Every change is one `IMMEDIATE` transaction, so two processes that decide at once decide one
//! after the other. Migrations go forward only; a newer schema is refused, and a database that
//! cannot be opened or fails its integrity check is left as it is and reported: it is never made anew.

mod address;
mod fault;
mod find;
mod follow;
mod history;
mod mac;
mod migrations;
mod networks;
mod open;
mod progress;
mod record;
mod reshape;
mod vms;

#[cfg(test)]
mod tests;

pub use address::check_asked;
pub use find::Selector;
pub use follow::Follow;
pub use history::Remembered;
pub use networks::{Made, NetworkRecord, NetworkState};
pub use open::Store;
pub use record::{Helper, Line, Record, Retries, Runtime};
pub use reshape::Given;
pub use vms::{Draft, Reserved, Wanted};
