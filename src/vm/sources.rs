//! What the disks of new VMs are made from, looked at before anything is made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Site;
use crate::disk::{self, Progress};
use crate::error::{Error, OrFailed, Result};
use crate::host::Cancel;
use crate::image;
use crate::spec::{Disk, Name, Size};

/// A disk's source, ready to be cloned: raw, and large enough to be measured.
#[derive(Debug)]
pub(super) struct Source {
    name: Name,
    raw: Option<PathBuf>,
    size: Option<Size>,
}

/// `template`: whose disks they are.
pub(super) fn sources(
    site: &Site,
    template: &Name,
    disks: Vec<Disk>,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Vec<Source>> {
    disks
        .into_iter()
        .map(|disk: Disk| {
            let Some(path) = &disk.source else {
                return Ok(Source { name: disk.name, raw: None, size: disk.size });
            };
            let context =
                |error: Error| error.context(format!("cannot make disk `{}` of template `{}`", disk.name, template));
            let image = image::raw_image(path, &site.dirs.cache(), cancel, progress).map_err(context)?;
            match disk.size {
                Some(size) if size.bytes() < image.virtual_size => Err(context(
                    Error::usage(format!(
                        "its size {size} is below the {} of its image `{}`",
                        Size::from_bytes(image.virtual_size),
                        path.display()
                    ))
                    .hint("a disk can grow, never shrink: raise `size` or leave it out"),
                )),
                size => Ok(Source { name: disk.name, raw: Some(image.path), size }),
            }
        })
        .collect()
}

/// Refuses before anything is made what would run out of space half way.
pub(super) fn check_space(site: &Site, sources: &[Source], count: u32) -> Result<()> {
    let vms = site.dirs.vms();
    let mut each = 0;
    for source in sources {
        if let Some(raw) = &source.raw {
            each += disk::bytes_needed(raw, &vms)?;
        }
    }
    let needed = each.saturating_mul(count.into());
    let free = disk::free_space(&vms)?;
    if needed > free {
        return Err(Error::failed(format!(
            "no space for {count} VM(s): {} are needed in `{}` and {} are free",
            human(needed),
            vms.display(),
            human(free)
        ))
        .hint("delete VMs that are not needed, or put the state on a file system with reflink (xfs, btrfs)"));
    }
    Ok(())
}

fn human(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / Size::MIB as f64)
}

pub(super) fn make_disk(
    disk: &Disk,
    source: &Source,
    target: &Path,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<()> {
    debug_assert_eq!(disk.name, source.name);
    match (&source.raw, source.size) {
        (Some(raw), size) => {
            let cloned = disk::clone(raw, target, size, cancel, progress)?;
            tracing::info!(disk = %disk.name, method = ?cloned.method, bytes = cloned.bytes, "cloned");
            Ok(())
        }
        (None, Some(size)) => disk::blank(target, size),
        (None, None) => Err(Error::usage(format!("the blank disk `{}` has no size", disk.name))),
    }
}

pub(super) fn copy_small(source: &Path, target: &Path) -> Result<()> {
    let copy = || -> io::Result<()> {
        let bytes = fs::read(source)?;
        fs::write(target, bytes)?;
        fs::File::open(target)?.sync_all()
    };
    copy().or_failed(|| format!("cannot copy `{}` to `{}`", source.display(), target.display()))
}
