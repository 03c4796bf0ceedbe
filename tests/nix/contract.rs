//! public/nixos.md: every option of the module, with the key of the TOML, the unit and the path it is
//! about. No option and no key may be missing on either side.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde_json::Value;

use super::{case, evaluated, writes_golden};
use crate::trials;
use crate::world::Outcome;

pub fn trials() -> Vec<Trial> {
    trials![
        every_option_is_documented,
        the_page_has_every_option,
        the_page_has_every_key,
        the_example_says_every_key,
        what_the_page_names_is_there,
    ]
}

const PREFIX: &str = "services.virshle.";
const NONE: &str = "–";

/// What options are about, by how they begin: the unit and the path. The longest that fits counts.
const PLACES: [(&str, &str, &str); 29] = [
    ("apply", "virshle-apply.service", "/etc/virshle/config.toml"),
    ("enable", "virshle.socket", "/var/lib/virshle"),
    ("group", "virshle-vm@UUID.service", "/var/lib/virshle/vm/UUID"),
    ("hypervisors", "virshle-vm@UUID.service", "/run/current-system/sw/bin"),
    ("hypervisors.firmware", "virshle-vm@UUID.service", "/run/current-system/sw/FV"),
    ("images", "virshle-apply.service", "/var/lib/virshle/cache"),
    ("members", "virshle.socket", "/run/virshle/virshle.sock"),
    ("memoryLimit", NONE, NONE),
    ("networks", "virshle-network@NAME.service", "/run/virshle/net/NAME"),
    ("node", "virshle-vm@UUID.service", "/etc/virshle/config.toml"),
    ("openFirewall", "firewall.service", NONE),
    ("openvswitch", "ovs-vswitchd.service", "/run/openvswitch"),
    ("openvswitch.dpdk", "virshle-openvswitch.service", "/run/openvswitch"),
    ("openvswitch.hugepages", "systemd-sysctl.service", "/dev/hugepages"),
    ("package", "virshle@.service", "/run/current-system/sw/bin/v"),
    ("settings", "virshle-apply.service", "/etc/virshle/config.toml"),
    ("templates", "virshle-apply.service", "/etc/virshle/config.toml"),
    ("user", "virshle-vm@UUID.service", "/var/lib/virshle/vm/UUID"),
    ("vms", "virshle-vm@UUID.service", "/var/lib/virshle/virshle.sqlite"),
    ("vms.<name>.autostart", "virshle-autostart.service", "/var/lib/virshle/virshle.sqlite"),
    ("vms.<name>.disks", "virshle-vm@UUID.service", "/var/lib/virshle/vm/UUID/NAME.raw"),
    ("vms.<name>.nets", "virshle-vm@UUID.service", "/run/virshle/vm/UUID"),
    ("vms.<name>.labels", "virshle-apply.service", "/var/lib/virshle/virshle.sqlite"),
    ("vms.<name>.onRemove", "virshle-apply.service", "/var/lib/virshle/virshle.sqlite"),
    ("vms.<name>.protect", "virshle-apply.service", "/var/lib/virshle/virshle.sqlite"),
    ("vms.<name>.running", "virshle-apply.service", "/var/lib/virshle/virshle.sqlite"),
    ("vms.<name>.template", "virshle-apply.service", "/var/lib/virshle/virshle.sqlite"),
    ("vms.<name>.userData", "virshle-apply.service", "/var/lib/virshle/vm/UUID/seed.img"),
    ("vms.<name>.users", "virshle-apply.service", "/var/lib/virshle/vm/UUID/seed.img"),
];

const HEAD: &str = "| NixOS option, below `services.virshle` | Key | Unit | Path |\n|---|---|---|---|\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> PathBuf {
    root().join("public/nixos.md")
}

struct Row {
    option: String,
    key: String,
    unit: String,
    path: String,
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(page()).expect("the page");
    let cells = |line: &str| -> Option<Row> {
        let mut cells =
            line.strip_prefix("| `")?.trim_end_matches('|').split('|').map(|cell| cell.trim().trim_matches('`'));
        let mut next = || cells.next().map(str::to_owned);
        Some(Row { option: next()?, key: next()?, unit: next()?, path: next()? })
    };
    text.lines().filter_map(cells).collect()
}

/// The options, without those that only hold others.
fn options() -> Result<Vec<String>, crate::world::Skip> {
    let all: Vec<&str> = evaluated()?["options"]
        .as_array()
        .expect("options")
        .iter()
        .map(|one| one["name"].as_str().expect("a name"))
        .collect();
    let holds = |name: &str| all.iter().any(|other| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')));
    Ok(all.iter().filter(|name| !holds(name)).map(|name| name.strip_prefix(PREFIX).expect("ours").to_owned()).collect())
}

/// By the rule that the page states; what has no key in the TOML is for NixOS alone.
fn key(option: &str) -> Option<String> {
    let (first, rest) = option.split_once('.').unwrap_or((option, ""));
    match (first, rest) {
        ("user", "") => return Some("node.user".to_owned()),
        ("node" | "images" | "networks" | "templates" | "vms", _) => {}
        _ => return None,
    }
    if rest.ends_with(".order") || rest.starts_with("<name>.users.") {
        return None;
    }
    let words = option.split('.').filter(|word| *word != "<name>").map(|word| match word {
        "images" => "image".to_owned(),
        "networks" => "network".to_owned(),
        "templates" => "template.vm".to_owned(),
        "vms" => "vm".to_owned(),
        "disks" => "disk".to_owned(),
        "nets" => "net".to_owned(),
        word => word.chars().fold(String::new(), |mut key, c| {
            if c.is_ascii_uppercase() {
                key.push('-');
            }
            key.push(c.to_ascii_lowercase());
            key
        }),
    });
    Some(words.collect::<Vec<_>>().join("."))
}

/// Every key that holds a value, in a table of tables by its path.
fn keys(schema: &Value, at: &Value, path: &str, found: &mut Vec<String>) {
    let resolved = |value: &'_ Value| -> Value {
        match value["$ref"].as_str() {
            Some(reference) => schema["$defs"][reference.strip_prefix("#/$defs/").expect("a definition")].clone(),
            None => value.clone(),
        }
    };
    let at = resolved(at);
    let inner = if at["type"] == "array" { resolved(&at["items"]) } else { at };
    match inner["properties"].as_object() {
        None => found.push(path.to_owned()),
        Some(properties) => {
            for (name, property) in properties {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                keys(schema, property, &below, found);
            }
        }
    }
}

/// The page with its table as it should be; the words before it are for people to write.
fn written(page: &str, options: &[String]) -> String {
    let (words, _) = page.split_once(HEAD).expect("the table");
    let mut text = format!("{words}{HEAD}");
    let cell = |text: &str| if text == NONE { text.to_owned() } else { format!("`{text}`") };
    for option in options {
        let fits = |place: &&(&str, &str, &str)| option.starts_with(place.0);
        let (_, unit, path) = PLACES.iter().filter(fits).max_by_key(|place| place.0.len()).expect("a place");
        let key = key(option).unwrap_or_else(|| NONE.to_owned());
        writeln!(text, "| `{option}` | {} | {} | {} |", cell(&key), cell(unit), cell(path)).expect("a text");
    }
    text
}

fn every_option_is_documented() -> Outcome {
    let options = evaluated()?["options"].as_array().expect("options");
    assert!(options.len() > 100, "{}", options.len());
    for option in options {
        for part in ["description", "example", "type"] {
            let text = option[part].as_str().unwrap_or_default();
            assert!(!text.trim().is_empty() && text != "unspecified value", "{}: no {part}", option["name"]);
        }
        let description = option["description"].as_str().expect("a description").trim();
        assert!(description.ends_with(['.', ')']), "{}: {description}", option["name"]);
    }
    Ok(())
}

fn the_page_has_every_option() -> Outcome {
    let read = || fs::read_to_string(page()).expect("the page");
    let expected = written(&read(), &options()?);
    if writes_golden() {
        fs::write(page(), &expected).expect("the page is written");
    }
    let text = read();
    assert!(text == expected, "public/nixos.md is not what the options are (`GOLDEN=write` writes it):\n{expected}");
    Ok(())
}

fn grammar() -> Vec<String> {
    let schema = fs::read_to_string(root().join("public/config.schema.json")).expect("the schema");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let mut found = Vec::new();
    keys(&schema, &schema, "", &mut found);
    assert!(found.len() > 80 && found.contains(&"vm.net.ports".to_owned()), "{found:?}");
    found
}

/// The paths of what a file says.
fn said(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                said(value, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
            }
        }
        Value::Array(entries) if entries.iter().all(Value::is_object) => {
            entries.iter().for_each(|entry| said(entry, path, found));
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

/// So each option is seen to become its key.
fn the_example_says_every_key() -> Outcome {
    let mut found = BTreeSet::new();
    said(&case("whole")?["settings"], "", &mut found);
    let is_said = |key: &String| found.iter().any(|path| path == key || path.starts_with(&format!("{key}.")));
    let missing: Vec<_> = grammar().into_iter().filter(|key| !is_said(key)).collect();
    assert!(missing.is_empty(), "example.nix does not say {missing:?}");
    Ok(())
}

fn the_page_has_every_key() -> Outcome {
    let expected = grammar();
    let mut seen = BTreeSet::new();
    for row in rows() {
        assert_eq!(row.key, key(&row.option).unwrap_or_else(|| NONE.to_owned()), "{}", row.option);
        if row.key != NONE {
            assert!(expected.contains(&row.key), "`{}` is no key of the grammar ({})", row.key, row.option);
            assert!(seen.insert(row.key.clone()), "`{}` is in two rows", row.key);
        }
    }
    let missing: Vec<_> = expected.iter().filter(|key| !seen.contains(*key)).collect();
    assert!(missing.is_empty(), "keys that no option has: {missing:?}");
    Ok(())
}

/// The units are ones that the package brings, or that the module makes.
fn what_the_page_names_is_there() -> Outcome {
    let ours = |unit: &str| {
        let file = unit.replace("@UUID", "@").replace("@NAME", "@");
        let name = file.trim_end_matches(".service");
        root().join("packaging/systemd").join(&file).is_file()
            || ["units.nix", "openvswitch.nix"].iter().any(|module| {
                fs::read_to_string(root().join("modules").join(module)).expect("the module").contains(name)
            })
    };
    let rows = rows();
    assert!(rows.len() > 100, "{}", rows.len());
    for row in rows {
        let foreign = [NONE, "firewall.service", "systemd-sysctl.service"].contains(&row.unit.as_str());
        assert!(foreign || ours(&row.unit), "{}: `{}`", row.option, row.unit);
        assert!(row.path == NONE || row.path.starts_with('/'), "{}: `{}`", row.option, row.path);
    }
    for (start, ..) in PLACES {
        let used = fs::read_to_string(page()).expect("the page").contains(&format!("| `{start}"));
        assert!(used, "no option begins with `{start}`");
    }
    Ok(())
}
