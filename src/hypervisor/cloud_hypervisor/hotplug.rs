//! A vhost-user NIC taken out and put back while the guest runs.
//!
//! The program waits for a switch that is away as long as it takes, but it gives a NIC up for good
//! when the connection breaks during the talk at its beginning, or before the guest's driver is
//! there: its socket is then deaf. A new device with the same id and MAC listens again.
//!
//! `vm.remove-device` only asks: the guest has let go when the event `device-removed` comes, which
//! a guest without ACPI hot-plug never does. The NIC is out of the configuration at once, so a
//! guest that reboots meanwhile comes back without it. `vm.add-net` holds up every other call until
//! the switch connects.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::time::timeout;

use super::client::{Client, Request};
use super::config::{Net, nic_id};
use crate::error::{Error, OrFailed, Result};
use crate::hypervisor::Hotplug;
use crate::spec::Nic;

/// What one that is at rest answers in.
const ANSWER: Duration = Duration::from_secs(2);
/// For a call that only asks.
const CALL: Duration = Duration::from_secs(10);
/// For a switch that tries once a second; every other call waits meanwhile.
const SWITCH: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct NicHotplug {
    client: Client,
}

impl NicHotplug {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait(?Send)]
impl Hotplug for NicHotplug {
    async fn answers(&self) -> bool {
        timeout(ANSWER, self.client.ping()).await.is_ok_and(|answer| answer.is_ok())
    }

    async fn unplug(&self, nic: &Nic) -> Result<()> {
        let failed = || format!("cloud-hypervisor could not ask the guest to give up NIC {}", nic.index);
        let request = Request::put_json("vm.remove-device", &json!({ "id": nic_id(nic) })).or_failed(failed)?;
        match timeout(CALL, self.client.call(&request)).await {
            Ok(done) => done.map(drop).or_failed(failed),
            Err(_) => Err(Error::failed(failed()).source(format!("no answer in {} s", CALL.as_secs()))),
        }
    }

    async fn plug(&self, nic: &Nic, socket: &Path) -> Result<()> {
        let failed = || format!("cloud-hypervisor could not plug in NIC {}", nic.index);
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::failed(failed()).source(error)),
            _ => {}
        }
        let request = Request::put_json("vm.add-net", &Net::vhost(nic, socket)?).or_failed(failed)?;
        let call = self.client.call(&request);
        tokio::pin!(call);
        match timeout(SWITCH, &mut call).await {
            Ok(done) => done.map(drop).or_failed(failed),
            Err(_) => {
                // It would wait for ever, and be deaf to a stop: a client that goes away ends that.
                let _ = UnixStream::connect(socket);
                let _ = timeout(SWITCH, call).await;
                Err(Error::failed(failed()).source(format!("the switch did not connect in {} s", SWITCH.as_secs())))
            }
        }
    }
}
