//! passt: a user network for a hypervisor that has none of its own. It runs beside the hypervisor
//! as a program without privileges, and moves the guest's traffic through this host's sockets.
//!
//! The guest sees what it sees under QEMU: by DHCP the address 10.0.2.15, and this host's loopback
//! at its gateway 10.0.2.2. IPv6 is passt's own: that of the host's interface, where it has one.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::host::{Program, find_program};
use crate::spec::{Forward, Protocol};

/// This host's passt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passt {
    /// It can serve a hypervisor by vhost-user.
    Serves(PathBuf),
    /// It cannot yet.
    TooOld(PathBuf),
    Missing,
}

impl Passt {
    pub fn find() -> Self {
        let Some(program) = find_program("passt") else { return Self::Missing };
        // It writes its help to either; an old one ends with 1 after it.
        let help = match Program::new(&program).arg("--help").run() {
            Ok(output) => [output.stdout, output.stderr].concat(),
            Err(crate::host::ProgramError::Failed { stderr, .. }) => stderr.into_bytes(),
            Err(_) => Vec::new(),
        };
        match speaks_vhost_user(&String::from_utf8_lossy(&help)) {
            true => Self::Serves(program),
            false => Self::TooOld(program),
        }
    }

    /// The program, or what is wrong with it.
    pub fn program(self) -> Result<PathBuf> {
        const HINT: &str = "install passt 2024_11_27 or later, or set `hypervisor = \"qemu\"`, which needs none";
        match self {
            Self::Serves(program) => Ok(program),
            Self::TooOld(program) => Err(Error::failed(format!(
                "`{}` is too old to serve cloud-hypervisor: it has no `--vhost-user`",
                program.display()
            ))
            .hint(HINT)),
            Self::Missing => {
                Err(Error::failed("passt, the `user` network of cloud-hypervisor, is not installed").hint(HINT))
            }
        }
    }
}

fn speaks_vhost_user(help: &str) -> bool {
    help.split_ascii_whitespace().any(|word| word == "--vhost-user")
}

/// What it is run with: `nth` among the VM's user NICs, each of which has a subnet of its own. It
/// listens on `socket`, and waits there again when the guest's reboot ends the connection.
pub fn args(nth: u8, socket: &Path, forwards: &[Forward]) -> Result<Vec<String>> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| Error::usage(format!("the path {path:?} is not valid UTF-8")))
    };
    let subnet = format!("10.0.{}", 2 + nth);
    let mut args: Vec<String> = ["--foreground", "--quiet", "--vhost-user", "--socket"].map(str::to_owned).into();
    args.push(text(socket)?);
    for (option, value) in [
        ("--address", format!("{subnet}.15")),
        ("--netmask", "255.255.255.0".to_owned()),
        ("--gateway", format!("{subnet}.2")),
    ] {
        args.extend([option.to_owned(), value]);
    }
    for Forward { host, host_port, guest_port, protocol } in forwards {
        let option = match protocol {
            Protocol::Tcp => "--tcp-ports",
            Protocol::Udp => "--udp-ports",
        };
        let at = host.map(|host| format!("{host}/")).unwrap_or_default();
        args.extend([option.to_owned(), format!("{at}{host_port}:{guest_port}")]);
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_is_run_with() {
        let forwards = ["127.0.0.1:22001:22", "8080:80", "5353:53/udp"].map(|text| text.parse().unwrap());
        let words = args(0, Path::new("/run/hv/n0.sock"), &forwards).unwrap().join(" ");
        let expected = "--foreground --quiet --vhost-user --socket /run/hv/n0.sock \
                        --address 10.0.2.15 --netmask 255.255.255.0 --gateway 10.0.2.2 \
                        --tcp-ports 127.0.0.1/22001:22 --tcp-ports 8080:80 --udp-ports 5353:53";
        assert_eq!(words, expected);
        let second = args(1, Path::new("/run/hv/n3.sock"), &[]).unwrap();
        assert!(second.contains(&"10.0.3.15".to_owned()) && second.contains(&"10.0.3.2".to_owned()), "{second:?}");
    }

    #[test]
    fn only_a_newer_one_serves() {
        let newer = "  -s, --socket PATH\tUNIX domain socket path\n  --vhost-user\t\tEnable vhost-user mode\n";
        let older = "  -s, --socket PATH\tUNIX domain socket path\n  -F, --fd FD\t\tUse FD as pre-opened socket\n";
        assert!(speaks_vhost_user(newer));
        assert!(!speaks_vhost_user(older));
        for (found, words) in [(Passt::TooOld("/usr/bin/passt".into()), "too old"), (Passt::Missing, "not installed")] {
            let error = found.program().unwrap_err();
            assert!(error.message().contains(words), "{error}");
            assert!(error.hint_text().unwrap().contains("qemu"), "{error}");
        }
    }
}
