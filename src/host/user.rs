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

    /// Every group that the host's user database has it in, its main one first.
    pub fn groups(&self) -> Vec<u32> {
        let Ok(name) = CString::new(self.name.as_str()) else { return vec![self.gid] };
        let mut groups = vec![0; 64];
        loop {
            let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
            // SAFETY: `groups` has room for `count` values, and `name` ends with a zero.
            let done = unsafe { libc::getgrouplist(name.as_ptr(), self.gid, groups.as_mut_ptr(), &raw mut count) };
            let count = usize::try_from(count).unwrap_or_default();
            if done >= 0 {
                groups.truncate(count);
                return groups;
            }
            if count <= groups.len() {
                return vec![self.gid];
            }
            groups.resize(count, 0);
        }
    }
}

/// The number of the group of that name.
pub fn group(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let mut buffer: Vec<libc::c_char> = vec![0; 4096];
    loop {
        // SAFETY: `group` is plain data; all zeroes is a value of it.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: every pointer is valid for the call, `buffer` for the length that is told.
        let done = unsafe {
            libc::getgrnam_r(name.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        };
        match done {
            0 => return (!found.is_null()).then_some(entry.gr_gid),
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            _ => return None,
        }
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

/// Where root's processes keep for whom they work; sudo says it there too. Only root is believed.
const CALLER: &str = "SUDO_UID";

/// What a process of root's has in its environment so that [`caller`] is this user.
pub fn on_behalf_of(uid: u32) -> (&'static str, String) {
    (CALLER, uid.to_string())
}

/// Whose command this process is: the user it runs as, or for whom root runs it.
pub fn caller() -> Actor {
    let uid = rustix::process::getuid();
    let sudo = || std::env::var(CALLER).ok()?.parse().ok();
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

    #[test]
    fn groups() {
        assert_eq!(group("root"), Some(0));
        assert_eq!(group("no such group"), None);
        // As the system's own program tells them.
        for name in ["root", "nobody"] {
            let told = crate::host::Program::new("id").arg("-G").arg(name).run().unwrap().text();
            let mut told: Vec<u32> = told.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let mut groups = User::by_name(name).unwrap().groups();
            told.sort_unstable();
            groups.sort_unstable();
            assert_eq!(groups, told, "{name}");
        }
    }
}
