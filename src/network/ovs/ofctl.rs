//! One call of `ovs-ofctl`: it talks to the switch itself, through the socket that each bridge has
//! beside the database's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Ovs;
use super::vsctl::checked;
use crate::error::{Error, Result};
use crate::host::{Program, ProgramError};

const TIMEOUT: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(7);

impl Ovs {
    /// Where `ovs-vswitchd` leaves its sockets: beside the database's, as its packages have it.
    pub(super) fn rundir(&self) -> Option<PathBuf> {
        match self.db.as_deref() {
            None => {
                let dir = std::env::var_os("OVS_RUNDIR").filter(|dir| !dir.is_empty());
                Some(dir.map_or_else(|| PathBuf::from("/var/run/openvswitch"), PathBuf::from))
            }
            Some(db) => Path::new(db.strip_prefix("unix:")?).parent().map(Path::to_owned),
        }
    }

    /// The management socket of a bridge; `None` while the switch has not made it.
    pub(super) fn management(&self, bridge: &str) -> Result<Option<PathBuf>> {
        let Some(dir) = self.rundir() else {
            let db = self.db.as_deref().unwrap_or_default();
            return Err(Error::failed(format!(
                "the flows of `{bridge}` cannot be set: its switch is on another host (`{db}`)"
            ))
            .hint("networks that Virshle keeps need an `ovs-db` that begins with `unix:`"));
        };
        let socket = dir.join(format!("{}.mgmt", checked("bridge", bridge)?));
        Ok(socket.exists().then_some(socket))
    }

    /// Changes flows, all of them or none. `flows` has one change in each line.
    pub(super) fn change_flows(&self, bridge: &str, flows: &str) -> Result<()> {
        self.ofctl(bridge, &["--bundle", "add-flows"], &["-"], flows)
            .map_err(|error| error.context(format!("cannot set the flows of the bridge `{bridge}`")))
    }

    /// `ovs-ofctl OPTIONS COMMAND BRIDGE ARGS`.
    pub(super) fn ofctl(&self, bridge: &str, command: &[&str], args: &[&str], input: &str) -> Result<()> {
        let Some(socket) = self.management(bridge)? else {
            let dir = self.rundir().unwrap_or_default();
            return Err(Error::failed(format!("there is no `{bridge}.mgmt` in `{}`", dir.display())).hint(
                "is `ovs-vswitchd` running? It must have its sockets beside its database's: see `ovs-db` under `[node]`",
            ));
        };
        let program = Program::new("ovs-ofctl")
            .args(["-O", "OpenFlow14"])
            .arg(format!("--timeout={}", TIMEOUT.as_secs()))
            .args(command)
            .arg(format!("unix:{}", socket.display()))
            .args(args)
            .input(input)
            .deadline(DEADLINE)
            .cancel(&self.cancel);
        self.cancel.check()?;
        tracing::debug!(bridge, ?command, ?args, input, "ovs-ofctl");
        match program.run() {
            Ok(_) => Ok(()),
            Err(error @ ProgramError::Missing { .. }) => {
                Err(Error::failed(error.to_string()).hint("it comes with Open vSwitch (package `openvswitch-switch`)"))
            }
            Err(error) => Err(Error::failed("`ovs-vswitchd` refused").source(error)),
        }
    }
}
