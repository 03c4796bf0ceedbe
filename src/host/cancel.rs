use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result};

const INTERRUPTED: &str = "interrupted";

/// Ctrl-C, seen by long work between two pieces of it, so that it can undo what it did.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// One that Ctrl-C or SIGTERM sets from now on, instead of ending the process.
    pub fn on_interrupt() -> Self {
        let cancel = Self::default();
        let seen = cancel.clone();
        std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
            runtime.block_on(async {
                let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = terminate.recv() => {}
                }
                seen.set();
            });
        });
        cancel
    }

    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(Error::failed(INTERRUPTED)) } else { Ok(()) }
    }

    /// Whether this is what something failed for.
    pub fn is_cause_of(&self, error: &Error) -> bool {
        self.is_set() && error.chain().last().is_some_and(|cause| cause == INTERRUPTED)
    }
}
