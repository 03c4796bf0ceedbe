use uuid::Uuid;

use super::live::{self, Change};
use crate::error::Result;
use crate::spec::{Policy, VmSpec};
use crate::store::Store;
use crate::vm::{Site, limits, unit};

/// Gives a VM another policy. One that runs follows at once, where something holds it to its limits.
pub fn set_policy(site: &Site, store: &mut Store, vm: Uuid, change: impl FnOnce(&mut Policy)) -> Result<()> {
    let before = live::recorded(store, vm, Other::WHAT)?.spec;
    let mut policy = before.policy.clone();
    change(&mut policy);
    let limits = policy.limits;
    let runs = live::change(site, store, vm, &Other(policy))?;
    if !runs && before.policy.limits != limits && unit::serves(site) {
        // The next start limits it anew, or not at all.
        unit::forget(site, &before)?;
    }
    Ok(())
}

struct Other(Policy);

impl Change for Other {
    const WHAT: &'static str = "policy";
    const OF_NETWORKS: bool = false;

    fn change(&self, spec: &mut VmSpec) -> Result<()> {
        spec.policy = self.0.clone();
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
}
