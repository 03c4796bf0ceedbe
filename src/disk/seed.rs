use std::io::{self, Write};
use std::path::Path;

use uuid::Uuid;

use super::mime::Part;
use super::{cloud_init, vendor, volume};
use crate::error::{Error, OrFailed, Result};
use crate::host::NewFile;
use crate::spec::{Name, Nic};
use crate::template::UserData;

/// What a guest learns at its first boot.
#[derive(Debug, Clone)]
pub struct Seed {
    pub hostname: Name,
    /// A guest that sees a new one takes itself for a new machine.
    pub instance: Uuid,
    pub users: UserData,
    /// The raw cloud-init files that `users` names, already read.
    pub parts: Vec<Part>,
    pub nics: Vec<Nic>,
}

/// The label that cloud-init looks for.
pub(super) const LABEL: &str = "CIDATA";
/// Far more than any user data; what is larger was not meant to be.
const MOST: usize = 16 << 20;

/// Writes the first-boot volume: `meta-data`, `user-data`, `network-config` and `vendor-data` on a
/// small FAT file system. The same seed makes the same bytes.
pub fn write_seed(path: &Path, seed: &Seed) -> Result<()> {
    let shown = path.display();
    let user_data = cloud_init::user_data(seed)?;
    if user_data.len() > MOST {
        let mib = user_data.len() >> 20;
        return Err(Error::usage(format!(
            "the user data of `{}` has {mib} MiB, and 16 MiB is the most",
            seed.hostname
        ))
        .hint("let the guest fetch large files itself"));
    }
    let files = [
        ("meta-data", cloud_init::meta_data(seed)),
        ("user-data", user_data),
        ("network-config", cloud_init::network_config(&seed.nics)),
        ("vendor-data", vendor::vendor_data()),
    ];
    let files = files.each_ref().map(|(name, content)| (*name, content.as_str()));
    let (id, ..) = seed.instance.as_fields();
    let bytes = volume::fat(LABEL, id, &files).or_failed(|| format!("cannot make the first-boot volume `{shown}`"))?;
    let new = NewFile::create(path, 0o600).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::failed(format!("the first-boot volume `{shown}` exists already")),
        _ => Error::failed(format!("cannot create the first-boot volume `{shown}`")).source(error),
    })?;
    new.file()
        .write_all(&bytes)
        .and_then(|()| new.keep())
        .or_failed(|| format!("cannot write the first-boot volume `{shown}`"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Cursor, Read};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::host::{Program, find_program};
    use crate::spec::{Address, Link};
    use crate::template::{Ssh, User};

    const INSTANCE: Uuid = Uuid::from_u128(0x6f1b_0a1e_91a7_4d2c_9d52_0123_4567_89ab);

    pub(in crate::disk) fn seed() -> Seed {
        Seed {
            hostname: "web-1".parse().unwrap(),
            instance: INSTANCE,
            users: UserData { users: Vec::new(), cloud_init: Vec::new() },
            parts: Vec::new(),
            nics: Vec::new(),
        }
    }

    pub(in crate::disk) fn user(name: &str) -> User {
        let ssh = Ssh { authorized_keys: Vec::new() };
        User { name: name.into(), ssh, sudo: false, shell: None, password_hash: None }
    }

    pub(in crate::disk) fn nic(index: u8, address: Option<(&str, Option<&str>, &[&str])>) -> Nic {
        let address = address.map(|(ip, gateway, dns)| {
            let gateway = gateway.map(|gateway| gateway.parse().unwrap());
            Address::new(ip.parse().unwrap(), gateway, dns.iter().map(|dns| dns.parse().unwrap()).collect())
        });
        Nic { address, ..Nic::new(INSTANCE, index, "main".parse().unwrap(), Link::User) }
    }

    pub(in crate::disk) fn full() -> Seed {
        let mut seed = seed();
        seed.users.users = vec![user("ann")];
        seed.users.users[0].ssh.authorized_keys = vec![format!("ssh-rsa {} ann's: \"key\" #1", "A".repeat(8 << 10))];
        seed.parts = vec![Part { name: "run.sh".into(), content: b"#!/bin/sh\necho \"$(id)\"\n".to_vec() }];
        seed.nics = vec![nic(0, Some(("10.44.0.5/24", Some("10.44.0.1"), &["10.44.0.1"]))), nic(1, None)];
        seed
    }

    fn expected(seed: &Seed) -> [(&'static str, String); 4] {
        [
            ("meta-data", cloud_init::meta_data(seed)),
            ("user-data", cloud_init::user_data(seed).unwrap()),
            ("network-config", cloud_init::network_config(&seed.nics)),
            ("vendor-data", vendor::vendor_data()),
        ]
    }

    #[test]
    fn the_volume_holds_the_documents_and_is_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let (path, again) = (dir.path().join("seed.img"), dir.path().join("again.img"));
        let seed = full();
        write_seed(&path, &seed).unwrap();
        write_seed(&again, &seed).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes == std::fs::read(&again).unwrap());
        assert_eq!(bytes.len(), 1 << 20);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        let system = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
        assert_eq!(system.volume_id(), 0x6f1b_0a1e);
        for (name, content) in expected(&seed) {
            let mut read = String::new();
            system.root_dir().open_file(name).unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, content, "{name}");
        }
        assert!(write_seed(&path, &seed).unwrap_err().message().contains("exists already"));
    }

    #[test]
    fn a_refused_part_leaves_no_volume() {
        let dir = tempfile::tempdir().unwrap();
        let mut seed = full();
        seed.parts[0].content = b"no first line that cloud-init knows".to_vec();
        assert!(write_seed(&dir.path().join("seed.img"), &seed).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn mtools_and_blkid_read_it() {
        let (Some(mcopy), Some(blkid)) = (find_program("mcopy"), find_program("blkid")) else {
            eprintln!("skipped: mcopy or blkid is not installed");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed.img");
        let seed = full();
        write_seed(&path, &seed).unwrap();
        let label = Program::new(blkid).args(["-p", "-o", "export"]).arg(&path).run().unwrap().text();
        for line in ["LABEL=CIDATA", "LABEL_FATBOOT=CIDATA", "TYPE=vfat"] {
            assert!(label.lines().any(|found| found == line), "{line} is not in {label}");
        }
        for (name, content) in expected(&seed) {
            let read = Program::new(&mcopy).arg("-i").arg(&path).arg(format!("::{name}")).arg("-").run().unwrap();
            assert_eq!(read.text(), content, "{name}");
        }
    }
}
