//! What a guest is told at its first boot, read from the files of whoever asks.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::Part;
use crate::error::{Error, OrFailed, Result};
use crate::host;
use crate::template::UserData;

/// As much as a first-boot volume takes.
const MOST_USER_DATA: usize = 16 << 20;

/// What the files say, or, without any, the caller's own name and keys.
pub fn user_data(files: &[PathBuf]) -> Result<(UserData, Vec<Part>)> {
    let mut users = UserData::default();
    let mut parts = Vec::new();
    for file in files {
        let bytes = host::read_small(file, MOST_USER_DATA)
            .map_err(|error| Error::usage(format!("cannot read the user data `{}`", file.display())).source(error))?;
        if is_raw(&bytes) {
            parts.push(part(file, bytes));
            continue;
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| Error::usage(format!("`{}` is not UTF-8", file.display())).source(error))?;
        let parsed = UserData::parse(&text, file)?;
        for raw in &parsed.cloud_init {
            let bytes = host::read_small(raw, MOST_USER_DATA).map_err(|error| {
                Error::usage(format!("cannot read `{}`, which `{}` names", raw.display(), file.display())).source(error)
            })?;
            parts.push(part(raw, bytes));
        }
        users.users.extend(parsed.users);
    }
    let mut names = HashSet::new();
    if let Some(twice) = users.users.iter().find(|user| !names.insert(user.name.as_str())) {
        return Err(Error::usage(format!("two user data files have a user `{}`", twice.name)));
    }
    if files.is_empty() {
        users = caller()?;
    }
    Ok((users, parts))
}

/// cloud-init knows its kinds of user-data by their first characters; TOML begins like none of them.
fn is_raw(bytes: &[u8]) -> bool {
    const FIRST: [&[u8]; 8] = [
        b"#cloud-config",
        b"#!",
        b"#include",
        b"#cloud-boothook",
        b"#cloud-config-archive",
        b"#part-handler",
        b"## template: jinja",
        b"Content-Type:",
    ];
    FIRST.iter().any(|first| bytes.starts_with(first))
}

fn part(path: &Path, content: Vec<u8>) -> Part {
    let name = path.file_name().map_or_else(|| "user-data".to_owned(), |name| name.to_string_lossy().into_owned());
    Part { name, content }
}

/// Whoever sits there: behind `sudo` that is the one who called it, by name and by home.
fn caller() -> Result<UserData> {
    let named = |variable| std::env::var(variable).ok().filter(|value: &String| !value.is_empty());
    let sudo = named("SUDO_USER").and_then(|user| host::User::by_name(&user).map(|found| (user, Some(found.home))));
    let (user, home) = sudo.unwrap_or_else(|| {
        let user = named("USER").or_else(|| named("LOGNAME")).unwrap_or_else(|| "root".to_owned());
        (user, named("HOME").map(PathBuf::from))
    });
    let mut keys = Vec::new();
    if let Some(folder) = home.map(|home| home.join(".ssh"))
        && let Ok(entries) = fs::read_dir(&folder)
    {
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "pub"))
            .collect();
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).or_failed(|| format!("cannot read `{}`", file.display()))?;
            keys.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        }
    }
    Ok(UserData::of_caller(&user, keys))
}
