use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Padding, Style};

use super::colour::{Tone, paint};

/// Columns whose cells are numbers, and end at the right.
const NUMBERS: [&str; 3] = ["ID", "VCPU", "RAM"];
/// Between two columns.
const GAP: usize = 3;

/// A plain table: a header, and cells that may have a tone.
#[derive(Debug)]
pub(super) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Cell {
    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone: Some(tone) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: None }
    }
}

impl Table {
    pub(super) fn new(header: impl IntoIterator<Item = &'static str>) -> Self {
        Self { header: header.into_iter().collect(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(super) fn render(&self, colour: bool) -> String {
        let mut builder = Builder::default();
        builder.push_record(self.header.iter().map(|name| paint(colour, Tone::Strong, name)));
        for row in &self.rows {
            builder.push_record(row.iter().map(|cell| match cell.tone {
                Some(tone) => paint(colour, tone, &cell.text),
                None => cell.text.clone(),
            }));
        }
        let mut table = builder.build();
        table.with(Style::empty()).with(Padding::new(0, GAP, 0, 0));
        for (index, _) in self.header.iter().enumerate().filter(|(_, name)| NUMBERS.contains(name)) {
            table.modify(Columns::one(index), Alignment::right());
        }
        let text = table.to_string();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// A table whose rows come one after the other: the columns are as wide as any cell so far.
#[derive(Debug, Default)]
pub(super) struct Rolling {
    widths: Vec<usize>,
}

impl Rolling {
    /// The next rows; the first time with their header, even if there are none yet.
    pub(super) fn render(&mut self, table: &Table, colour: bool) -> String {
        let first = self.widths.is_empty();
        let header: Vec<Cell> = table.header.iter().map(|name| Cell::toned(*name, Tone::Strong)).collect();
        self.widths.resize(header.len(), 0);
        for row in std::iter::once(&header).chain(&table.rows) {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let line = |row: &Vec<Cell>| -> String {
            let last = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |last| last + 1);
            let cells = self.widths.iter().zip(row).take(last).enumerate().map(|(index, (width, cell))| {
                let text = cell.tone.map_or_else(|| cell.text.clone(), |tone| paint(colour, tone, &cell.text));
                let gap = if index + 1 < last { width - cell.text.chars().count() + GAP } else { 0 };
                text + &" ".repeat(gap)
            });
            cells.collect()
        };
        first.then_some(&header).into_iter().chain(&table.rows).map(|row| line(row) + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let mut table = Table::new(["ID", "NAME", "STATE"]);
        table.row(vec!["1".into(), "web".into(), Cell::toned("running", Tone::Good)]);
        table.row(vec!["12".into(), "database".into(), "stopped".into()]);
        assert_eq!(table.render(false), "ID   NAME       STATE\n 1   web        running\n12   database   stopped");
        assert!(table.render(true).contains("\u{1b}[32mrunning\u{1b}[0m"));
    }

    #[test]
    fn rows_that_come_later_stand_below_the_first() {
        let rows = |names: &[(&str, &str)]| {
            let mut table = Table::new(["NAME", "STATE"]);
            for (name, state) in names {
                table.row(vec![(*name).into(), Cell::toned(*state, Tone::Good)]);
            }
            table
        };
        let mut rolling = Rolling::default();
        assert_eq!(rolling.render(&rows(&[]), false), "NAME   STATE\n");
        assert_eq!(rolling.render(&rows(&[]), false), "");
        assert_eq!(rolling.render(&rows(&[("database", "up")]), false), "database   up\n");
        assert_eq!(rolling.render(&rows(&[("a", "up"), ("b", "")]), false), "a          up\nb\n");
        assert_eq!(rolling.render(&rows(&[("a", "up")]), true), "a          \u{1b}[32mup\u{1b}[0m\n");
    }
}
