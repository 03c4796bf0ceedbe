use super::text::row;
use crate::config::DeclaredVm;
use crate::plan::change::{Change, Class, Field, Need, Wishes};
use crate::plan::look::{Seen, Situation};
use crate::spec::{Declared, Name, VmSpec};

/// A VM on its way to what the config says: what differs, and what it comes to now.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) situation: &'a Situation,
    pub(super) seen: &'a Seen,
    pub(super) entry: &'a DeclaredVm,
    restart: bool,
    /// It runs, and is to run on.
    runs: bool,
    pub(super) changes: Vec<Change>,
    pub(super) target: VmSpec,
    pub(super) declared: Declared,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        situation: &'a Situation,
        wishes: &Wishes,
        entry: &'a DeclaredVm,
        seen: &'a Seen,
        runs: bool,
    ) -> Self {
        Self {
            situation,
            seen,
            entry,
            restart: wishes.restart,
            runs,
            changes: Vec::new(),
            target: seen.record.spec.clone(),
            declared: seen.record.declared.clone().unwrap_or_default(),
        }
    }

    /// As it is recorded.
    pub(super) fn spec(&self) -> &'a VmSpec {
        &self.seen.record.spec
    }

    pub(super) fn name(&self) -> &'a Name {
        &self.entry.name
    }

    /// Whether what needs a restart is done now.
    pub(super) fn restarts(&self) -> bool {
        !self.runs || self.restart
    }

    /// Notes a difference. `false`: it waits. What needs a restart costs nothing where nothing runs.
    pub(super) fn note(&mut self, class: Class, field: Field, old: Option<String>, new: Option<String>) -> bool {
        let class = if class == Class::Restart && !self.runs { Class::Live } else { class };
        let needs = match class {
            Class::Restart if !self.restart => Some(Need::Restart),
            Class::Replace => Some(Need::Replace(self.name().clone())),
            _ => None,
        };
        let done = needs.is_none();
        self.changes.push(Change { needs, ..row(class, field, old, new) });
        done
    }

    /// A value that takes its new one where it differs, unless that waits.
    pub(super) fn value<T: PartialEq>(
        &mut self,
        class: Class,
        field: Field,
        (old, new): (T, T),
        text: impl Fn(&T) -> Option<String>,
        set: impl FnOnce(&mut VmSpec, T),
    ) {
        if old != new && self.note(class, field, text(&old), text(&new)) {
            set(&mut self.target, new);
        }
    }
}
