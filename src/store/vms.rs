//! The VMs' rows: given their number, name and addresses in one transaction, changed by one
//! read-decide-write at a time, and removed with what they were given.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::host::{self, Handle};
use crate::spec::{Actor, Address, Declared, Happening, Mac, Name, State, Subnet, VmSpec};

use super::address::{self, Pools};
use super::fault::Fault;
use super::find::one;
use super::history;
use super::mac;
use super::open::Store;
use super::record::{Columns, Record};

/// A VM that is to be, before it has been given anything.
#[derive(Debug, Clone)]
pub struct Draft {
    pub uuid: Uuid,
    pub name: Option<Name>,
    pub nics: Vec<Wanted>,
    /// For one that the config declares.
    pub declared: Option<Declared>,
}

/// What a NIC of a draft needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `None`: its network gives no addresses.
    pub subnet: Option<Subnet>,
    /// This address of the subnet, and no other.
    pub address: Option<Ipv4Addr>,
    /// This MAC, which no other NIC may have; without one it follows from the VM.
    pub mac: Option<Mac>,
}

/// What a draft was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    pub uuid: Uuid,
    pub number: u32,
    pub name: Name,
    /// One per NIC.
    pub addresses: Vec<Option<Address>>,
}

impl Store {
    /// How many made-up names are tried before the number settles it.
    const PROPOSALS: usize = 32;

    /// Gives each draft a number, a name and its addresses, and records it as being created by
    /// `owner`: all of them or none. `build` makes the spec of what was given; it runs inside the
    /// transaction, while every other process waits, so it must only compute.
    pub fn reserve(
        &mut self,
        drafts: &[Draft],
        owner: Handle,
        propose: &mut dyn FnMut() -> Name,
        build: &mut dyn FnMut(&Reserved) -> Result<VmSpec>,
    ) -> Result<Vec<VmSpec>> {
        let mut chosen = HashSet::new();
        for name in drafts.iter().filter_map(|draft| draft.name.as_ref()) {
            if !chosen.insert(name) {
                return Err(Error::refused(format!("two of the VMs would be named `{name}`"))
                    .hint("a name belongs to one VM: leave it out, or create one at a time"));
            }
        }
        let mut pools = Pools::of(drafts.iter().flat_map(|draft| &draft.nics))?;
        let macs = mac::asked(drafts.iter().flat_map(|draft| &draft.nics))?;
        let actor = self.actor();
        self.write("record a new VM", |transaction| {
            mac::refuse_taken(transaction, &macs, &[])?;
            let mut specs = Vec::with_capacity(drafts.len());
            for draft in drafts {
                refuse_known(transaction, draft.uuid)?;
                let number = next_number(transaction)?;
                let name = match &draft.name {
                    Some(name) => refuse_taken(transaction, name)?,
                    None => free_name(transaction, number, &chosen, propose)?,
                };
                let addresses = draft.nics.iter().map(|nic| pools.take(transaction, nic)).collect::<Result<_, _>>()?;
                let reserved = Reserved { uuid: draft.uuid, number, name, addresses };
                let spec = build(&reserved)?;
                let identity = (reserved.uuid, reserved.number, &reserved.name);
                refuse_other(&spec, identity, &reserved.addresses, &draft.nics)?;
                insert(transaction, &spec, draft.declared.clone(), owner)?;
                let happening = Happening::State { from: None, to: State::Creating, intent: None, exit: None };
                history::note(transaction, &spec, &actor, &happening)?;
                for (nic, (wanted, address)) in draft.nics.iter().zip(&reserved.addresses).enumerate() {
                    if let (Some(subnet), Some(address)) = (&wanted.subnet, address) {
                        address::record(transaction, spec.uuid, nic, &subnet.network, address)?;
                    }
                }
                specs.push(spec);
            }
            Ok(specs)
        })
    }

    /// Refuses NICs that could not be given what they need, were those of `but` not there.
    pub fn check_free(&self, nics: &[Wanted], but: &[Uuid]) -> Result<()> {
        let mut pools = Pools::of(nics.iter())?.without(but);
        let macs = mac::asked(nics.iter())?;
        self.read("look for addresses", |connection| {
            mac::refuse_taken(connection, &macs, but)?;
            nics.iter().try_for_each(|nic| pools.take(connection, nic).map(drop))
        })
    }

    /// Every VM, by number.
    pub fn list(&self) -> Result<Vec<Record>> {
        self.read("list the VMs", |connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {} FROM vm ORDER BY number", Record::COLUMNS))?;
            let mut rows = statement.query([])?;
            let mut records = Vec::new();
            while let Some(row) = rows.next()? {
                records.push(Record::read(row)?);
            }
            Ok(records)
        })
    }

    pub fn get(&self, vm: Uuid) -> Result<Option<Record>> {
        self.read("read a VM", |connection| by_uuid(connection, vm))
    }

    /// Reads one record, lets `change` alter it, and writes it, while no other process can: of two
    /// that want the same transition the second sees the first's. An `Err` writes nothing. The
    /// uuid, the number and the addresses are not for it to change, and `updated_at` is set here.
    pub fn update<T>(&mut self, vm: Uuid, change: impl FnOnce(&mut Record) -> Result<T>) -> Result<T> {
        let actor = self.actor();
        self.write("change a VM", |transaction| update_one(transaction, vm, &actor, change))
    }

    /// [`Store::update`] for several at once: all of them, or none.
    pub fn update_all(&mut self, vms: &[Uuid], mut change: impl FnMut(&mut Record) -> Result<()>) -> Result<()> {
        let actor = self.actor();
        self.write("change VMs", |transaction| {
            vms.iter().try_for_each(|vm| update_one(transaction, *vm, &actor, &mut change))
        })
    }

    /// Forgets a VM and gives its addresses back; its number is never given again. One that is
    /// gone already is fine.
    pub fn remove(&mut self, vm: Uuid) -> Result<()> {
        let actor = self.actor();
        self.write("remove a VM", |transaction| {
            if let Some(record) = by_uuid(transaction, vm)? {
                history::note(transaction, &record.spec, &actor, &Happening::Deleted)?;
            }
            transaction.execute("DELETE FROM vm WHERE uuid = ?1", [vm.to_string()])?;
            Ok(())
        })
    }
}

fn update_one<T>(
    transaction: &Transaction<'_>,
    vm: Uuid,
    actor: &Actor,
    change: impl FnOnce(&mut Record) -> Result<T>,
) -> Result<T, Fault> {
    let Some(before) = by_uuid(transaction, vm)? else { return Err(gone(vm).into()) };
    let mut record = before.clone();
    let done = change(&mut record)?;
    if record == before {
        return Ok(done);
    }
    if record.spec.name != before.spec.name {
        refuse_taken(transaction, &record.spec.name)?;
    }
    refuse_new_identity(&before.spec, &record.spec)?;
    record.updated_at = host::now();
    write(transaction, &record)?;
    history::note_change(transaction, actor, &before, &record)?;
    Ok(done)
}

pub(super) fn by_uuid(connection: &Connection, vm: Uuid) -> Result<Option<Record>, Fault> {
    one(connection, &format!("SELECT {} FROM vm WHERE uuid = ?1", Record::COLUMNS), params![vm.to_string()])
}

fn next_number(transaction: &Transaction<'_>) -> Result<u32, Fault> {
    let last: i64 = transaction.query_row("SELECT number FROM last_number", [], |row| row.get(0))?;
    let number = u32::try_from(last + 1).map_err(|_| {
        Error::failed("every VM number has been given").hint("begin a new host, or another one with `--root DIR`")
    })?;
    transaction.prepare_cached("UPDATE last_number SET number = ?1")?.execute([number])?;
    Ok(number)
}

fn holder(connection: &Connection, name: &Name) -> rusqlite::Result<Option<u32>> {
    let mut statement = connection.prepare_cached("SELECT number FROM vm WHERE name = ?1")?;
    statement.query_row([name.as_str()], |row| row.get(0)).optional()
}

fn refuse_taken(connection: &Connection, name: &Name) -> Result<Name, Fault> {
    match holder(connection, name)? {
        None => Ok(name.clone()),
        Some(number) => Err(Error::refused(format!("the name `{name}` is taken by VM {number}"))
            .hint(format!("choose another name; `v vm info {name}` shows that VM"))
            .into()),
    }
}

/// A made-up name that no VM has and none of this batch was given.
fn free_name(
    connection: &Connection,
    number: u32,
    chosen: &HashSet<&Name>,
    propose: &mut dyn FnMut() -> Name,
) -> Result<Name, Fault> {
    let is_free = |name: &Name| Ok::<_, Fault>(!chosen.contains(name) && holder(connection, name)?.is_none());
    let mut last = None;
    for _ in 0..Store::PROPOSALS {
        let name = propose();
        if is_free(&name)? {
            return Ok(name);
        }
        last = Some(name);
    }
    // No number comes twice, so only a name somebody chose can still be in the way.
    let numbered = last.and_then(|name| name.with_suffix(number).ok());
    for name in numbered.into_iter().chain(format!("vm-{number}").parse()) {
        if is_free(&name)? {
            return Ok(name);
        }
    }
    Err(Error::refused("no free name was found").hint("give one with `--name`").into())
}

fn refuse_known(connection: &Connection, vm: Uuid) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM vm WHERE uuid = ?1")?;
    if statement.exists([vm.to_string()])? {
        return Err(Error::refused(format!("there is a VM with uuid `{vm}` already"))
            .hint("`v vm ls` lists the VMs")
            .into());
    }
    Ok(())
}

/// Who a VM is, which is settled for its life.
pub(super) type Identity<'a> = (Uuid, u32, &'a Name);

/// The row and the spec must tell the same story, whoever built the spec.
pub(super) fn refuse_other(
    spec: &VmSpec,
    identity: Identity<'_>,
    addresses: &[Option<Address>],
    wanted: &[Wanted],
) -> Result<()> {
    let mac = |index: usize| spec.nics.get(index).map(|nic| nic.mac);
    let mut macs = wanted.iter().enumerate().filter(|(_, nic)| nic.mac.is_some());
    let same = (spec.uuid, spec.number, &spec.name) == identity
        && self::addresses(spec).eq(addresses.iter().flatten())
        && macs.all(|(index, nic)| mac(index) == nic.mac);
    if same {
        Ok(())
    } else {
        Err(Error::failed(format!("the spec built for `{}` is not what was reserved", identity.2)))
    }
}

fn refuse_new_identity(before: &VmSpec, after: &VmSpec) -> Result<()> {
    if before.uuid == after.uuid && before.number == after.number && addresses(before).eq(addresses(after)) {
        return Ok(());
    }
    Err(Error::failed(format!("the uuid, number and addresses of `{}` are settled for its life", before.name)))
}

fn addresses(spec: &VmSpec) -> impl Iterator<Item = &Address> {
    spec.nics.iter().filter_map(|nic| nic.address.as_ref())
}

pub(super) fn gone(vm: Uuid) -> Error {
    Error::not_found(format!("there is no VM with uuid `{vm}` any more")).hint("`v vm ls` lists the VMs")
}

fn insert(
    transaction: &Transaction<'_>,
    spec: &VmSpec,
    declared: Option<Declared>,
    owner: Handle,
) -> Result<(), Fault> {
    let now = host::now();
    let record = Record {
        spec: spec.clone(),
        state: State::Creating,
        intent: None,
        exit: None,
        runtime: None,
        owner: Some(owner),
        created_at: now,
        updated_at: now,
        started_at: None,
        progress: None,
        declared,
        retries: None,
    };
    let columns = Columns::of(&record)?;
    let mut statement = transaction.prepare_cached(
        "INSERT INTO vm (uuid, number, name, template, state, spec, owner, created_at, updated_at, declared)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    statement.execute(params![
        spec.uuid.to_string(),
        spec.number,
        spec.name.as_str(),
        spec.template.as_str(),
        columns.state,
        columns.spec,
        columns.owner,
        columns.created_at,
        columns.updated_at,
        columns.declared,
    ])?;
    Ok(())
}

pub(super) fn write(transaction: &Transaction<'_>, record: &Record) -> Result<(), Fault> {
    let columns = Columns::of(record)?;
    let mut statement = transaction.prepare_cached(
        "UPDATE vm SET name = ?2, template = ?3, state = ?4, intent = ?5, spec = ?6, exit = ?7, runtime = ?8,
                       owner = ?9, updated_at = ?10, started_at = ?11, progress = ?12, retries = ?13,
                       declared = ?14
         WHERE uuid = ?1",
    )?;
    statement.execute(params![
        record.spec.uuid.to_string(),
        record.spec.name.as_str(),
        record.spec.template.as_str(),
        columns.state,
        columns.intent,
        columns.spec,
        columns.exit,
        columns.runtime,
        columns.owner,
        columns.updated_at,
        columns.started_at,
        columns.progress,
        columns.retries,
        columns.declared,
    ])?;
    Ok(())
}
