use super::format::Image;
use crate::error::Result;

/// At 0x40, after a line of text that differs.
pub(super) const MAGIC: [u8; 4] = [0x7f, 0x10, 0xda, 0xbe];

const DYNAMIC: u32 = 1;
const FIXED: u32 = 2;

/// The disk's size.
pub(super) fn size(image: &Image<'_>) -> Result<u64> {
    let header = image.bytes(0, 0x200)?;
    let kind = header.le32(0x4c);
    if !matches!(kind, DYNAMIC | FIXED) {
        let hint = "make one file of it: `VBoxManage clonemedium disk FILE whole.vdi`";
        return Err(image.unsupported("is a vdi that builds upon another file", hint));
    }
    let size = image.sane_size(header.le64(0x170))?;
    let (block, blocks) = (u64::from(header.le32(0x178)), u64::from(header.le32(0x180)));
    if block == 0 || blocks.saturating_mul(block) < size {
        return Err(image.damaged("its blocks are fewer than its size needs"));
    }
    if !image.holds(u64::from(header.le32(0x154)), blocks * 4) || !image.holds(u64::from(header.le32(0x158)), 0) {
        return Err(image.damaged("its map of blocks lies outside the file"));
    }
    Ok(size)
}
