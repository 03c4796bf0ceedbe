//! Who listens at a port, for a person to read: told by `/proc`, as far as it may be read.

use std::fs;
use std::path::Path;

use rustix::fs::readlink;

/// The pid and the name of a process with a socket at that TCP or UDP port of the caller's network
/// namespace. `None`: not found, or not for this user to know.
pub fn listener(udp: bool, port: u16) -> Option<(u32, String)> {
    let tables = if udp { ["udp", "udp6"] } else { ["tcp", "tcp6"] };
    let inode = tables.into_iter().find_map(|table| {
        let text = fs::read_to_string(Path::new("/proc/thread-self/net").join(table)).ok()?;
        text.lines().skip(1).find_map(|line| socket_at(line, udp, port))
    })?;
    let wanted = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        open.find(|file| readlink(file.path(), Vec::new()).is_ok_and(|target| target.to_bytes() == wanted.as_bytes()))?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        Some((pid, name.trim().to_owned()))
    })
}

/// The inode of a line like `0: 0100007F:1F90 00000000:0000 0A … inode …`, if it listens there.
fn socket_at(line: &str, udp: bool, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut words = line.split_ascii_whitespace();
    let local = words.nth(1)?;
    let state = words.nth(1)?;
    let at = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    let inode = words.nth(5)?.parse().ok()?;
    (at == port && (udp || state == LISTEN)).then_some(inode)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn who_listens_is_found_until_it_stops() {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (tcp_port, udp_port) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        let me = |found: Option<(u32, String)>| {
            found.is_some_and(|(pid, name)| pid == std::process::id() && !name.is_empty())
        };
        assert!(me(listener(false, tcp_port)));
        assert!(me(listener(true, udp_port)));
        drop((tcp, udp));
        assert!(!me(listener(false, tcp_port)));
    }
}
