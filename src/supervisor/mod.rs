//! 7 · The process that owns one running VM: `v supervise <uuid>`, launched by `v vm start`.
//!
//! ```text
//! lock ─► record `starting` ─► ports ─► launch ─► console ─► boot ─► record `running` ─► "ready"
//!   then, until the hypervisor ends: its events, the control socket, SIGTERM
//! ended ─► release ports ─► record `stopped` or `crashed`, with the reason ─► lock dropped
//!   └─ or, where a restart was asked for: record `restarting` ─► from `starting` on, once more
//! ```
//!
//! It holds the VM's lock as long as it lives: whoever can take the lock knows that no supervisor
//! is there. What was asked (the intent) is recorded before acting, because a hypervisor's end
//! looks the same whoever caused it. Killing the command that launched it changes nothing. If it is
//! killed itself, the guest runs on, the record still names its hypervisor, and the next command
//! that meets the VM launches a new supervisor, which adopts it by pid and start time.

mod again;
mod boot;
mod console;
mod control;
mod decide;
mod log;
#[cfg(test)]
mod model_tests;
mod owner;
mod ports;
mod watch;

pub use owner::supervise;
