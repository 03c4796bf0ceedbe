//! More memory, vCPUs and room on a disk for a guest that runs.
//!
//! A `vm.resize` that is answered well has not always done something, and one that is told less than
//! there is only notes it for the next reboot. So it is asked only for more, and what there is then
//! is read back. Memory takes one of eight slots each time, for as long as the process lives.

use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::{Client, Request};
use super::config::{Info, disk_id};
use crate::error::{Error, OrFailed, Result};
use crate::spec::{Name, Size};

/// For all calls of one change.
const CALLS: Duration = Duration::from_secs(10);

pub(super) async fn grow_memory(client: &Client, to: Size) -> Result<()> {
    let wanted = to.bytes();
    let has = |info: &Info| info.memory_actual_size;
    grow(client, "give the guest more memory", has, wanted, json!({ "desired_ram": wanted })).await
}

pub(super) async fn add_cpus(client: &Client, to: u32) -> Result<()> {
    let has = |info: &Info| info.config.cpus.boot_vcpus;
    grow(client, "give the guest more vCPUs", has, to, json!({ "desired_vcpus": to })).await
}

pub(super) async fn grow_disk(client: &Client, disk: &Name, to: Size) -> Result<()> {
    let aim = format!("grow the disk `{disk}`");
    let body = json!({ "id": disk_id(disk), "desired_size": to.bytes() });
    in_time(&aim, call(client, &aim, "vm.resize-disk", &body)).await
}

/// Asks for `to` where there is less, and looks whether it is there then.
async fn grow<T: Ord + std::fmt::Display>(
    client: &Client,
    aim: &str,
    has: impl Fn(&Info) -> T,
    to: T,
    body: Value,
) -> Result<()> {
    let failed = || could_not(aim);
    let work = async {
        let before = has(&client.info().await.or_failed(failed)?);
        if before < to {
            call(client, aim, "vm.resize", &body).await?;
        }
        let now = has(&client.info().await.or_failed(failed)?);
        if now == to {
            return Ok(());
        }
        Err(Error::failed(failed()).source(format!("it has {now}, and {to} was asked for")))
    };
    in_time(aim, work).await
}

async fn call(client: &Client, aim: &str, route: &'static str, body: &Value) -> Result<()> {
    let request = Request::put_json(route, body).or_failed(|| could_not(aim))?;
    client.call(&request).await.map(drop).or_failed(|| could_not(aim))
}

async fn in_time(aim: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    timeout(CALLS, work)
        .await
        .unwrap_or_else(|_| Err(Error::failed(could_not(aim)).source(format!("no answer in {} s", CALLS.as_secs()))))
}

fn could_not(aim: &str) -> String {
    format!("cloud-hypervisor could not {aim}")
}
