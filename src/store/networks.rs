//! The networks that this host keeps: what each was made as, and what of it was made.
//!
//! A row is there from before the first thing is made until after the last is undone, so that
//! whoever finds it half done knows what to undo.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Handle, Timestamp};
use crate::spec::{Name, NetworkSpec};

use super::fault::Fault;
use super::open::Store;

/// One network that this host keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRecord {
    pub spec: NetworkSpec,
    pub state: NetworkState,
    pub made: Made,
    /// What serves names and addresses on it.
    pub server: Option<Handle>,
    pub updated_at: Timestamp,
}

/// One that is down has no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkState {
    ComingUp,
    Up,
    GoingDown,
}

impl NetworkState {
    fn word(self) -> &'static str {
        match self {
            NetworkState::ComingUp => "coming-up",
            NetworkState::Up => "up",
            NetworkState::GoingDown => "going-down",
        }
    }
}

/// What was made for a network, and is undone when it goes down. What was there before is not here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Made {
    pub bridge: bool,
    /// The host's own interface, where it is another than the bridge.
    pub device: bool,
    /// Whether the uplink was put into the bridge.
    pub uplink: bool,
    /// Whether it was down before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uplink_was_down: bool,
    /// The firewall's zone that the host's interface was put into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl Store {
    /// Every recorded network, by name.
    pub fn networks(&self) -> Result<Vec<NetworkRecord>> {
        self.read("list the networks", all)
    }

    pub fn network(&self, name: &Name) -> Result<Option<NetworkRecord>> {
        self.read("read a network", |connection| one(connection, name))
    }

    /// Records a network as coming up, before anything of it is made. One that is recorded already
    /// is returned as it is, with the spec it was made with: the caller compares. What another
    /// network has is refused.
    pub fn begin_network(&mut self, spec: &NetworkSpec) -> Result<NetworkRecord> {
        self.write("record a network", |transaction| {
            if let Some(record) = one(transaction, &spec.name)? {
                return Ok(record);
            }
            refuse_clash(transaction, spec)?;
            let record = NetworkRecord {
                spec: spec.clone(),
                state: NetworkState::ComingUp,
                made: Made::default(),
                server: None,
                updated_at: host::now(),
            };
            write(transaction, &record)?;
            Ok(record)
        })
    }

    /// [`Store::update`] for a network: nobody else changes it meanwhile, and an `Err` writes nothing.
    pub fn update_network<T>(
        &mut self,
        name: &Name,
        change: impl FnOnce(&mut NetworkRecord) -> Result<T>,
    ) -> Result<T> {
        self.write("change a network", |transaction| {
            let Some(before) = one(transaction, name)? else {
                return Err(Error::not_found(format!("network `{name}` is not up"))
                    .hint("`v network ls` lists the networks")
                    .into());
            };
            let mut record = before.clone();
            let done = change(&mut record)?;
            if record == before {
                return Ok(done);
            }
            if record.spec.name != before.spec.name {
                return Err(Error::failed(format!("network `{name}` cannot get another name")).into());
            }
            if record.spec != before.spec {
                refuse_clash(transaction, &record.spec)?;
            }
            record.updated_at = host::now();
            write(transaction, &record)?;
            Ok(done)
        })
    }

    /// Forgets a network of which nothing is left. One that is gone already is fine.
    pub fn forget_network(&mut self, name: &Name) -> Result<()> {
        self.write("forget a network", |transaction| {
            transaction.execute("DELETE FROM network WHERE name = ?1", [name.as_str()])?;
            Ok(())
        })
    }

    /// The IPv6 subnet of a network that was given none: made up once (RFC 4193), and kept for ever.
    pub fn prefix6(&mut self, name: &Name) -> Result<Ipv6Net> {
        if let Some(net) = self.read("read a network's IPv6 subnet", |connection| prefix_of(connection, name))? {
            return Ok(net);
        }
        self.write("record a network's IPv6 subnet", |transaction| {
            // Another process may have made it meanwhile.
            if let Some(net) = prefix_of(transaction, name)? {
                return Ok(net);
            }
            let given: Vec<Ipv6Net> =
                all(transaction)?.iter().filter_map(|record| record.spec.host.as_ref()?.address6).collect();
            let mut taken = transaction.prepare("SELECT 1 FROM prefix6 WHERE net = ?1")?;
            loop {
                let net = made_up(Uuid::new_v4());
                let is_given = given.iter().any(|other| other.contains(&net) || net.contains(other));
                if !is_given && !taken.exists([net.to_string()])? {
                    let row = params![name.as_str(), net.to_string()];
                    transaction.execute("INSERT INTO prefix6 (network, net) VALUES (?1, ?2)", row)?;
                    return Ok(net);
                }
            }
        })
    }

    /// Every IPv6 subnet that was made up, with its network.
    pub fn prefixes(&self) -> Result<Vec<(String, Ipv6Net)>> {
        self.read("list the IPv6 subnets", |connection| {
            let mut statement = connection.prepare("SELECT network, net FROM prefix6 ORDER BY network")?;
            let mut rows = statement.query([])?;
            let mut prefixes = Vec::new();
            while let Some(row) = rows.next()? {
                let network: String = row.get(0)?;
                let net = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
                let net = net.parse().map_err(|error| unreadable(&network, "prefix6").source(error))?;
                prefixes.push((network, net));
            }
            Ok(prefixes)
        })
    }

    /// Notes what a setting of the kernel is before it is changed for the first time.
    pub fn note_setting(&mut self, path: &str, before: &str) -> Result<()> {
        self.write("note a setting", |transaction| {
            transaction.execute(
                "INSERT INTO host_setting (path, before) VALUES (?1, ?2) ON CONFLICT (path) DO NOTHING",
                [path, before],
            )?;
            Ok(())
        })
    }

    /// The settings that were changed and what they were, in the order they were noted.
    pub fn settings(&self) -> Result<Vec<(String, String)>> {
        self.read("read the settings", |connection| {
            let mut statement = connection.prepare("SELECT path, before FROM host_setting ORDER BY rowid")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// All of them are as they were.
    pub fn forget_settings(&mut self) -> Result<()> {
        self.write("forget the settings", |transaction| {
            transaction.execute("DELETE FROM host_setting", [])?;
            Ok(())
        })
    }
}

/// Its 40 random bits are the first of a uuid; those of version and variant come later.
fn made_up(random: Uuid) -> Ipv6Net {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..6].copy_from_slice(&random.as_bytes()[..5]);
    Ipv6Net::new_assert(Ipv6Addr::from(bytes), 64)
}

fn prefix_of(connection: &Connection, network: &Name) -> Result<Option<Ipv6Net>, Fault> {
    let mut statement = connection.prepare_cached("SELECT net FROM prefix6 WHERE network = ?1")?;
    let text: Option<String> = statement.query_row([network.as_str()], |row| row.get(0)).optional()?;
    let net = text.map(|text| text.parse().map_err(|error| unreadable(network.as_str(), "prefix6").source(error)));
    Ok(net.transpose()?)
}

/// What only one network of this host can have.
fn refuse_clash(transaction: &Transaction<'_>, spec: &NetworkSpec) -> Result<(), Fault> {
    for record in all(transaction)? {
        if record.spec.name != spec.name
            && let Some(what) = clash(spec, &record.spec)
        {
            let (name, other) = (&spec.name, &record.spec.name);
            return Err(Error::refused(format!("network `{name}` cannot have {what}: network `{other}` has it"))
                .hint(format!("give one of them another, or take the other down: `v network down {other}`"))
                .into());
        }
    }
    Ok(())
}

fn clash(spec: &NetworkSpec, other: &NetworkSpec) -> Option<String> {
    let shares_bridge = spec.bridge == other.bridge;
    if shares_bridge && spec.switch != other.switch {
        return Some(format!("the bridge `{}`", spec.bridge));
    }
    if shares_bridge && spec.vlan == other.vlan {
        let bridge = format!("the bridge `{}`", spec.bridge);
        return Some(spec.vlan.map_or(bridge.clone(), |vlan| format!("the VLAN {vlan} of {bridge}")));
    }
    // `br0.5` is the VLAN 5 of `br0`, and may be a bridge's name too.
    let device = spec.device();
    if device == other.device() || (!shares_bridge && device == other.bridge) {
        return Some(format!("the interface `{device}`"));
    }
    if !shares_bridge && spec.bridge == other.device() {
        return Some(format!("the interface `{}`", spec.bridge));
    }
    if let Some(uplink) = &spec.uplink
        && !shares_bridge
        && other.uplink.as_ref() == Some(uplink)
    {
        return Some(format!("the uplink `{uplink}`"));
    }
    let (host, others) = (spec.host.as_ref()?, other.host.as_ref()?);
    let (net, net4) = (host.address.trunc(), others.address.trunc());
    if net.contains(&net4) || net4.contains(&net) {
        return Some(overlap(net, net4));
    }
    let (net, net6) = (host.address6?.trunc(), others.address6?.trunc());
    (net.contains(&net6) || net6.contains(&net)).then(|| overlap(net, net6))
}

fn overlap<N: PartialEq + std::fmt::Display>(net: N, other: N) -> String {
    if net == other { format!("the subnet `{net}`") } else { format!("the subnet `{net}`, which overlaps `{other}`") }
}

const COLUMNS: &str = "name, state, spec, made, server, updated_at";

fn all(connection: &Connection) -> Result<Vec<NetworkRecord>, Fault> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM network ORDER BY name"))?;
    let mut rows = statement.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(read(row)?);
    }
    Ok(records)
}

fn one(connection: &Connection, name: &Name) -> Result<Option<NetworkRecord>, Fault> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM network WHERE name = ?1"))?;
    let mut rows = statement.query([name.as_str()])?;
    rows.next()?.map(read).transpose()
}

fn read(row: &Row<'_>) -> Result<NetworkRecord, Fault> {
    let text = |index| row.get_ref(index).and_then(|value| Ok(value.as_str_or_null()?.unwrap_or_default()));
    let name = text(0)?;
    let word: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = text(1)?.into_deserializer();
    let server = row.get_ref(4)?.as_str_or_null().map_err(rusqlite::Error::from)?;
    Ok(NetworkRecord {
        state: NetworkState::deserialize(word).map_err(|error| unreadable(name, "state").source(error))?,
        spec: json(name, "spec", text(2)?)?,
        made: json(name, "made", text(3)?)?,
        server: server.map(|text| json(name, "server", text)).transpose()?,
        updated_at: text(5)?.parse().map_err(|error: jiff::Error| unreadable(name, "updated_at").source(error))?,
    })
}

fn write(transaction: &Transaction<'_>, record: &NetworkRecord) -> Result<(), Fault> {
    let mut statement = transaction.prepare_cached(&format!(
        "INSERT INTO network ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (name) DO UPDATE SET state = excluded.state, spec = excluded.spec, made = excluded.made,
                                          server = excluded.server, updated_at = excluded.updated_at"
    ))?;
    statement.execute(params![
        record.spec.name.as_str(),
        record.state.word(),
        to_json(&record.spec)?,
        to_json(&record.made)?,
        record.server.as_ref().map(to_json).transpose()?,
        record.updated_at.to_string(),
    ])?;
    Ok(())
}

fn json<T: DeserializeOwned>(network: &str, column: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| unreadable(network, column).source(error))
}

fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).or_failed(|| "cannot write a network's record as JSON".to_owned())
}

fn unreadable(network: &str, column: &str) -> Error {
    Error::failed(format!("the `{column}` recorded of network `{network}` cannot be read"))
        .hint("`v doctor` checks the database")
}
