//! The flows of a bridge that Virshle made, as text for `ovs-ofctl`. Pure.
//!
//! ```text
//! table 0  from a guarded port: only what its guest may send ─► 1 ─► 2   else: straight to 3
//! table 1  what it may send by its rules                      ─► 2 (the answer of `ct`)
//! table 3  to a guarded guest ─► 4, else delivered
//! table 4  what it may get by its rules                       ─► 5 (the answer of `ct`), delivered
//! ```
//!
//! Delivered is `NORMAL`: the switch learns MACs and heeds VLANs as ever. Each flow has a cookie, by
//! which those of one NIC, or the common ones, are replaced and removed.

use std::fmt::Write as _;

pub(super) const FROM: u8 = 0;
pub(super) const TO: u8 = 3;
/// Of the flows that are no guest's: `virshle` in ASCII.
pub(super) const COMMON: u64 = 0x7669_7273_686c_6500;

/// What every bridge of ours has, and that ports with one of the numbers `guarded` send nothing
/// until their own flows are there.
pub(super) fn common(guarded: &[u16]) -> String {
    let mut text = format!("delete cookie={COMMON:#x}/-1\n");
    let mut add = |flow: String| writeln!(text, "add cookie={COMMON:#x},{flow}").expect("a string");
    for port in guarded {
        add(format!("table={FROM},priority=2,in_port={port},actions=drop"));
    }
    add(format!("table={FROM},priority=0,actions=goto_table:{TO}"));
    add(format!("table={TO},priority=0,actions=NORMAL"));
    text
}
