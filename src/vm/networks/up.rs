use super::down;
use super::firewall::{has_rules, rewrite};
use super::forwarding;
use super::hosts::tell_all;
use super::lock::hold;
use super::plan::{foreign, kept, plan};
use super::server::{self, Server};
use super::step::step;
use super::work::{Work, check_root};
use crate::config::{Config, Keeping, Network};
use crate::error::{Error, Result};
use crate::host::find_program;
use crate::network::keep::{self, Whose};
use crate::network::{check_routes, firewall, names};
use crate::spec::{Name, NetworkSpec};
use crate::store::{NetworkRecord, NetworkState};
use crate::vm::Site;

/// A network that is up.
#[derive(Debug, Clone)]
pub struct Raised {
    pub spec: NetworkSpec,
    /// It was up before, and nothing of it was missing.
    pub already: bool,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Brings a network of the config up.
pub fn up(site: &Site, config: &Config, name: &Name) -> Result<Raised> {
    let _lock = hold(site)?;
    let mut work = Work::new(site, Some(config))?;
    by_config(&mut work, config, name, &server::of(site))
}

/// The same, for a holder of the lock.
pub(super) fn by_config(work: &mut Work<'_>, config: &Config, name: &Name, server: &Server) -> Result<Raised> {
    let failed = || format!("cannot bring up network `{name}`");
    let network = config.network(name).ok_or_else(|| not_in_config(config, name))?;
    check_is_kept(work, network).map_err(|error| error.context(failed()))?;
    check_root(name)?;
    check_programs(network)?;
    let spec = plan(&mut work.store, network, &work.ovs).map_err(|error| error.context(failed()))?;
    let mut notes = Vec::new();
    if network.is_served() && !keep::has_ipv6()? {
        notes.push("this host has IPv6 switched off: the network has IPv4 alone".to_owned());
    }
    if let Some(before) = work.store.network(name)? {
        if before.state == NetworkState::GoingDown {
            down::finish(work, name)?;
        } else if before.spec != spec {
            match down::vms_on(work, &before.spec)? {
                vms if vms.is_empty() => down::finish(work, name)?,
                _ => {
                    notes.push("its config has changed, which takes effect once it has been down".to_owned());
                    let mut raised = raise(work, before.spec, server).map_err(|error| error.context(failed()))?;
                    raised.notes = notes;
                    return Ok(raised);
                }
            }
        }
    }
    let mut raised = raise(work, spec, server).map_err(|error| error.context(failed()))?;
    raised.notes.splice(0..0, notes);
    Ok(raised)
}

pub(super) fn not_in_config(config: &Config, name: &Name) -> Error {
    let error = Error::not_found(format!("there is no network `{name}`"));
    match crate::error::nearest(name.as_str(), config.networks.iter().map(|network| network.name.as_str())) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("`v network ls` lists them"),
    }
}

fn check_is_kept(work: &Work<'_>, network: &Network) -> Result<()> {
    if kept(work.site, &work.store, network, &work.ovs)? {
        return Ok(());
    }
    let name = &network.name;
    let why = match network.kind.switch() {
        None => "it is of type `user`: there is nothing to bring up".to_owned(),
        Some(_) => format!("its bridge `{}` is used as it is, and is somebody else's to make", network.bridge()),
    };
    Err(Error::refused(format!("network `{name}` is not Virshle's")).source(Error::failed(why)))
}

/// What is needed must be there before anything is made.
fn check_programs(network: &Network) -> Result<()> {
    keep::check_program().map_err(|error| error.context(format!("cannot bring up network `{}`", network.name)))?;
    let served = network.is_served();
    let needs = [
        ("nft", "nftables", served || network.kind.switch() == Some(crate::spec::Switch::Bridge)),
        ("dnsmasq", "dnsmasq-base, or dnsmasq where there is no such one", served),
    ];
    for (program, package, needed) in needs {
        if needed && find_program(program).is_none() {
            return Err(Error::failed(format!("cannot bring up network `{}`", network.name))
                .source(Error::failed(format!("`{program}` is not installed")))
                .hint(format!(
                    "install the package {package}; if it is there, see that /usr/sbin is in PATH (`su -`, not `su`)"
                )));
        }
    }
    Ok(())
}

/// Makes what is missing of a network. One that was not up before is up after it, or gone.
pub(super) fn raise(work: &mut Work<'_>, spec: NetworkSpec, server: &Server) -> Result<Raised> {
    let name = spec.name.clone();
    let before = work.store.network(&name)?;
    if before.is_none() {
        check_free(work, &spec)?;
    }
    let record = step("up", "recorded", || work.store.begin_network(&spec))?;
    let was_up = record.state == NetworkState::Up;
    match make(work, &record, server) {
        Ok((done, notes)) => Ok(Raised { spec, already: was_up && !done, notes }),
        Err(error) if was_up => Err(error),
        Err(error) => {
            if let Err(undo) = down::finish(work, &name) {
                tracing::warn!(network = %name, error = %undo.chain().join(": "), "not all of it could be undone");
            }
            Err(error)
        }
    }
}

/// What would be in the way of a network that is not recorded.
fn check_free(work: &Work<'_>, spec: &NetworkSpec) -> Result<()> {
    if keep::whose(&spec.bridge, spec.switch, &work.site.dirs.state, &work.ovs)? == Whose::Other {
        return Err(foreign(&spec.name, &spec.bridge));
    }
    check_routes(spec)?;
    keep::check_uplink(spec)
}

/// The steps; whether any of them had something to do that a person wants to hear of.
fn make(work: &mut Work<'_>, record: &NetworkRecord, server: &Server) -> Result<(bool, Vec<String>)> {
    let spec = &record.spec;
    let name = &spec.name;
    let state = work.site.dirs.state.clone();
    let mut notes = Vec::new();
    let was_there = keep::is_there(spec)?;
    step("up", "bridge", || {
        let ours = keep::whose(&spec.bridge, spec.switch, &state, &work.ovs)?;
        if ours == Whose::Other && !(record.made.bridge && keep::is_bare(spec)?) {
            return Err(foreign(name, &spec.bridge));
        }
        work.store.update_network(name, |record| {
            record.made.bridge = true;
            record.made.device = spec.vlan.is_some();
            Ok(())
        })?;
        keep::make_bridge(spec, &state, &work.ovs)?;
        keep::settle_device(&spec.device())
    })?;
    step("up", "addresses", || keep::give_addresses(spec))?;
    if spec.uplink.is_some() {
        step("up", "uplink", || {
            let was_down = keep::uplink_is_down(spec)?;
            work.store.update_network(name, |record| {
                // Again, after a kill, it would be what this made of it.
                if !std::mem::replace(&mut record.made.uplink, true) {
                    record.made.uplink_was_down = was_down;
                }
                Ok(())
            })?;
            keep::join_uplink(spec)
        })?;
    }
    step("up", "forwarding", || forwarding::switch_on(&mut work.store, spec))?;
    let mut mended = !was_there;
    if has_rules(spec) {
        mended |= step("up", "firewall", || {
            let were_there = firewall::is_there(&work.site.firewall_table())?;
            rewrite(work).map(|()| !were_there)
        })?;
    }
    if spec.host.is_some() {
        mended |= step("up", "server", || server::run(work, name, server))?;
        step("up", "zone", || {
            let zone = firewall::admit(spec)?;
            work.store.update_network(name, |record| {
                record.made.zone = zone;
                Ok(())
            })
        })?;
        step("up", "names", || {
            tell_all(work)?;
            // Without it the host does not know the names: no reason to have no network.
            if let Err(error) = names::announce(spec) {
                notes.push(format!("names of its VMs are not known to this host: {}", error.chain().join(": ")));
            }
            Ok(())
        })?;
    }
    step("up", "up", || {
        work.store.update_network(name, |record| {
            record.state = NetworkState::Up;
            Ok(())
        })
    })?;
    Ok((mended, notes))
}

/// Makes again what is missing of the networks that are recorded, and finishes what was cut short.
/// The config is not asked: what is up stays as it was made.
pub fn repair(site: &Site, config: Option<&Config>, name: &Name) -> Result<Raised> {
    let _lock = hold(site)?;
    let mut work = Work::new(site, config)?;
    let Some(record) = work.store.network(name)? else {
        let error = Error::refused(format!("network `{name}` is not up"));
        let theirs = config.and_then(|config| config.network(name)).is_some_and(|net| net.keeping() == Keeping::Theirs);
        return Err(match theirs {
            true => error.source(Error::failed("there is nothing of Virshle's in it to repair")),
            false => error.hint(format!("bring it up with `v network up {name}`")),
        });
    };
    check_root(name)?;
    if record.state == NetworkState::GoingDown {
        down::finish(&mut work, name)?;
        return Ok(Raised { spec: record.spec, already: false, notes: vec!["it was going down, and is".to_owned()] });
    }
    let raised = raise(&mut work, record.spec, &server::of(site));
    raised.map_err(|error| error.context(format!("cannot repair network `{name}`")))
}

/// [`repair`] of one that may have been put in order meanwhile: `false` then.
pub(in crate::vm) fn mend(site: &Site, name: &Name) -> Result<bool> {
    if site.store()?.network(name)?.is_none() {
        return Ok(false);
    }
    repair(site, site.config().ok().as_ref(), name).map(|_| true)
}
