//! Reads what `ovs-vsctl --format=json` prints: one table per command, cells in OVSDB's notation
//! (RFC 7047, 5.1). Columns, types and rows that nobody here knows are passed over.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Bridge, Datapath, Dpdk, GUARD_KEY, NAME_KEY, NETWORK_KEY, Owner, PortState, STATE_KEY, VM_KEY};

#[derive(Debug, Deserialize)]
struct Table {
    headings: Vec<String>,
    data: Vec<Vec<Value>>,
}

/// The reason why an answer cannot be read.
type Parsed<T> = Result<T, String>;

fn tables<const N: usize>(answer: &[u8]) -> Parsed<[Table; N]> {
    let tables: Vec<Table> = serde_json::Deserializer::from_slice(answer)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    tables.try_into().map_err(|tables: Vec<_>| format!("{} tables instead of {N}", tables.len()))
}

impl Table {
    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.data.iter().map(|cells| Row { headings: &self.headings, cells })
    }
}

struct Row<'a> {
    headings: &'a [String],
    cells: &'a [Value],
}

impl<'a> Row<'a> {
    /// The column's value; none for an empty set, which is OVSDB's way of saying so.
    fn cell(&self, column: &str) -> Option<&'a Value> {
        let position = self.headings.iter().position(|heading| heading == column)?;
        let cell = self.cells.get(position)?;
        let empty_set = tagged(cell, "set").and_then(Value::as_array).is_some_and(Vec::is_empty);
        (!empty_set).then_some(cell)
    }

    fn text(&self, column: &str) -> Option<&'a str> {
        self.cell(column)?.as_str()
    }

    fn owned(&self, column: &str) -> String {
        self.text(column).unwrap_or_default().to_owned()
    }

    fn entry(&self, column: &str, key: &str) -> Option<&'a str> {
        let pairs = tagged(self.cell(column)?, "map")?.as_array()?;
        pairs.iter().find(|pair| pair.get(0).and_then(Value::as_str) == Some(key))?.get(1)?.as_str()
    }

    /// One reference or a set of them.
    fn references(&self, column: &str) -> Vec<&'a str> {
        let Some(cell) = self.cell(column) else { return Vec::new() };
        let reference = |value| tagged(value, "uuid").and_then(Value::as_str);
        match tagged(cell, "set").and_then(Value::as_array) {
            Some(set) => set.iter().filter_map(reference).collect(),
            None => reference(cell).into_iter().collect(),
        }
    }
}

/// `["set", x]`, `["map", x]`, `["uuid", x]`: the `x`.
fn tagged<'a>(value: &'a Value, tag: &str) -> Option<&'a Value> {
    match value.as_array()?.as_slice() {
        [Value::String(found), inner] if found == tag => Some(inner),
        _ => None,
    }
}

pub(super) fn parse_bridge(answer: &[u8]) -> Parsed<Option<Bridge>> {
    let [table] = tables(answer)?;
    Ok(table.rows().next().map(|row| Bridge { name: row.owned("name"), datapath: datapath(&row) }))
}

fn datapath(row: &Row<'_>) -> Datapath {
    match row.text("datapath_type") {
        None | Some("" | "system") => Datapath::System,
        Some("netdev") => Datapath::Netdev,
        Some(other) => Datapath::Other(other.to_owned()),
    }
}

/// What a bridge or port says of who made it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Marks {
    pub(super) state: Option<String>,
    pub(super) networks: Vec<String>,
}

#[derive(Debug)]
pub(super) struct BridgeRow {
    pub(super) name: String,
    pub(super) datapath: Datapath,
    pub(super) marks: Marks,
    ports: Vec<String>,
}

#[derive(Debug)]
pub(super) struct PortRow {
    uuid: String,
    pub(super) name: String,
    pub(super) marks: Marks,
    /// The number in the switch of a port that has a guard.
    pub(super) guarded: Option<u16>,
}

/// Every bridge and what is plugged into it.
#[derive(Debug)]
pub(super) struct Layout {
    bridges: Vec<BridgeRow>,
    ports: Vec<PortRow>,
}

impl Layout {
    pub(super) fn bridge(&self, name: &str) -> Option<&BridgeRow> {
        self.bridges.iter().find(|bridge| bridge.name == name)
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = &PortRow> {
        self.ports.iter()
    }

    pub(super) fn ports_of(&self, bridge: &BridgeRow) -> impl Iterator<Item = &PortRow> {
        self.ports.iter().filter(|port| bridge.ports.contains(&port.uuid))
    }

    /// A port, and the name of its bridge.
    pub(super) fn port(&self, name: &str) -> Option<(&str, &PortRow)> {
        let port = self.ports.iter().find(|port| port.name == name)?;
        let bridge = self.bridges.iter().find(|bridge| bridge.ports.contains(&port.uuid))?;
        Some((&bridge.name, port))
    }
}

/// Two tables: all bridges, and all ports.
pub(super) fn parse_layout(answer: &[u8]) -> Parsed<Layout> {
    let [bridges, ports] = tables(answer)?;
    let owned = |references: Vec<&str>| references.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let bridges = bridges.rows().map(|row| BridgeRow {
        name: row.owned("name"),
        datapath: datapath(&row),
        marks: marks(&row),
        ports: owned(row.references("ports")),
    });
    let ports = ports.rows().map(|row| PortRow {
        uuid: row.references("_uuid").first().map(|uuid| (*uuid).to_owned()).unwrap_or_default(),
        name: row.owned("name"),
        marks: marks(&row),
        guarded: row.entry("external_ids", GUARD_KEY).and_then(|number| number.parse().ok()),
    });
    Ok(Layout { bridges: bridges.collect(), ports: ports.collect() })
}

fn marks(row: &Row<'_>) -> Marks {
    let networks = row.entry("external_ids", NETWORK_KEY).unwrap_or_default();
    Marks {
        state: row.entry("external_ids", STATE_KEY).map(str::to_owned),
        networks: networks.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
    }
}

/// Two tables: ports, and all bridges with the ports they hold.
pub(super) fn parse_owners(answer: &[u8]) -> Parsed<Vec<Owner>> {
    let [ports, bridges] = tables(answer)?;
    let bridge_of = |port: &str| {
        let bridge = bridges.rows().find(|bridge| bridge.references("ports").contains(&port))?;
        bridge.text("name").map(str::to_owned)
    };
    Ok(ports
        .rows()
        .map(|row| Owner {
            port: row.owned("name"),
            bridge: row.references("_uuid").first().and_then(|port| bridge_of(port)).unwrap_or_default(),
            vm: row.entry("external_ids", VM_KEY).and_then(|vm| Uuid::parse_str(vm).ok()),
            vm_name: row.entry("external_ids", NAME_KEY).map(str::to_owned),
            state: row.entry("external_ids", STATE_KEY).map(str::to_owned),
            guard: row.entry("external_ids", GUARD_KEY).and_then(|number| number.parse().ok()),
        })
        .collect())
}

pub(super) fn parse_port_state(answer: &[u8]) -> Parsed<Option<PortState>> {
    let [table] = tables(answer)?;
    Ok(table.rows().next().map(|row| PortState {
        kind: row.owned("type"),
        number: row.cell("ofport").and_then(Value::as_i64).and_then(|number| u16::try_from(number).ok()),
        error: row.text("error").map(str::to_owned),
        link_up: row.text("link_state").map(|state| state == "up"),
        socket: row.entry("options", "vhost-server-path").map(str::to_owned),
    }))
}

pub(super) fn parse_dpdk(answer: &[u8]) -> Parsed<Dpdk> {
    let [table] = tables(answer)?;
    let row = table.rows().next().ok_or("the table Open_vSwitch is empty")?;
    Ok(Dpdk {
        initialized: row.cell("dpdk_initialized").and_then(Value::as_bool).unwrap_or(false),
        version: row.text("dpdk_version").filter(|version| *version != "none").map(str::to_owned),
    })
}

/// `ovs-vsctl (Open vSwitch) 3.1.0`
pub(super) fn parse_version(answer: &str) -> Parsed<String> {
    let version = answer.lines().next().and_then(|line| line.split_ascii_whitespace().last());
    let version = version.filter(|version| version.starts_with(|c: char| c.is_ascii_digit()));
    version.map(str::to_owned).ok_or_else(|| format!("no version in {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Printed by ovs-vsctl 3.1.0.
    const NO_ROWS: &[u8] = br#"{"data":[],"headings":["name","datapath_type"]}"#;

    #[test]
    fn bridges() {
        let rows = [
            (r#"{"data":[["br0","netdev"]],"headings":["name","datapath_type"]}"#, Datapath::Netdev),
            (r#"{"data":[["br0",""]],"headings":["name","datapath_type"]}"#, Datapath::System),
            (r#"{"data":[["system","br0"]],"headings":["datapath_type","name"]}"#, Datapath::System),
            (r#"{"data":[["br0","new"]],"headings":["name","datapath_type"]}"#, Datapath::Other("new".into())),
        ];
        for (answer, datapath) in rows {
            let bridge = parse_bridge(answer.as_bytes()).unwrap().expect(answer);
            assert_eq!((bridge.name.as_str(), bridge.datapath), ("br0", datapath), "{answer}");
        }
        assert_eq!(parse_bridge(NO_ROWS), Ok(None));
    }

    #[test]
    fn owners_among_ports_of_other_kinds() {
        let answer = br#"{"data":[[["uuid","664073b3-4078-49b3-a82a-111e3f35be20"],"v1n0",["map",[["attached-mac","02:00:00:00:00:01"],["virshle-name","web"],["virshle-state","/var/lib/virshle"],["virshle-vm","6f1b0a1e-91a7-4d2c-9d52-0123456789ab"]]]],[["uuid","1ebb539c-806c-4c95-984b-6f2574df5db2"],"bond0",["map",[]]],[["uuid","763d3c5f-ee2a-426b-bd53-d42b4fcb0633"],"odd",["map",[["virshle-vm","not a uuid"]]]]],"headings":["_uuid","name","external_ids"]}
{"data":[["sys0",["set",[]]],["br1",["uuid","1ebb539c-806c-4c95-984b-6f2574df5db2"]],["br0",["set",[["uuid","24e16e67-b5b2-4476-bdbc-0b83c650e0f7"],["uuid","664073b3-4078-49b3-a82a-111e3f35be20"]]]]],"headings":["name","ports"]}
"#;
        let owners = parse_owners(answer).unwrap();
        let seen: Vec<_> = owners.iter().map(|o| (o.port.as_str(), o.bridge.as_str(), o.vm.is_some())).collect();
        assert_eq!(seen, [("v1n0", "br0", true), ("bond0", "br1", false), ("odd", "", false)]);
        assert_eq!(owners[0].vm_name.as_deref(), Some("web"));
        assert_eq!(owners[0].state.as_deref(), Some("/var/lib/virshle"));
        assert_eq!(owners[1].state, None, "made by an earlier version");
    }

    #[test]
    fn port_states() {
        let head = r#""headings":["type","error","link_state","options","ofport"]"#;
        let path = r#"["map",[["vhost-server-path","/tmp/no such,=\"dir/v1.sock"]]]"#;
        let rows = [
            ("connected", format!(r#""dpdkvhostuserclient",["set",[]],"up",{path},2"#), None, Some(true)),
            ("no dpdk", r#""dpdkvhostuserclient","could not open network device v1n0 (Address family not supported by protocol)",["set",[]],["map",[]],-1"#.into(), Some("could not open"), None),
            ("no datapath", r#""",["set",[]],["set",[]],["map",[]],["set",[]]"#.into(), Some("did not open"), None),
        ];
        for (what, cells, failure, link_up) in rows {
            let answer = format!(r#"{{"data":[[{cells}]],{head}}}"#);
            let state = parse_port_state(answer.as_bytes()).unwrap().expect(what);
            assert_eq!(state.link_up, link_up, "{what}");
            let found = state.failure();
            assert_eq!(found.is_some(), failure.is_some(), "{what}: {found:?}");
            assert!(found.unwrap_or_default().contains(failure.unwrap_or_default()), "{what}");
            if what == "connected" {
                assert_eq!(state.socket.as_deref(), Some("/tmp/no such,=\"dir/v1.sock"));
            }
        }
        assert_eq!(parse_port_state(NO_ROWS), Ok(None));
    }

    #[test]
    fn dpdk() {
        let rows = [
            (r#"[true,"DPDK 22.11.11"]"#, true, Some("DPDK 22.11.11")),
            (r#"[false,"none"]"#, false, None),
            (r#"[["set",[]],["set",[]]]"#, false, None),
        ];
        for (cells, initialized, version) in rows {
            let answer = format!(r#"{{"data":[{cells}],"headings":["dpdk_initialized","dpdk_version"]}}"#);
            let expected = Dpdk { initialized, version: version.map(str::to_owned) };
            assert_eq!(parse_dpdk(answer.as_bytes()), Ok(expected), "{cells}");
        }
        assert!(parse_dpdk(NO_ROWS).is_err());
    }

    #[test]
    fn what_is_no_answer() {
        for answer in ["", "no json", "[1]", r#"{"data":[]}"#, r#"{"data":[],"headings":[]}{"data":[],"headings":[]}"#]
        {
            assert!(parse_bridge(answer.as_bytes()).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn versions() {
        assert_eq!(parse_version("ovs-vsctl (Open vSwitch) 3.1.0\nDB Schema 8.3.1\n").as_deref(), Ok("3.1.0"));
        assert!(parse_version("").is_err());
        assert!(parse_version("something else").is_err());
    }
}
