//! Other NICs for VMs that are there: the addresses that they give back and those that they get in
//! their place are one change, so that what one keeps, or gets of another, is nobody else's in between.

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
use crate::spec::{Address, Mac, Name, Nic, VmSpec};

/// What a NIC was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub address: Option<Address>,
    /// The one it asked for, or has had.
    pub mac: Option<Mac>,
}

impl Store {
    /// Gives VMs what the NICs need that each is to have, each on its network, in place of those that
    /// it has: all of them or none, so that VMs can exchange what they have. A NIC that is where it was,
    /// on the same network, keeps its MAC, and its address as long as that can be one of its subnet and
    /// is kept for nobody else. `change` gets each record and what was given, in their order, and must only
    /// compute; the uuid, the number and the name are not for it to change.
    pub fn reshape<T>(
        &mut self,
        vms: &[(Uuid, Vec<(Name, Wanted)>)],
        mut change: impl FnMut(&mut Record, &[Given]) -> Result<T>,
    ) -> Result<Vec<T>> {
        let actor = self.actor();
        let all: Vec<Uuid> = vms.iter().map(|(vm, _)| *vm).collect();
        self.write("change a VM", |transaction| {
            let mut befores = Vec::with_capacity(vms.len());
            for (vm, nics) in vms {
                let Some(before) = by_uuid(transaction, *vm)? else { return Err(gone(*vm).into()) };
                transaction.execute("DELETE FROM address WHERE vm = ?1", [vm.to_string()])?;
                let wanted = keep(&before.spec.nics, nics);
                befores.push((before, wanted));
            }
            let asked = || befores.iter().flat_map(|(_, wanted)| wanted);
            mac::refuse_taken(transaction, &mac::asked(asked())?, &all)?;
            let mut pools = Pools::of(asked())?;
            let (mut done, mut nics) = (Vec::with_capacity(vms.len()), Vec::new());
            for (before, wanted) in &befores {
                let mut record = before.clone();
                let given = give(transaction, &mut pools, wanted)?;
                done.push(change(&mut record, &given)?);
                put(transaction, &before.spec, &record, (wanted, &given))?;
                record.updated_at = host::now();
                write(transaction, &record)?;
                history::note_change(transaction, &actor, before, &record)?;
                nics.extend(record.spec.nics);
            }
            refuse_twins(&nics)?;
            Ok(done)
        })
    }
}

/// Records what one VM was given.
fn put(
    connection: &Connection,
    before: &VmSpec,
    record: &Record,
    (wanted, given): (&[Wanted], &[Given]),
) -> Result<(), Fault> {
    let addresses: Vec<_> = given.iter().map(|given| given.address.clone()).collect();
    refuse_other(&record.spec, (before.uuid, before.number, &before.name), &addresses, wanted)?;
    for (nic, (wanted, address)) in wanted.iter().zip(&addresses).enumerate() {
        if let (Some(subnet), Some(address)) = (&wanted.subnet, address) {
            address::record(connection, before.uuid, nic, &subnet.network, address)?;
        }
    }
    Ok(())
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
            && !subnet.named.contains(&address.ip.addr())
        {
            nic.address = Some(address.ip.addr());
        }
        nic
    };
    nics.iter().enumerate().map(keep).collect()
}

fn give(connection: &Connection, pools: &mut Pools, wanted: &[Wanted]) -> Result<Vec<Given>, Fault> {
    let mut given = Vec::with_capacity(wanted.len());
    for nic in wanted {
        given.push(Given { address: pools.take(connection, nic)?, mac: nic.mac });
    }
    Ok(given)
}

/// Refuses two NICs with one MAC: one that was asked for or kept, and one that follows from a VM's uuid.
fn refuse_twins(nics: &[Nic]) -> Result<()> {
    for (index, nic) in nics.iter().enumerate() {
        if nics[..index].iter().any(|other| other.mac == nic.mac) {
            return Err(Error::refused(format!("two of the NICs would have the MAC `{}`", nic.mac))
                .hint("name another `mac` for one of them"));
        }
    }
    Ok(())
}
