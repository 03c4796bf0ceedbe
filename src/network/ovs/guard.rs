//! Puts the guards of ports into the switch, and takes them out again.
//!
//! ```text
//! number chosen ─► meters ─► common flows and the port's own, at once ─► the port is plugged in,
//!                                                                        with that number
//! ```
//!
//! So no guest is ever connected without its guard. The switch forgets all of it when it starts
//! anew, and then moves nothing on a bridge of ours until [`Ovs::guard`] is called for its ports.

use uuid::Uuid;

use super::answer::Layout;
use super::vsctl::checked;
use super::{Datapath, Ovs, flows};
use crate::error::{Error, Result};
use crate::spec::Nic;

/// Open vSwitch itself counts up from 1.
const FIRST: u16 = 0x2000;
const FIRST_MANY: u16 = 0x8000;
const END: u16 = 0xfe00;

impl Ovs {
    /// Puts in the flows of a port, which may not be there yet. The number is what the port must get;
    /// `None`: the NIC has no guard.
    pub fn guard(&self, bridge: &str, port: &str, vm: Uuid, vm_number: u32, nic: &Nic) -> Result<Option<u16>> {
        let Some(guard) = &nic.guard else { return Ok(None) };
        let (bridge, port) = (checked("bridge", bridge)?, checked("port", port)?);
        let layout = self.layout()?;
        let row = layout.bridge(bridge).ok_or_else(|| self.no_bridge(bridge, &Datapath::Netdev))?;
        if !self.made(&row.marks) {
            return Err(self.somebody_elses(bridge));
        }
        let number = number(&layout, port, vm_number, nic.index)?;
        if let Some(rate) = guard.rate {
            for meter in flows::meters(number).map(|id| flows::meter(id, rate)) {
                let set = |command| self.ofctl(bridge, &[command], &[&meter], "");
                // It may be there: of this VM's earlier life, or as it is.
                set("add-meter")
                    .or_else(|_| set("mod-meter"))
                    .map_err(|error| error.context(format!("cannot limit the rate of the port `{port}` to {rate}")))?;
            }
        }
        let cookie = flows::cookie(vm, number);
        let text = common(&layout, bridge) + &flows::guard(number, cookie, nic, guard);
        self.change_flows(bridge, &text)?;
        // One that is there may have had a rate until now.
        if guard.rate.is_none() && layout.port(port).is_some() {
            self.unlimit(bridge, number);
        }
        Ok(Some(number))
    }

    /// Takes out what [`Ovs::guard`] put in. A switch that is not there has forgotten it.
    pub(super) fn unguard(&self, bridge: &str, vm: Uuid, number: u16) {
        if !matches!(self.management(bridge), Ok(Some(_))) {
            return;
        }
        let removed = self.change_flows(bridge, &flows::without(number, flows::cookie(vm, number)));
        if let Err(error) = removed {
            tracing::debug!(bridge, number, error = %error.chain().join(": "), "flows not removed");
            return;
        }
        self.unlimit(bridge, number);
    }

    fn unlimit(&self, bridge: &str, number: u16) {
        for id in flows::meters(number) {
            // One that is not there is no failure.
            if let Err(error) = self.ofctl(bridge, &["del-meter"], &[&format!("meter={id}")], "") {
                tracing::debug!(bridge, id, error = %error.chain().join(": "), "meter not removed");
            }
        }
    }

    /// The flows that a bridge of ours has, whoever is plugged into it.
    pub(super) fn common_flows(&self, bridge: &str) -> Result<()> {
        self.change_flows(bridge, &common(&self.layout()?, bridge))
    }
}

fn common(layout: &Layout, bridge: &str) -> String {
    let ports = layout.bridge(bridge).into_iter().flat_map(|row| layout.ports_of(row));
    flows::common(&ports.filter_map(|port| port.guarded).collect::<Vec<_>>())
}

/// The port's number in the switch: that of its row, else one that follows from its name, or the
/// next that is free.
fn number(layout: &Layout, port: &str, vm_number: u32, index: u8) -> Result<u16> {
    if let Some(number) = layout.port(port).and_then(|(_, row)| row.guarded) {
        return Ok(number);
    }
    let first = preferred(vm_number, index);
    let mut candidates = (first..END).chain(FIRST..first);
    candidates
        .find(|number| !layout.ports().any(|port| port.guarded == Some(*number)))
        .ok_or_else(|| Error::failed("no number for a port is free in the switch"))
}

/// Eight NICs for each VM, and a range for those who have more.
fn preferred(vm_number: u32, index: u8) -> u16 {
    let few = u32::from(FIRST_MANY - FIRST) / 8;
    let many = u32::from(END - FIRST_MANY);
    let (base, offset) = match u32::from(index) {
        index @ 0..8 => (FIRST, vm_number % few * 8 + index),
        index => (FIRST_MANY, (vm_number % many * 248 + index - 8) % many),
    };
    base + u16::try_from(offset).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::ovs::answer::parse_layout;

    #[test]
    fn numbers_of_ports() {
        let rows = [
            ((1, 0), 0x2008),
            ((1, 7), 0x200f),
            ((2, 0), 0x2010),
            ((0xbff, 7), 0x7fff),
            ((0xc00, 0), 0x2000),
            ((1, 8), 0x80f8),
            ((1, 255), 0x81ef),
            ((u32::MAX, 255), preferred(u32::MAX, 255)),
        ];
        for ((vm, index), expected) in rows {
            let number = preferred(vm, index);
            assert_eq!(number, expected, "v{vm}n{index}");
            assert!((FIRST..END).contains(&number));
        }
    }

    #[test]
    fn a_number_that_another_port_has_is_not_given_again() {
        let answer = br#"{"data":[],"headings":["name","ports"]}{"data":[],"headings":["name"]}"#;
        assert_eq!(number(&parse_layout(answer).unwrap(), "v1n0", 1, 0).unwrap(), 0x2008);
        let id = |n: u8| format!(r#"["uuid","664073b3-4078-49b3-a82a-111e3f35be2{n}"]"#);
        let port =
            |n: u8, name: &str, guard: u16| format!(r#"[{},"{name}",["map",[["virshle-guard","{guard}"]]]]"#, id(n));
        let answer = format!(
            r#"{{"data":[["vsbr0",["set",[{},{}]]]],"headings":["name","ports"]}}{{"data":[{},{}],"headings":["_uuid","name","external_ids"]}}"#,
            id(0),
            id(1),
            port(0, "v3073n0", 0x2008),
            port(1, "v5n0", 0x4000),
        );
        let layout = parse_layout(answer.as_bytes()).unwrap();
        assert_eq!(number(&layout, "v1n0", 1, 0).unwrap(), 0x2009);
        assert_eq!(number(&layout, "v5n0", 5, 0).unwrap(), 0x4000, "as its row says");
    }
}
