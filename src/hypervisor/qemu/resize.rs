//! More memory, vCPUs and room on a disk for a guest that runs.
//!
//! Memory comes as a module (`pc-dimm`) in one of the slots that `-m` made, a vCPU in a place that
//! `-smp maxcpus` left free. QEMU says at once whether it took them; what the guest makes of it is
//! the guest's. What there is then is read back.

use serde_json::{Value, json};

use super::machine::CALL;
use super::qmp::{Qmp, QmpError};
use crate::spec::Size;

/// A change that came to something else than what was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error("it has {has}, and {wanted} was asked for")]
    Has { has: u64, wanted: u64 },
    #[error("it has {0} vCPUs, and no place for another")]
    NoPlace(usize),
}

pub(super) async fn grow_memory(qmp: &mut Qmp, to: Size) -> Result<(), Failure> {
    let wanted = to.bytes();
    let has = memory(qmp).await?;
    if has < wanted {
        plug_memory(qmp, wanted - has).await?;
    }
    match memory(qmp).await? {
        has if has == wanted => Ok(()),
        has => Err(Failure::Has { has, wanted }),
    }
}

async fn plug_memory(qmp: &mut Qmp, bytes: u64) -> Result<(), QmpError> {
    let modules = ask(qmp, "query-memory-devices", None).await?.as_array().map_or(0, Vec::len);
    let (dimm, backend) = (format!("dimm{modules}"), format!("dimm{modules}-mem"));
    // One that was made by a supervisor which was killed before it plugged it in.
    let _ = ask(qmp, "object-del", Some(json!({ "id": backend }))).await;
    let object = match is_shared(qmp).await? {
        true => json!({ "qom-type": "memory-backend-memfd", "id": backend, "size": bytes, "share": true }),
        false => json!({ "qom-type": "memory-backend-ram", "id": backend, "size": bytes }),
    };
    ask(qmp, "object-add", Some(object)).await?;
    let device = json!({ "driver": "pc-dimm", "id": dimm, "memdev": backend });
    if let Err(error) = ask(qmp, "device_add", Some(device)).await {
        let _ = ask(qmp, "object-del", Some(json!({ "id": backend }))).await;
        return Err(error);
    }
    Ok(())
}

/// Whether other processes map the memory that the guest began with: then they need the rest too.
async fn is_shared(qmp: &mut Qmp) -> Result<bool, QmpError> {
    let backends = ask(qmp, "query-memdev", None).await?;
    let shared = |backend: &Value| backend["id"] == super::argv::MEMORY && backend["share"] == true;
    Ok(backends.as_array().is_some_and(|backends| backends.iter().any(shared)))
}

async fn memory(qmp: &mut Qmp) -> Result<u64, QmpError> {
    let summary = ask(qmp, "query-memory-size-summary", None).await?;
    let part = |name: &str| summary[name].as_u64().unwrap_or(0);
    Ok(part("base-memory") + part("plugged-memory"))
}

pub(super) async fn add_cpus(qmp: &mut Qmp, to: u32) -> Result<(), Failure> {
    let wanted = to as usize;
    while cpus(qmp).await? < wanted {
        let has = cpus(qmp).await?;
        let place = free_place(&ask(qmp, "query-hotpluggable-cpus", None).await?).ok_or(Failure::NoPlace(has))?;
        ask(qmp, "device_add", Some(place)).await?;
        if cpus(qmp).await? == has {
            break;
        }
    }
    match cpus(qmp).await? {
        has if has == wanted => Ok(()),
        has => Err(Failure::Has { has: has as u64, wanted: to.into() }),
    }
}

/// The first place without a vCPU, as `device_add` takes it.
fn free_place(places: &Value) -> Option<Value> {
    let place_of =
        |place: &Value| ["socket-id", "die-id", "core-id", "thread-id"].map(|part| place["props"][part].as_u64());
    let free = places.as_array()?.iter().filter(|place| place.get("qom-path").is_none());
    let place = free.min_by_key(|place| place_of(place))?;
    let mut device = place["props"].clone();
    device["driver"] = place["type"].clone();
    device["id"] = json!(format!("cpu{}", place_of(place).map(|part| part.unwrap_or(0).to_string()).join("-")));
    Some(device)
}

async fn cpus(qmp: &mut Qmp) -> Result<usize, QmpError> {
    Ok(ask(qmp, "query-cpus-fast", None).await?.as_array().map_or(0, Vec::len))
}

pub(super) async fn grow_disk(qmp: &mut Qmp, position: usize, to: Size) -> Result<(), Failure> {
    let (node, wanted) = (super::argv::disk_id(position), to.bytes());
    ask(qmp, "block_resize", Some(json!({ "node-name": node, "size": wanted }))).await?;
    let nodes = ask(qmp, "query-named-block-nodes", Some(json!({ "flat": true }))).await?;
    let found = nodes.as_array().and_then(|nodes| nodes.iter().find(|found| found["node-name"] == node.as_str()));
    match found.and_then(|found| found["image"]["virtual-size"].as_u64()).unwrap_or(0) {
        has if has == wanted => Ok(()),
        has => Err(Failure::Has { has, wanted }),
    }
}

pub(super) async fn ask(qmp: &mut Qmp, command: &str, arguments: Option<Value>) -> Result<Value, QmpError> {
    qmp.execute(command, arguments, CALL).await
}
