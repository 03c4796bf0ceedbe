//! What a NIC's port lets through, as a person reads it.

use crate::spec::{Guard, Rule};

/// Nothing for what every NIC of a network that Virshle keeps has.
pub(super) fn lines(guard: &Guard) -> Vec<(&'static str, String)> {
    let rules = |rules: &[Rule]| rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut lines = Vec::new();
    if !guard.deny.is_empty() {
        lines.push(("deny", rules(&guard.deny)));
    }
    if !guard.allow.is_empty() {
        lines.push(("allow", rules(&guard.allow)));
    }
    if let Some(rate) = guard.rate {
        lines.push(("rate", format!("{rate} each way")));
    }
    if guard.spoof {
        lines.push(("spoof", "any MAC and address".to_owned()));
    }
    lines
}
