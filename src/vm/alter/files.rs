//! The files of a VM that becomes another. A new one is made beside its place, with an ending of its
//! own, and comes into it when the record has it: until then it is nobody's, and may go.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::error::{OrFailed, Result};
use crate::spec::VmSpec;
use crate::vm::Site;
use crate::vm::runner::files;

const NEW: &str = ".new";
const OLD: &str = ".old";

/// Where a file is made that is to be `name` in the VM's folder.
pub(super) fn new(site: &Site, spec: &VmSpec, name: &str) -> PathBuf {
    site.dirs.vm(spec.uuid).join(format!("{name}{NEW}"))
}

/// Puts what was made into its place.
pub(super) fn place(site: &Site, spec: &VmSpec) -> Result<()> {
    let dir = site.dirs.vm(spec.uuid);
    let failed = || format!("cannot put new files in their place in `{}`", dir.display());
    for name in files(spec) {
        let made = new(site, spec, &name);
        // Boot entries and enrolled keys are the guest's, and nowhere else.
        if name == VmSpec::EFI_VARS && made.exists() {
            move_if_there(&dir.join(&name), &dir.join(format!("{name}{OLD}"))).or_failed(failed)?;
        }
        move_if_there(&made, &dir.join(&name)).or_failed(failed)?;
    }
    File::open(&dir).and_then(|dir| dir.sync_all()).or_failed(failed)
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

/// Removes what was made and has no place.
pub(super) fn discard(site: &Site, spec: &VmSpec) -> Result<()> {
    let dir = site.dirs.vm(spec.uuid);
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let made = name.strip_suffix(".partial").unwrap_or(&name);
            if made.ends_with(NEW) && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    remove().or_failed(|| format!("cannot remove half-made files from `{}`", dir.display()))
}

/// Makes every disk as large as it should be; none becomes smaller.
pub(super) fn grow(site: &Site, spec: &VmSpec) -> Result<()> {
    let dir = site.dirs.vm(spec.uuid);
    let mut sized = spec.disks.iter().filter_map(|disk| Some((disk, disk.size?)));
    sized.try_for_each(|(disk, size)| disk::grow(&dir.join(disk.file()), size))
}

/// What the guest is told of its NICs at its next boot.
pub(super) fn write_network(site: &Site, spec: &VmSpec) -> Result<()> {
    if !spec.seed {
        return Ok(());
    }
    disk::write_network(&site.dirs.vm(spec.uuid).join(VmSpec::SEED), &spec.nics)
}
