use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::select::One;
use crate::cli::ui::Ui;
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Unit};
use crate::vm::{self, Site};

/// Print what the guest wrote to its console
#[derive(Debug, Args)]
pub(crate) struct Log {
    #[command(flatten)]
    vm: One,
    /// The hypervisor's log instead
    #[arg(long, conflicts_with = "supervisor")]
    hypervisor: bool,
    /// The supervisor's log instead
    #[arg(long)]
    supervisor: bool,
    /// Go on as more is written, until the VM ends or Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only the last LINES
    #[arg(short = 'n', long, value_name = "LINES")]
    lines: Option<usize>,
}

const POLL: Duration = Duration::from_millis(200);

impl Log {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let store = if self.follow { site.store()? } else { site.reader()? };
        let record = self.vm.find(&store)?;
        let vm = record.spec.uuid;
        let path = match (self.hypervisor, self.supervisor) {
            (true, _) => site.hypervisor_log(vm),
            (_, true) => site.supervisor_log(vm),
            _ => site.console_log(vm),
        };
        if self.supervisor && vm::runs_units(site) {
            return Err(self.journal(&Unit::of(vm)));
        }
        let failed = || format!("cannot read `{}`", path.display());
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::refused(format!("`{}` has no such log yet", record.spec.name))
                    .hint(format!("it is written once the VM runs: `v vm start {}`", record.spec.name)));
            }
            Err(error) => return Err(Error::failed(failed()).source(error)),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).or_failed(failed)?;
        let start = self.lines.map_or(0, |lines| last_lines(&bytes, lines));
        if bytes.len() > start {
            ui.data(String::from_utf8_lossy(&bytes[start..]));
        }
        if !self.follow {
            return Ok(());
        }
        loop {
            let live = store
                .get(vm)?
                .is_some_and(|record| vm::observe(site, record).is_ok_and(|observed| observed.state.is_live()));
            let more = read_more(&mut file, &path).or_failed(failed)?;
            if !more.is_empty() {
                ui.data_raw(&more);
            } else if !live {
                return Ok(());
            }
            host::pause(POLL);
        }
    }
}

impl Log {
    /// A unit writes to the journal. Returns only if that could not be shown.
    fn journal(&self, unit: &Unit) -> Error {
        let mut args: Vec<OsString> =
            ["--no-pager", "--quiet", "--output=cat", "--unit", unit.name()].map(Into::into).into();
        if self.follow {
            args.push("--follow".into());
        }
        match self.lines {
            Some(lines) => args.push(format!("--lines={lines}").into()),
            None => args.push("--lines=all".into()),
        }
        Error::failed("cannot run `journalctl`").source(host::exec("journalctl", &args))
    }
}

/// What was written since; from the beginning of a new file when the old one was rotated away.
fn read_more(file: &mut File, path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let (position, there) = (file.stream_position()?, std::fs::metadata(path).map_or(0, |file| file.len()));
    if bytes.is_empty() && there < position {
        *file = File::open(path)?;
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn last_lines(bytes: &[u8], lines: usize) -> usize {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if lines == 0 {
        return bytes.len();
    }
    body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').nth(lines - 1).map_or(0, |(index, _)| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines() {
        let rows: [(&str, usize, &str); 6] = [
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 1, "c"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
        ];
        for (text, lines, expected) in rows {
            assert_eq!(&text[last_lines(text.as_bytes(), lines)..], expected, "{text:?} {lines}");
        }
    }
}
