/// How far long work is: told by the part that does it, shown by `cli`.
pub trait Progress {
    /// Called once, before the first byte; not at all when nothing has to be copied.
    fn start(&self, bytes: u64);
    /// `bytes` more are done.
    fn advance(&self, bytes: u64);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn start(&self, _: u64) {}

    fn advance(&self, _: u64) {}
}
