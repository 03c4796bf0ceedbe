//! The points between which the crash tests kill a process, as in [`crate::vm::Steps`].

use crate::error::Result;

/// Does one step of `up` or `down`.
pub(super) fn step<T>(verb: &str, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    tracing::info!(step = name, "network {verb}");
    point(verb, name, "before");
    let done = work()?;
    point(verb, name, "after");
    Ok(done)
}

#[cfg(feature = "failpoints")]
fn point(verb: &str, name: &str, when: &str) {
    crate::host::failpoint(&format!("network-{verb}/{name}/{when}"));
}

#[cfg(not(feature = "failpoints"))]
fn point(_: &str, _: &str, _: &str) {}
