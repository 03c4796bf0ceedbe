//! 3 · One machine and its life. Every verb is a file; each works on a [`Site`] (where things lie)
//! and on the record in the store, which is the truth.
//!
//! ```text
//! create  reserve rows ─► folder ─► disks ─► UEFI variables ─► seed ─► owner ─► record `stopped`   (steps, each with its undo)
//! start   launch a supervisor (a unit of systemd, or a process), wait for its word
//! watch   any command that meets a VM whose supervisor was killed launches a new one: it adopts the
//!         guest, or records its end and starts it again where the policy says so
//! stop    ask the supervisor (control socket), wait for the end
//! restart ask the supervisor, wait until it has run the VM again
//! rename  record ─► first-boot volume ─► ports
//! reshape new disks ─► record, with its addresses ─► disks in place ─► first-boot volume ─► owner
//! delete  record `deleting` ─► ports ─► folders ─► row
//! ```
//!
//! A process may die between any two steps: rows say who was at work on them and how far it came
//! ([`Steps`]), so that the next command sees it, says it, and undoes or finishes it ([`sweep`],
//! [`reconcile`]). What else may be left behind is found and collected by [`repair`].

mod alter;
mod autostart;
mod beside;
pub mod control;
mod create;
mod delete;
mod launch;
mod leftovers;
mod limits;
pub mod networks;
mod observe;
mod reach;
mod ready;
mod rename;
pub mod repair;
mod resolve;
mod restart;
mod runner;
mod show;
mod site;
mod sources;
mod start;
mod steps;
mod stop;
mod sweep;
mod unit;
mod user_data;

pub use crate::disk::Part;
pub use alter::{
    Reshape, check_limit, check_resize, disk_file, finish_all as finish_reshapes, finish_held as finish_reshape,
    grow_disk, live_forwards, reshape, reshape_all, resize, set_guard, set_policy, set_ports,
};
pub use autostart::{Group, autostart};
pub use beside::{helpers, line, line_end};
pub use create::{Create, check_create, create};
pub use delete::{check_unprotected, delete, delete_if};
pub use launch::{Purpose, READY_FD, Starting, arguments};
pub use leftovers::{awaits_another_run, clear_run, end_helpers, told};
pub use limits::limit;
pub use observe::{Observed, observe, reconcile};
pub use reach::reach;
pub use ready::{Goal, endpoint, wait_for};
pub use rename::rename;
pub use resolve::{hosts, links, resolve};
pub use restart::{Restarted, restart};
pub use runner::{DEFAULT_USER, admit, check_boot, group_for_kvm, hand_over, runner, runner_of};
pub use show::{preferred_ssh, show_launch};
pub use site::Site;
pub use site::{make_private, remove_tree};
pub use start::start;
pub use steps::{Mark, Steps, opening};
pub use stop::{Stopped, force_stop, kill_unwatched, pause, resume, stop};
pub use sweep::sweep;
pub use unit::{Order, limits_hold, serves as runs_units, take_order};
pub use user_data::user_data;
