use super::down::finish;
use super::firewall::{is_kept, live, rewrite};
use super::lock::hold;
use super::server;
use super::up::{by_config, not_in_config, raise};
use super::work::Work;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::network::{firewall, keep};
use crate::spec::{Forward, Name, Nic, VmSpec};
use crate::store::{NetworkRecord, NetworkState, Store};
use crate::vm::Site;

/// Before a VM's ports are made: the networks that Virshle keeps are up, its forwards are free, and
/// the firewall knows its NICs. Does nothing for a VM that has none of these.
pub fn ensure(site: &Site, spec: &VmSpec) -> Result<()> {
    let networks = kept(spec);
    if networks.is_empty() && forwards(spec).next().is_none() {
        return Ok(());
    }
    let config = site.config()?;
    let _lock = hold(site)?;
    let mut work = Work::new(site, Some(&config))?;
    for name in &networks {
        bring_up(&mut work, &config, name)?;
    }
    check_forwards(site, &work.store, spec)?;
    if networks.is_empty() { Ok(()) } else { rewrite(&work) }
}

fn forwards(spec: &VmSpec) -> impl Iterator<Item = &Forward> {
    spec.nics.iter().flat_map(|nic| &nic.forwards)
}

fn kept(spec: &VmSpec) -> Vec<Name> {
    let mut names: Vec<Name> = spec.nics.iter().filter(|nic| is_kept(nic)).map(|nic| nic.network.clone()).collect();
    names.sort();
    names.dedup();
    names
}

fn bring_up(work: &mut Work<'_>, config: &Config, name: &Name) -> Result<()> {
    let server = server::of(work.site);
    match work.store.network(name)? {
        Some(record) if is_well(&record)? => Ok(()),
        // Not in the config any more: it is finished or undone as it was recorded.
        Some(record) if config.network(name).is_none() => match record.state {
            NetworkState::GoingDown => finish(work, name).and(Err(not_in_config(config, name))),
            _ => raise(work, record.spec, &server).map(drop),
        },
        // Down, cut short, or gone with the host's last life: as the config says by now.
        _ => {
            let raised = by_config(work, config, name, &server)?;
            for note in raised.notes {
                tracing::warn!(network = %name, "{note}");
            }
            Ok(())
        }
    }
}

/// A quick look, without a program.
pub(super) fn is_well(record: &NetworkRecord) -> Result<bool> {
    let served = record.spec.host.is_none() || record.server.is_some_and(|server| server.is_alive());
    Ok(record.state == NetworkState::Up && served && keep::is_there(&record.spec)?)
}

/// Refuses a VM whose forwards another that runs has, or that somebody listens at.
pub(in crate::vm) fn check_forwards(site: &Site, store: &Store, spec: &VmSpec) -> Result<()> {
    if forwards(spec).next().is_none() {
        return Ok(());
    }
    for other in live(site, store)?.into_iter().map(|record| record.spec).filter(|other| other.uuid != spec.uuid) {
        for forward in forwards(&other) {
            if let Some(clash) = forwards(spec).find(|ours| ours.clashes(forward)) {
                return Err(Error::refused(format!("the forward `{clash}` cannot be made"))
                    .source(Error::failed(format!("`{}` has `{forward}`, and runs", other.name)))
                    .hint(format!("stop it with `v vm stop {}`, or give one of them another port", other.name)));
            }
        }
    }
    firewall::check_free(&forwards(spec).cloned().collect::<Vec<_>>())
}

/// While a VM runs: makes again what somebody took away of the NIC's network. `false`: nothing is
/// missing, or it is not ours.
pub fn restore(site: &Site, nic: &Nic) -> Result<bool> {
    if !is_kept(nic) {
        return Ok(false);
    }
    let missing = |record: &NetworkRecord| Ok::<_, Error>(!keep::is_there(&record.spec)?);
    match site.store()?.network(&nic.network)? {
        Some(record) if missing(&record)? => {}
        _ => return Ok(false),
    }
    let _lock = hold(site)?;
    let mut work = Work::new(site, site.config().ok().as_ref())?;
    match work.store.network(&nic.network)? {
        Some(record) if record.state == NetworkState::Up && missing(&record)? => {
            raise(&mut work, record.spec, &server::of(site)).map(|_| true)
        }
        _ => Ok(false),
    }
}
