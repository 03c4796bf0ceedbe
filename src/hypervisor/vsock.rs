//! The guest's line to this host that needs no network (`AF_VSOCK`).
//!
//! ```text
//! cloud-hypervisor   serves it itself                          hv/vsock.sock: `CONNECT PORT`
//! QEMU               the kernel, where /dev/vhost-vsock opens  AF_VSOCK, by the guest's number
//!                    else vhost-device-vsock, if it is there   hv/vsock.sock: `CONNECT PORT`
//! ```

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::Helper;
use crate::error::{Error, Result};
use crate::spec::Serves;

/// Who moves a guest's `AF_VSOCK`.
#[derive(Debug)]
pub enum Vsock {
    /// The hypervisor itself.
    Own,
    /// This kernel, by the descriptor of `/dev/vhost-vsock`. [`super::Driver::script`] needs none.
    Kernel(Option<OwnedFd>),
    /// A program beside the hypervisor, which maps the guest's memory.
    Program,
}

/// Where this host's programs ask for a port of the guest; nobody is there when the kernel is it.
pub fn line_socket(run: &Path) -> PathBuf {
    run.join("vsock.sock")
}

/// Where QEMU finds the program that serves the line.
pub(super) fn program_socket(run: &Path) -> PathBuf {
    run.join("line.sock")
}

/// The program that serves the line of the guest `cid` where neither the hypervisor nor the kernel
/// does. `program`: where `vhost-device-vsock` lies.
pub fn line_program(program: PathBuf, run: &Path, cid: u32) -> Result<Helper> {
    let socket = program_socket(run);
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| Error::usage(format!("the path {path:?} is not valid UTF-8")))
    };
    let args = [
        "--guest-cid".to_owned(),
        cid.to_string(),
        "--socket".to_owned(),
        text(&socket)?,
        "--uds-path".to_owned(),
        text(&line_socket(run))?,
    ];
    Ok(Helper { serves: Serves::Line, program, args: args.into(), socket })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_told_its_guest_and_both_sockets() {
        let helper = line_program("/bin/vhost-device-vsock".into(), Path::new("/run/vm"), 1_073_741_900).unwrap();
        let words =
            "/bin/vhost-device-vsock --guest-cid 1073741900 --socket /run/vm/line.sock --uds-path /run/vm/vsock.sock";
        assert_eq!(helper.argv().join(" "), words);
        assert_eq!(helper.socket, Path::new("/run/vm/line.sock"));
    }
}
