use std::sync::Arc;

use uuid::Uuid;

use crate::error::Error;
use crate::plan::{Change, Class, Item};

/// What became of a change.
#[derive(Debug, Clone)]
pub enum Fate {
    /// It was not tried: it waits for a wish, or is refused.
    Left,
    Done,
    Failed(Arc<Error>),
}

/// One item of the plan, and what has become of its changes so far.
#[derive(Debug)]
pub(super) struct Account<'a> {
    pub(super) item: &'a Item,
    /// The VM that was made for it.
    pub(super) made: Option<Uuid>,
    /// Whether it ran when all began.
    pub(super) ran: bool,
    /// One per change; `None`: left, or still to be done.
    fates: Vec<Option<Fate>>,
}

impl<'a> Account<'a> {
    pub(super) fn of(item: &'a Item) -> Self {
        Self { item, made: None, ran: false, fates: vec![None; item.changes.len()] }
    }

    /// The changes that are still to be done.
    pub(super) fn due(&self) -> impl Iterator<Item = &'a Change> {
        let open = self.item.changes.iter().zip(&self.fates);
        open.filter(|(change, fate)| fate.is_none() && is_wished(change)).map(|(change, _)| change)
    }

    pub(super) fn is_due(&self, which: impl Fn(&Change) -> bool) -> bool {
        self.due().any(which)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.fates.iter().any(|fate| matches!(fate, Some(Fate::Failed(_))))
    }

    /// The changes that were done.
    pub(super) fn done(&self) -> impl Iterator<Item = &'a Change> {
        let settled = self.item.changes.iter().zip(&self.fates);
        settled.filter(|(_, fate)| matches!(fate, Some(Fate::Done))).map(|(change, _)| change)
    }

    /// Those of them that `which` means have come to this.
    pub(super) fn settle(&mut self, which: impl Fn(&Change) -> bool, fate: &Fate) {
        for (change, settled) in self.item.changes.iter().zip(&mut self.fates) {
            if settled.is_none() && is_wished(change) && which(change) {
                *settled = Some(fate.clone());
            }
        }
    }

    pub(super) fn fates(self) -> Vec<Fate> {
        self.fates.into_iter().map(|fate| fate.unwrap_or(Fate::Left)).collect()
    }
}

fn is_wished(change: &Change) -> bool {
    change.needs.is_none() && change.class != Class::Refused
}
