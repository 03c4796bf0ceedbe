use uuid::Uuid;

use super::live::{self, Change};
use super::ports::nic;
use crate::error::{Error, Result};
use crate::network::{self, Port};
use crate::spec::{Guard, Nic, VmSpec};
use crate::store::Store;
use crate::vm::{Site, networks};

/// Gives ports of a VM, by the index of their NIC, other guards. Those of one that runs let nothing else
/// begin when this returns.
pub fn set_guard(site: &Site, store: &mut Store, vm: Uuid, nics: &[(u8, Guard)]) -> Result<()> {
    live::change(site, store, vm, &Other(nics)).map(drop)
}

struct Other<'a>(&'a [(u8, Guard)]);

impl Change for Other<'_> {
    const WHAT: &'static str = "guards";
    const OF_NETWORKS: bool = true;

    fn change(&self, spec: &mut VmSpec) -> Result<()> {
        for (index, guard) in self.0 {
            let nic = nic(spec, *index)?;
            if nic.guard.is_none() {
                return Err(Error::refused(format!("its network `{}` is not kept by Virshle", nic.network))
                    .hint("its ports are guarded by whoever made its bridge"));
            }
            nic.guard = Some(guard.clone());
        }
        Ok(())
    }

    fn check(&self, _: &Site, _: &Store, _: &VmSpec, _: &VmSpec) -> Result<()> {
        Ok(())
    }

    fn make(&self, site: &Site, _: &mut Store, before: &VmSpec, after: &VmSpec) -> Result<()> {
        let ovs = site.ovs(&site.config()?);
        let run = site.hypervisor_run(after.uuid);
        let differs = |nic: &&Nic| before.nics.iter().all(|old| old.index != nic.index || old.guard != nic.guard);
        networks::settle_as(site, after)?;
        for nic in after.nics.iter().filter(differs) {
            let port = Port { vm: after.uuid, vm_number: after.number, vm_name: after.name.as_str(), nic, ovs: &ovs };
            network::driver(&nic.link).restore(&port, &run.join(nic.socket()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::sweep::tests::stopped;
    use super::*;
    use crate::error::Kind;
    use crate::spec::Link;

    #[test]
    fn what_does_not_run_is_only_recorded() {
        let (_dir, site, mut store, record) = stopped();
        let vm = record.spec.uuid;
        store
            .update(vm, |record| {
                let link = Link::Vhost { bridge: "br0".into(), create: true };
                record.spec.nics =
                    (0..2).map(|index| Nic::new(vm, index, "main".parse().unwrap(), link.clone())).collect();
                record.spec.nics[0].guard = Some(Guard::default());
                Ok(())
            })
            .unwrap();
        let guard = Guard { allow: vec!["tcp/22".parse().unwrap()], ..Guard::default() };
        set_guard(&site, &mut store, vm, &[(0, guard.clone())]).unwrap();
        let error = set_guard(&site, &mut store, vm, &[(0, Guard::default()), (1, guard.clone())]).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.chain().join(": ").contains("`main` is not kept"), "{error:?}");
        let guards: Vec<_> = store.get(vm).unwrap().unwrap().spec.nics.into_iter().map(|nic| nic.guard).collect();
        assert_eq!(guards, [Some(guard), None]);
    }
}
