//! What the units allow, as systemd scores it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::trials;
use crate::world::{Outcome, need_program, run};

pub fn trials() -> Vec<Trial> {
    trials![no_unit_is_more_exposed_than_it_was]
}

/// The most, of 100. Those that start hypervisors hand on what they may, and each hypervisor has a sandbox of its own;
/// those that only call `v` may what its supervisors may.
const MOST: [(&str, u32); 6] = [
    ("virshle-apply.service", 97),
    ("virshle-autostart.service", 97),
    ("virshle-network@.service", 91),
    ("virshle-shutdown.service", 97),
    ("virshle-vm@.service", 91),
    ("virshle@.service", 80),
];

fn no_unit_is_more_exposed_than_it_was() -> Outcome {
    let program = need_program("systemd-analyze")?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    let score = |unit: &str, most: u32| {
        let mut command = Command::new(&program);
        command.args(["security", "--offline=true", "--no-pager", &format!("--threshold={most}")]);
        command.arg(folder.join(unit));
        run(command, Duration::from_secs(60))
    };
    let most = BTreeMap::from(MOST);
    let services: Vec<String> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".service"))
        .collect();
    assert!(!services.is_empty());
    for unit in services {
        let most = *most.get(unit.as_str()).unwrap_or_else(|| panic!("how exposed may `{unit}` be?"));
        let told = score(&unit, most);
        assert_eq!(told.code, Some(0), "{unit}: {}{}", told.stdout, told.stderr);
        assert_ne!(score(&unit, 20).code, Some(0), "{unit}: nothing is measured");
    }
    Ok(())
}
