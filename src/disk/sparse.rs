//! The copy of a file's data without its holes.
//!
//! Read and write through a buffer that fits a core's cache, with writeback begun early, beats
//! `copy_file_range` here: where that could share blocks the reflink has done so already, and
//! what is left of it is a splice through small pipe buffers that leaves all the writing to fsync.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::host::start_writeback;

/// Read and written at once.
const BUFFER: usize = 256 << 10;
/// Zeros of this length are left out: they read the same from a hole.
const BLOCK: usize = 64 << 10;
/// Between two looks at the caller, and what is given to the disk at once.
const WINDOW: u64 = 8 << 20;

/// A stretch of a file that is not a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Extent {
    fn len(self) -> u64 {
        self.end - self.start
    }
}

pub(super) fn total(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.len()).sum()
}

/// Where the data is. A file system that does not know its holes has one extent.
pub(super) fn extents(file: &File, size: u64) -> io::Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut position = 0;
    while position < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => position,
            Err(error) => return Err(error.into()),
        };
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => size,
            // Cut off since: the copy sees it too, and says so.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        if start >= end {
            break;
        }
        extents.push(Extent { start, end });
        position = end;
    }
    Ok(extents)
}

/// Copies the extents to the same places. `step` is told of every few MiB and may stop the copy.
pub(super) fn copy<E: From<io::Error>>(
    source: &File,
    target: &File,
    extents: &[Extent],
    mut step: impl FnMut(u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; BUFFER];
    for extent in extents {
        let mut start = extent.start;
        while start < extent.end {
            let end = extent.end.min(start + WINDOW);
            copy_window(source, target, start, end, &mut buffer)?;
            start_writeback(target, start, end - start);
            step(end - start)?;
            start = end;
        }
    }
    Ok(())
}

fn copy_window(source: &File, target: &File, start: u64, end: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut position = start;
    while position < end {
        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
        let read = match source.read_at(&mut buffer[..wanted], position) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter meanwhile")),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        write_data(target, &buffer[..read], position)?;
        position += read as u64;
    }
    Ok(())
}

/// Writes the blocks that are not all zeros, neighbours in one call.
fn write_data(target: &File, bytes: &[u8], position: u64) -> io::Result<()> {
    let mut from = 0;
    let mut to = 0;
    for block in bytes.chunks(BLOCK) {
        if is_zero(block) {
            target.write_all_at(&bytes[from..to], position + from as u64)?;
            from = to + block.len();
        }
        to += block.len();
    }
    target.write_all_at(&bytes[from..to], position + from as u64)
}

fn is_zero(block: &[u8]) -> bool {
    block.first() == Some(&0) && block[..block.len() - 1] == block[1..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros() {
        let mut block = vec![0; 4096];
        assert!(is_zero(&block));
        assert!(is_zero(&[0]));
        for place in [0, 1, 2048, 4095] {
            block[place] = 1;
            assert!(!is_zero(&block), "a one at {place}");
            block[place] = 0;
        }
        assert!(!is_zero(&[1; 16]));
    }

    #[test]
    fn blocks_of_zeros_become_holes_and_the_rest_is_equal() {
        let dir = tempfile::tempdir().unwrap();
        let rows: [(&str, &[(usize, usize)]); 5] = [
            ("all zeros", &[]),
            ("begins with data", &[(0, 1)]),
            ("ends with data", &[(999_999, 1_000_000)]),
            ("between", &[(70_000, 140_000), (400_000, 400_001)]),
            ("all data", &[(0, 1_000_000)]),
        ];
        for (row, (what, ones)) in rows.iter().enumerate() {
            let mut content = vec![0; 1_000_000];
            for &(from, to) in *ones {
                content[from..to].fill(7);
            }
            std::fs::write(dir.path().join("source"), &content).unwrap();
            let source = File::open(dir.path().join("source")).unwrap();
            let target = dir.path().join(row.to_string());
            let file = File::create_new(&target).unwrap();
            let extents = extents(&source, content.len() as u64).unwrap();
            let mut told = 0;
            copy(&source, &file, &extents, |bytes| {
                told += bytes;
                Ok::<_, io::Error>(())
            })
            .unwrap();
            file.set_len(content.len() as u64).unwrap();
            assert!(std::fs::read(&target).unwrap() == content, "{what}");
            assert_eq!(told, total(&extents), "{what}");
        }
        use std::os::unix::fs::MetadataExt;
        assert_eq!(dir.path().join("0").metadata().unwrap().blocks(), 0, "zeros take no room");
    }
}
