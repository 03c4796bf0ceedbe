use super::firewall::{is_on, live, rewrite};
use super::forwarding;
use super::hosts::tell_all;
use super::lock::hold;
use super::server;
use super::step::step;
use super::work::{Work, check_root};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::network::{firewall, keep, names};
use crate::spec::{Name, NetworkSpec};
use crate::store::NetworkState;
use crate::vm::Site;

/// What became of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallen {
    Down,
    /// It was not up.
    Already,
}

/// Takes a network down, unless VMs are on it.
pub fn down(site: &Site, config: Option<&Config>, name: &Name) -> Result<Fallen> {
    let _lock = hold(site)?;
    let mut work = Work::new(site, config)?;
    let Some(record) = work.store.network(name)? else { return Ok(Fallen::Already) };
    let failed = || format!("cannot take down network `{name}`");
    let vms = vms_on(&work, &record.spec)?;
    if !vms.is_empty() {
        return Err(Error::refused(failed())
            .source(Error::failed(format!(
                "{} on it: {}",
                if vms.len() == 1 { "a VM runs" } else { "VMs run" },
                names_of(&vms)
            )))
            .hint(format!("stop them first: `v vm stop {}`", vms.join(" "))));
    }
    check_root(name).map_err(|_| Error::refused(failed()).source(Error::failed("only root can")))?;
    finish(&mut work, name).map_err(|error| error.context(failed()))?;
    Ok(Fallen::Down)
}

fn names_of(vms: &[String]) -> String {
    vms.iter().map(|vm| format!("`{vm}`")).collect::<Vec<_>>().join(", ")
}

/// The VMs that run on it, by name.
pub(super) fn vms_on(work: &Work<'_>, spec: &NetworkSpec) -> Result<Vec<String>> {
    let live = live(work.site, &work.store)?.into_iter().map(|record| record.spec);
    Ok(live.filter(|vm| vm.nics.iter().any(|nic| is_on(nic, spec))).map(|vm| vm.name.to_string()).collect())
}

/// Undoes what the record says was made, in reverse, and forgets it.
pub(in crate::vm) fn finish(work: &mut Work<'_>, name: &Name) -> Result<()> {
    let Some(record) = work.store.network(name)? else { return Ok(()) };
    let (spec, was) = (&record.spec, record.state);
    step("down", "recorded", || {
        work.store.update_network(name, |record| {
            record.state = NetworkState::GoingDown;
            Ok(())
        })
    })?;
    if spec.host.is_some() {
        step("down", "names", || {
            // A host that forgets them by itself, with the interface.
            if let Err(error) = names::withdraw(spec) {
                tracing::warn!(network = %name, error = %error.chain().join(": "), "names not withdrawn");
            }
            tell_all(work)
        })?;
        step("down", "zone", || {
            // Killed between the act and its note.
            let unnoted = || (was != NetworkState::Up).then(|| firewall::admit(spec).ok().flatten()).flatten();
            match record.made.zone.clone().or_else(unnoted) {
                Some(zone) => firewall::dismiss(spec, &zone),
                None => Ok(()),
            }
        })?;
        step("down", "server", || server::stop(work.site, name, record.server))?;
    }
    step("down", "firewall", || rewrite(work))?;
    step("down", "forwarding", || forwarding::switch_off(&mut work.store, spec))?;
    if record.made.uplink {
        step("down", "uplink", || keep::leave_uplink(spec, record.made.uplink_was_down))?;
    }
    if record.made.bridge || record.made.device {
        step("down", "addresses", || keep::take_addresses(spec))?;
        step("down", "bridge", || {
            let unmarked = was != NetworkState::Up && keep::is_bare(spec)?;
            keep::remove_bridge(spec, &work.site.dirs.state, &work.ovs, unmarked)
        })?;
    }
    step("down", "runtime folder", || crate::vm::remove_tree(&work.site.network_run(name)))?;
    step("down", "forgotten", || work.store.forget_network(name))
}
