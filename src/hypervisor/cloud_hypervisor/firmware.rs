use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::spec::Boot;

/// The edk2 build for cloud-hypervisor: a whole UEFI, which boots what distributions ship.
const EDK2: &str = if cfg!(target_arch = "aarch64") { "CLOUDHV_EFI.fd" } else { "CLOUDHV.fd" };
/// rust-hypervisor-firmware: quicker, but some current images do not boot with it.
const RUST: &str = "hypervisor-fw";

/// Where packages and people put them.
const FOLDERS: [&str; 6] = [
    "/usr/share/cloud-hypervisor",
    "/usr/share/cloudhv-efi-x86-64",
    "/usr/share/cloudhv",
    "/run/cloud-hypervisor",
    "/run/current-system/sw/share/cloud-hypervisor",
    "/run/current-system/sw/FV",
];

/// The firmware a guest boots with: the named file, or the first found in the usual places.
pub fn firmware(named: Option<&Path>) -> Result<Boot> {
    find(named, &FOLDERS.map(Path::new))
}

fn find(named: Option<&Path>, folders: &[&Path]) -> Result<Boot> {
    if let Some(path) = named {
        return if path.is_file() {
            Ok(boot(path.to_owned()))
        } else {
            Err(Error::usage(format!("there is no firmware at `{}`", path.display())).hint(HINT))
        };
    }
    let places: Vec<PathBuf> =
        [EDK2, RUST].iter().flat_map(|file| folders.iter().map(move |folder| folder.join(file))).collect();
    places.iter().find(|path| path.is_file()).cloned().map(boot).ok_or_else(|| {
        let folders = folders.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        Error::failed("no UEFI firmware for cloud-hypervisor was found")
            .source(format!("neither {EDK2} nor {RUST} is in one of {folders}"))
            .hint(HINT)
    })
}

const HINT: &str = "install `cloudhv-efi-x86-64` (Debian), put CLOUDHV.fd into /usr/share/cloud-hypervisor, \
    or set `hypervisor = \"qemu\"`";

fn boot(code: PathBuf) -> Boot {
    Boot::Firmware { code, vars: None }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn edk2_anywhere_goes_before_the_rust_firmware() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let folders = [first.as_path(), second.as_path()];
        for folder in folders {
            fs::create_dir(folder).unwrap();
        }
        let error = find(None, &folders).unwrap_err();
        for place in [first.to_str().unwrap(), second.to_str().unwrap(), EDK2, RUST] {
            assert!(error.chain()[1].contains(place), "{error}");
        }
        assert!(error.hint_text().unwrap().contains("cloudhv-efi"));

        fs::write(first.join(RUST), "").unwrap();
        assert_eq!(find(None, &folders).unwrap(), boot(first.join(RUST)));
        fs::write(second.join(EDK2), "").unwrap();
        assert_eq!(find(None, &folders).unwrap(), boot(second.join(EDK2)));
    }

    #[test]
    fn a_named_file_is_taken_or_missed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my.fd");
        let missing = find(Some(&file), &[]).unwrap_err();
        assert_eq!(missing.kind(), crate::error::Kind::Usage);
        fs::write(&file, "").unwrap();
        assert_eq!(find(Some(&file), &[]).unwrap(), boot(file));
        assert!(find(Some(dir.path()), &[]).is_err(), "a folder is no firmware");
    }
}
