use std::collections::BTreeMap;
use std::time::Duration;

use crate::spec::Autostart;
use crate::store::Record;

/// VMs that start with the host, together.
#[derive(Debug)]
pub struct Group<T = Record> {
    pub order: u32,
    pub vms: Vec<T>,
    /// How long it is waited before the next group: the longest that one of them asks for.
    pub delay: Duration,
}

/// The VMs that start with the host, in their order.
pub fn autostart(records: Vec<Record>) -> Vec<Group> {
    group(records.into_iter().filter_map(|record| Some((record.spec.policy.autostart?, record))))
}

fn group<T>(wanted: impl Iterator<Item = (Autostart, T)>) -> Vec<Group<T>> {
    let mut groups: BTreeMap<u32, Group<T>> = BTreeMap::new();
    for (Autostart { order, delay }, vm) in wanted {
        let group = groups.entry(order).or_insert(Group { order, vms: Vec::new(), delay: Duration::ZERO });
        group.delay = group.delay.max(Duration::from_secs(delay.into()));
        group.vms.push(vm);
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_in_their_order_with_their_longest_delay() {
        let wanted = [(5, 2, "a"), (0, 0, "b"), (5, 9, "c"), (5, 0, "d")];
        let groups = group(wanted.into_iter().map(|(order, delay, vm)| (Autostart { order, delay }, vm)));
        let found: Vec<_> = groups.into_iter().map(|group| (group.order, group.delay.as_secs(), group.vms)).collect();
        assert_eq!(found, [(0, 0, vec!["b"]), (5, 9, vec!["a", "c", "d"])]);
    }
}
