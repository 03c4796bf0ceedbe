use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::Ovs;
use crate::host::Handle;

/// How often a switch that is away is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// One that leaves no file with its pid may have started anew after so long.
const UNSEEN: Duration = Duration::from_secs(30);

impl Ovs {
    /// The process of the switch, by the file it leaves beside its database's socket.
    pub fn daemon(&self) -> Option<Handle> {
        let text = std::fs::read_to_string(self.rundir()?.join("ovs-vswitchd.pid")).ok()?;
        Handle::of_pid(text.trim().parse().ok()?).ok()
    }

    /// Waits until the switch has started anew, and has made the bridge again: it has forgotten the
    /// guards then. Costs nothing while it runs.
    pub async fn started_anew(&self, bridge: &str) {
        match self.daemon() {
            Some(daemon) => match daemon.gone().await {
                Ok(()) => tracing::warn!("the switch has ended"),
                Err(error) => {
                    tracing::warn!(%error, "the switch cannot be watched");
                    sleep(UNSEEN).await;
                }
            },
            None => {
                let give_up = Instant::now() + UNSEEN;
                while self.daemon().is_none() && Instant::now() < give_up {
                    sleep(LOOK).await;
                }
            }
        }
        loop {
            if let Ok(Some(socket)) = self.management(bridge)
                && UnixStream::connect(socket).await.is_ok()
            {
                return;
            }
            sleep(LOOK).await;
        }
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
