use uuid::Uuid;

use super::live::{self, Change};
use super::live_forwards;
use crate::error::{Error, Result};
use crate::spec::{Forward, HypervisorKind, Link, Nic, VmSpec};
use crate::store::Store;
use crate::vm::{Site, networks};

/// Gives NICs of a VM, by their index, other ports of the host. Those of one that runs lead there, and
/// nowhere else, when this returns.
pub fn set_ports(site: &Site, store: &mut Store, vm: Uuid, nics: &[(u8, Vec<Forward>)]) -> Result<()> {
    live::change(site, store, vm, &Other(nics)).map(drop)
}

struct Other<'a>(&'a [(u8, Vec<Forward>)]);

impl Change for Other<'_> {
    const WHAT: &'static str = "ports";
    const OF_NETWORKS: bool = true;

    fn change(&self, spec: &mut VmSpec) -> Result<()> {
        for (index, forwards) in self.0 {
            let nic = nic(spec, *index)?;
            if nic.guard.is_none() && nic.link != Link::User && !forwards.is_empty() {
                return Err(Error::refused(format!(
                    "no port of this host can lead into its network `{}`",
                    nic.network
                ))
                .hint("it can into a network with a `subnet` that Virshle keeps, or one of the type `user`"));
            }
            nic.forwards.clone_from(forwards);
        }
        let all: Vec<&Forward> = spec.nics.iter().flat_map(|nic| &nic.forwards).collect();
        for (index, forward) in all.iter().enumerate() {
            if let Some(other) = all[..index].iter().find(|other| other.clashes(forward)) {
                return Err(Error::usage(format!("`{other}` and `{forward}` are at the same port of the host")));
            }
        }
        Ok(())
    }

    fn check(&self, site: &Site, store: &Store, before: &VmSpec, after: &VmSpec) -> Result<()> {
        refuse_passt(before, after)?;
        networks::check_forwards(site, store, &added(before, after))
    }

    fn make(&self, site: &Site, store: &mut Store, before: &VmSpec, after: &VmSpec) -> Result<()> {
        let differs = |nic: &&Nic| before.nics.iter().all(|old| old.index != nic.index || old.forwards != nic.forwards);
        let (own, kept): (Vec<_>, Vec<_>) = after.nics.iter().filter(differs).partition(|nic| nic.link == Link::User);
        if !kept.is_empty() {
            networks::settle_as(site, after)?;
        }
        own.into_iter().try_for_each(|nic| live_forwards(site, store, after.uuid, nic.index, &nic.forwards))
    }
}

pub(super) fn nic(spec: &mut VmSpec, index: u8) -> Result<&mut Nic> {
    let name = spec.name.clone();
    let found = spec.nics.iter_mut().find(|nic| nic.index == index);
    found.ok_or_else(|| Error::not_found(format!("`{name}` has no NIC {index}")).hint("`v vm info` shows its NICs"))
}

/// passt takes its ports once, at its start.
fn refuse_passt(before: &VmSpec, after: &VmSpec) -> Result<()> {
    let other = |(old, new): &(&Nic, &Nic)| old.link == Link::User && old.forwards != new.forwards;
    match before.nics.iter().zip(&after.nics).find(other) {
        Some((nic, _)) if before.hypervisor == HypervisorKind::CloudHypervisor => Err(Error::refused(format!(
            "those of its NIC {} of type `user` can only be others once it is stopped",
            nic.index
        ))
        .hint(format!("stop it with `v vm stop {}`", before.name))),
        _ => Ok(()),
    }
}

/// The VM with nothing but the forwards that it does not have yet: at its others it listens itself.
fn added(before: &VmSpec, after: &VmSpec) -> VmSpec {
    let had: Vec<&Forward> = before.nics.iter().flat_map(|nic| &nic.forwards).collect();
    let mut added = after.clone();
    for nic in &mut added.nics {
        nic.forwards.retain(|forward| !had.contains(&forward));
    }
    added
}

#[cfg(test)]
mod tests {
    use super::super::super::sweep::tests::stopped;
    use super::*;
    use crate::error::Kind;
    use crate::spec::{Guard, Switch};

    fn list(texts: &[&str]) -> Vec<Forward> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A NIC on a network that Virshle keeps, one on somebody else's bridge, one of the hypervisor's own.
    fn with_nics(spec: &mut VmSpec) {
        let tap = Link::Tap { bridge: "br0".into(), switch: Switch::Bridge, create: true };
        spec.nics = [tap.clone(), tap, Link::User]
            .into_iter()
            .zip(0..)
            .map(|(link, index)| Nic::new(spec.uuid, index, "main".parse().unwrap(), link))
            .collect();
        spec.nics[0].guard = Some(Guard::default());
        spec.nics[2].forwards = list(&["2222:22"]);
    }

    #[test]
    fn what_does_not_run_is_only_recorded() {
        let (_dir, site, mut store, record) = stopped();
        let vm = record.spec.uuid;
        store
            .update(vm, |record| {
                with_nics(&mut record.spec);
                Ok(())
            })
            .unwrap();
        // Taken, which matters when it is started.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let forward = format!("127.0.0.1:{}:80", taken.local_addr().unwrap().port());
        set_ports(&site, &mut store, vm, &[(0, list(&[&forward])), (2, Vec::new())]).unwrap();
        let nics = store.get(vm).unwrap().unwrap().spec.nics;
        assert_eq!((&nics[0].forwards, &nics[2].forwards), (&list(&[&forward]), &Vec::new()));
        let rows = [
            (1, vec!["80:80"], Kind::Refused, "its network `main`"),
            (2, vec!["80:80", "127.0.0.1:80:81"], Kind::Usage, "at the same port"),
            (3, vec!["80:80"], Kind::NotFound, "no NIC 3"),
        ];
        for (index, forwards, kind, words) in rows {
            let error = set_ports(&site, &mut store, vm, &[(index, list(&forwards))]).unwrap_err();
            assert_eq!(error.kind(), kind, "{words}");
            assert!(error.chain().join(": ").contains(words), "{error:?}");
        }
        assert_eq!(store.get(vm).unwrap().unwrap().spec.nics, nics);
    }

    #[test]
    fn only_new_forwards_have_to_be_free() {
        let mut before = VmSpec::sample(Uuid::from_u128(7));
        with_nics(&mut before);
        let mut after = before.clone();
        Other(&[(0, list(&["2222:22", "80:80"])), (2, Vec::new())]).change(&mut after).unwrap();
        let left: Vec<_> = added(&before, &after).nics.into_iter().map(|nic| nic.forwards).collect();
        assert_eq!(left, [list(&["80:80"]), Vec::new(), Vec::new()], "one that moves is there already");
        for (kind, refused) in [(HypervisorKind::CloudHypervisor, true), (HypervisorKind::Qemu, false)] {
            before.hypervisor = kind;
            assert_eq!(refuse_passt(&before, &after).is_err(), refused, "{kind}");
            refuse_passt(&before, &before).unwrap();
        }
    }
}
