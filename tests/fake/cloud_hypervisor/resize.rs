//! `vm.resize` and `vm.resize-disk`: in the order, with the limits and in the words of the real one.

use std::fs::File;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Config;

const MODULE: u64 = 128 << 20;
/// Until the VM is booted anew.
const SLOTS: usize = 8;

#[derive(Deserialize)]
pub(crate) struct Resize {
    desired_vcpus: Option<u64>,
    desired_ram: Option<u64>,
}

#[derive(Deserialize)]
pub(crate) struct ResizeDisk {
    id: String,
    desired_size: u64,
}

/// Or the causes of the refusal.
type Outcome<T> = Result<T, Vec<String>>;

fn refuse<T>(words: &[&str]) -> Outcome<T> {
    Err(words.iter().map(|&word| word.to_owned()).collect())
}

impl Resize {
    /// Of a VM that runs: whether the guest has something new. What is done before a refusal stays done.
    pub(crate) fn apply(&self, config: &mut Value, slots: &mut usize) -> Outcome<bool> {
        let mut new = false;
        if let Some(vcpus) = self.desired_vcpus {
            if Some(vcpus) > config["cpus"]["max_vcpus"].as_u64() {
                return refuse(&["Error from CPU manager", "Requested vCPUs exceed maximum"]);
            }
            new |= Some(vcpus) != config["cpus"]["boot_vcpus"].as_u64();
            config["cpus"]["boot_vcpus"] = json!(vcpus);
        }
        if let Some(ram) = self.desired_ram {
            let has = config["memory"]["size"].as_u64().unwrap_or(0);
            let room = config["memory"]["hotplug_size"].as_u64().unwrap_or(0);
            if ram > has {
                let more = ram - has;
                let why = if *slots >= SLOTS {
                    "No ACPI slot available"
                } else if !more.is_multiple_of(MODULE) {
                    "The requested hotplug memory addition is not a valid size"
                } else if more + *slots as u64 * MODULE > room {
                    "Not enough space in the hotplug RAM region"
                } else {
                    ""
                };
                if !why.is_empty() {
                    return refuse(&["Memory manager error", why]);
                }
                *slots += 1;
                new = true;
            }
            config["memory"]["size"] = json!(ram);
        }
        Ok(new)
    }
}

impl ResizeDisk {
    pub(crate) fn apply(&self, config: &Value) -> Outcome<()> {
        let config = Config::deserialize(config).map_err(|error| vec![error.to_string()])?;
        let Some(disk) = config.disks.iter().find(|disk| disk.id.as_ref() == Some(&self.id)) else {
            let unknown = format!("Failed to find device corresponding to the given identifier: {}", self.id);
            return refuse(&["Error from device manager", &unknown]);
        };
        let failed = ["Error from device manager", "Disk resize error"];
        if !self.desired_size.is_multiple_of(512) {
            return refuse(&[failed[0], failed[1], "Disk image size is not a multiple of 512"]);
        }
        let file = File::options().write(true).open(disk.path.clone().unwrap_or_default());
        file.and_then(|file| file.set_len(self.desired_size))
            .or_else(|error| refuse(&[failed[0], failed[1], "Disk resize failed", &error.to_string()]))
    }
}
