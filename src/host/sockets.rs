use std::fs;
use std::io;

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
