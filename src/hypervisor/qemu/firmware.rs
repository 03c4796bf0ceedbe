//! Finds the UEFI firmware: the one that was named, or the one the distribution installs.
//!
//! Firmware for QEMU comes as two raw flash images: the code, shared read-only, and an empty
//! variable store, of which each VM gets its own copy. Variants that enforce Secure Boot are not
//! taken unless named.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, OrFailed, Result};
use crate::host::find_program;
use crate::hypervisor::program_names;
use crate::spec::{Boot, HypervisorKind};

type Pair = (&'static str, &'static str);

const X86_64: &[Pair] = &[
    // Debian, Ubuntu
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    // Arch
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"),
    // Fedora, and Gentoo
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2-ovmf/OVMF_CODE.fd", "/usr/share/edk2-ovmf/OVMF_VARS.fd"),
    // openSUSE
    ("/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin"),
    // NixOS
    ("/run/libvirt/nix-ovmf/OVMF_CODE.fd", "/run/libvirt/nix-ovmf/OVMF_VARS.fd"),
    ("/run/libvirt/nix-ovmf/edk2-x86_64-code.fd", "/run/libvirt/nix-ovmf/edk2-i386-vars.fd"),
    ("/run/current-system/sw/share/qemu/edk2-x86_64-code.fd", "/run/current-system/sw/share/qemu/edk2-i386-vars.fd"),
];

const AARCH64: &[Pair] = &[
    // Debian, Ubuntu
    ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
    // Fedora
    ("/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"),
    // NixOS
    ("/run/libvirt/nix-ovmf/AAVMF_CODE.fd", "/run/libvirt/nix-ovmf/AAVMF_VARS.fd"),
    ("/run/libvirt/nix-ovmf/edk2-aarch64-code.fd", "/run/libvirt/nix-ovmf/edk2-arm-vars.fd"),
    ("/run/current-system/sw/share/qemu/edk2-aarch64-code.fd", "/run/current-system/sw/share/qemu/edk2-arm-vars.fd"),
];

/// The firmware for a new VM. Names given are taken or refused; without a name for the code, the
/// usual places are searched. A named code whose variable store lies beside it gets that one.
pub fn firmware(code: Option<&Path>, vars: Option<&Path>) -> Result<Boot> {
    match (code, vars) {
        (None, Some(vars)) => Err(Error::usage(format!(
            "the UEFI variables `{}` are named, but not the firmware they belong to",
            vars.display()
        ))
        .hint("name both, or neither")),
        (Some(code), vars) => {
            check(code)?;
            let vars = match vars {
                Some(vars) => {
                    check(vars)?;
                    Some(vars.to_owned())
                }
                None => beside(code),
            };
            Ok(Boot::Firmware { code: code.to_owned(), vars })
        }
        (None, None) => search(&usual_places(std::env::consts::ARCH)),
    }
}

fn search(places: &[(PathBuf, PathBuf)]) -> Result<Boot> {
    let found = places.iter().find(|(code, vars)| code.is_file() && vars.is_file());
    if let Some((code, vars)) = found {
        return Ok(Boot::Firmware { code: code.clone(), vars: Some(vars.clone()) });
    }
    let tried: Vec<String> = places.iter().map(|(code, _)| code.display().to_string()).collect();
    let package = if cfg!(target_arch = "aarch64") { "qemu-efi-aarch64" } else { "ovmf" };
    Err(Error::failed("no UEFI firmware for QEMU was found")
        .source(format!("none of these, each with its variables, is there: {}", tried.join(", ")))
        .hint(format!("install it (Debian: `apt install {package}`), or name its file")))
}

fn usual_places(arch: &str) -> Vec<(PathBuf, PathBuf)> {
    let (pairs, own): (&[Pair], Pair) = match arch {
        "aarch64" => (AARCH64, ("edk2-aarch64-code.fd", "edk2-arm-vars.fd")),
        _ => (X86_64, ("edk2-x86_64-code.fd", "edk2-i386-vars.fd")),
    };
    let mut places: Vec<(PathBuf, PathBuf)> = pairs.iter().map(|(code, vars)| (code.into(), vars.into())).collect();
    // QEMU as its makers build it brings its own, two folders up from the program (also in a Nix store).
    let program = program_names(HypervisorKind::Qemu).iter().find_map(find_program);
    let program = program.and_then(|program| program.canonicalize().ok());
    if let Some(prefix) = program.as_deref().and_then(Path::parent).and_then(Path::parent) {
        let share = prefix.join("share/qemu");
        places.push((share.join(own.0), share.join(own.1)));
    }
    places
}

/// `OVMF_CODE_4M.fd` lies beside `OVMF_VARS_4M.fd`, `…-code.fd` beside `…-vars.fd`.
fn beside(code: &Path) -> Option<PathBuf> {
    let name = code.file_name()?.to_str()?;
    [("CODE", "VARS"), ("code", "vars"), ("x86_64-code", "i386-vars"), ("aarch64-code", "arm-vars")]
        .iter()
        .filter(|(code, _)| name.contains(code))
        .map(|(code_word, vars_word)| code.with_file_name(name.replacen(code_word, vars_word, 1)))
        .find(|vars| vars.is_file())
}

/// A flash image as QEMU takes it: there, readable, raw, and in whole pages.
fn check(path: &Path) -> Result<()> {
    let shown = path.display();
    // Without NONBLOCK a named pipe would wait for its writer for ever.
    let mut file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .or_failed(|| format!("cannot read the firmware `{shown}`"))
        .map_err(|error| error.hint("name a file that is there, or none, to have the installed one found"))?;
    let metadata = file.metadata().or_failed(|| format!("cannot read the firmware `{shown}`"))?;
    if !metadata.is_file() {
        return Err(Error::usage(format!("the firmware `{shown}` is not a file")));
    }
    let mut head = [0; 4];
    let is_qcow2 = file.read_exact(&mut head).is_ok() && head == *b"QFI\xfb";
    if is_qcow2 {
        return Err(Error::usage(format!("the firmware `{shown}` is a qcow2 image, and only raw ones are taken"))
            .hint("convert it once with `qemu-img convert -O raw`"));
    }
    if metadata.len() == 0 || metadata.len() % 4096 != 0 {
        return Err(Error::usage(format!("the firmware `{shown}` has {} bytes: not a flash image", metadata.len()))
            .hint("a flash image is made of whole blocks of 4096 bytes, like `OVMF_CODE_4M.fd`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn named_files_are_taken_with_the_variables_beside_them() {
        let dir = tempfile::tempdir().unwrap();
        let page = vec![0; 4096];
        let rows = [
            ("OVMF_CODE_4M.fd", Some("OVMF_VARS_4M.fd")),
            ("edk2-x86_64-code.fd", Some("edk2-i386-vars.fd")),
            ("ovmf-code.bin", Some("ovmf-vars.bin")),
            ("OVMF_CODE_4M.secboot.fd", None),
            ("firmware.fd", None),
        ];
        for (code, vars) in rows {
            let code = file(dir.path(), code, &page);
            let vars = vars.map(|vars| file(dir.path(), vars, &page));
            assert_eq!(firmware(Some(&code), None).unwrap(), Boot::Firmware { code, vars });
        }
        let (code, vars) = (dir.path().join("firmware.fd"), dir.path().join("ovmf-vars.bin"));
        let both = firmware(Some(&code), Some(&vars)).unwrap();
        assert_eq!(both, Boot::Firmware { code, vars: Some(vars) });
    }

    #[test]
    fn bad_names_are_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let good = file(dir.path(), "CODE.fd", &[0; 4096]);
        let rows = [
            (dir.path().join("absent.fd"), "cannot read the firmware"),
            (dir.path().to_owned(), "is not a file"),
            (file(dir.path(), "a.qcow2", b"QFI\xfb\0\0\0\x03"), "qcow2"),
            (file(dir.path(), "short.fd", b"abc"), "has 3 bytes"),
            (file(dir.path(), "empty.fd", b""), "has 0 bytes"),
        ];
        for (path, reason) in rows {
            for (code, vars) in [(&path, None), (&good, Some(path.as_path()))] {
                let error = firmware(Some(code), vars).unwrap_err();
                assert!(error.message().contains(reason), "{error}");
                assert!(error.message().contains(&path.display().to_string()), "{error}");
            }
        }
        assert_eq!(firmware(None, Some(&good)).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn the_first_whole_pair_is_found_or_all_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let places = [(at("a-code"), at("a-vars")), (at("b-code"), at("b-vars"))];
        file(dir.path(), "a-code", b"");
        let error = search(&places).unwrap_err();
        let chain = error.chain().join(": ");
        assert!(chain.contains("a-code") && chain.contains("b-code"), "{chain}");
        assert!(error.hint_text().unwrap().contains("install"), "{error:?}");
        file(dir.path(), "b-code", b"");
        let vars = file(dir.path(), "b-vars", b"");
        assert_eq!(search(&places).unwrap(), Boot::Firmware { code: at("b-code"), vars: Some(vars) });
    }

    #[test]
    fn no_secure_boot_variant_is_searched() {
        for arch in ["x86_64", "aarch64"] {
            for (code, _) in usual_places(arch) {
                let name = code.display().to_string();
                assert!(!name.contains("secboot") && !name.contains(".ms."), "{name}");
            }
        }
    }
}
