//! A verb is a list of steps, recorded before and after each, so that whoever finds it cut short
//! can say where.
//!
//! ```text
//! opening   the transaction that records what is to come      progress is part of it
//! step      noted ─► done ─► noted                            as often as there are steps
//! closing   noted ─► the transaction that ends the verb       progress is cleared by it
//! ```
//!
//! What a verb does is idempotent, and what follows a cut is decided by the record alone: a note
//! that cannot be written is logged and stops nothing. A list of [`Step`]s is undone in reverse
//! when one of them fails; a supervisor, whose work is not one list, marks its [`Steps`].
//! Each step has two points at which the crash tests kill the process (`host/failpoint.rs`).

use std::future::Future;

use uuid::Uuid;

use super::Site;
use crate::error::Result;
use crate::spec::{Progress, Verb};
use crate::store::Store;

/// One thing to do. Both halves are idempotent: doing what is done, or undoing what was never
/// done, changes nothing.
pub(super) struct Step<'a> {
    name: String,
    /// Whom it is done to.
    vms: Vec<Uuid>,
    run: Box<Run<'a>>,
    undo: Box<Run<'a>>,
}

type Run<'a> = dyn Fn(&mut Store) -> Result<()> + 'a;

impl std::fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Step").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Step<'a> {
    pub(super) fn new(
        vms: impl Into<Vec<Uuid>>,
        name: impl Into<String>,
        run: impl Fn(&mut Store) -> Result<()> + 'a,
        undo: impl Fn(&mut Store) -> Result<()> + 'a,
    ) -> Self {
        Self { name: name.into(), vms: vms.into(), run: Box::new(run), undo: Box::new(undo) }
    }
}

/// Runs all steps, or none: after a failure everything begun is undone, the failed step included.
/// An undo that fails is logged and does not stop the others; the first failure is the result.
/// The last step is the closing one.
pub(super) fn run_all(store: &mut Store, verb: Verb, steps: &[Step<'_>]) -> Result<()> {
    for (index, step) in steps.iter().enumerate() {
        tracing::info!(step = step.name, "do");
        let mark = Mark::set(Some(store), verb, &step.vms, &step.name);
        let Err(error) = (step.run)(store) else {
            mark.done((index + 1 < steps.len()).then_some(store));
            continue;
        };
        for begun in steps[..=index].iter().rev() {
            tracing::info!(step = begun.name, "undo");
            if let Err(undo) = (begun.undo)(store) {
                tracing::warn!(step = begun.name, error = %undo, "could not be undone");
            }
        }
        return Err(error);
    }
    Ok(())
}

/// The first step: the transaction that records what is to come. Only with it the VM is this
/// process's, so the progress is written by it, and not before.
pub fn opening<T>(verb: Verb, step: &str, record: impl FnOnce(Progress) -> Result<T>) -> Result<T> {
    let mark = Mark::set(None, verb, &[], step);
    let done = record(Progress { done: true, ..mark.progress.clone() })?;
    mark.done(None);
    Ok(done)
}

/// The steps of a verb on one VM, for work that is no list.
#[derive(Debug)]
pub struct Steps {
    /// Open as long as the verb takes; `None` when that failed, which stops no verb.
    store: Option<Store>,
    verb: Verb,
    vm: Uuid,
}

impl Steps {
    pub fn of(site: &Site, verb: Verb, vm: Uuid) -> Self {
        let store = site.store();
        if let Err(error) = &store {
            tracing::warn!(error = %error.chain().join(": "), "progress will not be noted");
        }
        Self { store: store.ok(), verb, vm }
    }

    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// Does one step.
    pub fn step<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let mark = self.begin(name);
        let done = work()?;
        self.done(mark);
        Ok(done)
    }

    /// Does one step that is waited for.
    pub async fn wait<T>(&self, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mark = self.begin(name);
        let done = work.await?;
        self.done(mark);
        Ok(done)
    }

    /// Does the last step, whose transaction ends the verb and clears the progress.
    pub fn closing<T>(&self, name: &str, record: impl FnOnce() -> Result<T>) -> Result<T> {
        let mark = self.begin(name);
        let done = record()?;
        mark.done(None);
        Ok(done)
    }

    /// For a step that ends elsewhere.
    pub fn begin(&self, name: &str) -> Mark {
        Mark::set(self.store.as_ref(), self.verb, &[self.vm], name)
    }

    pub fn done(&self, mark: Mark) {
        mark.done(self.store.as_ref());
    }
}

/// A step that is under way.
#[derive(Debug)]
#[must_use = "a step that is begun is done, or fails"]
pub struct Mark {
    vms: Vec<Uuid>,
    progress: Progress,
}

impl Mark {
    fn set(store: Option<&Store>, verb: Verb, vms: &[Uuid], step: &str) -> Self {
        let mark = Self { vms: vms.to_vec(), progress: Progress { verb, step: step.to_owned(), done: false } };
        mark.note(store);
        mark.point("before");
        mark
    }

    fn done(mut self, store: Option<&Store>) {
        self.progress.done = true;
        self.note(store);
        self.point("after");
    }

    fn note(&self, store: Option<&Store>) {
        if let Some(store) = store
            && let Err(error) = store.note_progress(&self.vms, Some(&self.progress))
        {
            tracing::debug!(error = %error.chain().join(": "), "progress not noted");
        }
    }

    #[cfg(feature = "failpoints")]
    fn point(&self, when: &str) {
        crate::host::failpoint(&format!("{}/{}/{when}", self.progress.verb, self.progress.step));
    }

    #[cfg(not(feature = "failpoints"))]
    #[allow(clippy::unused_self)]
    fn point(&self, _: &str) {}
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::error::Error;
    use crate::host::Dirs;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Site::new(Dirs::find(Some(dir.path())).unwrap()).store().unwrap();
        (dir, store)
    }

    #[test]
    fn a_failure_undoes_what_was_begun_in_reverse() {
        let (_dir, mut store) = store();
        let log = RefCell::new(Vec::new());
        let step = |name: &'static str, fails: bool| {
            let log = &log;
            Step::new(
                [Uuid::nil()],
                name,
                move |_| {
                    log.borrow_mut().push(format!("do {name}"));
                    if fails { Err(Error::failed(name)) } else { Ok(()) }
                },
                move |_| {
                    log.borrow_mut().push(format!("undo {name}"));
                    Ok(())
                },
            )
        };
        let steps = [step("a", false), step("b", true), step("c", false)];
        let error = run_all(&mut store, Verb::Create, &steps).unwrap_err();
        assert_eq!(error.message(), "b");
        assert_eq!(*log.borrow(), ["do a", "do b", "undo b", "undo a"]);
    }
}
