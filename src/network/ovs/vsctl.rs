//! One call of `ovs-vsctl`: its argv, what may stand in it, and the ways it can fail.

use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::host::{Cancel, Output, Program, ProgramError};

/// How long `ovs-vsctl` itself waits for the database and for `ovs-vswitchd` to act.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// A bit above, for an `ovs-vsctl` that hangs.
const DEADLINE: Duration = Duration::from_secs(7);
const SIGALRM: &str = "signal 14";

#[derive(Debug)]
pub(super) enum Failure {
    /// A change is in the database (or not even that), and nobody acted on it in time.
    Timeout,
    Unreachable {
        db: String,
        reason: String,
    },
    Program(ProgramError),
}

pub(super) fn run(db: Option<&str>, cancel: &Cancel, args: &[&str]) -> Result<Output, Failure> {
    let program = Program::new("ovs-vsctl")
        .args(db.map(|db| format!("--db={db}")))
        .arg(format!("--timeout={}", TIMEOUT.as_secs()))
        .arg("--format=json")
        .args(args)
        .deadline(DEADLINE)
        .cancel(cancel);
    if cancel.is_set() {
        return Err(Failure::Program(ProgramError::Interrupted { program: "ovs-vsctl".to_owned() }));
    }
    tracing::debug!(?args, "ovs-vsctl");
    program.run().map_err(|error| classify(db, error))
}

fn classify(db: Option<&str>, error: ProgramError) -> Failure {
    match error {
        ProgramError::Deadline { .. } => Failure::Timeout,
        ProgramError::Failed { code: None, status, .. } if status == SIGALRM => Failure::Timeout,
        ProgramError::Failed { ref stderr, .. } => match parse_unreachable(stderr) {
            Some((place, reason)) => {
                Failure::Unreachable { db: db.unwrap_or(place).to_owned(), reason: reason.to_owned() }
            }
            None => Failure::Program(error),
        },
        error => Failure::Program(error),
    }
}

/// `ovs-vsctl: unix:/run/openvswitch/db.sock: database connection failed (Connection refused)`
fn parse_unreachable(stderr: &str) -> Option<(&str, &str)> {
    stderr.lines().find_map(|line| {
        let (place, reason) = line.split_once(": database connection failed (")?;
        Some((place.strip_prefix("ovs-vsctl: ").unwrap_or(place), reason.trim_end().trim_end_matches(')')))
    })
}

impl Failure {
    /// As seen by a caller that only read.
    pub(super) fn into_error(self, db: Option<&str>) -> Error {
        match self {
            Failure::Timeout => Error::failed(format!("the Open vSwitch database{} does not answer", at(db)))
                .hint("see what is wrong with it: `systemctl status openvswitch-switch` (on NixOS `ovsdb`)"),
            Failure::Unreachable { db, reason } => {
                let hint = if reason.contains("Permission denied") {
                    "run as a user who may open it (root), or use a network of type `user`"
                } else {
                    "start it: `systemctl start openvswitch-switch` (on NixOS `ovsdb` and `ovs-vswitchd`); \
                     if its socket lies elsewhere, set `ovs-db` under `[node]`"
                };
                Error::failed(format!("cannot reach the Open vSwitch database at `{db}`")).source(reason).hint(hint)
            }
            Failure::Program(error @ ProgramError::Missing { .. }) => Error::failed(error.to_string()).hint(
                "install Open vSwitch (package `openvswitch-switch`, on NixOS `virtualisation.vswitch.enable = true`), \
                 or use a network of type `user`",
            ),
            Failure::Program(error) => {
                Error::failed(format!("the Open vSwitch database{} refused", at(db))).source(error)
            }
        }
    }
}

fn at(db: Option<&str>) -> String {
    db.map(|db| format!(" at `{db}`")).unwrap_or_default()
}

/// The name of a bridge or port: what a network device can be called, minus everything that
/// `ovs-vsctl` could read as an option, another command or a record's uuid.
pub(super) fn checked<'a>(what: &str, name: &'a str) -> Result<&'a str> {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let inner = |c: char| first(c) || c == '-' || c == '.';
    if (1..=15).contains(&name.len()) && name.starts_with(first) && name.chars().all(inner) {
        return Ok(name);
    }
    Err(Error::usage(format!("{name:?} cannot name a {what}"))
        .hint("1 to 15 letters, digits, `-`, `_` or `.`, beginning with a letter or digit"))
}

/// The socket's path as an OVSDB string. A Unix socket's path has at most 107 bytes, and Open
/// vSwitch takes a longer one without a word.
pub(super) fn checked_socket(path: &Path) -> Result<&str> {
    let text = path.to_str().filter(|text| path.is_absolute() && text.len() <= 107);
    text.ok_or_else(|| {
        Error::usage(format!("the socket `{}` cannot be handed to Open vSwitch", path.display()))
            .hint("its path must be absolute, UTF-8 and at most 107 bytes; choose a shorter `--root`")
    })
}

/// `column="value"`, or `column:key="value"`. A quoted OVSDB string has JSON's form, so nothing
/// in the value is syntax: not `,`, `=`, `"`, a space or a new line.
pub(super) fn equals(column: &str, value: &str) -> String {
    format!("{column}={}", serde_json::Value::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        let rows = [
            ("plain", r#"name="plain""#),
            ("a b,c=d", r#"name="a b,c=d""#),
            (r#"say "hi" \ -- del-br"#, r#"name="say \"hi\" \\ -- del-br""#),
            ("two\nlines", r#"name="two\nlines""#),
            ("{}[]:@é", r#"name="{}[]:@é""#),
        ];
        for (value, expected) in rows {
            assert_eq!(equals("name", value), expected, "{value:?}");
        }
    }

    #[test]
    fn names_that_could_be_something_else_are_refused() {
        for good in ["vsbr0", "br-int", "v4294967n255", "_x", "a.b", "0a"] {
            assert!(checked("bridge", good).is_ok(), "{good}");
        }
        let bad = [
            "",
            "--",
            "-x",
            "--db=x",
            ".",
            "..",
            "a b",
            "a/b",
            "a,b",
            "a=b",
            "@x",
            "a\"b",
            "a\nb",
            "é",
            "sixteen-bytes-xx",
        ];
        for name in bad {
            let error = checked("bridge", name).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Usage, "{name:?}");
        }
    }

    #[test]
    fn socket_paths() {
        let long = format!("/{}", "x".repeat(107));
        for (path, good) in [("/run/a b,\"=.sock", true), ("n0.sock", false), (&long[..107], true), (&long, false)] {
            assert_eq!(checked_socket(Path::new(path)).is_ok(), good, "{path}");
        }
    }

    #[test]
    fn failures_are_told_apart() {
        let failed = |code, status: &str, stderr: &str| ProgramError::Failed {
            program: "ovs-vsctl".into(),
            status: status.into(),
            code,
            stderr: stderr.into(),
        };
        let refused = "ovs-vsctl: unix:/x/db.sock: database connection failed (Connection refused)\n";
        let Failure::Unreachable { db, reason } = classify(None, failed(Some(1), "exit code 1", refused)) else {
            panic!("{refused}");
        };
        assert_eq!((db.as_str(), reason.as_str()), ("unix:/x/db.sock", "Connection refused"));
        let alarm = failed(None, "signal 14", "fatal_signal|WARN|terminating with signal 14 (Alarm clock)\n");
        assert!(matches!(classify(None, alarm), Failure::Timeout));
        let other = failed(Some(1), "exit code 1", "ovs-vsctl: no bridge named nosuch\n");
        assert!(matches!(classify(None, other), Failure::Program(_)));
        let hint = |reason: &str| {
            let failure = Failure::Unreachable { db: "unix:/x".into(), reason: reason.into() };
            failure.into_error(None).hint_text().unwrap_or_default().to_owned()
        };
        assert!(hint("Permission denied").contains("root"));
        assert!(hint("No such file or directory").contains("start it"));
    }
}
