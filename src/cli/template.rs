use clap::{Args, Subcommand};
use serde::Serialize;

use super::table::Table;
use super::ui::{Format, Ui, up_to};
use super::{complete, guard};
use crate::config::{Config, Template};
use crate::error::Result;
use crate::spec::{Guard, Link};
use crate::template::{self, Settled};
use crate::vm::{self, Site};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Ls(Ls),
    Show(Show),
}

/// List the templates
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Show a template, and what this host would make of it
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The template's name
    #[arg(add = complete::template_names())]
    template: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One template, in stable form.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    vcpu: u32,
    vram_bytes: u64,
    /// What the two can come to while a VM runs.
    vcpu_max: Option<u32>,
    vram_max_bytes: Option<u64>,
    disks: Vec<DiskRow>,
    networks: Vec<NetRow>,
    boot: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hypervisor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Debug, Serialize)]
struct DiskRow {
    name: String,
    source: Option<String>,
    size_bytes: Option<u64>,
    readonly: bool,
}

#[derive(Debug, Serialize)]
struct NetRow {
    network: String,
    kind: &'static str,
    bridge: Option<String>,
    subnet: Option<String>,
    /// Whether Virshle makes the bridge, as far as the config says it.
    kept: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<Guard>,
}

pub(super) fn run(command: Command, site: &Site, ui: &Ui) -> Result<()> {
    let config = site.config()?;
    match command {
        Command::Ls(ls) => {
            let rows = config.templates.iter().map(|template| row(&config, template)).collect::<Result<Vec<_>>>()?;
            ui.rows(ls.output, &rows, table)
        }
        Command::Show(show) => {
            let template = template::find(&config, &show.template)?;
            let mut row = row(&config, template)?;
            // A template is worth looking at also where it could not run.
            row.why = Some(match vm::resolve(&config, template) {
                Ok((resolved, choice)) => {
                    row.hypervisor = Some(resolved.hypervisor.to_string());
                    choice.why
                }
                Err(error) => format!("nothing here: {}", error.message()),
            });
            ui.rows(show.output, &[row], details)
        }
    }
}

fn row(config: &Config, template: &Template) -> Result<Row> {
    let disks = template::disks(config, template)?
        .into_iter()
        .map(|disk| DiskRow {
            name: disk.name.to_string(),
            source: disk.source.map(|path| path.display().to_string()),
            size_bytes: disk.size.map(|size| size.bytes()),
            readonly: disk.readonly,
        })
        .collect();
    let networks = template::nics(config, template, &mut |network| Ok(Settled::by_config(network)))?
        .into_iter()
        .map(|nic| {
            let (kind, bridge) = match nic.link {
                Link::Vhost { bridge, .. } => ("vhost", Some(bridge)),
                Link::Tap { bridge, .. } => ("tap", Some(bridge)),
                Link::User => ("user", None),
            };
            NetRow {
                network: nic.network.to_string(),
                kind,
                bridge,
                subnet: nic.subnet.map(|subnet| subnet.net.to_string()),
                kept: nic.guard.is_some(),
                address: nic.address.map(|address| address.to_string()),
                mac: nic.mac.map(|mac| mac.to_string()),
                ports: nic.forwards.iter().map(ToString::to_string).collect(),
                guard: nic.guard.filter(|guard| *guard != Guard::default()),
            }
        })
        .collect();
    Ok(Row {
        name: template.name.to_string(),
        vcpu: template.vcpu,
        vram_bytes: template.vram.bytes(),
        vcpu_max: template.vcpu_max,
        vram_max_bytes: template.vram_max.map(|most| most.bytes()),
        disks,
        networks,
        boot: if template.kernel.is_some() { "kernel" } else { "firmware" },
        hypervisor: None,
        why: None,
    })
}

fn size(bytes: u64) -> String {
    crate::spec::Size::from_bytes(bytes).to_string()
}

fn disk(disk: &DiskRow) -> String {
    match disk.size_bytes {
        Some(bytes) => format!("{} {}", disk.name, size(bytes)),
        None => disk.name.clone(),
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["NAME", "VCPU", "RAM", "DISKS", "NETWORKS"]);
    for row in rows {
        let disks: Vec<_> = row.disks.iter().map(disk).collect();
        let networks: Vec<_> = row.networks.iter().map(|net| format!("{} ({})", net.network, net.kind)).collect();
        table.row(vec![
            row.name.clone().into(),
            row.vcpu.to_string().into(),
            size(row.vram_bytes).into(),
            disks.join(", ").into(),
            networks.join(", ").into(),
        ]);
    }
    table
}

fn details(rows: &[Row]) -> Table {
    let mut table = Table::new(["KEY", "VALUE"]);
    for row in rows {
        let mut line = |key: String, value: String| table.row(vec![key.into(), value.into()]);
        line("name".into(), row.name.clone());
        line("vcpu".into(), up_to(row.vcpu, row.vcpu_max));
        line("ram".into(), up_to(size(row.vram_bytes), row.vram_max_bytes.map(size)));
        line("boot".into(), row.boot.to_owned());
        for disk in &row.disks {
            let source = disk.source.clone().unwrap_or_else(|| "blank".to_owned());
            let grown = disk.size_bytes.map(|bytes| format!(", {}", size(bytes))).unwrap_or_default();
            line(format!("disk {}", disk.name), format!("{source}{grown}"));
        }
        for net in &row.networks {
            let on = net.bridge.as_ref().map(|bridge| format!(" on `{bridge}`")).unwrap_or_default();
            let addresses = match (&net.address, &net.subnet) {
                (Some(address), _) => format!(", {address}"),
                (None, Some(subnet)) => format!(", addresses from {subnet}"),
                (None, None) => String::new(),
            };
            let mac = net.mac.as_ref().map(|mac| format!(", {mac}")).unwrap_or_default();
            line(format!("network {}", net.network), format!("{}{on}{addresses}{mac}", net.kind));
            if !net.ports.is_empty() {
                line("  ports".into(), net.ports.join(", "));
            }
            for (key, text) in net.guard.iter().flat_map(guard::lines) {
                line(format!("  {key}"), text);
            }
        }
        line("runs on".into(), row.why.clone().unwrap_or_default());
    }
    table
}
