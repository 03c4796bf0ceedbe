//! What a VM's first boot is told, as one short text: two are the same only if every file is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::host;

/// As much as a first-boot volume takes.
const MOST: usize = 16 << 20;

/// Files as their digests; each is read once, however many VMs name it.
#[derive(Debug, Default)]
pub(super) struct Digests(HashMap<PathBuf, Result<String, String>>);

impl Digests {
    /// Of the user data that one VM names; `None`: it names none.
    pub(super) fn of(&mut self, files: &[PathBuf]) -> Result<Option<String>, String> {
        if files.is_empty() {
            return Ok(None);
        }
        let mut all = Sha256::new();
        for file in files {
            let one =
                self.0.entry(file.clone()).or_insert_with(|| of_file(file).map_err(|error| error.chain().join(": ")));
            all.update(one.as_ref().map_err(Clone::clone)?);
        }
        Ok(Some(hex(&all.finalize())))
    }
}

fn of_file(file: &Path) -> Result<String> {
    let bytes = host::read_small(file, MOST)
        .map_err(|error| Error::usage(format!("cannot read the user data `{}`", file.display())).source(error))?;
    Ok(hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
