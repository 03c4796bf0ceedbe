//! The pages of public/, held against the grammar and against every golden plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::golden::{cases, kind};
use crate::plan::{Class, Work, compare};

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("public").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The first two cells of each row of the table below a heading.
fn table(page: &str, heading: &str) -> Vec<(String, String)> {
    let page = file(page);
    let below = page.split(&format!("## {heading}\n")).nth(1).unwrap_or_default();
    let section = below.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.to_owned()))
    });
    rows.collect()
}

#[test]
fn the_pages_have_every_key() {
    let schema: serde_json::Value = serde_json::from_str(&file("config.schema.json")).unwrap();
    for (page, heading, entry) in [
        ("declared.md", "Keys", "VmEntry"),
        ("networks.md", "Networks", "Network"),
        ("networks.md", "NICs", "NetEntry"),
    ] {
        let properties = schema["$defs"][entry]["properties"].as_object().expect(entry);
        let keys: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        let rows = table(page, heading);
        let written: BTreeSet<&str> = rows.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(written, keys, "{page}");
        assert_eq!(rows.len(), keys.len(), "{page}: a key twice");
    }
}

/// What a change costs a VM that runs, and what makes and ends one.
#[test]
fn the_page_has_the_class_of_every_field() {
    let mut expected: BTreeMap<String, BTreeSet<Class>> = BTreeMap::new();
    for case in cases().into_iter().map(|(_, case)| case).filter(|case| case.is_of_whole_vms()) {
        let model = case.model();
        let Ok(plan) = compare(&model.situation, &case.wishes()) else { continue };
        for item in &plan.items {
            let runs = model.situation.seen.iter().any(|seen| seen.record.spec.name == item.vm && seen.state.is_live());
            let rests = matches!(&item.work, Work::Alter(alter) if alter.run == Some(false));
            for change in &item.changes {
                if runs && !rests || !matches!(change.class, Class::Live | Class::Restart | Class::Replace) {
                    let word = kind(&change.field).to_string();
                    let word = word.replace("labels.l", "labels.KEY").replace("disk.d", "disk.NAME");
                    expected.entry(word.replace("net.0", "net.N")).or_default().insert(change.class);
                }
            }
        }
    }
    let words = |classes: &BTreeSet<Class>| classes.iter().map(Class::to_string).collect::<Vec<_>>().join(", ");
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(field, classes)| (field.clone(), words(classes))).collect();
    let rows = table("declared.md", "Fields");
    let count = rows.len();
    let written: BTreeMap<String, String> = rows.into_iter().collect();
    assert_eq!(written, expected);
    assert_eq!(written.len(), count, "a field twice");
}
