use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use crate::error::Result;
use crate::host;
use crate::supervisor;
use crate::vm::{Purpose, READY_FD, Site};

/// Own one running VM, from its start to its end (launched by `v vm start`)
#[derive(Debug, Args)]
pub(super) struct Supervise {
    vm: Uuid,
    /// Seconds for the hypervisor to come up and boot
    #[arg(long, default_value_t = 60)]
    deadline: u64,
    /// Watch over a guest that runs already, and whose supervisor was killed
    #[arg(long)]
    adopt: bool,
}

impl Supervise {
    pub(super) fn run(&self, site: &Site) -> Result<()> {
        // Neither Ctrl-C nor the terminal's end is meant for it.
        host::leave_terminal();
        // Others may pass through the folders of its sockets.
        host::keep_private();
        let purpose = if self.adopt { Purpose::Adopt } else { Purpose::Start };
        let ready = host::inherited_pipe(READY_FD);
        supervisor::supervise(site, self.vm, purpose, Duration::from_secs(self.deadline), ready)
    }
}
