//! QEMU, driven over QMP: where cloud-hypervisor cannot serve (no hardware virtualisation, UEFI
//! variables, address translation of its own).
//!
//! ```text
//! bind + connect QMP ──► spawn ──► greeting ──► (launched) ── cont ──► events … end of the process
//!                                     ▲
//!        with vhost-user NICs only after the switch has connected to each socket
//! ```
//!
//! The listening QMP socket is made here and inherited by QEMU, so that connecting cannot race, and
//! a process that dies at once is seen at once. A launch or boot that fails, or is dropped, kills
//! its process and gives back what QEMU itself said (`argv` says what is run, `last_words` what is
//! read). The guest powers off by ending the process with exit code 0.

mod argv;
mod board;
mod firmware;
mod forwards;
mod launch;
mod machine;
mod qmp;
mod remedy;
mod resize;
mod version;

#[cfg(test)]
mod real_tests;
#[cfg(test)]
mod sample;

use async_trait::async_trait;

pub use argv::argv;
pub use firmware::firmware;
pub use version::{Version, version};

use super::{Call, Capabilities, Driver, Launch, Machine, Resize, Script, Spawned, UserNetworks, Vsock};
use crate::error::Result;
use crate::host::Handle;
use crate::spec::{HypervisorKind, Link};

#[derive(Debug)]
pub struct Qemu;

#[async_trait(?Send)]
impl Driver for Qemu {
    fn kind(&self) -> HypervisorKind {
        HypervisorKind::Qemu
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            vhost: true,
            tap: true,
            user: UserNetworks::Own,
            firmware: true,
            efi_vars: true,
            kernel: true,
            tcg: true,
            resize: Resize { memory: true, cpus: cfg!(target_arch = "x86_64"), forwards: true },
        }
    }

    fn script(&self, launch: &Launch<'_>) -> Result<Script> {
        let mut words = vec![argv::utf8(launch.program)?.to_owned()];
        words.extend(argv(launch)?);
        let mut note =
            format!("`v` passes descriptor {} for the listening `{}`", argv::QMP_FD, launch.api_socket().display());
        for nic in launch.spec.nics.iter().filter(|nic| matches!(nic.link, Link::Tap { .. })) {
            note.push_str(&format!(", {} the tap `{}`", argv::tap_fd(nic.index), nic.port(launch.spec.number)));
        }
        if matches!(launch.vsock, Some(Vsock::Kernel(_))) {
            note.push_str(&format!(", {} `/dev/vhost-vsock`", argv::VSOCK_FD));
        }
        let call = |request: &str, note| Call { request: request.to_owned(), body: None, note };
        let by_hand = words
            .iter()
            .map(|word| match word.starts_with("socket,id=qmp,") {
                true => argv::qmp_by_path(launch),
                false => Ok(word.clone()),
            })
            .collect::<Result<_>>()?;
        Ok(Script {
            helpers: Vec::new(),
            argv: words,
            by_hand,
            socket: launch.api_socket(),
            calls: vec![call(qmp::NEGOTIATE, Some(note)), call(machine::BOOT, None)],
        })
    }

    async fn launch(&self, launch: Launch<'_>, spawned: &Spawned<'_>) -> Result<Box<dyn Machine>> {
        Ok(Box::new(launch::launch(launch, spawned).await?))
    }

    async fn adopt(&self, launch: Launch<'_>, process: Handle) -> Result<Box<dyn Machine>> {
        Ok(Box::new(launch::adopt(&launch, process).await?))
    }
}
