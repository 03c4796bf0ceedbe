use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use crate::error::Result;
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
    /// The descriptor of the VM's lock, from the program that this process was before
    #[arg(long, value_name = "FD")]
    lock: Option<i32>,
    /// How the run ended, which that program could not record
    #[arg(long, value_name = "JSON")]
    ended: Option<String>,
}

impl Supervise {
    pub(super) fn run(&self, site: &Site) -> Result<()> {
        // Neither Ctrl-C nor the terminal's end is meant for it.
        host::leave_terminal();
        let purpose = if self.adopt { Purpose::Adopt } else { Purpose::Start };
        let ready = host::inherited_pipe(READY_FD);
        // One that cannot be read is as good as one that nobody saw.
        let ended = self.ended.as_deref().and_then(|json| serde_json::from_str(json).ok());
        let handed = Handed { lock: self.lock, ended };
        supervisor::supervise(site, self.vm, purpose, Duration::from_secs(self.deadline), ready, handed)
    }
}
