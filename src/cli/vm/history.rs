use clap::Args;

use crate::cli::complete;
use crate::cli::history;
use crate::cli::ui::{Format, Ui};
use crate::error::Result;
use crate::host;
use crate::vm::Site;

/// Show what happened to a VM, and who asked for it
///
/// It works for a VM that is deleted, too: by its uuid, or by the name it had, as long as no other
/// VM has it. The last 500 lines of each VM are kept, and 20,000 in all.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// A name, a number, or a uuid (its first 4 digits are enough)
    #[arg(value_name = "VM", add = complete::vm_names())]
    vm: String,
    /// Only the last LINES
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 50)]
    lines: usize,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl History {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let store = site.reader()?;
        let vm = history::find(&store, &self.vm, ui)?;
        let entries = store.history(Some(vm), self.lines)?;
        if entries.is_empty() && self.output == Format::Table {
            ui.say("nothing is noted of it yet");
            return Ok(());
        }
        ui.rows(self.output, &entries, |entries| history::of_one(entries, host::now()))
    }
}
