//! Lines of the history, as `v vm history` and `v events` show them.

use jiff::tz::TimeZone;

use super::colour::Tone;
use super::table::{Cell, Table};
use super::ui::{Ui, count};
use super::vm::tone;
use crate::error::{Error, Result};
use crate::host::Timestamp;
use crate::spec::{Actor, Entry, Happening};
use crate::store::{Remembered, Store};
use uuid::Uuid;

/// The lines of one VM, with how long ago each was; `now` is the clock as it stands.
pub(super) fn of_one(entries: &[Entry], now: Timestamp) -> Table {
    let mut table = Table::new(["TIME", "AGO", "WHO", "WHAT", "CAUSE"]);
    for entry in entries {
        let ago = Cell::toned(ago(&entry.time, now), Tone::Dim);
        table.row(vec![local_second(&entry.time).into(), ago, who(entry), what(entry), cause(entry)]);
    }
    table
}

/// The lines of several.
pub(super) fn of_all(entries: &[Entry]) -> Table {
    let mut table = Table::new(["TIME", "VM", "WHO", "WHAT", "CAUSE"]);
    for entry in entries {
        let cells = vec![local_second(&entry.time).into(), one_line(&entry.name).into(), who(entry)];
        table.row(cells.into_iter().chain([what(entry), cause(entry)]).collect());
    }
    table
}

fn who(entry: &Entry) -> Cell {
    match entry.actor {
        Actor::User { .. } => entry.actor.to_string().into(),
        Actor::Supervisor | Actor::Unknown => Cell::toned(entry.actor.to_string(), Tone::Dim),
    }
}

fn what(entry: &Entry) -> Cell {
    let tone = match &entry.happening {
        Happening::State { to, .. } => tone(*to),
        Happening::Deleted | Happening::Renamed { .. } | Happening::Adopted | Happening::HandedOver => Tone::Dim,
        Happening::PortRestored { .. } => Tone::Good,
        Happening::GaveUp { .. }
        | Happening::PortLost { .. }
        | Happening::PortDead { .. }
        | Happening::HelperEnded { .. }
        | Happening::Unreadable { .. } => Tone::Bad,
        Happening::Altered { .. } | Happening::Rebooted | Happening::WatchdogFired | Happening::Repaired { .. } => {
            Tone::Busy
        }
    };
    Cell::toned(entry.happening.words(), tone)
}

fn cause(entry: &Entry) -> Cell {
    one_line(&entry.happening.cause().unwrap_or_default()).into()
}

/// What a guest, a hypervisor or a damaged row has written, as one harmless line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The local time, to the second.
fn local_second(timestamp: &str) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(at) => at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => one_line(timestamp),
    }
}

/// Roughly. A clock that was set back makes the past the future; that is said as it is.
fn ago(timestamp: &str, now: Timestamp) -> String {
    let Ok(at) = timestamp.parse::<Timestamp>() else { return "-".to_owned() };
    match now.as_second() - at.as_second() {
        ..0 => "ahead".to_owned(),
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..86_400 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// The VM that a word means, or meant: one that is there, else the one that had the name last.
pub(super) fn find(store: &Store, text: &str, ui: &Ui) -> Result<Uuid> {
    let missing = match store.find(text) {
        Ok(record) => return Ok(record.spec.uuid),
        Err(error) if error.kind() == crate::error::Kind::NotFound => error,
        Err(error) => return Err(error),
    };
    let remembered = store.remembered(text)?;
    let Some((last, others)) = remembered.split_first() else { return Err(missing) };
    let is_name = text.parse::<crate::spec::Name>().is_ok() && !last.vm.to_string().starts_with(text);
    if !is_name && !others.is_empty() {
        return Err(Error::usage(format!(
            "`{text}` may mean {} VMs that were: {}",
            remembered.len(),
            list(&remembered)
        ))
        .hint("type more of the uuid"));
    }
    if is_name {
        ui.say(match last.exists {
            true => format!("no VM is named `{text}` now; this is `{}`, which had that name", last.name),
            false => format!("`{text}` is no more; this is VM `{}`", last.vm),
        });
    }
    if !others.is_empty() {
        let noun = count(others.len(), "other VM");
        ui.say(format!("{noun} had that name before: {}", list(others)));
    }
    Ok(last.vm)
}

fn list(vms: &[Remembered]) -> String {
    const SHOWN: usize = 5;
    let one = |vm: &Remembered| format!("`{}` (until {})", vm.vm, local_second(&vm.last));
    let mut list: Vec<String> = vms.iter().take(SHOWN).map(one).collect();
    if vms.len() > SHOWN {
        list.push(format!("and {} more", vms.len() - SHOWN));
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_ago() {
        let now: Timestamp = "2025-06-01T12:00:00Z".parse().unwrap();
        let rows = [
            ("2025-06-01T12:00:00Z", "0 s"),
            ("2025-06-01T11:59:01Z", "59 s"),
            ("2025-06-01T11:59:00Z", "1 min"),
            ("2025-06-01T11:00:01Z", "59 min"),
            ("2025-05-31T12:00:01Z", "23 h"),
            ("2024-06-01T12:00:00Z", "365 d"),
            ("2025-06-01T12:00:01Z", "ahead"),
            ("2199-01-01T00:00:00Z", "ahead"),
            ("yesterday", "-"),
        ];
        for (time, expected) in rows {
            assert_eq!(ago(time, now), expected, "{time}");
        }
    }

    #[test]
    fn what_a_guest_wrote_cannot_command_the_terminal() {
        let detail = "boot\nfailed \u{1b}[2J\u{7}".to_owned();
        let entry = Entry {
            id: 1,
            time: "\u{1b}c".to_owned(),
            vm: "u".to_owned(),
            name: "web".to_owned(),
            actor: Actor::Supervisor,
            happening: Happening::Repaired { detail },
        };
        let shown = of_all(std::slice::from_ref(&entry)).render(false);
        assert!(!shown.contains(['\u{1b}', '\u{7}']) && shown.lines().count() == 2, "{shown:?}");
    }
}
