use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use crate::error::{OrFailed, Result};
use crate::host;
use crate::supervisor::{self, Handed};
use crate::vm::{Purpose, READY_FD, Site};

/// Own one running VM, from its start to its end (launched by `v vm start`)
#[derive(Debug, Args)]
pub(super) struct Supervise {
    vm: Uuid,
    /// Seconds for the hypervisor to come up and boot
    #[arg(long, default_value_t = 60)]
    deadline: u64,
    /// Go on for a supervisor that was killed
    #[arg(long)]
    adopt: bool,
    /// The user whose wish it is that the VM runs; without it, the one who runs this
    #[arg(long, value_name = "UID")]
    by: Option<u32>,
    /// As the main process of a unit: start the VM, or take over what runs
    #[arg(long, conflicts_with = "adopt")]
    unit: bool,
    /// After the unit's end: cut the power if the supervisor hung while it was to stop
    #[arg(long, conflicts_with_all = ["adopt", "unit"])]
    post_stop: bool,
    /// The descriptor of the VM's lock, from the program that this process was before
    #[arg(long, value_name = "FD")]
    lock: Option<i32>,
    /// How the run ended, which that program could not record
    #[arg(long, value_name = "JSON")]
    ended: Option<String>,
}

impl Supervise {
    pub(super) fn run(&self, site: &Site) -> Result<()> {
        if self.post_stop {
            return supervisor::after_unit(site, self.vm);
        }
        host::serve_manager().or_failed(|| "cannot talk to the service manager".to_owned())?;
        if self.unit {
            return supervisor::supervise_as_unit(site, self.vm);
        }
        // Neither Ctrl-C nor the terminal's end is meant for it.
        host::leave_terminal();
        // Others may pass through the folders of its sockets.
        host::keep_private();
        let purpose = if self.adopt { Purpose::Adopt } else { Purpose::Start };
        let ready = host::inherited_pipe(READY_FD);
        let actor = self.by.map_or_else(host::caller, host::actor);
        // One that cannot be read is as good as one that nobody saw.
        let ended = self.ended.as_deref().and_then(|json| serde_json::from_str(json).ok());
        let handed = Handed { lock: self.lock, ended };
        supervisor::supervise(site, self.vm, purpose, &actor, Duration::from_secs(self.deadline), ready, handed)
    }
}
