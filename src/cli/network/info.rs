use std::net::IpAddr;

use clap::Args;
use serde::Serialize;

use super::ls::{self, Row};
use super::select::{one, views};
use crate::cli::colour::Tone;
use crate::cli::complete;
use crate::cli::table::{Cell, Table};
use crate::cli::ui::{Format, Ui};
use crate::error::Result;
use crate::spec::{HostSide, State};
use crate::store::{Made, Store};
use crate::vm::Site;
use crate::vm::networks::{self, Condition, Lease};

/// Show all that is known of a network: addresses, names, guests, and what is in their way
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// The network's name
    #[arg(value_name = "NETWORK", add = complete::network_names())]
    network: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Serialize)]
struct Full {
    #[serde(flatten)]
    row: Row,
    device: Option<String>,
    datapath: Option<crate::spec::Datapath>,
    vlan: Option<u16>,
    mtu: Option<u16>,
    uplink: Option<String>,
    host: Option<HostSide>,
    /// What was made for it, and goes with it.
    made: Option<Made>,
    server_pid: Option<i32>,
    guests: Vec<Guest>,
    /// Guests that asked for an address and are no VMs of ours, too.
    leases: Vec<LeaseRow>,
    /// How this host knows the names of its VMs.
    names: Option<String>,
    /// What keeps packets from passing, and what to do about it.
    obstacles: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LeaseRow {
    ip: IpAddr,
    mac: Option<String>,
    name: Option<String>,
    expires: Option<String>,
}

impl From<Lease> for LeaseRow {
    fn from(lease: Lease) -> Self {
        let Lease { ip, mac, name, expires, .. } = lease;
        Self { ip, mac: mac.map(|mac| mac.to_string()), name, expires: expires.map(|at| at.to_string()) }
    }
}

#[derive(Debug, Serialize)]
struct Guest {
    vm: String,
    state: State,
    nic: u8,
    mac: String,
    address: Option<String>,
    address6: Option<String>,
    forwards: Vec<String>,
}

impl Info {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let config = site.config()?;
        let view = one(&views(site, Some(&config))?, &self.network)?;
        let store = Store::open_read_only(&site.dirs.database())?;
        let guests = networks::users(site, store.as_ref(), &view)?
            .into_iter()
            .map(|(record, nic, state)| Guest {
                vm: record.spec.name.to_string(),
                state,
                nic: nic.index,
                mac: nic.mac.to_string(),
                address: nic.address.as_ref().map(|address| address.ip.addr().to_string()),
                address6: nic.address.as_ref().and_then(|address| address.ip6).map(|net| net.addr().to_string()),
                forwards: nic.forwards.iter().map(ToString::to_string).collect(),
            })
            .collect();
        let row = ls::row(site, store.as_ref(), &view)?;
        drop(store);
        let around = view.record.as_ref().map(|record| networks::around(site, &record.spec)).unwrap_or_default();
        let spec = view.record.as_ref().map(|record| record.spec.clone());
        let spec = spec.as_ref();
        let full = Full {
            row,
            device: spec.filter(|spec| spec.host.is_some()).map(crate::spec::NetworkSpec::device),
            datapath: spec.and_then(|spec| spec.datapath),
            vlan: spec.and_then(|spec| spec.vlan).or(view.config.as_ref().and_then(|config| config.vlan)),
            mtu: spec.and_then(|spec| spec.mtu).or(view.config.as_ref().and_then(|config| config.mtu)),
            uplink: spec
                .and_then(|spec| spec.uplink.clone())
                .or(view.config.as_ref().and_then(|config| config.uplink.clone())),
            host: spec.and_then(|spec| spec.host.clone()),
            server_pid: view.record.as_ref().and_then(|record| record.server).map(|server| server.pid),
            made: view.record.map(|record| record.made),
            guests,
            leases: around.leases.into_iter().map(LeaseRow::from).collect(),
            names: around.names,
            obstacles: around.obstacles,
        };
        ui.rows(self.output, &[full], |rows| table(&rows[0]))
    }
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn table(full: &Full) -> Table {
    let mut table = Table::new(["KEY", "VALUE"]);
    let mut line = |key: &str, value: Cell| table.row(vec![key.into(), value]);
    let row = &full.row;
    line("name", row.name.as_str().into());
    line("type", row.kind.into());
    line("state", ls::state(row.state));
    match row.state {
        Condition::Damaged | Condition::CutShort => {
            line("", Cell::toned(format!("`v network repair {}` puts it in order", row.name), Tone::Dim));
        }
        Condition::Missing => {
            line(
                "",
                Cell::toned("its bridge is for somebody else to make; with `create = true` Virshle does", Tone::Dim),
            );
        }
        _ => {}
    }
    if !row.configured {
        line("", Cell::toned("the config does not have it any more", Tone::Busy));
    }
    let mut optional = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            line(key, value.into());
        }
    };
    optional("bridge", row.bridge.clone());
    optional("device", full.device.clone().filter(|device| Some(device) != row.bridge.as_ref()));
    optional("vlan", full.vlan.map(|vlan| vlan.to_string()));
    optional("mtu", full.mtu.map(|mtu| mtu.to_string()));
    optional("uplink", full.uplink.clone());
    optional("subnet", row.subnet.clone());
    optional("subnet6", row.subnet6.clone());
    optional("gateway", row.gateway.clone());
    if let Some(host) = &full.host {
        optional("gateway6", host.address6.map(|net| net.addr().to_string()));
        let pool = host.pool.map(|(first, last)| format!("yes, {first} to {last} for guests of others"));
        optional("dhcp", Some(pool.unwrap_or_else(|| yes_no(host.dhcp).to_owned())));
        optional("nat", Some(yes_no(host.nat && !host.isolated).to_owned()));
        optional("isolated", Some(yes_no(host.isolated).to_owned()));
        optional("domain", Some(host.domain.clone()));
        let upstream: Vec<String> = host.upstream.iter().map(ToString::to_string).collect();
        optional("dns", Some(upstream.join(", ")).filter(|upstream| !upstream.is_empty()));
    }
    optional("names", full.names.clone());
    optional("server", full.server_pid.map(|pid| format!("process {pid}")));
    for guest in &full.guests {
        let addresses = [&guest.address, &guest.address6].into_iter().flatten().cloned().collect::<Vec<_>>();
        let addresses = if addresses.is_empty() { "address by DHCP".to_owned() } else { addresses.join(", ") };
        let forwards = match guest.forwards.is_empty() {
            true => String::new(),
            false => format!(", ports {}", guest.forwards.join(" ")),
        };
        optional("vm", Some(format!("{} ({}), {addresses}{forwards}", guest.vm, guest.state)));
    }
    for lease in &full.leases {
        let whose = [lease.name.as_deref(), lease.mac.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(", ");
        optional("lease", Some(format!("{} {whose}", lease.ip)));
    }
    for obstacle in &full.obstacles {
        line("obstacle", Cell::toned(obstacle.as_str(), Tone::Bad));
    }
    table
}
