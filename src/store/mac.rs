//! MACs that were asked for: one NIC has each. Those that follow from a VM's uuid are its own.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::fault::Fault;
use super::vms::Wanted;
use crate::error::{Error, Result};
use crate::spec::Mac;

/// What the NICs ask for; two that ask for one MAC are refused.
pub(super) fn asked<'a>(nics: impl Iterator<Item = &'a Wanted>) -> Result<BTreeSet<Mac>> {
    let mut macs = BTreeSet::new();
    for mac in nics.filter_map(|nic| nic.mac) {
        if !macs.insert(mac) {
            return Err(Error::refused(format!("two of the NICs would have the MAC `{mac}`"))
                .hint("a MAC belongs to one NIC: leave it out, or create one VM at a time"));
        }
    }
    Ok(macs)
}

/// Refuses those that a recorded VM's NIC has, whether it asked for it or not; those of `but` may have them.
pub(super) fn refuse_taken(connection: &Connection, macs: &BTreeSet<Mac>, but: &[Uuid]) -> Result<(), Fault> {
    let but = serde_json::json!(but).to_string();
    for mac in macs {
        let mut statement = connection.prepare_cached(
            "SELECT vm.name, vm.number FROM vm, json_each(vm.spec, '$.nics') AS nic
             WHERE nic.value ->> '$.mac' = ?1 AND vm.uuid NOT IN (SELECT value FROM json_each(?2)) LIMIT 1",
        )?;
        let holder: Option<(String, u32)> =
            statement.query_row([&mac.to_string(), &but], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if let Some((name, number)) = holder {
            return Err(Error::refused(format!("the MAC `{mac}` is taken: a NIC of VM {number}, `{name}`, has it"))
                .hint(format!("choose another MAC, or leave it out; `v vm info {name}` shows that VM"))
                .into());
        }
    }
    Ok(())
}
