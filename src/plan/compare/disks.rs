//! The disks, by name. What is on one is never given up but where that is asked for.

use super::draft::Draft;
use super::text;
use crate::error::Result;
use crate::plan::change::{Class, DiskField, Field};
use crate::spec::{Disk, Name, Size};
use crate::template;

pub(super) fn compare(draft: &mut Draft<'_>) -> Result<()> {
    let wanted = template::disks(&draft.situation.config, &draft.entry.template)?;
    let old = &draft.spec().disks;
    let mut disks = Vec::new();
    for new in &wanted {
        match old.iter().find(|disk| disk.name == new.name) {
            Some(old) => disks.push(one(draft, old, new)),
            None => {
                let field = Field::Disk(new.name.clone(), DiskField::Whole);
                if draft.note(Class::Restart, field, None, Some(text::disk(new))) {
                    disks.push(new.clone());
                }
            }
        }
    }
    order(draft, old, &wanted, &mut disks);
    for (index, gone) in old.iter().enumerate().filter(|(_, disk)| !has(&wanted, &disk.name)) {
        draft.note(Class::Replace, Field::Disk(gone.name.clone(), DiskField::Whole), Some(text::disk(gone)), None);
        disks.insert(index.min(disks.len()), gone.clone());
    }
    draft.target.disks = disks;
    Ok(())
}

fn has(disks: &[Disk], name: &Name) -> bool {
    disks.iter().any(|disk| disk.name == *name)
}

/// The order of those that were there and stay.
fn order(draft: &mut Draft<'_>, old: &[Disk], wanted: &[Disk], disks: &mut [Disk]) {
    let names = |of: &[Disk], both: &[Disk]| -> Vec<Name> {
        of.iter().map(|disk| disk.name.clone()).filter(|name| has(both, name)).collect()
    };
    let (before, after) = (names(old, wanted), names(wanted, old));
    if before != after && !draft.note(Class::Restart, Field::Disks, text::list(&before), text::list(&after)) {
        disks.sort_by_key(|disk| old.iter().position(|old| old.name == disk.name));
    }
}

/// What one that stays comes to now.
fn one(draft: &mut Draft<'_>, old: &Disk, new: &Disk) -> Disk {
    let field = |field| Field::Disk(old.name.clone(), field);
    let mut disk = old.clone();
    let file = draft.seen.disks.get(&old.name).copied().flatten();
    if file.is_none() {
        draft.note(Class::Replace, field(DiskField::Whole), Some("missing".to_owned()), Some(text::disk(new)));
        return disk;
    }
    if old.source != new.source {
        let source = |disk: &Disk| text::path(disk.source.as_deref()).or_else(|| Some("blank".to_owned()));
        draft.note(Class::Replace, field(DiskField::Source), source(old), source(new));
    }
    if let Some(size) = size(draft, field(DiskField::Size), old.size.or(file), new.size) {
        disk.size = Some(size);
    }
    if old.readonly != new.readonly
        && draft.note(Class::Restart, field(DiskField::Readonly), text::yes(&old.readonly), text::yes(&new.readonly))
    {
        disk.readonly = new.readonly;
    }
    disk
}

/// A disk grows as it is; one that says no size has the one it has.
fn size(draft: &mut Draft<'_>, field: Field, old: Option<Size>, new: Option<Size>) -> Option<Size> {
    let (old, new) = (old?, new?);
    let done = match new.cmp(&old) {
        std::cmp::Ordering::Equal => true,
        std::cmp::Ordering::Greater => draft.note(Class::Live, field, text::shown(&old), text::shown(&new)),
        std::cmp::Ordering::Less => draft.note(Class::Replace, field, text::shown(&old), text::shown(&new)),
    };
    done.then_some(new)
}
