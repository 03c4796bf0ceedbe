//! HTTP/1.1 as far as it is spoken here, with descriptors beside the bytes.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

pub(crate) fn http(status: u16, body: Option<&str>) -> String {
    let reason = match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        _ => "Internal Server Error",
    };
    let head = format!("HTTP/1.1 {status} {reason}\r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n");
    match body {
        Some(body) => {
            format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        }
        None if status == 200 => format!("{head}Content-Length: 0\r\n\r\n"),
        None => format!("{head}\r\n"),
    }
}

pub(crate) type Request = (String, Vec<u8>, Vec<OwnedFd>);

/// The next request of a connection: its first line, its body, the descriptors beside it.
pub(crate) fn request(connection: &UnixStream) -> io::Result<Option<Request>> {
    let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if !receive(connection, &mut bytes, &mut descriptors)? {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0);
    while bytes.len() < head + 4 + length {
        if !receive(connection, &mut bytes, &mut descriptors)? {
            return Ok(None);
        }
    }
    let line = text.lines().next().unwrap_or("").to_owned();
    Ok(Some((line, bytes[head + 4..head + 4 + length].to_vec(), descriptors)))
}

fn receive(connection: &UnixStream, bytes: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(connection, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    bytes.extend_from_slice(&buffer[..received.bytes]);
    Ok(received.bytes > 0)
}
