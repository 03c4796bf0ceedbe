use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use fatfs::{FileSystem, FsOptions};
use rustix::fs::{Gid, Uid, fchown};

use super::seed::LABEL;
use super::{cloud_init, vendor, volume};
use crate::error::{Error, OrFailed, Result};
use crate::host::NewFile;
use crate::spec::{Name, Nic};

/// Far more than any volume of ours.
const MOST: u64 = 64 << 20;

/// Writes another host name into a first-boot volume; all else in it stays as it is. It is still
/// the same instance, so a guest makes no user again: cloud-init reads the volume at each boot and
/// takes over a host name that nobody has changed from inside.
///
/// A changed copy takes the volume's place, so a guest that runs keeps what it has open. One that
/// has the name already is left as it is.
pub fn rename_seed(path: &Path, hostname: &Name) -> Result<()> {
    let shown = path.display();
    let failed = || format!("cannot write another host name into the first-boot volume `{shown}`");
    let Documents { id, meta_data, user_data, network_config, vendor_data } = read(path).or_failed(failed)?;
    let renamed = cloud_init::rename_meta_data(&meta_data, hostname)
        .zip(cloud_init::rename_user_data(&user_data, hostname))
        .ok_or_else(|| {
            Error::failed(failed()).source(io::Error::other("what it holds was not written by virshle")).hint(
                "put back the volume that was made with the VM; its guest reads its host name and users from there",
            )
        })?;
    if renamed == (meta_data, user_data) {
        return Ok(());
    }
    let (meta_data, user_data) = renamed;
    let mut files = vec![("meta-data", &*meta_data), ("user-data", &*user_data), ("network-config", &*network_config)];
    files.extend(vendor_data.as_deref().map(|text| (VENDOR_DATA, text)));
    volume::fat(LABEL, id, &files).and_then(|bytes| replace(path, &bytes)).or_failed(failed)
}

/// Writes what a guest is told of its NICs into a first-boot volume; who it is stays as it is. A guest
/// takes it over at its next boot, which the vendor data of the volume tells it to do.
pub fn write_network(path: &Path, nics: &[Nic]) -> Result<()> {
    let shown = path.display();
    let failed = || format!("cannot write other NICs into the first-boot volume `{shown}`");
    let Documents { id, meta_data, user_data, network_config, .. } = read(path).or_failed(failed)?;
    let changed = cloud_init::network_config(nics);
    if changed == network_config {
        return Ok(());
    }
    let vendor_data = vendor::vendor_data();
    let files = [
        ("meta-data", &*meta_data),
        ("user-data", &*user_data),
        ("network-config", &*changed),
        (VENDOR_DATA, &*vendor_data),
    ];
    volume::fat(LABEL, id, &files).and_then(|bytes| replace(path, &bytes)).or_failed(failed)
}

/// Refuses a first-boot volume that cannot be read.
pub fn check_seed(path: &Path) -> Result<()> {
    read(path).map(drop).or_failed(|| format!("cannot read the first-boot volume `{}`", path.display()))
}

const VENDOR_DATA: &str = "vendor-data";

/// What a volume holds.
struct Documents {
    id: u32,
    meta_data: String,
    user_data: String,
    network_config: String,
    /// Volumes of an earlier program have none.
    vendor_data: Option<String>,
}

fn read(path: &Path) -> io::Result<Documents> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    let system = FileSystem::new(Cursor::new(bytes), FsOptions::new())?;
    let text = |name: &str| {
        let mut text = String::new();
        system.root_dir().open_file(name)?.read_to_string(&mut text)?;
        Ok::<_, io::Error>(text)
    };
    let vendor_data = match text(VENDOR_DATA) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => Some(read?),
    };
    Ok(Documents {
        id: system.volume_id(),
        meta_data: text("meta-data")?,
        user_data: text("user-data")?,
        network_config: text("network-config")?,
        vendor_data,
    })
}

/// The new file belongs to whom the old one did: the hypervisor may run as another user.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let old = fs::symlink_metadata(path)?;
    let new = NewFile::replacing(path, 0o600)?;
    new.file().write_all(bytes)?;
    let made = new.file().metadata()?;
    if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
        fchown(new.file(), Some(Uid::from_raw(old.uid())), Some(Gid::from_raw(old.gid())))?;
    }
    new.file().set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
    new.keep()
}

#[cfg(test)]
mod tests {
    use super::super::seed::tests::{full, nic, seed};
    use super::super::write_seed;
    use super::*;

    #[test]
    fn only_the_host_name_changes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let long: Name = "a-name-of-sixty-three-bytes-which-is-the-longest-a-host-can-hav".parse().unwrap();
        for (what, seed) in [("one document", seed()), ("an archive with a part of somebody else's", full())] {
            let (path, expected) = (at("seed.img"), at("expected.img"));
            write_seed(&path, &seed).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
            let before = fs::read(&path).unwrap();
            let mut running = File::open(&path).unwrap();

            rename_seed(&path, &long).unwrap();
            let mut other = seed.clone();
            other.hostname = long.clone();
            write_seed(&expected, &other).unwrap();
            assert!(fs::read(&path).unwrap() == fs::read(&expected).unwrap(), "{what}: as if made with that name");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o440, "{what}");
            let mut seen = Vec::new();
            running.read_to_end(&mut seen).unwrap();
            assert!(seen == before, "{what}: a guest that runs keeps what it has open");

            let inode = path.metadata().unwrap().ino();
            rename_seed(&path, &long).unwrap();
            assert_eq!(path.metadata().unwrap().ino(), inode, "{what}: done already");
            rename_seed(&path, &seed.hostname).unwrap();
            assert!(fs::read(&path).unwrap() == before, "{what}: and back");
            fs::remove_file(&path).unwrap();
            fs::remove_file(&expected).unwrap();
        }
    }

    /// A volume of an earlier program gets nothing but the name.
    #[test]
    fn one_without_vendor_data_stays_without() {
        let dir = tempfile::tempdir().unwrap();
        let (path, expected) = (dir.path().join("seed.img"), dir.path().join("expected.img"));
        let (seed, name) = (full(), "other".parse::<Name>().unwrap());
        let old = |hostname: &Name| {
            let seed = super::super::Seed { hostname: hostname.clone(), ..seed.clone() };
            let files = [
                ("meta-data", cloud_init::meta_data(&seed)),
                ("user-data", cloud_init::user_data(&seed).unwrap()),
                ("network-config", cloud_init::network_config(&seed.nics)),
            ];
            volume::fat(LABEL, 7, &files.each_ref().map(|(name, content)| (*name, &**content))).unwrap()
        };
        fs::write(&path, old(&seed.hostname)).unwrap();
        fs::write(&expected, old(&name)).unwrap();
        rename_seed(&path, &name).unwrap();
        assert!(fs::read(&path).unwrap() == fs::read(&expected).unwrap());
    }

    /// Also in a volume of an earlier program, whose guest would never look again.
    #[test]
    fn only_the_nics_change() {
        let dir = tempfile::tempdir().unwrap();
        let (path, expected) = (dir.path().join("seed.img"), dir.path().join("expected.img"));
        let before = full();
        let nics = vec![nic(0, Some(("10.44.0.9/24", None, &[]))), nic(2, None)];
        write_seed(&expected, &super::super::Seed { nics: nics.clone(), ..before.clone() }).unwrap();
        let (id, ..) = before.instance.as_fields();
        let old = [
            ("meta-data", cloud_init::meta_data(&before)),
            ("user-data", cloud_init::user_data(&before).unwrap()),
            ("network-config", cloud_init::network_config(&before.nics)),
        ];
        write_seed(&path, &before).unwrap();
        let volumes = [
            fs::read(&path).unwrap(),
            volume::fat(LABEL, id, &old.each_ref().map(|(name, text)| (*name, &**text))).unwrap(),
        ];
        for bytes in volumes {
            fs::write(&path, &bytes).unwrap();
            let inode = path.metadata().unwrap().ino();
            write_network(&path, &before.nics).unwrap();
            assert!(fs::read(&path).unwrap() == bytes && path.metadata().unwrap().ino() == inode, "the same NICs");
            write_network(&path, &nics).unwrap();
            assert!(fs::read(&path).unwrap() == fs::read(&expected).unwrap(), "as if made with those NICs");
        }
        fs::write(&path, "damaged").unwrap();
        assert!(check_seed(&path).is_err() && write_network(&path, &nics).is_err());
        check_seed(&expected).unwrap();
    }

    #[test]
    fn what_is_not_ours_is_refused_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed.img");
        let name = "web".parse().unwrap();
        assert!(rename_seed(&path, &name).is_err(), "it is not there");
        let foreign = volume::fat(
            LABEL,
            7,
            &[
                ("meta-data", "instance-id: x\n"),
                ("user-data", "#cloud-config\nhostname: x\n"),
                ("network-config", "{}"),
            ],
        );
        for content in [b"no file system".to_vec(), Vec::new(), foreign.unwrap()] {
            fs::write(&path, &content).unwrap();
            assert!(rename_seed(&path, &name).is_err());
            assert!(fs::read(&path).unwrap() == content);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
