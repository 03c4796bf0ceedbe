use std::fs;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::colour::Tone;
use super::confinement;
use super::table::{Cell, Table};
use super::ui::{Format, Ui, count};
use crate::config::{Config, Keeping, Network, NetworkKind};
use crate::error::{Error, Result};
use crate::host::{self, Mode, ServiceManager, find_program};
use crate::hypervisor::{Host, Kvm, cloud_hypervisor, qemu};
use crate::network::ovs::Ovs;
use crate::network::passt::Passt;
use crate::spec::{Boot, Limits, Serves, Size};
use crate::store::Store;
use crate::vm::{self, Site, repair};

/// Look at this host: what works, what is missing, and what to do about it
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Root looks, for a member of the group.
    #[arg(skip)]
    by_member: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Health {
    Ok,
    /// Only some networks, images or guests need it.
    Optional,
    /// Killed processes left something behind.
    Untidy,
    /// VMs run worse without it.
    Missing,
    /// No VM can run, or what is recorded is in danger.
    Broken,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    health: Health,
    detail: String,
    hint: Option<String>,
}

impl Doctor {
    pub(super) fn asked_by_member(&mut self) {
        self.by_member = true;
    }

    pub(super) fn run(&self, site: &Site, ui: &Ui) -> Result<()> {
        let findings = examine(site, self.by_member);
        ui.rows(self.output, &findings, table)?;
        match findings.iter().filter(|finding| finding.health == Health::Broken).count() {
            0 => Ok(()),
            1 => Err(Error::failed("one thing is broken")),
            broken => Err(Error::failed(format!("{broken} things are broken"))),
        }
    }
}

fn examine(site: &Site, by_member: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |what, health, detail: String, hint: Option<&str>| {
        found.push(Finding { what, health, detail, hint: hint.map(str::to_owned) });
    };

    let (health, detail, hint) = super::access::finding(site, by_member);
    add("access", health, detail, hint.as_deref());
    let config = site.config();
    match &config {
        Ok(config) => add(
            "config",
            Health::Ok,
            format!("{}: {}", site.dirs.config_file().display(), count(config.templates.len(), "template")),
            None,
        ),
        Err(error) if !site.dirs.config_file().exists() => {
            add("config", Health::Missing, error.message().to_owned(), error.hint_text());
        }
        Err(error) => add("config", Health::Broken, error.message().to_owned(), error.hint_text()),
    }
    let config = config.ok();
    let hosts = config.as_ref().map_or_else(|| Host::probe(None, None), vm::hosts);

    match hosts.kvm {
        Kvm::Works => add("kvm", Health::Ok, "/dev/kvm opens, and the CPU has hardware virtualisation".into(), None),
        Kvm::NoDevice => add(
            "kvm",
            Health::Missing,
            "there is no /dev/kvm".into(),
            Some(
                "load the module kvm_intel or kvm_amd, or switch virtualisation on in the firmware; QEMU still works, slowly",
            ),
        ),
        Kvm::NoPermission => add(
            "kvm",
            Health::Missing,
            "/dev/kvm is there, but you may not open it".into(),
            Some("join the group that owns it: `sudo usermod -aG kvm $USER`, then log in again"),
        ),
        Kvm::NoHardware => add(
            "kvm",
            Health::Missing,
            "/dev/kvm opens, but the CPU shows neither vmx nor svm".into(),
            Some("switch nested virtualisation on where this host itself is a guest; QEMU still works, slowly"),
        ),
    }

    match &hosts.cloud_hypervisor {
        Some(program) => match cloud_hypervisor::version(program) {
            Ok(version) => match version.check() {
                Ok(()) => add("cloud-hypervisor", Health::Ok, format!("{version} ({})", program.display()), None),
                Err(error) => add("cloud-hypervisor", Health::Missing, error.chain().join(": "), error.hint_text()),
            },
            Err(error) => add("cloud-hypervisor", Health::Missing, error.chain().join(": "), error.hint_text()),
        },
        None => add(
            "cloud-hypervisor",
            Health::Missing,
            "not on PATH".into(),
            Some("install it from its releases or your distribution, or name it in `[node.cloud-hypervisor] program`"),
        ),
    }
    match &hosts.qemu {
        Some(program) => match qemu::version(program) {
            Ok(version) => match version.check() {
                Ok(()) => add("qemu", Health::Ok, format!("{version} ({})", program.display()), None),
                Err(error) => add("qemu", Health::Missing, error.chain().join(": "), error.hint_text()),
            },
            Err(error) => add("qemu", Health::Missing, error.chain().join(": "), error.hint_text()),
        },
        None => add("qemu", Health::Missing, "not on PATH".into(), Some("install the package qemu-system-x86")),
    }
    if hosts.cloud_hypervisor.is_none() && hosts.qemu.is_none() {
        add("hypervisor", Health::Broken, "there is none at all".into(), Some("install QEMU or cloud-hypervisor"));
    }

    let node = config.as_ref().map(|config| &config.node);
    let ch_firmware = cloud_hypervisor::firmware(node.and_then(|node| node.cloud_hypervisor.firmware.as_deref()));
    firmware(&mut add, "firmware for cloud-hypervisor", ch_firmware);
    let qemu_node = node.map(|node| &node.qemu);
    let qemu_firmware = qemu::firmware(
        qemu_node.and_then(|qemu| qemu.firmware.as_deref()),
        qemu_node.and_then(|qemu| qemu.vars.as_deref()),
    );
    firmware(&mut add, "firmware for qemu", qemu_firmware);

    open_vswitch(&mut add, &Ovs::new(node.and_then(|node| node.ovs_db.clone())));
    confinement::examine(&mut add, site, config.as_ref());
    hugepages(&mut add);
    taps(&mut add);
    for (program, package, why) in [
        ("qemu-img", "qemu-utils", "converts qcow2, vmdk, vdi and vhdx images"),
        ("ssh", "openssh-client", "`v vm ssh`"),
    ] {
        match find_program(program) {
            Some(path) => add(program, Health::Ok, path.display().to_string(), None),
            None => add(
                program,
                Health::Optional,
                format!("not on PATH ({why})"),
                Some(&format!("install the package {package}")),
            ),
        }
    }
    if let Some(config) = &config {
        networks(&mut add, config);
    }
    beside(&mut add);
    service_manager(&mut add, site, config.as_ref());
    storage(&mut add, site);
    left_overs(&mut add, site);
    found
}

/// What brings the networks up that Virshle keeps.
fn networks(add: &mut Add<'_>, config: &Config) {
    let kept = || config.networks.iter().filter(|network| network.keeping() != Keeping::Theirs);
    let served = kept().any(Network::is_served);
    let bridges = kept().any(|network| network.kind == NetworkKind::Bridge);
    for (program, package, why, wanted) in [
        ("ip", "iproute2", "bridges and addresses of networks", kept().next().is_some()),
        ("nft", "nftables", "the firewall of networks", served || bridges),
        ("dnsmasq", "dnsmasq-base or dnsmasq", "names and addresses on networks", served),
    ] {
        match find_program(program) {
            _ if !wanted => {}
            Some(path) => add(program, Health::Ok, path.display().to_string(), None),
            None => add(
                program,
                Health::Missing,
                format!("not on PATH ({why})"),
                Some(&format!("install the package {package}")),
            ),
        }
    }
}

pub(super) type Add<'a> = dyn FnMut(&'static str, Health, String, Option<&str>) + 'a;

fn firmware(add: &mut Add<'_>, what: &'static str, found: Result<Boot>) {
    match found {
        Ok(Boot::Firmware { code, .. }) => add(what, Health::Ok, code.display().to_string(), None),
        Ok(Boot::Kernel { .. }) => {}
        Err(error) => add(what, Health::Optional, error.message().to_owned(), error.hint_text()),
    }
}

fn open_vswitch(add: &mut Add<'_>, ovs: &Ovs) {
    match ovs.version() {
        Ok(version) => match ovs.dpdk().map(|dpdk| dpdk.hint(ovs)) {
            Ok(None) => add("open vswitch", Health::Ok, format!("{version}, with DPDK"), None),
            Ok(Some(hint)) => add(
                "open vswitch",
                Health::Optional,
                format!("{version}, without DPDK: tap works, vhost does not"),
                Some(&hint),
            ),
            Err(error) => add("open vswitch", Health::Optional, error.message().to_owned(), error.hint_text()),
        },
        Err(error) => add("open vswitch", Health::Optional, error.message().to_owned(), error.hint_text()),
    }
}

/// The programs that run beside a hypervisor.
fn beside(add: &mut Add<'_>) {
    const PASST: &str = "install passt 2024_11_27 or later; QEMU needs none";
    match Passt::find() {
        Passt::Serves(program) => add("passt", Health::Ok, program.display().to_string(), None),
        Passt::TooOld(program) => add(
            "passt",
            Health::Optional,
            format!("{} has no `--vhost-user`: no `user` networks under cloud-hypervisor", program.display()),
            Some(PASST),
        ),
        Passt::Missing => add(
            "passt",
            Health::Optional,
            "not on PATH (`user` networks under cloud-hypervisor)".to_owned(),
            Some(PASST),
        ),
    }
    let line = Serves::Line.program();
    match (host::open_vhost_vsock(), find_program(line)) {
        (Ok(_), _) => add("vsock for qemu", Health::Ok, "/dev/vhost-vsock opens".to_owned(), None),
        (Err(_), Some(program)) => add("vsock for qemu", Health::Ok, program.display().to_string(), None),
        (Err(error), None) => add(
            "vsock for qemu",
            Health::Optional,
            format!("neither /dev/vhost-vsock ({error}) nor `{line}`: guests are reached by their networks alone"),
            Some("load the module: `modprobe vhost_vsock`"),
        ),
    }
}

fn hugepages(add: &mut Add<'_>) {
    let count = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}")).ok()?.trim().parse().ok()
    };
    match (count("nr_hugepages"), count("free_hugepages")) {
        (Some(all @ 1..), Some(free)) => {
            add("hugepages", Health::Ok, format!("{free} of {all} pages of 2 MiB are free"), None);
        }
        _ => add(
            "hugepages",
            Health::Optional,
            "none of 2 MiB are reserved: Open vSwitch with DPDK needs some".into(),
            Some("`sysctl vm.nr_hugepages=256`, and in /etc/sysctl.d for the next boot"),
        ),
    }
}

fn taps(add: &mut Add<'_>) {
    let tun = Path::new("/dev/net/tun");
    if !tun.exists() {
        add("taps", Health::Optional, "there is no /dev/net/tun".into(), Some("`modprobe tun`"));
    } else if rustix::process::geteuid().is_root() {
        add("taps", Health::Ok, "/dev/net/tun is there".into(), None);
    } else {
        add(
            "taps",
            Health::Optional,
            "only root can make taps and ports".into(),
            Some("`user` networks need no privileges"),
        );
    }
}

fn service_manager(add: &mut Add<'_>, site: &Site, config: Option<&Config>) {
    let limited = config
        .is_some_and(|config| config.templates.iter().any(|template| template.policy().limits != Limits::default()));
    let alone = |why: &str| match limited {
        true => (
            Health::Missing,
            format!("{why}: VMs are processes of their own, and nothing holds them to the limits of their templates"),
        ),
        false => (Health::Optional, format!("{why}: VMs are processes of their own, without cgroup limits")),
    };
    let what = "service manager";
    match (site.dirs.mode, ServiceManager::find()) {
        (Mode::System, ServiceManager::Systemd(unit)) => {
            add(what, Health::Ok, format!("systemd: each VM is a unit ({})", unit.display()), None);
        }
        (Mode::System, ServiceManager::WithoutUnits) => {
            let (health, detail) = alone("systemd is there, but the units are not installed");
            let hint = "`v units --dir /etc/systemd/system && systemctl daemon-reload`, and `systemctl enable virshle-autostart` for VMs that start with the host";
            add(what, health, detail, Some(hint));
        }
        (Mode::System, ServiceManager::None) => {
            let (health, detail) = alone("none");
            add(
                what,
                health,
                detail,
                Some("to start VMs with the host, run `v vm autostart` from rc.local or cron's @reboot"),
            );
        }
        (Mode::Session | Mode::Rooted, _) => {
            let (health, detail) = alone("none in this mode");
            add(what, health, detail, None);
        }
    }
}

fn storage(add: &mut Add<'_>, site: &Site) {
    let mode = match site.dirs.mode {
        Mode::System => "system",
        Mode::Session => "session",
        Mode::Rooted => "rooted",
    };
    let state = &site.dirs.state;
    let there = state.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let writable = rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_ok();
    let free = host::free_space(there).unwrap_or(0);
    let detail = format!("{mode} mode: {}, {} GiB free", state.display(), free / Size::GIB);
    match (writable, free) {
        (false, _) => add(
            "state",
            Health::Broken,
            format!("`{}` cannot be written", there.display()),
            Some("run as its owner, or name another place with `--root DIR`"),
        ),
        (true, ..Size::GIB) => add("state", Health::Missing, detail, Some("less than 1 GiB is left for disks")),
        (true, _) => add("state", Health::Ok, detail, None),
    }
    if site.dirs.database().exists() {
        match site.store().and_then(|store| store.check()) {
            Ok(()) => add("database", Health::Ok, site.dirs.database().display().to_string(), None),
            Err(error) => add("database", Health::Broken, error.chain().join(": "), error.hint_text()),
        }
    }
}

fn left_overs(add: &mut Add<'_>, site: &Site) {
    let what = "left-overs";
    let survey = Store::open_read_only(&site.dirs.database()).and_then(|store| repair::survey(site, store.as_ref()));
    match survey.map(|findings| findings.iter().filter(|finding| finding.is_left_over()).count()) {
        Ok(0) => add(what, Health::Ok, "killed processes left nothing behind".into(), None),
        Ok(number) => add(
            what,
            Health::Untidy,
            format!("killed processes left {}", count(number, "thing")),
            Some("`v repair --dry-run` lists them, `v repair` puts them in order"),
        ),
        // What is wrong with the database is told above.
        Err(error) => add(what, Health::Untidy, error.message().to_owned(), error.hint_text()),
    }
}

/// Lines of at most `width` characters, broken between words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(last) if line == 0 => last.push_str(word),
            Some(last) if line + 1 + word.chars().count() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn table(findings: &[Finding]) -> Table {
    // Behind the first two columns; without a terminal there is no end of the line.
    let width = super::ui::terminal_width().map_or(usize::MAX, |width| width.saturating_sub(45).max(40));
    let mut table = Table::new(["", "WHAT", "FOUND"]);
    for finding in findings {
        let mark = match finding.health {
            Health::Ok => Cell::toned("ok", Tone::Good),
            Health::Optional => Cell::toned("optional", Tone::Dim),
            Health::Untidy => Cell::toned("untidy", Tone::Busy),
            Health::Missing => Cell::toned("missing", Tone::Busy),
            Health::Broken => Cell::toned("broken", Tone::Bad),
        };
        let mut first = Some((mark, finding.what.into()));
        let hint = finding.hint.as_ref().map(|hint| format!("→ {hint}"));
        let lines = wrap(&finding.detail, width).into_iter().map(Cell::from);
        let hints = hint.iter().flat_map(|hint| wrap(hint, width)).map(|line| Cell::toned(line, Tone::Dim));
        for line in lines.chain(hints) {
            let (mark, what) = first.take().unwrap_or_else(|| ("".into(), "".into()));
            table.row(vec![mark, what, line]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensibilities of it", 5), ["incomprehensibilities", "of it"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
