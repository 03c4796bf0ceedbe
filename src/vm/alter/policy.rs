use uuid::Uuid;

use super::standing;
use crate::error::{Error, OrFailed, Result};
use crate::host::Handle;
use crate::spec::Policy;
use crate::store::Store;
use crate::vm::{Site, limits, unit};

/// Gives a VM another policy. One that runs follows at once, where something holds it to its limits.
pub fn set_policy(site: &Site, store: &mut Store, vm: Uuid, change: impl FnOnce(&mut Policy)) -> Result<()> {
    let us = Handle::current().or_failed(|| "cannot read this process's start time".to_owned())?;
    let (before, spec, runs) = store.update(vm, |record| {
        let failed = |error: Error| error.context(format!("cannot change the policy of `{}`", record.spec.name));
        standing::is_free(record, us).map_err(failed)?;
        let runs = standing::runs(record).map_err(failed)?;
        let before = record.spec.clone();
        change(&mut record.spec.policy);
        Ok((before, record.spec.clone(), runs))
    })?;
    if spec.policy.limits == before.policy.limits || !unit::serves(site) {
        return Ok(());
    }
    if !runs {
        // The next start limits it anew, or not at all.
        return unit::forget(site, &before);
    }
    limits::limit_live(vm, &spec.policy.limits).or_else(|error| {
        store.update(vm, |record| {
            record.spec.policy.limits = before.policy.limits;
            Ok(())
        })?;
        Err(error.context(format!("cannot change the limits of `{}`", spec.name)))
    })
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
