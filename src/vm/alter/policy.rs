use std::cell::Cell;

use uuid::Uuid;

use super::live::{self, Change};
use crate::error::Result;
use crate::spec::{Policy, VmSpec};
use crate::store::Store;
use crate::vm::{Site, limits, unit};

/// Gives a VM another policy. One that runs follows at once, where something holds it to its limits.
/// `change` is made to what is recorded by then, more than once: what somebody else changes stays.
pub fn set_policy(site: &Site, store: &mut Store, vm: Uuid, change: impl Fn(&mut Policy)) -> Result<()> {
    let before = live::recorded(store, vm, Other::<fn(&mut Policy)>::WHAT)?.spec;
    let other = Other { change, limits: Cell::new(false) };
    let runs = live::change(site, store, vm, &other)?;
    if !runs && other.limits.get() && unit::serves(site) {
        // The next start limits it anew, or not at all.
        unit::forget(site, &before)?;
    }
    Ok(())
}

struct Other<F> {
    change: F,
    /// Whether it has other limits by that.
    limits: Cell<bool>,
}

impl<F: Fn(&mut Policy)> Change for Other<F> {
    const WHAT: &'static str = "policy";
    const OF_NETWORKS: bool = false;

    fn change(&self, spec: &mut VmSpec) -> Result<()> {
        let limits = spec.policy.limits;
        (self.change)(&mut spec.policy);
        self.limits.set(spec.policy.limits != limits);
        Ok(())
    }

    fn check(&self, _: &Site, _: &Store, _: &VmSpec, _: &VmSpec) -> Result<()> {
        Ok(())
    }

    fn make(&self, site: &Site, _: &mut Store, before: &VmSpec, after: &VmSpec) -> Result<()> {
        match after.policy.limits == before.policy.limits || !unit::serves(site) {
            true => Ok(()),
            false => limits::limit_live(after.uuid, &after.policy.limits),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::super::sweep::tests::{abandoned, stopped};
    use super::*;
    use crate::error::Kind;
    use crate::spec::{Limits, Restart};

    #[test]
    fn what_does_not_run_is_only_recorded() {
        let (_dir, site, mut store, record) = stopped();
        let vm = record.spec.uuid;
        set_policy(&site, &mut store, vm, |policy| {
            policy.restart = Restart::Always;
            policy.limits = Limits { millicpus: Some(500), memory: None };
        })
        .unwrap();
        let policy = store.get(vm).unwrap().unwrap().spec.policy;
        assert_eq!((policy.restart, policy.limits.millicpus), (Restart::Always, Some(500)));

        let (_dir, site, mut store, record) = abandoned();
        let error = set_policy(&site, &mut store, record.spec.uuid, |policy| policy.protect = true).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(!store.get(record.spec.uuid).unwrap().unwrap().spec.policy.protect);
    }

    #[test]
    fn what_somebody_else_changes_meanwhile_stays() {
        let (_dir, site, mut store, record) = stopped();
        let vm = record.spec.uuid;
        for round in 1..=30 {
            let (site, protect) = (&site, round % 2 == 1);
            thread::scope(|scope| {
                scope.spawn(move || {
                    let mut store = Store::open(&site.dirs.database()).unwrap();
                    set_policy(site, &mut store, vm, |policy| policy.protect = protect).unwrap();
                });
                set_policy(site, &mut store, vm, |policy| policy.stop_timeout = round).unwrap();
            });
            let policy = store.get(vm).unwrap().unwrap().spec.policy;
            assert_eq!((policy.protect, policy.stop_timeout), (protect, round));
        }
    }
}
