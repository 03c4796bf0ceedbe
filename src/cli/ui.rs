use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tracing::level_filters::LevelFilter;

use super::colour::{Tone, paint};
use super::table::{Rolling, Table};
use crate::error::{Error, OrFailed, Result};
use crate::host::Progress;

/// The form of data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    #[default]
    Table,
    Json,
    Yaml,
}

/// Where a command speaks to a person.
#[derive(Debug)]
pub(super) struct Ui {
    pub verbose: u8,
    colour_out: bool,
    colour_err: bool,
}

impl Ui {
    pub(super) fn new(verbose: u8) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let level = match verbose {
            0 => LevelFilter::WARN,
            1 => LevelFilter::INFO,
            _ => LevelFilter::DEBUG,
        };
        let colour_err = wanted && io::stderr().is_terminal();
        let log = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_writer(io::stderr);
        // A second set-up in one process is refused, and harmless.
        let _ = log.without_time().with_ansi(colour_err).log_internal_errors(false).try_init();
        Self { verbose, colour_out: wanted && io::stdout().is_terminal(), colour_err }
    }

    /// Where stderr is a log that is read later: with the time, and with what was done.
    pub(super) fn for_a_log() -> Self {
        let log = tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_target(false);
        // A log on a full disk must not end who writes it, as telling of the failure would.
        let _ = log.with_writer(io::stderr).with_ansi(false).log_internal_errors(false).try_init();
        Self { verbose: 0, colour_out: false, colour_err: false }
    }

    /// A line of talk.
    pub(super) fn say(&self, text: impl AsRef<str>) {
        talk(text.as_ref());
    }

    /// Whether somebody is there to be asked.
    pub(super) fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether the answer is yes; anything else is no, and so is the end of the input.
    pub(super) fn ask(&self, question: &str) -> Result<bool> {
        let _ = write!(io::stderr(), "{question} [y/N] ");
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).or_failed(|| "cannot read the answer".to_owned())?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    /// A table for a person, where stdout is for a script.
    pub(super) fn say_table(&self, table: &Table) {
        talk(&table.render(self.colour_err));
    }

    /// A line of data. A reader that went away ends the program quietly, as in any pipe.
    pub(super) fn data(&self, text: impl AsRef<str>) {
        let mut out = io::stdout().lock();
        let text = text.as_ref();
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        let written = write!(out, "{text}{newline}").and_then(|()| out.flush());
        self.end_if_unread(written);
    }

    /// Data for a script, which a person has just been told in words.
    pub(super) fn answer(&self, text: &str) {
        if !io::stdout().is_terminal() {
            self.data(text);
        }
    }

    /// Data as it is, without a line's end.
    pub(super) fn data_raw(&self, bytes: &[u8]) {
        let mut out = io::stdout().lock();
        let written = out.write_all(bytes).and_then(|()| out.flush());
        self.end_if_unread(written);
    }

    /// A reader that went away has what it wanted; a full disk has not.
    fn end_if_unread(&self, written: io::Result<()>) {
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => {
                self.error(&Error::failed("cannot write to standard output").source(error));
                std::process::exit(1);
            }
        }
    }

    pub(super) fn error(&self, error: &Error) {
        let chain = error.chain();
        let mark = self.paint_err(Tone::Bad, "error");
        talk(&format!("{mark}: {}", chain[0]));
        for cause in &chain[1..] {
            // An excerpt of a file is shown as it stands; its first line is the place, named above.
            match cause.strip_prefix("--> ").and_then(|excerpt| excerpt.split_once('\n')) {
                Some((_, excerpt)) => talk(excerpt),
                None => talk(&format!("  {} {cause}", self.paint_err(Tone::Dim, "because:"))),
            }
        }
        if let Some(hint) = error.hint_text() {
            talk(&format!("{}: {hint}", self.paint_err(Tone::Strong, "hint")));
        }
    }

    /// Rows in the form that was asked for; JSON and YAML are the rows as they are.
    pub(super) fn rows<T: Serialize>(
        &self,
        format: Format,
        rows: &[T],
        table: impl FnOnce(&[T]) -> Table,
    ) -> Result<()> {
        self.data(rendered(format, rows, table, self.colour_out)?);
        Ok(())
    }

    /// Rows that come one after the other; as JSON an object per line, as YAML one growing list.
    pub(super) fn roll<T: Serialize>(
        &self,
        format: Format,
        rolling: &mut Rolling,
        rows: &[T],
        table: impl FnOnce(&[T]) -> Table,
    ) -> Result<()> {
        match format {
            Format::Table => self.data_raw(rolling.render(&table(rows), self.colour_out).as_bytes()),
            Format::Json => {
                for row in rows {
                    self.data(serde_json::to_string(row).or_failed(|| "cannot write JSON".into())?);
                }
            }
            Format::Yaml if rows.is_empty() => {}
            Format::Yaml => self.data(serde_yaml_ng::to_string(rows).or_failed(|| "cannot write YAML".into())?),
        }
        Ok(())
    }

    fn paint_err(&self, tone: Tone, text: &str) -> String {
        paint(self.colour_err, tone, text)
    }

    /// A progress bar that shows itself only when the work takes longer than half a second.
    pub(super) fn progress(&self) -> Bar {
        Bar { shown: io::stderr().is_terminal(), bar: Mutex::new(None) }
    }
}

/// Rows as they are printed.
pub(super) fn rendered<T: Serialize>(
    format: Format,
    rows: &[T],
    table: impl FnOnce(&[T]) -> Table,
    colour: bool,
) -> Result<String> {
    match format {
        Format::Table => Ok(table(rows).render(colour)),
        Format::Json => serde_json::to_string_pretty(rows).or_failed(|| "cannot write JSON".into()),
        Format::Yaml => serde_yaml_ng::to_string(rows).or_failed(|| "cannot write YAML".into()),
    }
}

/// A line on stderr. Where nobody can hear it, the work goes on: `eprintln!` would panic.
fn talk(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The columns of the terminal that stdout is, if it is one.
pub(super) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// `1 template`, `2 templates`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `1`, or `1, up to 4`: what it has, and what it can come to while it runs.
pub(super) fn up_to(now: impl fmt::Display, most: Option<impl fmt::Display>) -> String {
    match most {
        Some(most) => format!("{now}, up to {most}"),
        None => now.to_string(),
    }
}

/// The progress of copying.
#[derive(Debug)]
pub(super) struct Bar {
    shown: bool,
    bar: Mutex<Option<(ProgressBar, std::time::Instant)>>,
}

const QUIET: Duration = Duration::from_millis(500);

impl Progress for Bar {
    fn start(&self, bytes: u64) {
        let Ok(mut bar) = self.bar.lock() else { return };
        let new = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("copying {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        {
            new.set_style(style);
        }
        *bar = Some((new, std::time::Instant::now()));
    }

    fn advance(&self, bytes: u64) {
        let Ok(bar) = self.bar.lock() else { return };
        let Some((bar, since)) = bar.as_ref() else { return };
        bar.inc(bytes);
        if self.shown && bar.is_hidden() && since.elapsed() > QUIET {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if bar.position() >= bar.length().unwrap_or(u64::MAX) {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Ok(bar) = self.bar.get_mut()
            && let Some((bar, _)) = bar.take()
        {
            bar.finish_and_clear();
        }
    }
}
