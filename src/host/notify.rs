//! What a unit tells the service manager about itself: `sd_notify`, one datagram for each message.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;

static MANAGER: OnceLock<UnixDatagram> = OnceLock::new();

/// From now on [`tell_manager`] speaks to the service manager that started this process as a unit's
/// main one, if one did. The variable stays for a program that this process may become; whatever
/// else it starts must not see it.
pub fn serve_manager() -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address(&name)?)?;
    // It may be slow; we do not wait for it.
    socket.set_nonblocking(true)?;
    // A second call changes nothing.
    let _ = MANAGER.set(socket);
    Ok(())
}

/// Whether this process is a unit's main one.
pub fn is_unit() -> bool {
    MANAGER.get().is_some()
}

/// A path, or with `@` an abstract name.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().split_first() {
        Some((b'@', abstract_name)) => SocketAddr::from_abstract_name(abstract_name),
        _ => SocketAddr::from_pathname(name),
    }
}

/// Lines like `READY=1` and `STATUS=…`; without a service manager nobody hears them.
pub fn tell_manager(lines: &str) {
    if let Some(manager) = MANAGER.get()
        && let Err(error) = manager.send(lines.as_bytes())
    {
        tracing::debug!(%error, lines, "the service manager was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_found_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("@virshle-test-{}", std::process::id());
        for name in [path.as_os_str(), name.as_ref()] {
            let manager = UnixDatagram::bind_addr(&address(name).unwrap()).unwrap();
            let unit = UnixDatagram::unbound().unwrap();
            unit.connect_addr(&address(name).unwrap()).unwrap();
            unit.send(b"READY=1\nSTATUS=running").unwrap();
            let mut message = [0; 64];
            let length = manager.recv(&mut message).unwrap();
            assert_eq!(&message[..length], b"READY=1\nSTATUS=running", "{name:?}");
        }
    }
}
