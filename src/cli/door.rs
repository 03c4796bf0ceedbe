//! How ssh calls this program, to be led to a guest.

use std::path::{Path, PathBuf};

use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Dirs, Mode};

/// This program, and the options that lead it to the same VMs again.
#[derive(Debug)]
pub(super) struct Door {
    program: PathBuf,
    options: Vec<String>,
}

impl Door {
    /// For one whose VMs are in these folders.
    pub(super) fn of(dirs: &Dirs) -> Result<Self> {
        match dirs.mode {
            Mode::System => Self::with(Vec::new()),
            Mode::Session => Self::with(vec!["--session".to_owned()]),
            Mode::Rooted => Self::by_root(dirs.root()),
        }
    }

    /// For a member of the group, whom root's helper lets in.
    pub(super) fn by_root(root: Option<&Path>) -> Result<Self> {
        let Some(root) = root else { return Self::with(Vec::new()) };
        let root = std::path::absolute(root).or_failed(|| format!("cannot use `{}` as root", root.display()))?;
        let root = root.to_str().ok_or_else(|| Error::failed(format!("`{}` is not UTF-8", root.display())))?;
        Self::with(vec!["--root".to_owned(), root.to_owned()])
    }

    fn with(options: Vec<String>) -> Result<Self> {
        let program = host::own_program().or_failed(|| "cannot find this program's own path".to_owned())?;
        Ok(Self { program, options })
    }

    /// The value of ssh's `ProxyCommand`. `vm` is a name that a shell takes as it is, or a token of
    /// ssh's, whose value is quoted.
    pub(super) fn proxy_command(&self, vm: &str) -> Result<String> {
        let program = self.program.to_str().ok_or_else(|| {
            Error::failed(format!("ssh cannot be told of `{}`, which is not UTF-8", self.program.display()))
        })?;
        let words = std::iter::once(program).chain(self.options.iter().map(String::as_str));
        let words = words.map(word).collect::<Result<Vec<_>>>()?;
        Ok(format!("{} vm ssh-proxy -- '{vm}'", words.join(" ")))
    }
}

/// For the shell that ssh has run it, with ssh's own `%` written as it wants it.
fn word(text: &str) -> Result<String> {
    if text.chars().any(char::is_control) {
        return Err(Error::failed(format!("ssh cannot be told of `{}`", text.escape_debug()))
            .hint("put it where its path has no control characters"));
    }
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._+-".contains(c));
    Ok(match plain {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''").replace('%', "%%")),
    })
}

/// The value of one of ssh's options that is a path or a word: ssh splits it at spaces unless it is
/// quoted, and expands `%`.
pub(super) fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_and_ssh_make_of_it_is_what_it_was() {
        let door = |program: &str, options: &[&str]| Door {
            program: program.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        let rows = [
            (door("/usr/bin/v", &[]), "/usr/bin/v vm ssh-proxy -- '%n'"),
            (door("/usr/bin/v", &["--session"]), "/usr/bin/v --session vm ssh-proxy -- '%n'"),
            (
                door("/opt/my v", &["--root", "/tmp/it's 5%;$(x)"]),
                "'/opt/my v' --root '/tmp/it'\\''s 5%%;$(x)' vm ssh-proxy -- '%n'",
            ),
        ];
        for (door, command) in rows {
            assert_eq!(door.proxy_command("%n").unwrap(), command);
        }
        assert!(door("/opt/a\nb", &[]).proxy_command("%n").is_err());
        assert_eq!(quoted("/a b/5%\"\\"), "\"/a b/5%%\\\"\\\\\"");
    }
}
