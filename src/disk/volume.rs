//! A FAT volume made in memory: no mount, no root, no program.

use std::fmt;
use std::io::{self, Cursor, Write};

use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

/// What FAT12 and FAT16 need beside the files: boot sector, tables, root folder, half-used clusters.
const OVERHEAD: usize = 256 << 10;
const MIB: usize = 1 << 20;

/// The same files, label and id make the same bytes, at whatever time.
#[derive(Clone, Copy)]
struct FixedTime;

static FIXED_TIME: FixedTime = FixedTime;

impl fmt::Debug for FixedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("2000-01-01")
    }
}

impl TimeProvider for FixedTime {
    fn get_current_date(&self) -> Date {
        Date { year: 2000, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

/// The volume's bytes: as many MiB as the files need.
pub(super) fn fat(label: &str, id: u32, files: &[(&str, &str)]) -> io::Result<Vec<u8>> {
    let content: usize = files.iter().map(|(_, content)| content.len()).sum();
    // Its bookkeeping grows with it: a table entry for each cluster, twice.
    let size = (OVERHEAD + content + content / 64).next_multiple_of(MIB);
    let mut volume = Cursor::new(vec![0; size]);
    let mut padded = [b' '; 11];
    padded[..label.len()].copy_from_slice(label.as_bytes());
    fatfs::format_volume(&mut volume, FormatVolumeOptions::new().volume_label(padded).volume_id(id))?;
    volume.set_position(0);
    let system = FileSystem::new(&mut volume, FsOptions::new().time_provider(&FIXED_TIME))?;
    for (name, content) in files {
        let mut file = system.root_dir().create_file(name)?;
        file.truncate()?;
        file.write_all(content.as_bytes())?;
        file.flush()?;
    }
    system.unmount()?;
    Ok(volume.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn files_label_and_size() {
        let big = "x".repeat(10 * MIB);
        let rows: [(&str, usize); 4] = [("", 1), ("small", 1), (&big[..MIB - 1], 2), (&big, 11)];
        for (content, mib) in rows {
            let bytes = fat("CIDATA", 7, &[("meta-data", "m"), ("user-data", content)]).unwrap();
            assert_eq!(bytes.len(), mib * MIB, "{} bytes", content.len());
            let system = FileSystem::new(Cursor::new(bytes.clone()), FsOptions::new()).unwrap();
            assert_eq!(system.volume_label(), "CIDATA");
            assert_eq!(system.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
            let names: Vec<String> = system.root_dir().iter().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["meta-data", "user-data"]);
            let mut read = String::new();
            system.root_dir().open_file("user-data").unwrap().read_to_string(&mut read).unwrap();
            assert!(read == content, "{} bytes", content.len());
            assert!(fat("CIDATA", 7, &[("meta-data", "m"), ("user-data", content)]).unwrap() == bytes, "the same");
        }
    }
}
