//! How the server's end of a unix socket stands, asked of the kernel without connecting to it: a
//! connection is what the server waits for, and an idle one would take the place of the right one.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// How a server that takes one connection at a time stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// It waits for a client.
    Listening,
    /// Its client is there.
    Connected,
    /// Neither: nobody can reach it any more.
    Deaf,
}

// From <linux/netlink.h>, <linux/sock_diag.h>, <linux/unix_diag.h> and <net/tcp_states.h>.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const UDIAG_SHOW_NAME: u32 = 1;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_SHUTDOWN: u16 = 6;
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;
const HEADER: usize = 16;
const MESSAGE: usize = 16;

/// Looks among all sockets of this network namespace for those bound to `path`, as it was given
/// to `bind`. The accepted ones bear the name of the listening one.
pub fn server_state(path: &Path) -> io::Result<Server> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(1)))?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut found = Server::Deaf;
    let mut buffer = vec![0; 32 << 10];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if length == 0 || !scan(&buffer[..length], path.as_os_str().as_bytes(), &mut found)? {
            return Ok(found);
        }
    }
}

fn request() -> Vec<u8> {
    let states = 1_u32 << ESTABLISHED | 1 << LISTEN;
    let length = (HEADER + 24) as u32;
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    // Sequence and port: one request per socket needs neither.
    bytes.extend([0; 8]);
    bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(UDIAG_SHOW_NAME.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

/// Takes in one datagram; `false` when it was the last.
fn scan(mut bytes: &[u8], path: &[u8], found: &mut Server) -> io::Result<bool> {
    while let Some((length, kind)) = u32_at(bytes, 0).zip(u16_at(bytes, 4)) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        match kind {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => {
                let code = u32_at(body, 0).unwrap_or_default().cast_signed();
                return Err(io::Error::from_raw_os_error(-code));
            }
            _ => {
                if let Some(seen) = socket_of(body, path)
                    && *found != Server::Connected
                {
                    *found = seen;
                }
            }
        }
        bytes = bytes.get(align(length)..).unwrap_or_default();
    }
    Ok(true)
}

/// What one socket says of the server at `path`.
fn socket_of(body: &[u8], path: &[u8]) -> Option<Server> {
    let state = *body.get(2)?;
    let (mut named, mut shut) = (false, false);
    let mut attributes = body.get(MESSAGE..)?;
    while let Some((length, kind)) = u16_at(attributes, 0).zip(u16_at(attributes, 2)) {
        let value = attributes.get(4..usize::from(length))?;
        match kind {
            UNIX_DIAG_NAME => named = value.strip_suffix(&[0]).unwrap_or(value) == path,
            UNIX_DIAG_SHUTDOWN => shut = value.first().is_some_and(|how| *how != 0),
            _ => {}
        }
        attributes = attributes.get(align(usize::from(length))..).unwrap_or_default();
    }
    match state {
        LISTEN if named => Some(Server::Listening),
        // Its client has closed its end when it is shut.
        ESTABLISHED if named && !shut => Some(Server::Connected),
        _ => None,
    }
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// The life of a vhost-user socket whose server takes one connection and then stops listening.
    #[test]
    fn a_server_of_one_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n0.sock");
        let state = || server_state(&path).unwrap();
        assert_eq!(state(), Server::Deaf, "nothing is there");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(state(), Server::Listening);
        let client = UnixStream::connect(&path).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        drop(listener);
        assert_eq!(state(), Server::Connected);
        drop(client);
        assert_eq!(state(), Server::Deaf, "the client is gone, and nobody listens");
        std::fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(state(), Server::Listening, "beside the old connection");
        let _client = UnixStream::connect(&path).unwrap();
        let _accepted = listener.accept().unwrap();
        assert_eq!(state(), Server::Connected);
        drop(accepted);
    }

    #[test]
    fn no_bytes_make_it_fail() {
        let whole = request();
        for cut in 0..whole.len() {
            let mut found = Server::Deaf;
            scan(&whole[..cut], b"/x", &mut found).unwrap();
            assert_eq!(socket_of(&whole[..cut], b"/x"), None, "{cut}");
        }
    }
}
