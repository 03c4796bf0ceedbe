use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Padding, Style};

use super::colour::{Tone, paint};

/// Columns whose cells are numbers, and end at the right.
const NUMBERS: [&str; 3] = ["ID", "VCPU", "RAM"];

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
        table.with(Style::empty()).with(Padding::new(0, 3, 0, 0));
        for (index, _) in self.header.iter().enumerate().filter(|(_, name)| NUMBERS.contains(name)) {
            table.modify(Columns::one(index), Alignment::right());
        }
        let text = table.to_string();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
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
}
