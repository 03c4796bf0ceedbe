use super::format::{Format, Image, ImageInfo};
use crate::error::Result;

// Bits of "incompatible features": who does not know one must not read the image.
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
/// Dirty refcounts, corrupt, data file, compression type, extended L2 entries.
const KNOWN: u64 = 0b1_1111;
const EXTENDED_L2: u64 = 1 << 4;

/// The header, held against the file. The clusters themselves are looked at when it is converted.
pub(super) fn read(image: &Image<'_>) -> Result<ImageInfo> {
    let header = image.bytes(0, 72)?;
    let version = header.be32(4);
    if !matches!(version, 2 | 3) {
        let what = format!("is a qcow of version {version}; only 2 and 3 can be read");
        return Err(image.unsupported(&what, "convert it first: `qemu-img convert -f qcow -O raw FILE image.raw`"));
    }
    let cluster_bits = header.be32(20);
    if !(9..=21).contains(&cluster_bits) {
        return Err(image.damaged(&format!("it says that its clusters have 2^{cluster_bits} bytes")));
    }
    let cluster = 1_u64 << cluster_bits;
    let virtual_size = image.sane_size(header.be64(24))?;
    if header.be32(32) != 0 {
        let hint = "decrypt it first: `qemu-img convert` with `--image-opts` and a secret";
        return Err(image.unsupported("is encrypted", hint));
    }

    let mut entry_size = 8;
    if version == 3 {
        let extended = image.bytes(72, 32)?;
        let (features, length) = (extended.be64(0), u64::from(extended.be32(28)));
        if length < 104 || length > cluster || !image.holds(0, length) {
            return Err(image.damaged(&format!("it says that its header has {length} bytes")));
        }
        if features & CORRUPT != 0 {
            let hint = "fetch it again, or repair a copy: `qemu-img check -r all FILE`";
            return Err(image.unsupported("is marked as corrupt", hint));
        }
        if features & DATA_FILE != 0 {
            let hint = "make one file of it: `qemu-img convert -O qcow2 FILE whole.qcow2`";
            return Err(image.unsupported("keeps its data in another file", hint));
        }
        if features & !KNOWN != 0 {
            let what = format!("needs features that are not known (bits {:#x})", features & !KNOWN);
            return Err(image.unsupported(&what, "convert it with the program that made it"));
        }
        if features & EXTENDED_L2 != 0 {
            entry_size = 16;
        }
    }

    let (l1_entries, l1_offset) = (u64::from(header.be32(36)), header.be64(40));
    let l1_needed = virtual_size.div_ceil(cluster * (cluster / entry_size));
    if l1_entries < l1_needed {
        return Err(image.damaged("its first table is too small for its size"));
    }
    if l1_offset % cluster != 0 || l1_offset == 0 || !image.holds(l1_offset, l1_entries * 8) {
        return Err(image.damaged("its first table lies outside the file"));
    }
    let (refcount_offset, refcount_clusters) = (header.be64(48), u64::from(header.be32(56)));
    if refcount_offset % cluster != 0 || !image.holds(refcount_offset, refcount_clusters * cluster) {
        return Err(image.damaged("its table of reference counts lies outside the file"));
    }

    let backing = match (header.be64(8), header.be32(16)) {
        (0, _) => None,
        (_, length) if length > 1023 => return Err(image.damaged("the name of its backing file is too long")),
        (offset, length) => Some(String::from_utf8_lossy(&image.bytes(offset, length as usize)?.0).into_owned()),
    };
    Ok(ImageInfo { format: Format::Qcow2, virtual_size, backing })
}
