use std::path::{Path, PathBuf};

use super::Ovs;
use crate::host::Handle;

impl Ovs {
    /// The process of the switch, by the file it leaves beside its database's socket.
    pub fn daemon(&self) -> Option<Handle> {
        let folder = match self.db.as_deref() {
            None => PathBuf::from("/run/openvswitch"),
            Some(db) => Path::new(db.strip_prefix("unix:")?).parent()?.to_owned(),
        };
        let text = std::fs::read_to_string(folder.join("ovs-vswitchd.pid")).ok()?;
        Handle::of_pid(text.trim().parse().ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_by_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let ovs = Ovs::new(Some(format!("unix:{}/db.sock", dir.path().display())));
        assert_eq!(ovs.daemon(), None);
        let me = Handle::current().unwrap();
        std::fs::write(dir.path().join("ovs-vswitchd.pid"), format!("{}\n", me.pid)).unwrap();
        assert_eq!(ovs.daemon(), Some(me));
        assert_eq!(me.user(), Some(rustix::process::geteuid().as_raw()));
        for wrong in ["", "x", "-1", "4000000000"] {
            std::fs::write(dir.path().join("ovs-vswitchd.pid"), wrong).unwrap();
            assert_eq!(ovs.daemon(), None, "{wrong:?}");
        }
        assert_eq!(Ovs::new(Some("tcp:127.0.0.1:6640".to_owned())).daemon(), None);
    }
}
