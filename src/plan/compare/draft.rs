use super::text::row;
use super::waits::Wait;
use crate::config::DeclaredVm;
use crate::plan::change::{Change, Class, Field, Need, NicField, Wishes};
use crate::plan::look::{Seen, Situation};
use crate::plan::things::is_nic;
use crate::spec::{Declared, Name, VmSpec};

/// A VM on its way to what the config says: what differs, and what it comes to now.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) situation: &'a Situation,
    pub(super) seen: &'a Seen,
    pub(super) entry: &'a DeclaredVm,
    restart: bool,
    /// It runs, and is to run on.
    pub(super) runs: bool,
    /// Files of it are missing: it starts no more, whatever it is made to.
    pub(super) broken: bool,
    /// Another VM still has what it is to have.
    pub(super) wait: Option<&'a Wait>,
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
            broken: !seen.seed || seen.disks.values().any(Option::is_none),
            wait: None,
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
        !self.broken && self.wait.is_none() && (!self.runs || self.restart)
    }

    /// Notes a difference. `false`: it waits. What needs a restart costs nothing where nothing runs.
    pub(super) fn note(&mut self, class: Class, field: Field, old: Option<String>, new: Option<String>) -> bool {
        // All that is made of one that does not run is made together.
        let waits =
            |wait: &&Wait| class == Class::Restart || !self.runs && shapes(&field) || wait.port && is_ports(&field);
        let wait = self.wait.filter(waits);
        let class = match class {
            Class::Restart if self.broken => Class::Replace,
            Class::Live if self.broken && !self.runs && shapes(&field) => Class::Replace,
            Class::Restart if !self.runs => Class::Live,
            class => class,
        };
        let needs = match class {
            Class::Restart if !self.restart => Some(Need::Restart),
            Class::Replace => Some(Need::Replace(self.name().clone())),
            _ => wait.map(|wait| wait.need.clone()),
        };
        let why = wait.filter(|wait| is_nic(&field) && needs.as_ref() == Some(&wait.need)).map(|wait| wait.why.clone());
        let done = needs.is_none();
        self.changes.push(Change { needs, why, ..row(class, field, old, new) });
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

fn is_ports(field: &Field) -> bool {
    matches!(field, Field::Nic(_, NicField::Ports))
}

/// Whether it is of the machine, and not of how it is kept and what is noted of it.
fn shapes(field: &Field) -> bool {
    matches!(field, Field::Vcpu | Field::Vram | Field::Disk(..) | Field::Nic(..))
}
