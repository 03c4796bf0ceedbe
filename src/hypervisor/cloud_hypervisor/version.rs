use std::fmt;
use std::path::Path;

use crate::error::{Error, OrFailed, Result};
use crate::host::Program;

/// A version of cloud-hypervisor. Two releases of one major speak the same API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    /// 52 closes a use-after-free that a guest's disk requests could reach (CVE-2026-45782).
    pub const MINIMUM: Version = Version { major: 52, minor: 0, patch: 0 };
    /// The one whose words a script shows when no process was asked for its version.
    pub(super) const CURRENT: Version = Version { major: 53, minor: 0, patch: 0 };

    /// From `53.0.0`, `v53.0`, `v53.0-12-gabcdef-dirty`.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.trim().trim_start_matches('v');
        let end = numbers.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(numbers.len());
        let mut parts = numbers[..end].split('.');
        let major = parts.next()?.parse().ok()?;
        let mut next = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        Some(Self { major, minor: next(), patch: next() })
    }

    /// Refuses what is older than [`Version::MINIMUM`].
    pub fn check(self) -> Result<()> {
        if self >= Self::MINIMUM {
            return Ok(());
        }
        let minimum = Self::MINIMUM.major;
        Err(Error::failed(format!("cloud-hypervisor {self} is too old"))
            .hint(format!("install version {minimum} or later: it closes CVE-2026-45782, which a guest could use")))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The version a program says it has, without starting a VM.
pub fn version(program: &Path) -> Result<Version> {
    let name = program.display();
    let output = Program::new(program)
        .arg("--version")
        .run()
        .or_failed(|| format!("cannot ask `{name}` for its version"))?
        .text();
    of_output(&output).ok_or_else(|| {
        Error::failed(format!("`{name} --version` names no version: {:?}", output.lines().next().unwrap_or("")))
    })
}

/// From the first line: `cloud-hypervisor v53.0.0`.
fn of_output(output: &str) -> Option<Version> {
    output.lines().next()?.strip_prefix("cloud-hypervisor ").and_then(Version::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let rows = [
            ("53.0.0", Some((53, 0, 0))),
            ("v53.0", Some((53, 0, 0))),
            ("v52.1-12-gabc-dirty", Some((52, 1, 0))),
            ("51.1.2", Some((51, 1, 2))),
            ("v54", Some((54, 0, 0))),
            ("", None),
            ("unknown", None),
        ];
        for (text, expected) in rows {
            let expected = expected.map(|(major, minor, patch)| Version { major, minor, patch });
            assert_eq!(Version::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn output_of_the_program() {
        let captured = "cloud-hypervisor v53.0.0\nMigration Protocol Versions: 0\n";
        assert_eq!(of_output(captured), Some(Version { major: 53, minor: 0, patch: 0 }));
        for other in ["", "QEMU emulator version 7.2.0", "cloud-hypervisor\n53.0.0"] {
            assert_eq!(of_output(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_floor() {
        for (text, accepted) in [("53.0.0", true), ("52.0.0", true), ("51.1.0", false), ("46.0", false)] {
            assert_eq!(Version::parse(text).unwrap().check().is_ok(), accepted, "{text}");
        }
        let error = Version { major: 51, minor: 1, patch: 0 }.check().unwrap_err();
        assert_eq!(error.message(), "cloud-hypervisor 51.1.0 is too old");
        assert!(error.hint_text().unwrap().contains("52"));
    }
}
