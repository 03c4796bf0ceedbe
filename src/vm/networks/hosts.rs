//! Which names lead to which VMs: told to the name servers of the networks, and to this host.

use std::net::IpAddr;
use std::path::PathBuf;

use super::firewall::is_on;
use super::lock::hold;
use super::work::Work;
use crate::config::Config;
use crate::error::Result;
use crate::host::Mode;
use crate::network::dnsmasq;
use crate::network::names::{self, Host};
use crate::spec::NetworkSpec;
use crate::store::{NetworkRecord, NetworkState, Record};
use crate::vm::Site;

/// Tells every network that is up which VMs there are. Where none is up nothing is done, and nobody
/// is waited for.
pub fn publish(site: &Site) -> Result<()> {
    if site.store()?.networks()?.iter().all(|record| record.spec.host.is_none()) {
        return Ok(());
    }
    let _lock = hold(site)?;
    tell_all(&Work::new(site, None)?)
}

/// After the end of a verb, which has done its work whether this can be done or not.
pub(in crate::vm) fn publish_after(site: &Site) {
    if let Err(error) = publish(site) {
        tracing::warn!(error = %error.chain().join(": "), "names are not up to date: `v network repair` mends them");
    }
}

/// The same, for a holder of the lock.
pub(super) fn tell_all(work: &Work<'_>) -> Result<()> {
    let vms = work.store.list()?;
    let mut networks = work.store.networks()?;
    networks.retain(|record| record.state != NetworkState::GoingDown);
    for network in &networks {
        if network.spec.host.is_some() {
            let server = network.server.filter(|server| server.is_alive());
            let dir = work.site.network_run(&network.spec.name);
            dnsmasq::publish(&network.spec, &dir, &hosts(&network.spec, &vms), server)?;
        }
    }
    write_file(work, &networks, &vms)
}

pub(super) fn hosts(network: &NetworkSpec, vms: &[Record]) -> Vec<Host> {
    let mut hosts = Vec::new();
    for spec in vms.iter().map(|record| &record.spec) {
        for nic in spec.nics.iter().filter(|nic| is_on(nic, network)) {
            if let Some(address) = &nic.address {
                hosts.push(Host {
                    vm: spec.uuid,
                    nic: nic.index,
                    name: spec.name.clone(),
                    mac: nic.mac,
                    ip: address.ip.addr(),
                    ip6: address.ip6.map(|net| net.addr()),
                });
            }
        }
    }
    hosts
}

/// The block in the host's hosts file, where there is one for us.
fn write_file(work: &Work<'_>, networks: &[NetworkRecord], vms: &[Record]) -> Result<()> {
    let mut files: Vec<(PathBuf, Vec<(IpAddr, String)>)> =
        every_file(work.site, work.config.as_ref()).into_iter().map(|file| (file, Vec::new())).collect();
    for network in networks {
        let Some(side) = &network.spec.host else { continue };
        let Some(file) = hosts_file(work.site, work.config.as_ref(), &network.spec) else { continue };
        let Some((_, lines)) = files.iter_mut().find(|(other, _)| *other == file) else { continue };
        for host in hosts(&network.spec, vms) {
            let name = format!("{}.{}", host.name, side.domain);
            let v6 = host.ip6.filter(|_| side.address6.is_some()).map(IpAddr::from);
            lines.extend([IpAddr::from(host.ip)].into_iter().chain(v6).map(|ip| (ip, name.clone())));
        }
    }
    files.iter().try_for_each(|(file, lines)| names::write_hosts(file, &work.site.dirs.state, lines))
}

const HOSTS: &str = "/etc/hosts";

/// Where the names of a network are written, for programs of this host that ask no name server.
/// Below a root nothing outside it is written, but what its config names.
pub(super) fn hosts_file(site: &Site, config: Option<&Config>, spec: &NetworkSpec) -> Option<PathBuf> {
    if let Some(file) = config.and_then(|config| config.node.hosts_file.clone()) {
        return Some(file);
    }
    let unknown = matches!(names::how(spec), names::How::HostsFile(_));
    (site.dirs.mode == Mode::System && unknown).then(|| HOSTS.into())
}

/// Where lines of ours may be, which go when there is nothing more to say.
fn every_file(site: &Site, config: Option<&Config>) -> Vec<PathBuf> {
    match config.and_then(|config| config.node.hosts_file.clone()) {
        Some(file) => vec![file],
        None if site.dirs.mode == Mode::System => vec![HOSTS.into()],
        None => Vec::new(),
    }
}
