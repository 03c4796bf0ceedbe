//! Which hypervisor runs a VM, decided at create and kept in its spec.
//!
//! cloud-hypervisor when it is installed, hardware virtualisation works and it can do all that is
//! needed; else QEMU, with KVM where that works. A wish is followed or refused, never replaced.

use std::io;
use std::path::{Path, PathBuf};

use super::{Capabilities, UserNetworks, driver, program_names};
use crate::error::{Error, Result};
use crate::host::find_program;
use crate::spec::{Accel, HypervisorKind, Link};

/// What a template needs of a hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    pub vhost: bool,
    pub tap: bool,
    pub user: bool,
    pub firmware: bool,
    pub kernel: bool,
}

impl Needs {
    /// Of a VM with these NICs; without a kernel of its own it boots through firmware.
    pub fn of(links: &[&Link], kernel: bool) -> Self {
        let any = |wanted: fn(&Link) -> bool| links.iter().any(|link| wanted(link));
        Self {
            vhost: any(|link| matches!(link, Link::Vhost { .. })),
            tap: any(|link| matches!(link, Link::Tap { .. })),
            user: any(|link| matches!(link, Link::User)),
            firmware: !kernel,
            kernel,
        }
    }

    /// The first need that is not met, in a person's words.
    fn missing(&self, has: Capabilities, host: &Host) -> Option<&'static str> {
        let user = has.user == UserNetworks::Own || host.passt;
        let needs = [
            (self.vhost, has.vhost, "`vhost` networks"),
            (self.tap, has.tap, "`tap` networks"),
            (self.user, user, NO_PASST),
            (self.firmware, has.firmware, "UEFI firmware"),
            (self.kernel, has.kernel, "a kernel handed over directly"),
        ];
        needs.into_iter().find(|(needed, had, _)| *needed && !had).map(|(_, _, what)| what)
    }
}

/// What is missing of `user` networks where passt is.
const NO_PASST: &str = "`user` networks without passt";

/// What this host's `/dev/kvm` is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kvm {
    Works,
    NoDevice,
    NoPermission,
    /// It opens, but the CPU has neither vmx nor svm: a usual guest would not get far.
    NoHardware,
}

impl Kvm {
    /// Why hardware virtualisation does not work; nothing where it does.
    pub fn why_not(self) -> Option<&'static str> {
        match self {
            Kvm::Works => None,
            Kvm::NoDevice => Some("there is no usable /dev/kvm"),
            Kvm::NoPermission => Some("this user may not open /dev/kvm"),
            Kvm::NoHardware => Some("/dev/kvm opens, but the CPU has neither vmx nor svm"),
        }
    }

    /// Whether a guest can be started on it at all.
    fn opens(self) -> bool {
        matches!(self, Kvm::Works | Kvm::NoHardware)
    }

    fn refusal(self, what: &str) -> Error {
        let error = Error::failed(format!("{what} needs KVM: {}", self.why_not().unwrap_or("it does not work")));
        error.hint(match self {
            Kvm::NoPermission => "join the group that owns it: `usermod -aG kvm USER`, then log in again",
            Kvm::NoHardware => "enable virtualisation in the firmware, set `accel = \"kvm\"` to try all the same, or use `hypervisor = \"qemu\"`",
            _ => "load the module `kvm_intel` or `kvm_amd`, or use `hypervisor = \"qemu\"` with `accel = \"tcg\"`",
        })
    }
}

/// What there is to choose from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub cloud_hypervisor: Option<PathBuf>,
    pub qemu: Option<PathBuf>,
    /// Whether there is a passt that speaks vhost-user. It is looked for only where that matters.
    pub passt: bool,
    pub kvm: Kvm,
}

impl Host {
    /// Looks at this host. A named program stands for its kind; else `PATH` is searched.
    pub fn probe(cloud_hypervisor: Option<&Path>, qemu: Option<&Path>) -> Self {
        let find = |named: Option<&Path>, kind| match named {
            Some(program) => find_program(program),
            None => program_names(kind).iter().find_map(find_program),
        };
        Self {
            cloud_hypervisor: find(cloud_hypervisor, HypervisorKind::CloudHypervisor),
            qemu: find(qemu, HypervisorKind::Qemu),
            passt: false,
            kvm: probe_kvm(),
        }
    }

    /// The program of a kind, if this host has it.
    pub fn program(&self, kind: HypervisorKind) -> Option<&PathBuf> {
        match kind {
            HypervisorKind::CloudHypervisor => self.cloud_hypervisor.as_ref(),
            HypervisorKind::Qemu => self.qemu.as_ref(),
        }
    }
}

fn probe_kvm() -> Kvm {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) if cfg!(not(target_arch = "x86_64")) => Kvm::Works,
        Ok(_) => match std::fs::read_to_string("/proc/cpuinfo") {
            Ok(cpuinfo) if !has_virtualisation(&cpuinfo) => Kvm::NoHardware,
            _ => Kvm::Works,
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Kvm::NoPermission,
        Err(_) => Kvm::NoDevice,
    }
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| key.trim() == "flags");
    flags.flat_map(|(_, words)| words.split_ascii_whitespace()).any(|word| word == "vmx" || word == "svm")
}

/// What runs the VM, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub kind: HypervisorKind,
    pub accel: Accel,
    pub program: PathBuf,
    /// For people: `qemu with tcg: there is no usable /dev/kvm`.
    pub why: String,
}

/// Follows the wishes, or says why not; without one it is cloud-hypervisor where that can serve.
pub fn choose(wanted: Option<HypervisorKind>, accel: Option<Accel>, needs: &Needs, host: &Host) -> Result<Choice> {
    match wanted {
        Some(HypervisorKind::CloudHypervisor) => match cloud_hypervisor(accel, needs, host) {
            Ok(program) => Ok(with_kvm(HypervisorKind::CloudHypervisor, program, "as configured")),
            Err(obstacle) => Err(obstacle.refusal(host)),
        },
        Some(HypervisorKind::Qemu) => qemu(accel, needs, host, "as configured"),
        None => match cloud_hypervisor(accel, needs, host) {
            Ok(program) => {
                Ok(with_kvm(HypervisorKind::CloudHypervisor, program, "installed, and it can do all that is needed"))
            }
            Err(obstacle) => qemu(accel, needs, host, &obstacle.to_string()),
        },
    }
}

fn with_kvm(kind: HypervisorKind, program: &Path, why: &str) -> Choice {
    Choice { kind, accel: Accel::Kvm, program: program.to_owned(), why: format!("{kind} with kvm: {why}") }
}

/// Why cloud-hypervisor cannot take a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Obstacle {
    #[error("`accel = \"tcg\"` is set, and cloud-hypervisor has KVM only")]
    Tcg,
    #[error("cloud-hypervisor has no {0}")]
    Lacks(&'static str),
    #[error("cloud-hypervisor is not installed")]
    NotInstalled,
    #[error("{}", .0.why_not().unwrap_or("KVM does not work"))]
    Kvm(Kvm),
}

impl Obstacle {
    /// What to say when cloud-hypervisor and nothing else was asked for.
    fn refusal(self, host: &Host) -> Error {
        match self {
            Obstacle::Lacks(NO_PASST) => Error::usage(self.to_string())
                .hint("install passt 2024_11_27 or later, set `hypervisor = \"qemu\"`, which needs none, or leave it at \"auto\""),
            Obstacle::Tcg | Obstacle::Lacks(_) => Error::usage(self.to_string())
                .hint("set `hypervisor = \"qemu\"`, which has it, or leave it at \"auto\""),
            Obstacle::NotInstalled => not_installed(HypervisorKind::CloudHypervisor, host),
            Obstacle::Kvm(kvm) => kvm.refusal("cloud-hypervisor"),
        }
    }
}

fn cloud_hypervisor<'a>(accel: Option<Accel>, needs: &Needs, host: &'a Host) -> Result<&'a Path, Obstacle> {
    let kind = HypervisorKind::CloudHypervisor;
    if accel == Some(Accel::Tcg) {
        return Err(Obstacle::Tcg);
    }
    if let Some(what) = needs.missing(driver(kind).capabilities(), host) {
        return Err(Obstacle::Lacks(what));
    }
    let program = host.program(kind).ok_or(Obstacle::NotInstalled)?;
    let insisted = accel == Some(Accel::Kvm) && host.kvm.opens();
    if host.kvm == Kvm::Works || insisted { Ok(program) } else { Err(Obstacle::Kvm(host.kvm)) }
}

fn qemu(accel: Option<Accel>, needs: &Needs, host: &Host, why: &str) -> Result<Choice> {
    let kind = HypervisorKind::Qemu;
    if let Some(what) = needs.missing(driver(kind).capabilities(), host) {
        return Err(Error::usage(format!("qemu has no {what}")).hint("set `hypervisor = \"cloud-hypervisor\"`"));
    }
    let Some(program) = host.program(kind) else {
        return Err(match why {
            "as configured" => not_installed(kind, host),
            // Of two things that are in the way, the first is the one to mend.
            _ => Error::failed(format!("nothing here can run it: {why}, and qemu is not installed"))
                .hint("install qemu, or make cloud-hypervisor usable; `v doctor` says what is missing"),
        });
    };
    match accel {
        Some(Accel::Kvm) if !host.kvm.opens() => Err(host.kvm.refusal("`accel = \"kvm\"`")),
        Some(Accel::Kvm) => Ok(with_kvm(kind, program, why)),
        None if host.kvm == Kvm::Works => Ok(with_kvm(kind, program, why)),
        _ => {
            // The reason for TCG outweighs the reason for QEMU, unless it was asked for.
            let why = if accel.is_some() { why } else { host.kvm.why_not().unwrap_or(why) };
            Ok(Choice { kind, accel: Accel::Tcg, program: program.clone(), why: format!("{kind} with tcg: {why}") })
        }
    }
}

fn not_installed(kind: HypervisorKind, host: &Host) -> Error {
    let error = Error::failed(format!("{kind} is not installed"));
    let other = match kind {
        HypervisorKind::CloudHypervisor => HypervisorKind::Qemu,
        HypervisorKind::Qemu => HypervisorKind::CloudHypervisor,
    };
    error.hint(match host.program(other) {
        Some(_) => format!("install it, or set `hypervisor = \"{other}\"`"),
        None => "install it; `v doctor` says what else is missing".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    type Wish = (Option<HypervisorKind>, Option<Accel>);

    const CH: HypervisorKind = HypervisorKind::CloudHypervisor;
    const QEMU: HypervisorKind = HypervisorKind::Qemu;

    fn plain() -> Needs {
        Needs::of(&[], false)
    }

    fn user() -> Needs {
        Needs::of(&[&Link::User], false)
    }

    fn host(cloud_hypervisor: bool, qemu: bool, kvm: Kvm) -> Host {
        Host {
            cloud_hypervisor: cloud_hypervisor.then(|| "/bin/ch".into()),
            qemu: qemu.then(|| "/bin/qemu".into()),
            passt: false,
            kvm,
        }
    }

    fn with_passt(host: Host) -> Host {
        Host { passt: true, ..host }
    }

    #[test]
    fn what_is_chosen_and_why() {
        use Accel::{Kvm as K, Tcg as T};
        use Kvm::{NoDevice, NoHardware, NoPermission, Works};
        let rows: [(Wish, Needs, Host, HypervisorKind, Accel, &str); 20] = [
            ((None, None), plain(), host(true, true, Works), CH, K, "cloud-hypervisor with kvm"),
            ((None, Some(K)), plain(), host(true, true, Works), CH, K, "cloud-hypervisor with kvm"),
            ((None, Some(K)), plain(), host(true, true, NoHardware), CH, K, "cloud-hypervisor with kvm"),
            ((None, None), plain(), host(true, false, Works), CH, K, "cloud-hypervisor with kvm"),
            (
                (None, None),
                user(),
                host(true, true, Works),
                QEMU,
                K,
                "qemu with kvm: cloud-hypervisor has no `user` networks",
            ),
            (
                (None, None),
                plain(),
                host(false, true, Works),
                QEMU,
                K,
                "qemu with kvm: cloud-hypervisor is not installed",
            ),
            (
                (None, None),
                plain(),
                host(true, true, NoHardware),
                QEMU,
                T,
                "qemu with tcg: /dev/kvm opens, but the CPU has neither vmx nor svm",
            ),
            ((None, None), plain(), host(true, true, NoDevice), QEMU, T, "qemu with tcg: there is no usable /dev/kvm"),
            (
                (None, None),
                plain(),
                host(true, true, NoPermission),
                QEMU,
                T,
                "qemu with tcg: this user may not open /dev/kvm",
            ),
            ((None, None), user(), host(true, true, NoHardware), QEMU, T, "qemu with tcg: /dev/kvm opens"),
            ((None, Some(T)), plain(), host(true, true, Works), QEMU, T, "qemu with tcg: `accel = \"tcg\"` is set"),
            (
                (None, Some(K)),
                user(),
                host(true, true, NoHardware),
                QEMU,
                K,
                "qemu with kvm: cloud-hypervisor has no `user`",
            ),
            ((Some(CH), None), plain(), host(true, true, Works), CH, K, "cloud-hypervisor with kvm: as configured"),
            ((Some(CH), Some(K)), plain(), host(true, false, NoHardware), CH, K, "as configured"),
            ((None, None), user(), with_passt(host(true, true, Works)), CH, K, "it can do all that is needed"),
            ((Some(CH), None), user(), with_passt(host(true, false, Works)), CH, K, "as configured"),
            ((None, None), user(), with_passt(host(true, true, NoHardware)), QEMU, T, "neither vmx nor svm"),
            ((Some(QEMU), None), plain(), host(true, true, Works), QEMU, K, "qemu with kvm: as configured"),
            ((Some(QEMU), None), plain(), host(true, true, NoHardware), QEMU, T, "qemu with tcg: /dev/kvm opens"),
            ((Some(QEMU), Some(T)), plain(), host(true, true, Works), QEMU, T, "qemu with tcg: as configured"),
        ];
        for ((wanted, accel), needs, host, kind, expected, why) in rows {
            let row = format!("{wanted:?} {accel:?} {needs:?} {host:?}");
            let choice = choose(wanted, accel, &needs, &host).expect(&row);
            assert_eq!((choice.kind, choice.accel), (kind, expected), "{row}: {}", choice.why);
            assert!(choice.why.contains(why), "{row}: {}", choice.why);
            assert_eq!(choice.program, Path::new(if kind == CH { "/bin/ch" } else { "/bin/qemu" }), "{row}");
        }
    }

    #[test]
    fn what_is_refused_and_what_to_do() {
        use Accel::{Kvm as K, Tcg as T};
        use Kvm::{NoDevice, NoHardware, NoPermission, Works};
        let rows: [(Wish, Needs, Host, Kind, &str, &str); 11] = [
            (
                (Some(CH), None),
                user(),
                host(true, true, Works),
                Kind::Usage,
                "cloud-hypervisor has no `user` networks without passt",
                "install passt",
            ),
            ((Some(CH), Some(T)), plain(), host(true, true, Works), Kind::Usage, "KVM only", "\"qemu\""),
            (
                (Some(CH), None),
                plain(),
                host(false, true, Works),
                Kind::Failed,
                "cloud-hypervisor is not installed",
                "\"qemu\"",
            ),
            (
                (Some(CH), None),
                plain(),
                host(true, true, NoHardware),
                Kind::Failed,
                "neither vmx nor svm",
                "accel = \"kvm\"",
            ),
            ((Some(CH), Some(K)), plain(), host(true, true, NoDevice), Kind::Failed, "no usable /dev/kvm", "kvm_intel"),
            (
                (Some(CH), Some(K)),
                plain(),
                host(true, true, NoPermission),
                Kind::Failed,
                "may not open /dev/kvm",
                "kvm USER",
            ),
            (
                (Some(QEMU), None),
                plain(),
                host(true, false, Works),
                Kind::Failed,
                "qemu is not installed",
                "\"cloud-hypervisor\"",
            ),
            (
                (Some(QEMU), Some(K)),
                plain(),
                host(true, true, NoPermission),
                Kind::Failed,
                "may not open /dev/kvm",
                "kvm USER",
            ),
            ((None, Some(K)), plain(), host(true, true, NoDevice), Kind::Failed, "no usable /dev/kvm", "kvm_intel"),
            (
                (None, None),
                plain(),
                host(false, false, Works),
                Kind::Failed,
                "cloud-hypervisor is not installed, and qemu",
                "doctor",
            ),
            (
                (None, None),
                user(),
                host(true, false, Works),
                Kind::Failed,
                "no `user` networks without passt, and qemu",
                "qemu",
            ),
        ];
        for ((wanted, accel), needs, host, kind, message, hint) in rows {
            let row = format!("{wanted:?} {accel:?} {needs:?} {host:?}");
            let error = choose(wanted, accel, &needs, &host).expect_err(&row);
            assert_eq!(error.kind(), kind, "{row}: {error}");
            assert!(error.message().contains(message), "{row}: {error}");
            assert!(error.hint_text().is_some_and(|text| text.contains(hint)), "{row}: {:?}", error.hint_text());
        }
    }

    #[test]
    fn needs_follow_the_links() {
        let vhost = Link::Vhost { bridge: "b".into(), create: false };
        let needs = Needs::of(&[&vhost, &Link::User], true);
        assert_eq!(needs, Needs { vhost: true, tap: false, user: true, firmware: false, kernel: true });
        assert!(plain().firmware);
    }

    #[test]
    fn cpu_flags() {
        let rows = [
            ("processor\t: 0\nflags\t\t: fpu vmx sse\n", true),
            ("flags\t\t: fpu svm\n", true),
            ("flags\t\t: fpu svml vmxoff\nbugs\t\t: vmx\n", false),
            ("", false),
        ];
        for (cpuinfo, expected) in rows {
            assert_eq!(has_virtualisation(cpuinfo), expected, "{cpuinfo:?}");
        }
    }

    #[test]
    fn a_named_program_that_is_not_there_is_not_replaced_by_another() {
        let host = Host::probe(Some(Path::new("/no/such/cloud-hypervisor")), Some(Path::new("/bin/sh")));
        assert_eq!(host.cloud_hypervisor, None);
        assert_eq!(host.qemu.as_deref(), Some(Path::new("/bin/sh")));
    }
}
