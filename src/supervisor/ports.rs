use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::hypervisor::Tap;
use crate::network::ovs::Ovs;
use crate::network::{self, Port};
use crate::spec::{Link, Nic, VmSpec};
use crate::vm::Steps;

/// How often a socket that another process binds is looked for.
const POLL: Duration = Duration::from_millis(3);

/// The VM's ports on this host's networks. The calls to the switch block; they are short, have
/// their own deadlines, and nothing else needs this process meanwhile.
#[derive(Debug)]
pub(super) struct Ports<'a> {
    spec: &'a VmSpec,
    ovs: Ovs,
}

impl<'a> Ports<'a> {
    pub(super) fn new(spec: &'a VmSpec, ovs: Ovs) -> Self {
        Self { spec, ovs }
    }

    fn port(&'a self, nic: &'a Nic) -> Port<'a> {
        Port { vm: self.spec.uuid, vm_number: self.spec.number, vm_name: self.spec.name.as_str(), nic, ovs: &self.ovs }
    }

    /// Makes the taps.
    pub(super) fn prepare(&self) -> Result<Vec<Tap>> {
        let mut taps = Vec::new();
        for nic in &self.spec.nics {
            let (driver, port) = (network::driver(&nic.link), self.port(nic));
            if let Some(fd) = driver.prepare(&port).map_err(|error| self.context(nic, error))? {
                let offload = driver.offload(&port).map_err(|error| self.context(nic, error))?;
                taps.push(Tap { nic: nic.index, fd, offload });
            }
        }
        Ok(taps)
    }

    /// Plugs each vhost-user port in as soon as the hypervisor listens on its socket: a port added
    /// earlier would be tried again by the switch only after a second.
    pub(super) async fn connect(&self, run: &Path, deadline: Duration, steps: &Steps) -> Result<()> {
        let until = Instant::now() + deadline;
        for nic in self.spec.nics.iter().filter(|nic| matches!(nic.link, Link::Vhost { .. })) {
            let socket = run.join(nic.socket());
            appears(&socket, until).await?;
            let connect = || network::driver(&nic.link).connect(&self.port(nic), &socket);
            steps.step(&format!("vhost port {}", nic.index), connect).map_err(|error| self.context(nic, error))?;
        }
        Ok(())
    }

    /// Frees every port; one that cannot be freed is logged (it names its VM, so it can be found).
    pub(super) fn release(&self) {
        for nic in &self.spec.nics {
            if let Err(error) = network::driver(&nic.link).release(&self.port(nic)) {
                let port = nic.port(self.spec.number);
                tracing::warn!(port, error = %error.chain().join(": "), "port not released");
            }
        }
    }

    fn context(&self, nic: &Nic, error: Error) -> Error {
        error.context(format!("network `{}` (port `{}`)", nic.network, nic.port(self.spec.number)))
    }
}

/// Waits for a socket's file.
pub(super) async fn appears(socket: &Path, until: Instant) -> Result<()> {
    while !socket.exists() {
        if Instant::now() >= until {
            return Err(Error::failed(format!("the hypervisor does not listen on `{}`", socket.display())));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
