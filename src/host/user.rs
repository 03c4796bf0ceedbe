#![allow(unsafe_code)] // The C library alone knows where a host keeps its users.

use std::ffi::{CStr, CString};
use std::path::PathBuf;

use crate::spec::Actor;

/// A user of this host, from wherever it keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    /// Its main group.
    pub gid: u32,
    pub name: String,
    pub home: PathBuf,
}

impl User {
    pub fn by_uid(uid: u32) -> Option<Self> {
        // SAFETY: every pointer is valid for the call, `buffer` for the length that is told.
        look_up(|entry, buffer, found| unsafe {
            libc::getpwuid_r(uid, entry, buffer.as_mut_ptr(), buffer.len(), found)
        })
    }

    pub fn by_name(name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: as above; `name` ends with a zero and outlives the call.
        look_up(|entry, buffer, found| unsafe {
            libc::getpwnam_r(name.as_ptr(), entry, buffer.as_mut_ptr(), buffer.len(), found)
        })
    }
}

fn look_up(
    ask: impl Fn(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> libc::c_int,
) -> Option<User> {
    let mut buffer = vec![0; 4096];
    loop {
        // SAFETY: `passwd` is plain data; all zeroes is a value of it.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        match ask(&raw mut entry, &mut buffer, &raw mut found) {
            0 if found.is_null() => return None,
            0 => {
                // SAFETY: the call succeeded, so both point to strings in `buffer`, ended by a zero.
                let (name, home) = unsafe { (CStr::from_ptr(entry.pw_name), CStr::from_ptr(entry.pw_dir)) };
                return Some(User {
                    uid: entry.pw_uid,
                    gid: entry.pw_gid,
                    name: name.to_string_lossy().into_owned(),
                    home: home.to_string_lossy().into_owned().into(),
                });
            }
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            _ => return None,
        }
    }
}

/// Whose command this process is: the user it runs as, or who called sudo.
pub fn caller() -> Actor {
    let uid = rustix::process::getuid();
    let sudo = || std::env::var("SUDO_UID").ok()?.parse().ok();
    let uid = if uid.is_root() { sudo().unwrap_or(0) } else { uid.as_raw() };
    actor(uid)
}

/// A user of this host as the cause of a change.
pub fn actor(uid: u32) -> Actor {
    Actor::User { uid, name: User::by_uid(uid).map(|user| user.name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        let root = User::by_name("root").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_path()), (0, 0, "/root".as_ref()));
        assert_eq!(User::by_uid(0), Some(root));
        assert_eq!(User::by_name("no such user"), None);
        assert_eq!(User::by_name("nul\0byte"), None);
        assert_eq!(User::by_uid(4_000_000_000), None);
        assert_eq!(actor(0).to_string(), "root");
        assert_eq!(actor(4_000_000_000).to_string(), "uid 4000000000");
    }
}
