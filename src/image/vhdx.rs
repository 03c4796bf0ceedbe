use super::format::{Bytes, Image};
use crate::error::{Error, Result};

const REGION_TABLE: u64 = 192 << 10;
const TABLE_LENGTH: usize = 64 << 10;
/// GUIDs as they lie in the file: the first three groups with their bytes reversed.
const METADATA: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
const FILE_PARAMETERS: [u8; 16] = *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
const DISK_SIZE: [u8; 16] = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
const HAS_PARENT: u32 = 1 << 1;

/// The disk's size, which lies in an item of a table in a region that another table names.
pub(super) fn size(image: &Image<'_>) -> Result<u64> {
    let regions = image.bytes(REGION_TABLE, TABLE_LENGTH)?;
    if !regions.0.starts_with(b"regi") {
        return Err(image.damaged("it has no table of regions"));
    }
    let region = entry(&regions, 16, regions.le32(8), &METADATA).ok_or_else(|| image.damaged("it has no metadata"))?;
    let metadata = regions.le64(region + 16);
    let items = image.bytes(metadata, TABLE_LENGTH)?;
    if !items.0.starts_with(b"metadata") {
        return Err(image.damaged("its metadata is not where it says"));
    }
    let count = u32::from(items.le16(10));
    let item = |guid: &[u8; 16]| {
        let at = entry(&items, 32, count, guid).ok_or_else(|| image.damaged("its metadata lacks an item"))?;
        Ok::<_, Error>(metadata.saturating_add(items.le32(at + 16).into()))
    };
    if image.bytes(item(&FILE_PARAMETERS)?, 8)?.le32(4) & HAS_PARENT != 0 {
        let hint = "merge it with its parent first, with the program that made it";
        return Err(image.unsupported("is a vhdx that builds upon another file", hint));
    }
    image.sane_size(image.bytes(item(&DISK_SIZE)?, 8)?.le64(0))
}

/// Where in the table the entry of 32 bytes with this GUID begins.
fn entry(table: &Bytes, first: usize, count: u32, guid: &[u8; 16]) -> Option<usize> {
    // Both tables allow 2047 entries at the most.
    (0..count.min(2047) as usize).map(|index| first + 32 * index).find(|at| table.0.get(*at..at + 16) == Some(guid))
}
