//! The lock pins what the flake asks for, and nothing else.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{evaluate, root};
use crate::trials;
use crate::world::Outcome;

pub fn trials() -> Vec<Trial> {
    trials![is_whole, pins_the_inputs]
}

fn lock() -> Value {
    serde_json::from_str(&fs::read_to_string(root().join("flake.lock")).expect("flake.lock")).expect("JSON")
}

/// The nodes that are fetched, by name.
fn pinned(lock: &Value) -> impl Iterator<Item = (&String, &Value)> {
    lock["nodes"].as_object().expect("nodes").iter().filter(|(name, _)| *name != "root")
}

fn is_whole() -> Outcome {
    let lock = lock();
    assert_eq!((&lock["version"], &lock["root"]), (&json!(7), &json!("root")));
    assert!(pinned(&lock).count() > 0, "{lock:#}");
    for (name, node) in pinned(&lock) {
        let locked = &node["locked"];
        let word = |key: &str| locked[key].as_str().unwrap_or_else(|| panic!("{name} has no `{key}`: {node:#}"));
        assert!(word("rev").len() == 40 && word("rev").bytes().all(|c| c.is_ascii_hexdigit()), "{name}: {node:#}");
        // 32 bytes in base64.
        let hash = word("narHash").strip_prefix("sha256-").unwrap_or_else(|| panic!("{name}: {node:#}"));
        let digits = hash.strip_suffix('=').expect("one byte of padding");
        assert!(
            digits.len() == 43 && digits.bytes().all(|c| c.is_ascii_alphanumeric() || b"+/".contains(&c)),
            "{hash}"
        );
        assert!(locked["lastModified"].as_u64().is_some_and(|at| at > 1_600_000_000), "{name}: {node:#}");
        for key in ["type", "owner", "repo"] {
            assert_eq!(locked[key], node["original"][key], "{name}: `{key}` was locked from another place");
        }
        assert!(node["original"]["rev"].is_null(), "{name}: the branch is named in flake.nix, the revision here");
    }
    Ok(())
}

fn pins_the_inputs() -> Outcome {
    let lock = lock();
    let inputs = evaluate(&["-E", "(import ./flake.nix).inputs"])?;
    let inputs = inputs.as_object().expect("inputs");
    let root = lock["nodes"]["root"]["inputs"].as_object().expect("the root's inputs");
    assert!(inputs.keys().eq(root.keys()), "flake.nix has {:?}, flake.lock {:?}", inputs.keys(), root.keys());
    assert_eq!(pinned(&lock).count(), inputs.len(), "a node that no input leads to: {lock:#}");
    for (name, input) in inputs {
        let original = &lock["nodes"][root[name].as_str().expect("a node")]["original"];
        let part = |key: &str| original[key].as_str().unwrap_or_default();
        let url = format!("{}:{}/{}/{}", part("type"), part("owner"), part("repo"), part("ref"));
        assert_eq!(input["url"], url, "{name}");
    }
    Ok(())
}
