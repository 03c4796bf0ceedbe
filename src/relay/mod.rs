//! How members of the group `virshle` run commands as root, without being root.
//!
//! ```text
//! v (a member)            v relay (root, one process per connection)        v relay --run (root)
//!   connect ────────────►  who is it? a member? a place free?
//!   order, 0, 1, 2 ─────►  is it a verb that members may run? ── start ──►  the command itself,
//!   ◄──────────── accepted                                                  on the caller's 0, 1, 2
//!   Ctrl-C ─────────────►  ─────────────────────────────── signal ───────►
//!   ◄──────── ended, code  ◄──────────────────────────────── exit ────────
//! ```
//!
//! The helper opens no path that a caller names: files are read by the caller and sent as content.
//! Of the caller's environment only a few harmless words arrive. A closed connection cancels the
//! command. Which verbs may be run is `cli`'s to say; this part knows only their words.

mod admit;
mod client;
mod environment;
mod listen;
mod message;
mod server;

pub use admit::{GROUP, is_member};
pub use client::{Reach, Stdio, reach, run};
pub use environment::passed_on;
pub use listen::listen;
pub use message::{ENCLOSED_FD, Order};
pub use server::serve;
