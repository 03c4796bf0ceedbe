//! Which QEMU a program is.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, OrFailed, Result};
use crate::host::Program;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub micro: u32,
}

impl Version {
    /// The first with devices given as JSON; the oldest that is tried is 7.2.
    pub const MINIMUM: Version = Version { major: 6, minor: 2, micro: 0 };

    /// An error that says what to do, when it is older than [`Version::MINIMUM`].
    pub fn check(self) -> Result<()> {
        if self >= Self::MINIMUM {
            return Ok(());
        }
        let Version { major, minor, .. } = Self::MINIMUM;
        Err(Error::failed(format!("QEMU {self} is too old")).hint(format!("install QEMU {major}.{minor} or later")))
    }

    /// From the first line of `--version`: `QEMU emulator version 7.2.22 (Debian …)`.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.lines().next()?.split_once("QEMU emulator version ")?;
        let numbers = rest.split(|c: char| !(c.is_ascii_digit() || c == '.')).next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { major: next()?, minor: next()?, micro: next().unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { major, minor, micro } = self;
        f.pad(&format!("{major}.{minor}.{micro}"))
    }
}

/// Asks the program itself.
pub fn version(program: &Path) -> Result<Version> {
    let output = Program::new(program)
        .arg("--version")
        .deadline(Duration::from_secs(5))
        .run()
        .or_failed(|| format!("cannot learn the version of `{}`", program.display()))?;
    let text = output.text();
    Version::parse(&text).ok_or_else(|| {
        let first = text.lines().next().unwrap_or_default();
        Error::failed(format!("`{}` does not say which QEMU it is, but {first:?}", program.display()))
            .hint("name a QEMU system emulator, e.g. `qemu-system-x86_64`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_distributions_print() {
        let rows = [
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c)", Some((7, 2, 22))),
            ("QEMU emulator version 10.1.0\n", Some((10, 1, 0))),
            ("QEMU emulator version 9.0.50 (v9.0.0-12-gabc)", Some((9, 0, 50))),
            ("QEMU emulator version 6.2", Some((6, 2, 0))),
            ("qemu-img version 7.2.22", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let expected = expected.map(|(major, minor, micro)| Version { major, minor, micro });
            assert_eq!(Version::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn too_old_is_said_with_the_remedy() {
        let old = Version { major: 6, minor: 1, micro: 9 }.check().unwrap_err();
        assert_eq!(old.message(), "QEMU 6.1.9 is too old");
        assert_eq!(old.hint_text(), Some("install QEMU 6.2 or later"));
        Version { major: 10, minor: 0, micro: 0 }.check().unwrap();
    }

    #[test]
    fn a_program_that_is_no_qemu() {
        let error = version(Path::new("/bin/echo")).unwrap_err();
        assert!(error.message().starts_with("`/bin/echo` does not say which QEMU it is"), "{error}");
        assert!(version(Path::new("/no/such/qemu")).is_err());
    }
}
