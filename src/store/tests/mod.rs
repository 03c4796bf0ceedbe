//! What the files of the store promise together, on a real file and from many processes.

mod addresses;
pub(super) mod fixture;
mod history;
mod many;
mod networks;
mod open;
mod reshape;
mod timing;
mod vms;
