use clap::Args;
use serde::Serialize;

use super::policy;
use crate::cli::colour::Tone;
use crate::cli::complete;
use crate::cli::table::{Cell, Table};
use crate::cli::ui::{Format, Ui};
use crate::error::Result;
use crate::host;
use crate::spec::{Exit, Labels, Link, PortTrouble, Size, State};
use crate::store::{Retries, Store};
use crate::vm::{self, Observed, Site};

/// List the VMs
///
/// It reads what is recorded and asks no hypervisor and no guest, so it never waits.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Only VMs in this state: creating, stopped, starting, running, paused, stopping, crashed,
    /// restarting, deleting
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Option<State>,
    /// Only VMs with this label: `role`, or `role=db`; may be given more than once, and all must be there
    #[arg(long = "label", value_name = "KEY[=VALUE]", add = complete::labels())]
    labels: Vec<String>,
}

fn state(text: &str) -> Result<State, String> {
    State::ALL.into_iter().find(|state| state.to_string() == text).ok_or_else(|| {
        let known: Vec<String> = State::ALL.iter().map(ToString::to_string).collect();
        format!("the states are {}", known.join(", "))
    })
}

/// One VM, in stable form.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    number: u32,
    name: String,
    template: String,
    state: State,
    /// It runs, or is to be started again, and its supervisor was killed.
    unwatched: bool,
    vcpu: u32,
    vram_bytes: u64,
    /// `ADDRESS`, or `ADDRESS:PORT` where ssh is forwarded.
    address: Option<String>,
    up_since: Option<String>,
    hypervisor: String,
    last_exit: Option<Exit>,
    /// Of its restart policy: the attempts of the present series.
    retries: Option<Retries>,
    disks: Vec<DiskRow>,
    nics: Vec<NicRow>,
    /// What is wrong with its ports.
    troubles: Vec<PortTrouble>,
    uuid: String,
    created_at: String,
    labels: Labels,
    protected: bool,
    /// Whether the config declares it; else it was made by hand, or is declared no more.
    declared: bool,
}

#[derive(Debug, Serialize)]
struct DiskRow {
    name: String,
    size_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct NicRow {
    network: String,
    /// On this host's switch; a `user` network has none.
    port: Option<String>,
    mac: String,
    address: Option<String>,
    address6: Option<String>,
    /// Ports of this host that lead to it while it runs.
    ports: Vec<String>,
}

impl Row {
    pub(super) fn disk_sizes(&self) -> impl Iterator<Item = Option<u64>> {
        self.disks.iter().map(|disk| disk.size_bytes)
    }

    pub(super) fn troubles(&self) -> &[PortTrouble] {
        &self.troubles
    }

    /// As a person reads it.
    pub(super) fn state_text(&self) -> String {
        policy::state(self.state, self.retries.as_ref(), host::now())
    }

    pub(super) fn retries(&self) -> Option<&Retries> {
        self.retries.as_ref()
    }

    pub(super) fn up_since(&self) -> Option<&str> {
        self.up_since.as_deref()
    }
}

impl Ls {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let rows = match Store::open_read_only(&site.dirs.database())? {
            Some(store) => store.list()?,
            None => Vec::new(),
        }
        .into_iter()
        .filter(|record| self.labels.iter().all(|label| has(&record.spec.labels, label)))
        .map(|record| Ok(row(site, vm::observe(site, record)?)))
        .filter(|row| !matches!((row, self.state), (Ok(row), Some(state)) if row.state != state))
        .collect::<Result<Vec<Row>>>()?;
        if rows.is_empty() && self.output == Format::Table && !self.labels.is_empty() {
            ui.say("no VM has that label");
            return Ok(());
        }
        if rows.is_empty() && self.output == Format::Table {
            ui.say("no VMs; make one with `v vm create -t TEMPLATE` (templates: `v template ls`)");
            return Ok(());
        }
        ui.rows(self.output, &rows, |rows| table(rows, ui.verbose > 0))
    }
}

fn has(labels: &Labels, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key) == Some(value),
        None => labels.get(wanted).is_some(),
    }
}

pub(super) fn row(site: &Site, observed: Observed) -> Row {
    let Observed { record, state, unwatched } = observed;
    let spec = &record.spec;
    let forwarded = record.runtime.as_ref().and_then(|runtime| runtime.ssh).map(|ssh| ssh.to_string());
    let dir = site.dirs.vm(spec.uuid);
    Row {
        number: spec.number,
        name: spec.name.to_string(),
        template: spec.template.to_string(),
        state,
        unwatched,
        vcpu: spec.vcpu,
        vram_bytes: spec.vram.bytes(),
        address: spec.address().map(|address| address.to_string()).or(forwarded),
        up_since: record.started_at.filter(|_| state.is_live()).map(|at| at.to_string()),
        hypervisor: spec.hypervisor.to_string(),
        last_exit: record.exit.clone(),
        retries: record.retries.clone(),
        disks: spec
            .disks
            .iter()
            .map(|disk| {
                // An image's own size is known by its clone alone.
                let file = || std::fs::metadata(dir.join(disk.file())).ok().map(|file| file.len());
                DiskRow { name: disk.name.to_string(), size_bytes: disk.size.map(Size::bytes).or_else(file) }
            })
            .collect(),
        nics: spec
            .nics
            .iter()
            .map(|nic| NicRow {
                network: nic.network.to_string(),
                port: (nic.link != Link::User).then(|| nic.port(spec.number)),
                mac: nic.mac.to_string(),
                address: nic.address.as_ref().map(|address| address.ip.to_string()),
                address6: nic.address.as_ref().and_then(|address| Some(address.ip6?.to_string())),
                ports: nic.forwards.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        troubles: record.runtime.as_ref().map(|runtime| runtime.troubles.clone()).unwrap_or_default(),
        uuid: spec.uuid.to_string(),
        created_at: record.created_at.to_string(),
        labels: spec.labels.clone(),
        protected: spec.policy.protect,
        declared: record.is_declared(),
    }
}

pub(in crate::cli) fn tone(state: State) -> Tone {
    match state {
        State::Running => Tone::Good,
        State::Crashed => Tone::Bad,
        State::Stopped => Tone::Dim,
        _ => Tone::Busy,
    }
}

fn table(rows: &[Row], wide: bool) -> Table {
    let mut header = vec!["ID", "NAME", "TEMPLATE", "STATE", "VCPU", "RAM", "ADDRESS", "UP SINCE"];
    if wide {
        header.extend(["IPV6", "DISKS", "PORTS", "HYPERVISOR", "LABELS", "UUID"]);
    }
    let mut table = Table::new(header);
    for row in rows {
        let state = match (row.unwatched, row.troubles.is_empty()) {
            (true, _) => Cell::toned(format!("{} (unwatched)", row.state), Tone::Bad),
            (false, true) => Cell::toned(row.state_text(), tone(row.state)),
            // Which, and why: `v vm info`.
            (false, false) => Cell::toned(format!("{} (port lost)", row.state), Tone::Bad),
        };
        let mut cells: Vec<Cell> = vec![
            row.number.to_string().into(),
            row.name.clone().into(),
            row.template.clone().into(),
            state,
            row.vcpu.to_string().into(),
            Size::from_bytes(row.vram_bytes).to_string().into(),
            row.address.clone().unwrap_or_else(|| "-".to_owned()).into(),
            row.up_since.as_deref().map_or_else(|| "-".to_owned(), local_time).into(),
        ];
        if wide {
            let disks = row.disks.iter().map(|disk| {
                let size = disk.size_bytes.map(|bytes| format!(" {}", Size::from_bytes(bytes)));
                format!("{}{}", disk.name, size.unwrap_or_default())
            });
            let ports = row.nics.iter().map(|nic| match &nic.port {
                Some(port) => format!("{}:{port}", nic.network),
                None => format!("{} (user)", nic.network),
            });
            let without_length = |ip6: &String| ip6.split('/').next().unwrap_or_default().to_owned();
            let ip6: Vec<String> =
                row.nics.iter().filter_map(|nic| nic.address6.as_ref().map(without_length)).collect();
            cells.extend([
                if ip6.is_empty() { "-".to_owned() } else { ip6.join(", ") }.into(),
                disks.collect::<Vec<_>>().join(", ").into(),
                ports.collect::<Vec<_>>().join(", ").into(),
                row.hypervisor.clone().into(),
                labels(&row.labels).unwrap_or_else(|| "-".to_owned()).into(),
                row.uuid.clone().into(),
            ]);
        }
        table.row(cells);
    }
    table
}

/// As the command line has them; `None`: there are none.
pub(super) fn labels(labels: &Labels) -> Option<String> {
    let texts: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// For people: the local time, to the minute. In JSON it stays UTC.
pub(super) fn local_time(timestamp: &str) -> String {
    match timestamp.parse::<jiff::Timestamp>() {
        Ok(at) => at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
        Err(_) => timestamp.to_owned(),
    }
}
