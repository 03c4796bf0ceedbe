//! The history as it grows. There is no process to tell of new lines, so the file is asked.
//!
//! Asked by id, several times a second: one look at the end of an index whose pages are in memory,
//! some microseconds. Watching the log's file instead (inotify) would tell of writes and not of
//! commits, and lose its file at every checkpoint that removes it; what it tells would have to be
//! asked for by id all the same. Ids grow in the order of the commits, so nothing is missed and
//! nothing comes twice.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::open::Store;
use crate::error::Result;
use crate::spec::Entry;

/// A reader of new lines; it makes nothing, and outlives the file.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    vm: Option<Uuid>,
    /// The last line that was given.
    id: i64,
    open: Option<(Store, Identity)>,
}

/// Which file it is, under whatever name.
type Identity = (u64, u64);

impl Follow {
    /// Of one VM or all, what comes after the line `id`. The database need not be there yet.
    pub fn after(path: &Path, id: i64, vm: Option<Uuid>) -> Self {
        Self { path: path.to_owned(), vm, id, open: None }
    }

    /// The lines since; none when there are no new ones.
    pub fn read(&mut self) -> Result<Vec<Entry>> {
        let there = identity(&self.path);
        if self.open.as_ref().is_none_or(|(_, open)| Some(*open) != there) {
            self.reopen(there)?;
        }
        let Some((store, _)) = &self.open else { return Ok(Vec::new()) };
        let entries = store.events_after(self.id, self.vm)?;
        if store.is_alone() {
            self.open = None;
        }
        if let Some(last) = entries.last() {
            self.id = last.id;
        }
        Ok(entries)
    }

    /// Another file is there than the one that is open, or none.
    fn reopen(&mut self, there: Option<Identity>) -> Result<()> {
        let replaced = self.open.take().is_some();
        match (Store::open_read_only(&self.path)?, there) {
            (Some(store), Some(identity)) => {
                // From a backup: it goes on from an earlier line, and what comes now is new.
                if replaced {
                    self.id = self.id.min(store.newest_event()?);
                }
                self.open = Some((store, identity));
            }
            // It came or went since we looked.
            (Some(_), None) => {}
            // The next one begins anew.
            (None, _) => self.id = if replaced { 0 } else { self.id },
        }
        Ok(())
    }
}

fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}
