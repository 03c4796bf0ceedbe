//! Who is served, and how many commands of one user at once.

use std::os::unix::net::UnixStream;

use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Dirs, Lock, LockError, User};
use crate::vm;

/// The group whose members may run commands as root.
pub const GROUP: &str = "virshle";

/// As many commands of one user run side by side; open consoles count.
const AT_ONCE: u16 = 64;

/// One who is served, as long as it lives.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) uid: u32,
    pub(super) name: String,
    _place: Option<Lock>,
}

/// Whether the host's user database has them in the group. What a session once got does not count,
/// so that one who was taken out of the group is out at once.
pub fn is_member(user: &User) -> bool {
    user.uid == 0 || host::group(GROUP).is_some_and(|group| user.groups().contains(&group))
}

/// Looks who connected, by what the kernel noted; the socket's mode is only the first gate. Never
/// served is `never`, the user that hypervisors run as: a guest that broke out of its own must not
/// find this door, whatever groups that user is in.
pub(super) fn admit(dirs: &Dirs, stream: &UnixStream, never: &str) -> Result<Guest> {
    let uid = host::peer_uid(stream).or_failed(|| "cannot see who connected".to_owned())?;
    let user = User::by_uid(uid);
    let Some(user) = user.filter(|user| user.name != never && is_member(user)) else {
        let name = User::by_uid(uid).map_or_else(|| format!("uid {uid}"), |user| format!("`{}`", user.name));
        return Err(Error::refused(format!("{name} is not one of the group `{GROUP}` who may use the host's VMs"))
            .hint("your own VMs are in `v --session …`; root adds members with `usermod -aG virshle USER`"));
    };
    let place = (uid != 0).then(|| place(dirs, &user)).transpose()?;
    Ok(Guest { uid, name: user.name, _place: place })
}

fn place(dirs: &Dirs, user: &User) -> Result<Lock> {
    let folder = dirs.runtime.join("relay");
    vm::make_private(&folder)?;
    let path = folder.join(user.uid.to_string());
    Lock::try_take_one_of(&path, AT_ONCE).map_err(|error| match error {
        LockError::Held => Error::refused(format!("`{}` runs {AT_ONCE} commands already", user.name))
            .hint("wait until some of them have ended; open consoles count too"),
        LockError::Io(error) => Error::failed(format!("cannot lock `{}`", path.display())).source(error),
    })
}
