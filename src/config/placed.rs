//! Entries that still know where they stand, so that whatever is wrong with one is told there.

use std::fmt;
use std::rc::Rc;

use super::file::Template;
use super::source::Source;
use crate::error::Error;
use crate::spec::Name;

/// An entry and its place: the file, and the dotted path in it.
#[derive(Debug)]
pub(super) struct Placed<T> {
    pub(super) entry: T,
    place: Place,
    below: Option<Below>,
}

#[derive(Debug, Clone)]
struct Place {
    source: Rc<Source>,
    path: String,
}

/// Where the keys stand that a declared VM does not say itself.
#[derive(Debug)]
struct Below {
    vm: Name,
    template: Place,
    disks: Vec<Origin>,
    nets: Vec<Origin>,
}

/// Where an entry of a list comes from: its index in the VM's own list, and in the template's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) vm: Option<usize>,
    pub(super) template: Option<usize>,
}

impl<T> Placed<T> {
    pub(super) fn new(entry: T, source: Rc<Source>, path: String) -> Self {
        Self { entry, place: Place { source, path }, below: None }
    }

    /// An error about the entry's `key` (`disk[0].size`, or nothing for the whole entry); `what`
    /// completes the sentence "`key` …".
    pub(super) fn wrong(&self, key: &str, what: impl fmt::Display) -> Error {
        let Some(below) = &self.below else { return self.place.wrong(key, what) };
        let own = below.key(key, |origin| origin.vm);
        if let Some(own) = own.filter(|own| self.place.says(own)) {
            return self.place.wrong(&own, what);
        }
        match below.key(key, |origin| origin.template).filter(|key| below.template.says(key)) {
            Some(key) => below.template.wrong(&key, format_args!("{what}, in the VM `{}`", below.vm)),
            None => self.place.wrong("", what),
        }
    }

    /// Whether the entry itself has the key.
    pub(super) fn says(&self, key: &str) -> bool {
        self.place.says(key)
    }

    /// The template that this entry, a VM's, comes to.
    pub(super) fn over(
        &self,
        vm: Name,
        template: &Placed<Template>,
        effective: Template,
        disks: Vec<Origin>,
        nets: Vec<Origin>,
    ) -> Placed<Template> {
        let below = Below { vm, template: template.place.clone(), disks, nets };
        Placed { entry: effective, place: self.place.clone(), below: Some(below) }
    }
}

impl Place {
    fn full(&self, key: &str) -> String {
        let dot = if key.is_empty() { "" } else { "." };
        format!("{}{dot}{key}", self.path)
    }

    fn wrong(&self, key: &str, what: impl fmt::Display) -> Error {
        self.source.wrong(&self.full(key), what)
    }

    fn says(&self, key: &str) -> bool {
        self.source.says(&self.full(key))
    }
}

impl Below {
    /// `disk[2].size` of the whole, as the VM's own entry or the template has it; `None`: that disk is
    /// not of its.
    fn key(&self, key: &str, of: impl Fn(Origin) -> Option<usize>) -> Option<String> {
        for (list, origins) in [("disk[", &self.disks), ("net[", &self.nets)] {
            if let Some((number, rest)) = key.strip_prefix(list).and_then(|inner| inner.split_once(']')) {
                let origin = number.parse().ok().and_then(|number: usize| origins.get(number))?;
                return of(*origin).map(|index| format!("{list}{index}]{rest}"));
            }
        }
        Some(key.to_owned())
    }
}
