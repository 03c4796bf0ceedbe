use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{qcow2, vdi, vhdx, vmdk};
use crate::error::{Error, OrFailed, Result};
use crate::host::open_image;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    Raw,
    Qcow2,
    Vmdk,
    Vdi,
    Vhdx,
}

impl fmt::Display for Format {
    /// As `qemu-img -f` spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
            Format::Vdi => "vdi",
            Format::Vhdx => "vhdx",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    pub format: Format,
    /// The disk's size, as a guest sees it.
    pub virtual_size: u64,
    /// The file that a qcow2 builds upon. It is told here, and refused when the image is to be used.
    pub backing: Option<String>,
}

/// What an image says it is, read from its first bytes; the file's name counts for nothing. What
/// is recognised and cannot be used is an error that says what to do.
pub fn inspect(path: &Path) -> Result<ImageInfo> {
    let file = open_image(path)?;
    let len = file.metadata().or_failed(|| format!("cannot read `{}`", path.display()))?.len();
    let image = Image { path, file: &file, len };
    let start = image.up_to(0, 1024)?;
    let found = |format, virtual_size| Ok(ImageInfo { format, virtual_size, backing: None });
    match start.as_slice() {
        [b'Q', b'F', b'I', 0xfb, ..] => qcow2::read(&image),
        [b'K', b'D', b'M', b'V', ..] => found(Format::Vmdk, vmdk::size(&image)?),
        bytes if bytes.starts_with(b"vhdxfile") => found(Format::Vhdx, vhdx::size(&image)?),
        bytes if bytes.get(0x40..0x44) == Some(&vdi::MAGIC) => found(Format::Vdi, vdi::size(&image)?),
        bytes => match unusable(bytes) {
            Some((what, hint)) => Err(Error::failed(format!("the image `{}` is {what}", path.display())).hint(hint)),
            None => found(Format::Raw, len),
        },
    }
}

/// Files that are no raw disks, and what to do with them.
fn unusable(start: &[u8]) -> Option<(&'static str, &'static str)> {
    const CONVERT: &str = "convert it first: `qemu-img convert -O raw FILE image.raw`";
    let text = String::from_utf8_lossy(&start[..start.len().min(64)]).trim_start().to_ascii_lowercase();
    Some(match start {
        [0x1f, 0x8b, ..] => ("compressed with gzip", "decompress it first: `gunzip -k FILE`"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ("compressed with xz", "decompress it first: `xz -dk FILE`"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("compressed with zstd", "decompress it first: `zstd -d FILE`"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => {
            ("compressed with bzip2", "decompress it first: `bunzip2 -k FILE`")
        }
        [0x04, 0x22, 0x4d, 0x18, ..] => ("compressed with lz4", "decompress it first: `lz4 -d FILE`"),
        [b'P', b'K', 3, 4, ..] => ("a zip archive", "unpack it first: `unzip FILE`"),
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => ("a 7z archive", "unpack it first: `7z x FILE`"),
        bytes if bytes.get(257..262) == Some(b"ustar") => {
            ("a tar archive (an OVA is one too)", "unpack it first, and name the disk in it: `tar xf FILE`")
        }
        bytes if bytes.starts_with(b"# Disk DescriptorFile") => (
            "a vmdk descriptor, whose data lies in other files",
            "make one file of it: `qemu-img convert -f vmdk -O raw FILE image.raw`",
        ),
        bytes if bytes.starts_with(b"COWD") => ("a vmdk of an old form", CONVERT),
        bytes if bytes.starts_with(b"conectix") => ("a vhd", CONVERT),
        bytes if bytes.starts_with(b"QED\0") => ("a qed", CONVERT),
        bytes if bytes.starts_with(b"LUKS\xba\xbe") => {
            ("encrypted (LUKS)", "decrypt it first: `qemu-img convert` with `--image-opts` and a secret")
        }
        _ if text.starts_with("<!doctype") || text.starts_with("<html") => {
            ("a web page, not a disk", "fetch the image again: the server answered with a page")
        }
        _ => return None,
    })
}

/// An image under examination: its file, and how long that really is.
#[derive(Debug)]
pub(super) struct Image<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
    pub(super) len: u64,
}

impl Image<'_> {
    /// `count` bytes at `offset`; that they are not there means that the file was cut off.
    pub(super) fn bytes(&self, offset: u64, count: usize) -> Result<Bytes> {
        let bytes = self.up_to(offset, count)?;
        if bytes.len() < count {
            return Err(self.damaged("it ends within its header"));
        }
        Ok(Bytes(bytes))
    }

    fn up_to(&self, offset: u64, count: usize) -> Result<Vec<u8>> {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(count);
        let mut bytes = vec![0; there];
        self.file
            .read_exact_at(&mut bytes, offset)
            .or_failed(|| format!("cannot read the image `{}`", self.path.display()))?;
        Ok(bytes)
    }

    pub(super) fn holds(&self, offset: u64, count: u64) -> bool {
        offset.checked_add(count).is_some_and(|end| end <= self.len)
    }

    pub(super) fn damaged(&self, how: &str) -> Error {
        Error::failed(format!("the image `{}` is damaged: {how}", self.path.display()))
            .hint("fetch it again and compare its checksum")
    }

    pub(super) fn unsupported(&self, what: &str, hint: &str) -> Error {
        Error::failed(format!("the image `{}` {what}", self.path.display())).hint(hint)
    }

    /// Larger than any disk: a header that lies would have this much written.
    pub(super) fn sane_size(&self, size: u64) -> Result<u64> {
        const MOST: u64 = 1 << 47;
        match size {
            0 => Err(self.damaged("it says that the disk has no bytes")),
            1..=MOST => Ok(size),
            _ => Err(self.damaged(&format!("it says that the disk has {} TiB", size >> 40))),
        }
    }
}

/// Numbers in a header that was read whole. The offsets are those of the format's description, so
/// they lie inside.
#[derive(Debug)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Bytes {
    fn array<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.0[offset..offset + N]);
        array
    }

    pub(super) fn be32(&self, offset: usize) -> u32 {
        u32::from_be_bytes(self.array(offset))
    }

    pub(super) fn be64(&self, offset: usize) -> u64 {
        u64::from_be_bytes(self.array(offset))
    }

    pub(super) fn le16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.array(offset))
    }

    pub(super) fn le32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.array(offset))
    }

    pub(super) fn le64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.array(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = vec![0; 600];
        tar[257..262].copy_from_slice(b"ustar");
        let rows: [(&[u8], &str, &str); 13] = [
            (b"\x1f\x8b\x08\0", "gzip", "gunzip"),
            (b"\xfd7zXZ\0", "xz", "xz -dk"),
            (b"\x28\xb5\x2f\xfd", "zstd", "zstd -d"),
            (b"BZh91AY&SY", "bzip2", "bunzip2"),
            (b"PK\x03\x04", "zip", "unzip"),
            (&tar, "tar", "tar xf"),
            (b"# Disk DescriptorFile\nversion=1\n", "other files", "qemu-img convert"),
            (b"conectix", "vhd", "qemu-img convert"),
            (b"COWD", "vmdk", "qemu-img convert"),
            (b"LUKS\xba\xbe\0\x02", "encrypted", "decrypt"),
            (b"\n <!DOCTYPE html><p>Not found", "web page", "fetch"),
            (b"QFI\xfb", "ends within its header", "checksum"),
            (b"", "is empty", "fetch"),
        ];
        for (content, words, hint) in rows {
            let path = dir.path().join("image");
            std::fs::write(&path, content).unwrap();
            let error = inspect(&path).unwrap_err();
            assert!(error.message().contains(words), "{error}");
            assert!(error.hint_text().unwrap().contains(hint), "{error}: {:?}", error.hint_text());
        }
        assert!(inspect(dir.path()).unwrap_err().message().contains("is a directory"));
        assert!(inspect(&dir.path().join("nothing")).unwrap_err().message().contains("cannot open"));
    }

    #[test]
    fn anything_else_is_a_raw_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut iso = vec![0; 40_000];
        iso[0x8001..0x8006].copy_from_slice(b"CD001");
        for content in [vec![0; 512], b"x".to_vec(), iso, b"BZhello".to_vec()] {
            let path = dir.path().join("image.qcow2");
            std::fs::write(&path, &content).unwrap();
            let size = content.len() as u64;
            let raw = ImageInfo { format: Format::Raw, virtual_size: size, backing: None };
            assert_eq!(inspect(&path).unwrap(), raw, "{size}");
        }
    }
}
