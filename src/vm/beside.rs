//! What a VM has beside its hypervisor: the line to this host that needs no network, and the programs
//! that serve its devices.

use std::net::SocketAddrV4;
use std::path::Path;

use crate::error::{Error, Result};
use crate::host::{find_program, open_vhost_vsock};
use crate::hypervisor::{Helper, Vsock, forwards, line_program, line_socket};
use crate::network::passt::{self, Passt};
use crate::spec::{HypervisorKind, Link, Serves, VmSpec};
use crate::store::Line;

/// Who serves the guest's line on this host. Without anybody the VM runs all the same.
pub fn line(spec: &VmSpec) -> Option<Vsock> {
    spec.vsock?;
    match spec.hypervisor {
        HypervisorKind::CloudHypervisor => Some(Vsock::Own),
        HypervisorKind::Qemu => match open_vhost_vsock() {
            Ok(fd) => Some(Vsock::Kernel(Some(fd))),
            Err(_) => find_program(Serves::Line.program()).map(|_| Vsock::Program),
        },
    }
}

/// The host's end of it.
pub fn line_end(spec: &VmSpec, vsock: Option<&Vsock>, run: &Path) -> Option<Line> {
    match (vsock?, spec.vsock?) {
        (Vsock::Kernel(_), cid) => Some(Line::Cid(cid)),
        (Vsock::Own | Vsock::Program, _) => Some(Line::Socket(line_socket(run))),
    }
}

/// The programs that must be there before the hypervisor is.
pub fn helpers(spec: &VmSpec, run: &Path, ssh: Option<SocketAddrV4>, vsock: Option<&Vsock>) -> Result<Vec<Helper>> {
    let mut helpers = Vec::new();
    if spec.hypervisor == HypervisorKind::CloudHypervisor && spec.has_user_network() {
        let program = Passt::find().program()?;
        let nics = spec.nics.iter().filter(|nic| matches!(nic.link, Link::User));
        for (nth, nic) in (0..).zip(nics) {
            let socket = run.join(nic.socket());
            let args = passt::args(nth, &socket, &forwards(spec, nic, ssh))?;
            helpers.push(Helper { serves: Serves::Nic(nic.index), program: program.clone(), args, socket });
        }
    }
    if let (Some(Vsock::Program), Some(cid)) = (vsock, spec.vsock) {
        let name = Serves::Line.program();
        let program = find_program(name).ok_or_else(|| Error::failed(format!("`{name}` is not installed")))?;
        helpers.push(line_program(program, run, cid)?);
    }
    Ok(helpers)
}
