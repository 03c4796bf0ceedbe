//! Descriptors on their way to another process over a unix socket, and who sent them.
#![allow(unsafe_code)] // A peer in another pid namespace has pid 0, which rustix's own call cannot hold.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::FileType;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The most that one message carries.
const MOST: usize = 4;

/// Sends the first of `bytes` with descriptors beside them; says how many bytes went.
pub fn send_with(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if fds.len() > MOST || !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

/// Reads what is there into `buffer`, with the descriptors beside it. They are ours from then on,
/// and no program that is started inherits them. More than can be taken are an error.
pub fn receive_with(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let fds = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    });
    let fds = fds.collect();
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors in one message"));
    }
    Ok((received.bytes, fds))
}

/// The user who connected this socket, as the kernel noted it then.
pub fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both pointers are valid for the call, and `size` is the size of what is written to.
    let done = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut size)
    };
    if done == 0 { Ok(peer.uid) } else { Err(io::Error::last_os_error()) }
}

/// Whether a program may read and write it without doing more than that: a terminal or another
/// character device, a pipe, a stream, a file that holds data. Where the kernel serves files, a write
/// is a command, and it may look at who writes, not at who opened; so may one who gets datagrams.
pub fn is_plain(fd: &OwnedFd) -> io::Result<bool> {
    let commands = [
        libc::PROC_SUPER_MAGIC,
        libc::SYSFS_MAGIC,
        libc::CGROUP_SUPER_MAGIC,
        libc::CGROUP2_SUPER_MAGIC,
        libc::DEBUGFS_MAGIC,
        libc::TRACEFS_MAGIC,
        libc::SECURITYFS_MAGIC,
        libc::SELINUX_MAGIC,
        libc::BPF_FS_MAGIC,
        libc::BINDERFS_SUPER_MAGIC,
        0x6265_6570, // configfs
        0xde5e_81e4, // efivarfs
        0x6573_5543, // fusectl
    ];
    Ok(match FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) {
        FileType::Fifo | FileType::CharacterDevice => true,
        FileType::Socket => rustix::net::sockopt::socket_type(fd)? == rustix::net::SocketType::STREAM,
        #[allow(clippy::unnecessary_cast)] // The field's type differs between C libraries.
        FileType::RegularFile => !commands.contains(&(rustix::fs::fstatfs(fd)?.f_type as _)),
        _ => false,
    })
}

/// A file without a name that holds `bytes`, to be read from its beginning.
pub fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("virshle", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    io::Write::write_all(&mut file, bytes)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

/// What connected us: the socket that is our standard input. `None` when that is no socket.
/// Standard input is `/dev/null` from then on, so that nothing we start inherits the connection.
pub fn connection_on_stdin() -> io::Result<Option<UnixStream>> {
    let stdin = io::stdin();
    if FileType::from_raw_mode(rustix::fs::fstat(stdin.as_fd())?.st_mode) != FileType::Socket {
        return Ok(None);
    }
    let stream = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(stdin.as_fd(), 3)?);
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(Some(stream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn descriptors_arrive_with_their_bytes() {
        let (one, two) = UnixStream::pair().unwrap();
        let memory = memory_file(b"content").unwrap();
        assert_eq!(send_with(&one, b"hello", &[memory.as_fd()]).unwrap(), 5);
        let mut buffer = [0; 16];
        let (count, mut fds) = receive_with(&two, &mut buffer).unwrap();
        assert_eq!((&buffer[..count], fds.len()), (&b"hello"[..], 1));
        assert_eq!(io::read_to_string(File::from(fds.remove(0))).unwrap(), "content");
        assert_eq!(peer_uid(&two).unwrap(), rustix::process::geteuid().as_raw());
        send_with(&one, b"x", &[memory.as_fd(); MOST]).unwrap();
        assert_eq!(receive_with(&two, &mut buffer).unwrap().1.len(), MOST);
        assert!(send_with(&one, b"x", &[memory.as_fd(); MOST + 1]).is_err());
    }

    #[test]
    fn what_is_no_plain_file() {
        let dir = tempfile::tempdir().unwrap();
        let rows = [
            (File::open("/dev/null").unwrap(), true),
            (tempfile::tempfile().unwrap(), true),
            (File::open("/proc/self/status").unwrap(), false),
            (File::open("/sys/kernel/uevent_seqnum").unwrap(), false),
            (File::open(dir.path()).unwrap(), false),
            (File::from(OwnedFd::from(UnixStream::pair().unwrap().0)), true),
            (File::from(OwnedFd::from(std::os::unix::net::UnixDatagram::unbound().unwrap())), false),
        ];
        for (file, plain) in rows {
            let shown = format!("{file:?}");
            assert_eq!(is_plain(&file.into()).unwrap(), plain, "{shown}");
        }
    }
}
