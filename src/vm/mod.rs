//! 3 · One machine and its life. Every verb is a file; each works on a [`Site`] (where things lie)
//! and on the record in the store, which is the truth.
//!
//! ```text
//! create  reserve rows ─► folder ─► disks ─► UEFI variables ─► seed ─► record `stopped`   (steps, each with its undo)
//! start   launch a supervisor, wait for its word
//! watch   any command that meets a guest whose supervisor was killed launches a new one
//! stop    ask the supervisor (control socket), wait for the end
//! restart ask the supervisor, wait until it has run the VM again
//! delete  record `deleting` ─► ports ─► folders ─► row
//! ```
//!
//! A process may die between any two steps: rows say who was at work on them and how far it came
//! ([`Steps`]), so that the next command sees it, says it, and undoes or finishes it ([`sweep`],
//! [`reconcile`]).

pub mod control;
mod create;
mod delete;
mod launch;
mod leftovers;
mod observe;
mod ready;
mod restart;
mod resolve;
mod show;
mod site;
mod sources;
mod start;
mod steps;
mod stop;
mod sweep;

pub use crate::disk::Part;
pub use create::{Create, create};
pub use delete::delete;
pub use launch::{Purpose, READY_FD, Starting};
pub use leftovers::{awaits_another_run, clear_run, told};
pub use observe::{Observed, observe, reconcile};
pub use ready::{Goal, endpoint, wait_for};
pub use resolve::{hosts, links, resolve};
pub use restart::{Restarted, restart};
pub use show::{preferred_ssh, show_launch, ssh_forward};
pub use site::Site;
pub use site::{make_private, remove_tree};
pub use start::start;
pub use steps::{Mark, Steps, opening};
pub use stop::{Stopped, force_stop, pause, resume, stop};
pub use sweep::sweep;
