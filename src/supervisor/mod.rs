//! 7 · The process that owns one running VM: `v supervise <uuid>`, launched by `v vm start`.
//!
//! ```text
//! lock ─► record `starting` ─► ports ─► helpers ─► gate ─► record its pid ─► launch ─► console ─► boot ─► record `running` ─► "ready"
//!   then, until the hypervisor ends: its events, the control socket, SIGTERM; and beside that the
//!   ports, which are put back when somebody takes them away (`switch`, `care`)
//! ended ─► release ports ─► record `stopped` or `crashed`, with the reason ─► lock dropped
//!   or, where it was asked for or the VM's policy says so: record `restarting` ─► (wait ─►) once more
//! ```
//!
//! It holds the VM's lock as long as it lives: whoever can take the lock knows that no supervisor
//! is there. What was asked (the intent) is recorded before acting, because a hypervisor's end
//! looks the same whoever caused it. Killing the command that launched it changes nothing. If it is
//! killed itself, the guest runs on, the record still names its hypervisor, and the next command
//! that meets the VM launches a new supervisor, which adopts it by pid and start time. SIGHUP makes it
//! become the program that an upgrade has put in its place, without leaving the guest.

mod again;
mod alter;
mod boot;
mod care;
mod console;
mod control;
mod decide;
mod handover;
mod helpers;
mod last_word;
mod life;
mod limits;
mod log;
#[cfg(test)]
mod model_tests;
mod owner;
mod ports;
mod switch;
mod unit;
mod watch;

pub use handover::Handed;
pub use owner::supervise;
pub use unit::{after_unit, supervise_as_unit};
