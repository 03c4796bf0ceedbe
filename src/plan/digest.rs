//! What a VM's first boot is told, as one short text: two are the same only if all of it is.

use std::collections::HashMap;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::error::{OrFailed, Result};
use crate::template::UserData;
use crate::vm::{self, Part};

/// The digest of user data that was read.
pub fn digest(users: &UserData, parts: &[Part]) -> Result<String> {
    let users = serde_json::to_vec(users).or_failed(|| "cannot write the user data as JSON".to_owned())?;
    let mut all = Vec::new();
    let parts = parts.iter().map(|part| part.content.as_slice());
    for text in std::iter::once(users.as_slice()).chain(parts) {
        // With its length before it, no text can pass for two.
        all.extend((text.len() as u64).to_be_bytes());
        all.extend(text);
    }
    Ok(hex(&all))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Digests of files; each is read once, however many VMs name it.
#[derive(Debug, Default)]
pub(super) struct Digests(HashMap<Vec<PathBuf>, Result<String, String>>);

impl Digests {
    /// Of the files that one VM names, or why there is none; `None`: it names no file.
    pub(super) fn of(&mut self, files: &[PathBuf]) -> Result<Option<String>, String> {
        if files.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.0.get(files) {
            return known.clone().map(Some);
        }
        let read = vm::user_data(files).and_then(|(users, parts)| digest(&users, &parts));
        let read = read.map_err(|error| error.chain().join(": "));
        self.0.insert(files.to_vec(), read.clone());
        read.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_counts_and_not_how_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            vec![dir.path().join(name)]
        };
        let a = file("a.toml", "[[user]]\nname = 'anon'\n");
        let same = file("b.toml", "# a comment\n[[user]]\nname = \"anon\"\n");
        let other = file("c.toml", "[[user]]\nname = 'anon'\nsudo = false\n");
        let raw = file("d.yaml", "#cloud-config\n");
        let named = file("e.toml", "cloud-init = 'd.yaml'\n");
        let mut digests = Digests::default();
        let mut of = |files: &[PathBuf]| digests.of(files).unwrap().unwrap();
        assert_eq!(of(&a), of(&same));
        assert_ne!(of(&a), of(&other));
        assert_eq!(of(&raw), of(&named));
        let before = of(&named);
        file("d.yaml", "#cloud-config\nruncmd: []\n");
        assert_eq!(of(&named), before, "read once");
        assert_ne!(Digests::default().of(&named).unwrap(), Some(before), "what a file names is told too");
        let why = Digests::default().of(&[dir.path().join("none")]).unwrap_err();
        assert!(why.starts_with("cannot read the user data `") && why.contains("No such file"), "{why}");
        assert_eq!(Digests::default().of(&[]), Ok(None));
    }
}
