use clap::Args;
use serde::Serialize;

use super::select::views;
use crate::cli::colour::Tone;
use crate::cli::table::{Cell, Table};
use crate::cli::ui::{Format, Ui};
use crate::error::Result;
use crate::spec::HostSide;
use crate::store::Store;
use crate::vm::Site;
use crate::vm::networks::{self, Condition, View};

/// List the networks
///
/// It reads what is configured and what is recorded, and asks no switch and no guest, so it never
/// waits.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One network, in stable form.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) bridge: Option<String>,
    pub(super) state: Condition,
    pub(super) subnet: Option<String>,
    pub(super) subnet6: Option<String>,
    pub(super) gateway: Option<String>,
    /// How many VMs have a NIC there.
    vms: usize,
    running: usize,
    /// Whether the config has it.
    pub(super) configured: bool,
}

impl Ls {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let config = site.config()?;
        let store = Store::open_read_only(&site.dirs.database())?;
        let rows: Vec<Row> =
            views(site, Some(&config))?.iter().map(|view| row(site, store.as_ref(), view)).collect::<Result<_>>()?;
        if rows.is_empty() && self.output == Format::Table {
            ui.say("no networks; add a `[[network]]` to the config");
            return Ok(());
        }
        ui.rows(self.output, &rows, table)
    }
}

pub(super) fn row(site: &Site, store: Option<&Store>, view: &View) -> Result<Row> {
    let host: Option<&HostSide> = view.record.as_ref().and_then(|record| record.spec.host.as_ref());
    let config = view.config.as_ref();
    let users = networks::users(site, store, view)?;
    let mut vms: Vec<_> = users.iter().map(|(record, _, state)| (record.spec.uuid, state.is_live())).collect();
    vms.dedup();
    let written = config.and_then(|network| network.addresses(false, None));
    Ok(Row {
        name: view.name.to_string(),
        kind: view.kind.as_str(),
        bridge: view.bridge.clone(),
        state: view.condition,
        subnet: host
            .map(|host| host.address.trunc().to_string())
            .or_else(|| written.as_ref().map(|subnet| subnet.net.to_string())),
        subnet6: host.and_then(|host| host.address6).map(|net| net.trunc().to_string()),
        gateway: host
            .map(|host| host.address.addr().to_string())
            .or_else(|| written.as_ref()?.gateway.map(|gateway| gateway.to_string())),
        vms: vms.len(),
        running: vms.iter().filter(|(_, live)| *live).count(),
        configured: config.is_some(),
    })
}

pub(super) fn state(condition: Condition) -> Cell {
    let (text, tone) = match condition {
        Condition::Up => ("up", Tone::Good),
        Condition::Down => ("down", Tone::Dim),
        Condition::Busy => ("busy", Tone::Busy),
        Condition::CutShort => ("cut short", Tone::Bad),
        Condition::Damaged => ("damaged", Tone::Bad),
        Condition::Foreign => ("as it is", Tone::Dim),
        Condition::Missing => ("missing", Tone::Bad),
        Condition::BuiltIn => ("built in", Tone::Dim),
    };
    Cell::toned(text, tone)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["NAME", "TYPE", "BRIDGE", "STATE", "SUBNET", "SUBNET6", "GATEWAY", "VMS"]);
    let or_dash = |text: &Option<String>| Cell::from(text.clone().unwrap_or_else(|| "-".to_owned()));
    for row in rows {
        table.row(vec![
            row.name.clone().into(),
            row.kind.into(),
            or_dash(&row.bridge),
            state(row.state),
            or_dash(&row.subnet),
            or_dash(&row.subnet6),
            or_dash(&row.gateway),
            match row.running {
                0 => row.vms.to_string(),
                running => format!("{} ({running} running)", row.vms),
            }
            .into(),
        ]);
    }
    table
}
