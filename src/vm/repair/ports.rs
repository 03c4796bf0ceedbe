//! Ports on the switch whose VM does not run. A port is ours if it names this store's state folder;
//! one without a mark (an earlier version made it), if it names a VM of this store.
//!
//! A tap itself is never left: it is not persistent, so the kernel removes it with the process that
//! held it. A device of a VM's name that is there all the same is somebody else's; it is told,
//! because that VM cannot start meanwhile.

use super::records::told;
use super::rest::{Rest, Standing, Standings};
use super::{Action, Finding, Kind, Remedy};
use crate::error::{OrFailed, Result};
use crate::host::{NetDevice, find_program};
use crate::network::ovs::{Ovs, Owner};
use crate::spec::{Link, Nic, Switch};
use crate::store::Store;
use crate::vm::Site;

pub(super) fn survey(site: &Site, standings: &Standings) -> Result<Vec<Finding>> {
    let config = site.config().ok();
    let ovs = ovs(site);
    // A switch that cannot be asked is worth a word only where somebody uses one.
    let nics = standings.records.iter().flat_map(|record| &record.spec.nics);
    let wanted = nics.into_iter().any(on_switch) || config.is_some_and(|config| config.node.ovs_db.is_some());
    if !wanted && find_program("ovs-vsctl").is_none() {
        return Ok(Vec::new());
    }
    let ports = match ovs.ports_of_virshle() {
        Ok(ports) => ports,
        Err(error) if wanted => return Err(error),
        Err(_) => return Ok(Vec::new()),
    };
    let mut found = Vec::new();
    for port in ports {
        let Some(vm) = port.vm else { continue };
        let standing = standings.standing(vm);
        let ours = ovs.is_ours(&port).unwrap_or(standing != Standing::Unknown);
        if !ours || !matches!(standing, Standing::AtRest | Standing::Unknown) {
            continue;
        }
        let (place, name) = (port.port.clone(), Some(standings.name(vm)));
        if standing == Standing::Unknown && in_use(&ovs, &port)? {
            let what = "of a VM that is not recorded here, and in use, left alone";
            found.push(Finding::note(Kind::SwitchPort, what, place, name));
            continue;
        }
        let what = format!("a port on `{}` of a VM that does not run", port.bridge);
        let remedy = Remedy::Port(Box::new(port));
        found.push(Finding { kind: Kind::SwitchPort, what, place, action: Action::Remove, vm: name, remedy });
    }
    Ok(found)
}

/// The devices that stand in a VM's way.
pub(super) fn taps(standings: &Standings) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for spec in standings.records.iter().map(|record| &record.spec) {
        if standings.standing(spec.uuid) != Standing::AtRest {
            continue;
        }
        for nic in spec.nics.iter().filter(|nic| matches!(nic.link, Link::Tap { .. })) {
            let port = nic.port(spec.number);
            if NetDevice::find(&port).or_failed(|| format!("cannot look for `{port}`"))?.is_some() {
                let what = "a device of that name keeps the VM from starting; not ours, left alone";
                found.push(Finding::note(Kind::NetworkDevice, what, port, Some(spec.name.to_string())));
            }
        }
    }
    Ok(found)
}

pub(super) fn collect(site: &Site, store: &mut Store, port: &Owner) -> Result<bool> {
    let Some(vm) = port.vm else { return Ok(false) };
    let ovs = ovs(site);
    let Some(rest) = Rest::hold(site, store, vm)? else { return Ok(false) };
    if rest.record.is_none() && in_use(&ovs, port)? {
        return Ok(false);
    }
    let removed = ovs.release_port(&port.port, vm)?;
    if let Some(record) = rest.record.as_ref().filter(|_| removed) {
        told(store, &record.spec, format!("its port `{}` was removed from the switch", port.port))?;
    }
    Ok(removed)
}

fn ovs(site: &Site) -> Ovs {
    match site.config() {
        Ok(config) => site.ovs(&config),
        Err(_) => Ovs::new(None).for_state(&site.dirs.state),
    }
}

fn on_switch(nic: &Nic) -> bool {
    matches!(nic.link, Link::Vhost { .. } | Link::Tap { switch: Switch::Ovs, .. })
}

/// Whether a living guest is at the other end: one that another store, in a folder of the same
/// name, may have.
fn in_use(ovs: &Ovs, port: &Owner) -> Result<bool> {
    let device = NetDevice::find(&port.port).or_failed(|| format!("cannot look for `{}`", port.port))?;
    Ok(device.is_some() || ovs.port_state(&port.port)?.is_some_and(|state| state.link_up == Some(true)))
}
