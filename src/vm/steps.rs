//! A list of steps, each with its undo. What was done is undone in reverse when a later step fails.

use crate::error::Result;

/// One thing to do. Both halves are idempotent: doing what is done, or undoing what was never
/// done, changes nothing.
pub(super) struct Step<'a> {
    pub name: &'static str,
    pub run: Box<dyn Fn() -> Result<()> + 'a>,
    pub undo: Box<dyn Fn() -> Result<()> + 'a>,
}

impl std::fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Step").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Step<'a> {
    pub(super) fn new(
        name: &'static str,
        run: impl Fn() -> Result<()> + 'a,
        undo: impl Fn() -> Result<()> + 'a,
    ) -> Self {
        Self { name, run: Box::new(run), undo: Box::new(undo) }
    }
}

/// Runs all steps, or none: after a failure everything begun is undone, the failed step included.
/// An undo that fails is logged and does not stop the others; the first failure is the result.
pub(super) fn run_all(steps: &[Step<'_>]) -> Result<()> {
    for (index, step) in steps.iter().enumerate() {
        tracing::info!(step = step.name, "do");
        let Err(error) = (step.run)() else { continue };
        for begun in steps[..=index].iter().rev() {
            tracing::info!(step = begun.name, "undo");
            if let Err(undo) = (begun.undo)() {
                tracing::warn!(step = begun.name, error = %undo, "could not be undone");
            }
        }
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::error::Error;

    #[test]
    fn a_failure_undoes_what_was_begun_in_reverse() {
        let log = RefCell::new(Vec::new());
        let step = |name: &'static str, fails: bool| {
            let log = &log;
            Step::new(
                name,
                move || {
                    log.borrow_mut().push(format!("do {name}"));
                    if fails { Err(Error::failed(name)) } else { Ok(()) }
                },
                move || {
                    log.borrow_mut().push(format!("undo {name}"));
                    Ok(())
                },
            )
        };
        let error = run_all(&[step("a", false), step("b", true), step("c", false)]).unwrap_err();
        assert_eq!(error.message(), "b");
        assert_eq!(*log.borrow(), ["do a", "do b", "undo b", "undo a"]);
    }
}
