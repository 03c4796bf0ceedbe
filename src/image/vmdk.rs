use super::format::Image;
use crate::error::Result;

const SECTOR: u64 = 512;
/// The longest descriptor that qemu-img makes is about 1 KiB; the format reserves 10.
const LONGEST_DESCRIPTOR: u64 = 1 << 20;

/// The disk's size of a vmdk that is one file, sparse or stream-optimised.
pub(super) fn size(image: &Image<'_>) -> Result<u64> {
    const FLATTEN: &str = "make one file of it: `qemu-img convert -f vmdk -O raw FILE image.raw`";
    let header = image.bytes(0, 79)?;
    let version = header.le32(4);
    if !(1..=3).contains(&version) {
        return Err(image.unsupported(&format!("is a vmdk of version {version}"), FLATTEN));
    }
    // qemu-img takes one without sectors for a descriptor, and opens the files that it names.
    let sectors = header.le64(12);
    let size = image.sane_size(sectors.saturating_mul(SECTOR))?;

    let (offset, length) = (header.le64(28).saturating_mul(SECTOR), header.le64(36).saturating_mul(SECTOR));
    if offset != 0 {
        if length > LONGEST_DESCRIPTOR || !image.holds(offset, length) {
            return Err(image.damaged("its descriptor lies outside the file"));
        }
        let descriptor = image.bytes(offset, length as usize)?.0;
        let text = String::from_utf8_lossy(&descriptor);
        let value = |wanted: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                key.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"').to_owned())
            })
        };
        if text.to_ascii_lowercase().contains("parentfilenamehint") {
            return Err(image.unsupported("builds upon another file", FLATTEN));
        }
        if let Some(kind) = value("createType")
            && !matches!(kind.as_str(), "monolithicSparse" | "streamOptimized")
        {
            return Err(image.unsupported(&format!("is a vmdk of the type `{kind}`, of several files"), FLATTEN));
        }
    }
    let grain = header.le64(20);
    if !grain.is_power_of_two() || !(8..=128 << 10).contains(&grain) {
        return Err(image.damaged(&format!("it says that its grains have {grain} sectors")));
    }
    Ok(size)
}
