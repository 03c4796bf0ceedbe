//! Whose VMs the commands of this caller work on, for `v doctor`.

use super::doctor::Health;
use super::{relay as helper, root_of_environment};
use crate::host::{self, Mode, ServiceManager, User};
use crate::relay::{GROUP, Reach, is_member, reach};
use crate::vm::Site;

pub(super) fn finding(site: &Site, asked_by_member: bool) -> (Health, String, Option<String>) {
    if asked_by_member {
        return (
            Health::Ok,
            format!("`{}`, by root's helper, as a member of the group `{GROUP}`", host::caller()),
            None,
        );
    }
    let root = site.dirs.root().map(std::borrow::ToOwned::to_owned).or_else(root_of_environment);
    let own = match site.dirs.mode {
        Mode::System => "root",
        Mode::Session => "an ordinary user, with VMs of its own",
        Mode::Rooted => "whoever may write to this root",
    };
    let Some(dirs) = helper::helper(root.as_deref()) else { return (Health::Ok, own.to_owned(), None) };
    let socket = dirs.helper_socket();
    match reach(&socket) {
        Reach::Connected(_) => (Health::Ok, format!("{own} (`--session`)"), None),
        Reach::Absent => (
            Health::Optional,
            format!("{own}; no helper of root's listens at `{}`", socket.display()),
            Some(format!(
                "for the host's VMs: `sudo v …`, or root lets the group `{GROUP}` in with `{}`",
                match ServiceManager::find() {
                    ServiceManager::None => "v relay --listen",
                    _ => "systemctl enable --now virshle.socket",
                }
            )),
        ),
        Reach::Closed => {
            let user = User::by_uid(rustix::process::getuid().as_raw());
            let hint = match user.is_some_and(|user| is_member(&user)) {
                true => format!("log in again: this session began before you joined the group `{GROUP}`"),
                false => format!("join the group: `sudo usermod -aG {GROUP} $USER`, then log in again"),
            };
            (Health::Optional, format!("{own}; the host's VMs are for members of the group `{GROUP}`"), Some(hint))
        }
        Reach::Dead(error) => (
            Health::Missing,
            format!("{own}; root's helper does not answer at `{}`: {error}", socket.display()),
            Some("root restarts it with `systemctl restart virshle.socket`".to_owned()),
        ),
    }
}
