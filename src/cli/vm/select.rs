use clap::Args;

use crate::cli::complete;
use crate::error::{Error, Result};
use crate::store::{Record, Store};

/// One VM.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct One {
    /// A name, a number, or a uuid (its first 4 digits are enough)
    #[arg(value_name = "VM", add = complete::vm_names())]
    vm: Option<String>,
    /// The VM's number
    #[arg(long, value_name = "NUMBER")]
    id: Option<u32>,
}

impl One {
    pub(super) fn find(&self, store: &Store) -> Result<Record> {
        match (&self.vm, self.id) {
            (Some(vm), _) => store.find(vm),
            (None, Some(number)) => store.find_number(number),
            (None, None) => Err(Error::usage("name a VM")),
        }
    }
}

/// Some VMs, or all.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Many {
    /// Names, numbers, or uuids (the first 4 digits are enough)
    #[arg(value_name = "VM", add = complete::vm_names())]
    vms: Vec<String>,
    /// A VM's number; may be given more than once
    #[arg(long = "id", value_name = "NUMBER")]
    ids: Vec<u32>,
    /// Every VM
    #[arg(long, conflicts_with_all = ["vms", "ids"])]
    pub(super) all: bool,
}

impl Many {
    /// The VMs that were named, each once, in that order. One that does not exist is an error
    /// before anything is done to the others.
    pub(super) fn find(&self, store: &Store) -> Result<Vec<Record>> {
        if self.all {
            return store.list();
        }
        let mut found: Vec<Record> = Vec::new();
        let named = self.vms.iter().map(|vm| store.find(vm));
        for record in named.chain(self.ids.iter().map(|number| store.find_number(*number))) {
            let record = record?;
            if found.iter().all(|other| other.spec.uuid != record.spec.uuid) {
                found.push(record);
            }
        }
        Ok(found)
    }
}
