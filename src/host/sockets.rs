use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// A name that one process of this network namespace has at a time. It is free again when the
/// value is dropped, however its process ends.
#[derive(Debug)]
pub struct Claim {
    _listener: UnixListener,
}

impl Claim {
    /// `None`: somebody has it.
    pub fn take(name: &str) -> io::Result<Option<Self>> {
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?) {
            Ok(listener) => Ok(Some(Self { _listener: listener })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The paths of the unix sockets that some process of this network namespace holds, as they were
/// bound. A socket's file outlives its process; its line here does not.
pub fn bound_sockets() -> io::Result<Vec<String>> {
    let table = fs::read("/proc/net/unix")?;
    let table = String::from_utf8_lossy(&table);
    // Behind seven columns; a path may hold spaces.
    let path = |line: &str| {
        let mut rest = line;
        for _ in 0..7 {
            rest = rest.trim_start().split_once(' ')?.1;
        }
        rest.starts_with('/').then(|| rest.to_owned())
    };
    Ok(table.lines().skip(1).filter_map(path).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_name_is_claimed_once() {
        let name = format!("virshle/test/{}", std::process::id());
        let claim = Claim::take(&name).unwrap();
        assert!(claim.is_some() && Claim::take(&name).unwrap().is_none());
        drop(claim);
        assert!(Claim::take(&name).unwrap().is_some());
    }

    #[test]
    fn a_socket_is_bound_as_long_as_its_process_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b.sock");
        let is_bound = || bound_sockets().unwrap().iter().any(|bound| bound.as_str() == path.to_str().unwrap());
        assert!(!is_bound());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_bound());
        drop(listener);
        assert!(!is_bound() && path.exists());
    }
}
