//! Other NICs for a VM that is there: the addresses that it gives back and those that it gets in
//! their place are one change, so that what it keeps is nobody else's in between.

use rusqlite::Connection;
use uuid::Uuid;

use super::address::{self, Pools};
use super::fault::Fault;
use super::history;
use super::mac;
use super::open::Store;
use super::record::Record;
use super::vms::{Wanted, by_uuid, gone, refuse_other, write};
use crate::error::{Error, Result};
use crate::host;
use crate::spec::{Address, Mac, Name, Nic};

/// What a NIC was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub address: Option<Address>,
    /// The one it asked for, or has had.
    pub mac: Option<Mac>,
}

impl Store {
    /// Gives a VM what the NICs need that it is to have, each on its network, in place of those that
    /// it has. One that is where it was, on the same network, keeps its MAC, and its address as long
    /// as that can be one of its subnet. `change` gets the record and what was given, and must only
    /// compute; the uuid, the number and the name are not for it to change.
    pub fn reshape<T>(
        &mut self,
        vm: Uuid,
        nics: &[(Name, Wanted)],
        change: impl FnOnce(&mut Record, &[Given]) -> Result<T>,
    ) -> Result<T> {
        let actor = self.actor();
        self.write("change a VM", |transaction| {
            let Some(before) = by_uuid(transaction, vm)? else { return Err(gone(vm).into()) };
            transaction.execute("DELETE FROM address WHERE vm = ?1", [vm.to_string()])?;
            let wanted = keep(&before.spec.nics, nics);
            mac::refuse_taken(transaction, &mac::asked(wanted.iter())?, &[vm])?;
            let given = give(transaction, &wanted)?;
            let mut record = before.clone();
            let done = change(&mut record, &given)?;
            let (old, new) = (&before.spec, &record.spec);
            let addresses: Vec<_> = given.into_iter().map(|given| given.address).collect();
            refuse_other(new, (old.uuid, old.number, &old.name), &addresses, &wanted)?;
            refuse_twins(&new.nics)?;
            for (nic, (wanted, address)) in wanted.iter().zip(&addresses).enumerate() {
                if let (Some(subnet), Some(address)) = (&wanted.subnet, address) {
                    address::record(transaction, vm, nic, &subnet.network, address)?;
                }
            }
            record.updated_at = host::now();
            write(transaction, &record)?;
            history::note_change(transaction, &actor, &before, &record)?;
            Ok(done)
        })
    }
}

/// What the NICs ask for, and where they ask for nothing, what those before them had. What another
/// of them asks for is not kept.
fn keep(before: &[Nic], nics: &[(Name, Wanted)]) -> Vec<Wanted> {
    let asked = |mac: Mac| nics.iter().any(|(_, nic)| nic.mac == Some(mac));
    let address_asked = |network: &Name, address: &Address| {
        nics.iter().any(|(other, nic)| other == network && nic.address == Some(address.ip.addr()))
    };
    let keep = |(index, (network, nic)): (usize, &(Name, Wanted))| {
        let mut nic = nic.clone();
        let Some(was) = before.get(index).filter(|was| was.network == *network) else { return nic };
        nic.mac = nic.mac.or(Some(was.mac).filter(|mac| !asked(*mac)));
        if let (None, Some(subnet), Some(address)) = (nic.address, &nic.subnet, &was.address)
            && !address_asked(network, address)
            && address::check_asked(subnet, address.ip.addr()).is_ok()
        {
            nic.address = Some(address.ip.addr());
        }
        nic
    };
    nics.iter().enumerate().map(keep).collect()
}

fn give(connection: &Connection, wanted: &[Wanted]) -> Result<Vec<Given>, Fault> {
    let mut pools = Pools::of(wanted.iter())?;
    let mut given = Vec::with_capacity(wanted.len());
    for nic in wanted {
        given.push(Given { address: pools.take(connection, nic)?, mac: nic.mac });
    }
    Ok(given)
}

/// Refuses a VM of which two NICs have one MAC: one that it kept, and one that follows from its uuid.
fn refuse_twins(nics: &[Nic]) -> Result<()> {
    for (index, nic) in nics.iter().enumerate() {
        if nics[..index].iter().any(|other| other.mac == nic.mac) {
            return Err(Error::refused(format!("two of the NICs would have the MAC `{}`", nic.mac))
                .hint("name another `mac` for one of them"));
        }
    }
    Ok(())
}
