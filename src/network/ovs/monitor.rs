//! What ovsdb-server tells of some ports, without being asked again: the messages of the OVSDB
//! protocol (RFC 7047 and `monitor_cond` of ovsdb-server(7)), and what they add up to. Pure: the
//! connection is in `watch`.
//!
//! A message is a JSON object and nothing separates two of them. Rows come whole at first and then
//! as changes: `insert`, `modify` with the changed columns only, `delete`.

use std::collections::BTreeMap;

use serde_json::{Deserializer, Map, Value, json};
use uuid::Uuid;

use super::VM_KEY;

/// A port of these is a few hundred bytes; more than this is no answer to what was asked.
const LONGEST: usize = 256 << 10;

/// How one port stands in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    Missing,
    Present {
        /// None: it names no VM.
        vm: Option<Uuid>,
        error: Option<String>,
        /// None: the switch has not said.
        link_up: Option<bool>,
    },
}

/// Each watched port by its name.
pub type Sightings = BTreeMap<String, Sight>;

/// What a connection does next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// The rows have changed, or are there for the first time.
    Changed,
    Reply(Value),
    /// The server does not know how to monitor so; it is too old, or is none.
    Refused(String),
}

/// The rows of two tables, as far as they have been told.
#[derive(Debug, Default)]
pub(super) struct Monitor {
    names: Vec<String>,
    ports: BTreeMap<String, Map<String, Value>>,
    interfaces: BTreeMap<String, Map<String, Value>>,
    pending: Vec<u8>,
}

impl Monitor {
    pub(super) fn new(names: &[String]) -> Self {
        Self { names: names.to_vec(), ..Self::default() }
    }

    /// The first message of a connection. A row is told when any of the conditions holds.
    pub(super) fn request(&self) -> Value {
        let wanted: Vec<Value> = self.names.iter().map(|name| json!(["name", "==", name])).collect();
        let table = |columns: &[&str]| json!([{"columns": columns, "where": wanted}]);
        json!({
            "id": "monitor",
            "method": "monitor_cond",
            "params": ["Open_vSwitch", "ports", {
                "Port": table(&["name", "external_ids"]),
                "Interface": table(&["name", "error", "link_state"]),
            }],
        })
    }

    /// A question that any living server answers.
    pub(super) fn probe() -> Value {
        json!({"id": "probe", "method": "echo", "params": []})
    }

    /// Takes in the next bytes. The error is why the connection is of no more use.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Step>, String> {
        self.pending.extend_from_slice(bytes);
        let mut steps = Vec::new();
        let pending = std::mem::take(&mut self.pending);
        let mut messages = Deserializer::from_slice(&pending).into_iter::<Value>();
        let mut done = 0;
        loop {
            match messages.next() {
                Some(Ok(message)) => {
                    done = messages.byte_offset();
                    steps.extend(self.take(&message)?);
                }
                Some(Err(error)) if !error.is_eof() => return Err(format!("not JSON: {error}")),
                _ => break,
            }
        }
        self.pending = pending[done..].to_vec();
        if self.pending.len() > LONGEST {
            return Err(format!("a message of more than {LONGEST} bytes"));
        }
        Ok(steps)
    }

    fn take(&mut self, message: &Value) -> Result<Option<Step>, String> {
        let id = message.get("id").unwrap_or(&Value::Null);
        match message.get("method").and_then(Value::as_str) {
            Some("echo") => {
                let params = message.get("params").cloned().unwrap_or_else(|| json!([]));
                Ok(Some(Step::Reply(json!({"id": id, "result": params, "error": null}))))
            }
            Some("update2") => {
                self.update(message.pointer("/params/1").ok_or("an update without rows")?)?;
                Ok(Some(Step::Changed))
            }
            Some("monitor_canceled") => Err("the database was closed".to_owned()),
            Some(_) => Ok(None),
            None if id == "monitor" => match (message.get("result"), message.get("error")) {
                (Some(rows @ Value::Object(_)), _) => {
                    self.update(rows)?;
                    Ok(Some(Step::Changed))
                }
                (_, Some(error)) if !error.is_null() => Ok(Some(Step::Refused(error.to_string()))),
                _ => Err("an answer without rows".to_owned()),
            },
            None => Ok(None),
        }
    }

    fn update(&mut self, tables: &Value) -> Result<(), String> {
        for (name, table) in [("Port", &mut self.ports), ("Interface", &mut self.interfaces)] {
            let Some(rows) = tables.get(name).and_then(Value::as_object) else { continue };
            for (uuid, change) in rows {
                let (kind, row) =
                    change.as_object().and_then(|change| change.iter().next()).ok_or("an update without a kind")?;
                match (kind.as_str(), row) {
                    ("initial" | "insert", Value::Object(row)) => drop(table.insert(uuid.clone(), row.clone())),
                    ("modify", Value::Object(columns)) => merge(table.entry(uuid.clone()).or_default(), columns),
                    ("delete", _) => drop(table.remove(uuid)),
                    _ => return Err(format!("an update of the kind {kind:?}")),
                }
            }
        }
        Ok(())
    }

    pub(super) fn sightings(&self) -> Sightings {
        let row = |table: &BTreeMap<String, Map<String, Value>>, name: &str| {
            table.values().find(|row| row.get("name").and_then(Value::as_str) == Some(name)).cloned()
        };
        let sight = |name: &String| {
            let Some(port) = row(&self.ports, name) else { return Sight::Missing };
            let interface = row(&self.interfaces, name).unwrap_or_default();
            let text = |column: &str| interface.get(column).and_then(Value::as_str);
            let vm = pairs(port.get("external_ids")).find(|(key, _)| *key == VM_KEY).map(|(_, vm)| vm);
            Sight::Present {
                vm: vm.and_then(|vm| Uuid::parse_str(vm).ok()),
                error: text("error").map(str::to_owned),
                link_up: text("link_state").map(|state| state == "up"),
            }
        };
        self.names.iter().map(|name| (name.clone(), sight(name))).collect()
    }
}

/// Of a column with at most one value the new one is told; of a map, the pairs that differ.
fn merge(row: &mut Map<String, Value>, columns: &Map<String, Value>) {
    for (column, value) in columns {
        if value.get(0).and_then(Value::as_str) != Some("map") {
            row.insert(column.clone(), value.clone());
            continue;
        }
        let old = row.get(column).cloned();
        let mut merged: BTreeMap<&str, &str> = pairs(old.as_ref()).collect();
        for (key, value) in pairs(Some(value)) {
            // A pair that is told again as it was is gone.
            if merged.get(key) == Some(&value) {
                merged.remove(key);
            } else {
                merged.insert(key, value);
            }
        }
        let merged: Vec<_> = merged.into_iter().map(|(key, value)| json!([key, value])).collect();
        row.insert(column.clone(), json!(["map", merged]));
    }
}

/// `["map", [[key, value], …]]`
fn pairs(map: Option<&Value>) -> impl Iterator<Item = (&str, &str)> {
    let list = map.and_then(|map| map.get(1)).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: &str = "6f1b0a1e-91a7-4d2c-9d52-0123456789ab";

    // Sent by ovsdb-server 3.1.0.
    const INITIAL: &str = r#"{"id":"monitor","result":{"Port":{"df5192b6-7df0-48c0-818a-efa62d10eea6":{"initial":{"name":"v1n0","external_ids":["map",[["virshle-vm","6f1b0a1e-91a7-4d2c-9d52-0123456789ab"]]]}}},"Interface":{"9f86a709-691c-4e1d-ba76-e824bb15f974":{"initial":{"name":"v1n0"}}}},"error":null}"#;
    const DOWN: &str = r#"{"id":null,"method":"update2","params":["ports",{"Interface":{"9f86a709-691c-4e1d-ba76-e824bb15f974":{"modify":{"ofport":1,"link_state":"down"}}}}]}"#;
    const UP: &str = r#"{"id":null,"method":"update2","params":["ports",{"Interface":{"9f86a709-691c-4e1d-ba76-e824bb15f974":{"modify":{"link_state":"up"}}}}]}"#;
    const ERROR: &str = r#"{"id":null,"method":"update2","params":["ports",{"Interface":{"9f86a709-691c-4e1d-ba76-e824bb15f974":{"modify":{"error":"could not open x"}}}}]}"#;
    const RENAMED: &str = r#"{"id":null,"method":"update2","params":["ports",{"Port":{"df5192b6-7df0-48c0-818a-efa62d10eea6":{"modify":{"external_ids":["map",[["virshle-name","web"]]]}}}}]}"#;
    const DELETED: &str = r#"{"id":null,"method":"update2","params":["ports",{"Port":{"df5192b6-7df0-48c0-818a-efa62d10eea6":{"delete":null}},"Interface":{"9f86a709-691c-4e1d-ba76-e824bb15f974":{"delete":null}}}]}"#;
    const INSERTED: &str = r#"{"id":null,"method":"update2","params":["ports",{"Port":{"403bc4ea-d231-4c8d-a387-0df06f5ef40b":{"insert":{"name":"v1n1"}}},"Interface":{"b71b50b5-8ce0-4047-b50c-3c299c825b0a":{"insert":{"name":"v1n1"}}}}]}"#;

    fn monitor() -> Monitor {
        Monitor::new(&["v1n0".to_owned(), "v1n1".to_owned()])
    }

    fn present(error: Option<&str>, link_up: Option<bool>) -> Sight {
        Sight::Present { vm: Some(VM.parse().unwrap()), error: error.map(str::to_owned), link_up }
    }

    #[test]
    fn the_life_of_a_port_as_it_was_captured() {
        let mut monitor = monitor();
        let rows = [
            (INITIAL, present(None, None)),
            (DOWN, present(None, Some(false))),
            (UP, present(None, Some(true))),
            (ERROR, present(Some("could not open x"), Some(true))),
            (RENAMED, present(Some("could not open x"), Some(true))),
            (DELETED, Sight::Missing),
        ];
        for (message, expected) in rows {
            assert_eq!(monitor.feed(message.as_bytes()), Ok(vec![Step::Changed]), "{message}");
            let seen = monitor.sightings();
            assert_eq!((&seen["v1n0"], &seen["v1n1"]), (&expected, &Sight::Missing), "{message}");
        }
        monitor.feed(INSERTED.as_bytes()).unwrap();
        let foreign = Sight::Present { vm: None, error: None, link_up: None };
        assert_eq!(monitor.sightings()["v1n1"], foreign);
    }

    #[test]
    fn a_key_that_is_told_again_is_gone_and_an_empty_set_is_no_value() {
        let mut monitor = monitor();
        monitor.feed([INITIAL, ERROR].concat().as_bytes()).unwrap();
        let external_ids = INITIAL.split_once("\"external_ids\":").unwrap().1.split_once('}').unwrap().0;
        let cleared = RENAMED.replace(r#"["map",[["virshle-name","web"]]]"#, external_ids);
        let healed = ERROR.replace("\"could not open x\"", "[\"set\",[]]");
        monitor.feed([cleared, healed].concat().as_bytes()).unwrap();
        let expected = Sight::Present { vm: None, error: None, link_up: None };
        assert_eq!(monitor.sightings()["v1n0"], expected);
    }

    #[test]
    fn any_cut_gives_the_same_rows() {
        let stream = [INITIAL, DOWN, RENAMED, DELETED, INSERTED].concat();
        let mut whole = monitor();
        whole.feed(stream.as_bytes()).unwrap();
        for cut in 0..stream.len() {
            let mut monitor = monitor();
            let (first, second) = stream.as_bytes().split_at(cut);
            let count = monitor.feed(first).unwrap().len() + monitor.feed(second).unwrap().len();
            assert_eq!((count, monitor.sightings()), (5, whole.sightings()), "cut at {cut}");
        }
    }

    #[test]
    fn questions_are_answered_and_refusals_told() {
        let rows = [
            (
                r#"{"id":"echo","method":"echo","params":["a"]}"#,
                Ok(vec![Step::Reply(json!({"id":"echo","result":["a"],"error":null}))]),
            ),
            (r#"{"id":"probe","result":[],"error":null}"#, Ok(vec![])),
            (r#"{"id":"monitor","error":"unknown method"}"#, Ok(vec![Step::Refused("\"unknown method\"".to_owned())])),
            (r#"{"id":"monitor"}"#, Err("an answer without rows".to_owned())),
            (
                r#"{"id":null,"method":"monitor_canceled","params":["ports"]}"#,
                Err("the database was closed".to_owned()),
            ),
            (r#"{"method":"update2","params":["ports"]}"#, Err("an update without rows".to_owned())),
        ];
        for (message, expected) in rows {
            assert_eq!(monitor().feed(message.as_bytes()), expected, "{message}");
        }
        assert!(monitor().feed(b"SSH-2.0-OpenSSH").is_err());
        assert!(monitor().feed(&[b"\"".to_vec(), vec![b'x'; LONGEST + 1]].concat()).is_err(), "an endless message");
    }
}
