//! Paths as a file writes them: `~` is HOME, and a relative one starts at the file's own folder.

use std::path::{Path, PathBuf};

/// This caller's home folder.
pub(crate) fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute())
}

/// The absolute form of `path`, or what is wrong with it as the end of the sentence "`key` …".
pub(crate) fn resolve(path: &Path, folder: &Path, home: Option<&Path>) -> Result<PathBuf, String> {
    let Some(text) = path.to_str() else { return Err("must be UTF-8".to_owned()) };
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.contains('\0') {
        return Err("holds a NUL character, which no path can".to_owned());
    }
    let Some(below) = text.strip_prefix('~') else { return Ok(folder.join(path)) };
    if !below.is_empty() && !below.starts_with('/') {
        return Err(format!("begins with `{}`; only `~/` is read, write another user's folder in full", first(text)));
    }
    let Some(home) = home else {
        return Err("begins with `~`, and HOME is not set to a folder; write the path in full".to_owned());
    };
    Ok(home.join(below.trim_start_matches('/')))
}

fn first(text: &str) -> String {
    text.split('/').next().unwrap_or(text).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let rows: [(&str, Result<&str, &str>); 12] = [
            ("/srv/a.raw", Ok("/srv/a.raw")),
            ("a.raw", Ok("/etc/virshle/a.raw")),
            ("images/a.raw", Ok("/etc/virshle/images/a.raw")),
            ("../a.raw", Ok("/etc/virshle/../a.raw")),
            ("~/a.raw", Ok("/home/anon/a.raw")),
            ("~//etc/passwd", Ok("/home/anon/etc/passwd")),
            ("a~b", Ok("/etc/virshle/a~b")),
            ("with space, comma=\"quote\"", Ok("/etc/virshle/with space, comma=\"quote\"")),
            ("$HOME/a", Ok("/etc/virshle/$HOME/a")),
            ("~root/a.raw", Err("begins with `~root`")),
            ("", Err("empty")),
            ("a\0b", Err("NUL")),
        ];
        for (path, expected) in rows {
            let resolved = resolve(Path::new(path), Path::new("/etc/virshle"), Some(Path::new("/home/anon")));
            match expected {
                Ok(expected) => assert_eq!(resolved.as_deref(), Ok(Path::new(expected)), "{path:?}"),
                Err(part) => assert!(resolved.as_ref().is_err_and(|e| e.contains(part)), "{path:?}: {resolved:?}"),
            }
        }
        let homeless = resolve(Path::new("~/a"), Path::new("/etc"), None).unwrap_err();
        assert!(homeless.contains("HOME"), "{homeless}");
    }
}
