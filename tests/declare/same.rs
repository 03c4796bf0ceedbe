//! What is the same about two VMs, and what shows that one was not touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::types::Value as Sql;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::world::World;

/// A VM but for what makes it this one and no other: who it is, what it was given where nothing was
/// named, and when.
#[derive(Debug, PartialEq)]
pub struct Essence {
    info: Value,
    listed: Value,
    /// The files of its folder: how long, and what is in a disk.
    files: BTreeMap<String, (u64, String)>,
}

/// Keys of the JSON that differ from one VM to the next.
const IDENTITY: &[&str] = &[
    "uuid",
    "number",
    "vsock",
    "folder",
    "created_at",
    "up_since",
    "supervisor_pid",
    "hypervisor_pid",
    "last_exit",
    "port",
    "address6",
    "login",
];
/// Those that do so where the config does not name them.
const GIVEN: &[&str] = &["mac", "address"];

/// What there is of these VMs, and what declares them. `named`: the config, by whose words alone an
/// address or a MAC is a VM's own; beside each name: whether it matters if the VM runs.
pub fn essences(world: &World, named: &str, vms: &[(String, bool)]) -> (Vec<Essence>, String) {
    if vms.is_empty() {
        return Default::default();
    }
    let rows = world.ls();
    let of = |(name, state): &(String, bool)| {
        let mut info = world.info(name);
        let folder = info["folder"].as_str().expect("a folder").to_owned();
        let mut listed = rows.iter().find(|row| row["name"] == *name).expect("a row").clone();
        for value in [&mut info, &mut listed] {
            scrub(value, named);
            if !state {
                value.as_object_mut().expect("an object").retain(|key, _| key != "state" && key != "hypervisor_user");
            }
        }
        Essence { info, listed, files: files(Path::new(&folder)) }
    };
    let names = vms.iter().map(|(name, _)| name.as_str());
    let exported = world.v(["vm", "export"].into_iter().chain(names)).ok().stdout;
    // Whether it runs is told by its state, where that matters.
    let matters = |line: &&str| !is_given(line, named) && !line.starts_with("running = ");
    let exported = exported.lines().filter(matters).collect::<Vec<_>>().join("\n");
    // A NIC of which nothing else is said.
    let is_empty = |table: &&str| table.starts_with("vm.net]]") && table.trim().lines().count() == 2;
    let exported = exported.split("[[").filter(|table| !is_empty(table)).collect::<Vec<_>>().join("[[");
    (vms.iter().map(of).collect(), exported)
}

fn scrub(value: &mut Value, named: &str) {
    let names = |value: &Value| value.as_str().is_some_and(|text| named.contains(&format!("\"{text}\"")));
    match value {
        Value::Object(object) => {
            let keep = |key: &str, value: &Value| {
                let of_host = key == "address" && value.is_object();
                !IDENTITY.contains(&key) && (!GIVEN.contains(&key) || names(value) || of_host)
            };
            let kept: Map<String, Value> =
                std::mem::take(object).into_iter().filter(|(key, value)| keep(key, value)).collect();
            *object = kept;
            if let Some(ip) = object.get("ip").and_then(Value::as_str) {
                let alone = ip.split('/').next().unwrap_or_default().to_owned();
                if !named.contains(&format!("\"{alone}\"")) {
                    object.remove("ip");
                }
            }
            object.values_mut().for_each(|value| scrub(value, named));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| scrub(value, named)),
        _ => {}
    }
}

/// A line of TOML that says what the config does not.
fn is_given(line: &str, named: &str) -> bool {
    let Some((key, value)) = line.split_once(" = ") else { return false };
    GIVEN.contains(&key.trim()) && !named.contains(value.trim())
}

fn files(folder: &Path) -> BTreeMap<String, (u64, String)> {
    let entries = fs::read_dir(folder).expect("the VM's folder").map(|entry| entry.expect("an entry"));
    let told = |path: &Path| {
        let content = fs::read(path).expect("a file");
        // The first-boot volume speaks of the VM's name, number and addresses.
        let sum = path.extension().filter(|end| *end == "raw").map(|_| format!("{:?}", Sha256::digest(&content)));
        (content.len() as u64, sum.unwrap_or_default())
    };
    entries
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".raw") || entry.file_name() == "seed.img")
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), told(&entry.path())))
        .collect()
}

/// All there is of one VM, to the last byte and time; but for what a guest that runs writes on its console.
#[derive(Debug, PartialEq)]
pub struct Untouched {
    row: Vec<(String, Sql)>,
    files: BTreeMap<String, Vec<i64>>,
    content: BTreeMap<String, (u64, String)>,
}

impl Untouched {
    pub fn of(world: &World, name: &str) -> Self {
        let info = world.info(name);
        let folder = info["folder"].as_str().expect("a folder").to_owned();
        let is_guests = |entry: &fs::DirEntry| info["state"] == "running" && entry.file_name() == "console.log";
        let stat = |entry: fs::DirEntry| {
            let found = entry.metadata().expect("a file");
            let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
            let rest = [found.ino(), found.len(), found.mode().into(), found.uid().into(), found.gid().into()];
            let rest = rest.map(|number| i64::try_from(number).expect("a number"));
            (entry.file_name().to_string_lossy().into_owned(), [&times[..], &rest].concat())
        };
        let entries = fs::read_dir(&folder).expect("the VM's folder").map(|entry| entry.expect("an entry"));
        let entries = entries.filter(|entry| !is_guests(entry));
        Self { row: row(world, name), files: entries.map(stat).collect(), content: files(Path::new(&folder)) }
    }

    /// It is as it was then.
    #[track_caller]
    pub fn still_holds(&self, world: &World, name: &str, when: &str) {
        let now = Self::of(world, name);
        let columns: Vec<_> = self.row.iter().zip(&now.row).filter(|(was, is)| was != is).collect();
        assert!(columns.is_empty(), "{when}: `{name}` is recorded otherwise: {columns:#?}");
        assert_eq!(now.files, self.files, "{when}: the files of `{name}`");
        assert_eq!(now.content, self.content, "{when}: what is on the disks of `{name}`");
    }
}

/// The VM's row in the database, as it lies there.
fn row(world: &World, name: &str) -> Vec<(String, Sql)> {
    let database = rusqlite::Connection::open(world.state().join("virshle.sqlite")).expect("the database");
    let mut query = database.prepare("SELECT * FROM vm WHERE name = ?1").expect("a query");
    let columns: Vec<String> = query.column_names().into_iter().map(str::to_owned).collect();
    let values = query.query_row([name], |row| (0..columns.len()).map(|at| row.get(at)).collect::<Result<Vec<_>, _>>());
    columns.into_iter().zip(values.expect("a row")).collect()
}
