use clap::Args;
use serde::Serialize;

use super::ls::{self, Row, local_time};
use super::policy;
use super::select::One;
use crate::cli::colour::Tone;
use crate::cli::guard;
use crate::cli::table::{Cell, Table};
use crate::cli::ui::{Format, Ui, up_to};
use crate::error::Result;
use crate::host::User;
use crate::spec::{Declared, Link, Size, VmSpec};
use crate::vm::{self, Site};

/// Show all that is known of a VM
#[derive(Debug, Args)]
pub(crate) struct Info {
    #[command(flatten)]
    vm: One,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Serialize)]
struct Full {
    #[serde(flatten)]
    row: Row,
    login: Option<String>,
    supervisor_pid: Option<i32>,
    hypervisor_pid: Option<i32>,
    hypervisor_user: Option<String>,
    folder: String,
    /// What the config last made of it.
    #[serde(rename = "declaration")]
    declared: Option<Declared>,
    spec: VmSpec,
}

fn origin(declared: Option<&Declared>) -> &'static str {
    match declared {
        None => "made by hand",
        Some(declared) if declared.removed => "declared once, and no more",
        Some(_) => "declared by the config",
    }
}

fn user_name(uid: u32) -> String {
    User::by_uid(uid).map_or_else(|| uid.to_string(), |user| user.name)
}

impl Info {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let store = site.reader()?;
        let observed = vm::observe(site, self.vm.find(&store)?)?;
        let runtime = observed.record.runtime.clone();
        let exit = observed.record.exit.as_ref().map(ToString::to_string);
        let created = observed.record.created_at.to_string();
        let spec = observed.record.spec.clone();
        let declared = observed.record.declared.clone();
        let (state, unwatched) = (observed.state, observed.unwatched);
        let full = Full {
            login: spec.login.clone(),
            supervisor_pid: runtime.as_ref().map(|runtime| runtime.supervisor.pid),
            hypervisor_pid: runtime.as_ref().and_then(|runtime| runtime.hypervisor).map(|handle| handle.pid),
            hypervisor_user: runtime.as_ref().and_then(|runtime| runtime.hypervisor?.user()).map(user_name),
            folder: site.dirs.vm(spec.uuid).display().to_string(),
            row: ls::row(site, observed),
            declared,
            spec,
        };
        ui.rows(self.output, &[full], |rows| {
            let full = &rows[0];
            let mut table = Table::new(["KEY", "VALUE"]);
            let mut line = |key: &str, value: Cell| table.row(vec![key.into(), value]);
            let spec = &full.spec;
            line("name", spec.name.as_str().into());
            line("number", spec.number.to_string().into());
            line("uuid", spec.uuid.to_string().into());
            line("template", spec.template.as_str().into());
            line("origin", origin(full.declared.as_ref()).into());
            line("state", Cell::toned(full.row.state_text(), ls::tone(state)));
            if unwatched {
                let rest = if state.is_run() { "the guest runs on" } else { "the next command brings another" };
                line("", format!("its supervisor was killed; {rest}").into());
            }
            line("hypervisor", spec.hypervisor.to_string().into());
            line("vcpu", up_to(spec.vcpu, spec.vcpu_max).into());
            line("ram", up_to(spec.vram, spec.vram_max).into());
            for (disk, row) in spec.disks.iter().zip(full.row.disk_sizes()) {
                let source = disk.source.as_ref().map_or_else(|| "blank".to_owned(), |path| path.display().to_string());
                let size = row.map(|bytes| format!(", {}", Size::from_bytes(bytes))).unwrap_or_default();
                line(&format!("disk {}", disk.name), format!("{source}{size}").into());
            }
            for nic in &spec.nics {
                let address = nic.address.as_ref().map_or_else(
                    || "by DHCP".to_owned(),
                    |address| match address.ip6 {
                        Some(ip6) => format!("{}, {ip6}", address.ip),
                        None => address.ip.to_string(),
                    },
                );
                let text = match nic.link {
                    Link::User => format!("{}, user", nic.mac),
                    _ => format!("{}, {address}, port {}", nic.mac, nic.port(spec.number)),
                };
                line(&format!("network {}", nic.network), text.into());
                if !nic.forwards.is_empty() {
                    let ports: Vec<String> = nic.forwards.iter().map(ToString::to_string).collect();
                    line("  ports", ports.join(", ").into());
                }
                for (key, text) in nic.guard.iter().flat_map(guard::lines) {
                    line(&format!("  {key}"), text.into());
                }
                let port = nic.port(spec.number);
                if let Some(trouble) = full.row.troubles().iter().find(|trouble| trouble.port == port) {
                    line("", Cell::toned(trouble.to_string(), Tone::Bad));
                }
            }
            if let Some(ssh) = runtime.as_ref().and_then(|runtime| runtime.ssh) {
                line("ssh", format!("{ssh} (forwarded)").into());
            }
            if let Some(cid) = spec.vsock {
                line("vsock", cid.to_string().into());
            }
            if let Some(login) = &full.login {
                line("login", login.as_str().into());
            }
            for (key, text) in policy::lines(&spec.policy, state, full.row.retries()) {
                line(key, text.into());
            }
            if let Some(labels) = ls::labels(&spec.labels) {
                line("labels", labels.into());
            }
            line("created", local_time(&created).into());
            if let Some(since) = full.row.up_since() {
                line("up since", local_time(since).into());
            }
            if let (Some(supervisor), Some(hypervisor)) = (full.supervisor_pid, full.hypervisor_pid) {
                let supervisor = if unwatched { "killed".to_owned() } else { supervisor.to_string() };
                line("processes", format!("supervisor {supervisor}, hypervisor {hypervisor}").into());
                if let (Some(user), 1..) = (&full.hypervisor_user, ui.verbose) {
                    line("runs as", user.as_str().into());
                }
            }
            if let Some(exit) = exit {
                line("last end", exit.into());
            }
            line("folder", full.folder.as_str().into());
            table
        })
    }
}
