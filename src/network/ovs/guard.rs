//! Puts guards into the switch, and takes them out again.

use super::{Ovs, flows};
use crate::error::Result;

impl Ovs {
    /// The flows that a bridge of ours has, whoever is plugged into it.
    pub(super) fn common_flows(&self, bridge: &str) -> Result<()> {
        let layout = self.layout()?;
        let Some(row) = layout.bridge(bridge) else { return Ok(()) };
        let guarded: Vec<u16> = layout.ports_of(row).filter_map(|port| port.guarded).collect();
        self.change_flows(bridge, &flows::common(&guarded))
    }
}
