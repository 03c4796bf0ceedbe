use clap::Args;
use serde::Serialize;

use super::colour::Tone;
use super::for_each;
use super::table::{Cell, Table};
use super::ui::{Format, Ui, count};
use crate::error::Result;
use crate::store::Store;
use crate::vm::Site;
use crate::vm::repair::{self, Action, Finding};

/// Find what killed processes left behind, and put it in order
///
/// A create, rename or delete that was cut short is undone or finished; a guest that nobody watches
/// gets a new supervisor; a network that is half up, half down or damaged is mended; folders, ports,
/// bridges and units of what is gone or does not run are removed. What a living process is at work
/// on, and what is not this store's own, is left alone.
#[derive(Debug, Args)]
pub(super) struct Repair {
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    finding: Finding,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Done,
    /// There was nothing to do about it any more.
    Gone,
    Failed,
    LeftAlone,
}

impl Repair {
    pub(super) fn run(&self, site: &Site, ui: &Ui) -> Result<()> {
        let store = Store::open_read_only(&site.dirs.database())?;
        let findings = repair::survey(site, store.as_ref())?;
        drop(store);
        let left_overs = findings.iter().filter(|finding| finding.is_left_over()).count();
        let mut rows: Vec<Row> = findings.into_iter().map(|finding| Row { finding, outcome: None }).collect();
        if left_overs == 0 || self.dry_run {
            self.print(&rows, ui)?;
            ui.say(match left_overs {
                0 => "nothing to repair".to_owned(),
                number => format!("{}; `v repair` puts them in order", count(number, "left-over")),
            });
            return Ok(());
        }
        let mut store = site.store()?;
        let mut failures = Vec::new();
        for row in &mut rows {
            row.outcome = Some(match repair::collect(site, &mut store, &row.finding) {
                _ if !row.finding.is_left_over() => Outcome::LeftAlone,
                Ok(true) => Outcome::Done,
                Ok(false) => Outcome::Gone,
                Err(error) => {
                    let whose = row.finding.vm.as_ref().map(|vm| format!(" of `{vm}`")).unwrap_or_default();
                    failures.push(error.context(format!("cannot repair {}{whose}", row.finding.kind)));
                    Outcome::Failed
                }
            });
        }
        self.print(&rows, ui)?;
        // One is often gone with another.
        let done = rows.iter().filter(|row| matches!(row.outcome, Some(Outcome::Done | Outcome::Gone))).count();
        ui.say(format!("put {done} of {} in order", count(left_overs, "left-over")));
        for_each(failures, ui, Err)
    }

    fn print(&self, rows: &[Row], ui: &Ui) -> Result<()> {
        if rows.is_empty() && self.output == Format::Table {
            return Ok(());
        }
        ui.rows(self.output, rows, table)
    }
}

fn table(rows: &[Row]) -> Table {
    let acted = rows.iter().any(|row| row.outcome.is_some());
    let header = ["KIND", "VM", "WHERE", "WHAT", "ACTION"];
    let mut table = Table::new(header.into_iter().chain(acted.then_some("OUTCOME")));
    for Row { finding, outcome } in rows {
        let tone = if finding.action == Action::LeaveAlone { Tone::Dim } else { Tone::Busy };
        let mut cells: Vec<Cell> = vec![
            finding.kind.to_string().into(),
            finding.vm.clone().unwrap_or_else(|| "-".to_owned()).into(),
            finding.place.clone().into(),
            finding.what.clone().into(),
            Cell::toned(finding.action.to_string(), tone),
        ];
        cells.extend(outcome.map(|outcome| match outcome {
            Outcome::Done => Cell::toned("done", Tone::Good),
            Outcome::Gone => Cell::toned("gone already", Tone::Dim),
            Outcome::Failed => Cell::toned("failed", Tone::Bad),
            Outcome::LeftAlone => "-".into(),
        }));
        table.row(cells);
    }
    table
}
