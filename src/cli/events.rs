use std::time::Duration;

use clap::Args;

use super::complete;
use super::history;
use super::table::Rolling;
use super::ui::{Format, Ui};
use crate::error::Result;
use crate::host;
use crate::store::{Follow, Store};
use crate::vm::Site;

/// Show what happened to all VMs; with `--follow`, go on as more happens
///
/// With `--follow` each new line is printed as it comes, until Ctrl-C or until nobody reads any
/// more; as JSON then one object per line, from the first one on.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Go on as more happens
    #[arg(short, long)]
    follow: bool,
    /// Only of this VM: a name, a number, or a uuid; one that is deleted, too
    #[arg(long, value_name = "VM", add = complete::vm_names())]
    vm: Option<String>,
    /// Begin with the last LINES
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 20)]
    lines: usize,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A person does not see the difference, and the host does not feel it.
const POLL: Duration = Duration::from_millis(200);

impl Events {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let path = site.dirs.database();
        let store = Store::open_read_only(&path)?;
        let vm = match (&self.vm, &store) {
            (Some(vm), Some(store)) => Some(history::find(store, vm, ui)?),
            (Some(_), None) => return site.reader().map(drop),
            (None, _) => None,
        };
        // Before the lines are read: what comes between the two is read again, and not lost.
        let newest = store.as_ref().map_or(Ok(0), Store::newest_event)?;
        let entries = store.as_ref().map_or(Ok(Vec::new()), |store| store.history(vm, self.lines))?;
        drop(store);
        if !self.follow {
            if entries.is_empty() && self.output == Format::Table {
                ui.say("nothing has happened yet");
                return Ok(());
            }
            return ui.rows(self.output, &entries, history::of_all);
        }
        let mut rolling = Rolling::default();
        ui.roll(self.output, &mut rolling, &entries, history::of_all)?;
        let after = entries.last().map_or(newest, |entry| entry.id.max(newest));
        let mut follow = Follow::after(&path, after, vm);
        loop {
            let entries = follow.read()?;
            if !entries.is_empty() {
                ui.roll(self.output, &mut rolling, &entries, history::of_all)?;
            } else if host::closed_within(std::io::stdout(), POLL) {
                return Ok(());
            }
        }
    }
}
