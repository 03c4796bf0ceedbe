//! The NICs, by place. What a port lets through and what leads to it follows as it runs.

use super::draft::Draft;
use super::text::{list, maybe, shown, yes};
use crate::config::{Keeping, Network};
use crate::error::Result;
use crate::hypervisor::driver;
use crate::plan::change::{Class, Field, NicField};
use crate::spec::{Address, Forward, Guard, Link, Nic, Switch, VmSpec};
use crate::template::{self, PlannedNic, Settled};

pub(super) fn compare(draft: &mut Draft<'_>) -> Result<()> {
    let spec = draft.spec();
    let wanted =
        template::nics(&draft.situation.config, &draft.entry.template, &mut |network| Ok(settled(spec, network)))?;
    let mut nics = Vec::new();
    for index in 0..=u8::MAX {
        let place = usize::from(index);
        let whole = Field::Nic(index, NicField::Whole);
        match (spec.nics.get(place), wanted.get(place)) {
            (None, None) => break,
            (None, Some(new)) => {
                let nic = new.nic(spec.uuid, index, None);
                if draft.note(Class::Restart, whole, None, Some(new.network.to_string())) {
                    nics.push(nic);
                }
            }
            (Some(old), None) => {
                if !draft.note(Class::Restart, whole, Some(old.network.to_string()), None) {
                    nics.push(old.clone());
                }
            }
            (Some(old), Some(new)) => nics.push(one(draft, old, new)),
        }
    }
    draft.target.nics = nics;
    Ok(())
}

/// Who keeps a bridge that belongs to whoever made it first was seen when the VM was plugged in.
fn settled(spec: &VmSpec, network: &Network) -> Settled {
    let by_config = Settled::by_config(network);
    let nic = spec.nics.iter().find(|nic| nic.network == network.name);
    match nic.map(|nic| bridge(&nic.link)) {
        Some(Some((bridge, _, kept))) if network.keeping() == Keeping::OursIfFree && bridge == network.bridge() => {
            Settled { kept, ..by_config }
        }
        _ => by_config,
    }
}

/// What a link is plugged into, and whether Virshle keeps that.
fn bridge(link: &Link) -> Option<(&str, Switch, bool)> {
    match link {
        Link::Vhost { bridge, create } => Some((bridge, Switch::Ovs, *create)),
        Link::Tap { bridge, switch, create } => Some((bridge, *switch, *create)),
        Link::User => None,
    }
}

fn kind(link: &Link) -> &'static str {
    match link {
        Link::Vhost { .. } => "vhost",
        Link::Tap { .. } => "tap",
        Link::User => "user",
    }
}

fn bridge_text(link: &Link) -> Option<String> {
    let (bridge, switch, kept) = bridge(link)?;
    let switch = match switch {
        Switch::Ovs => "Open vSwitch",
        Switch::Bridge => "Linux",
    };
    Some(format!("{bridge} ({switch}{})", if kept { "" } else { ", somebody else's" }))
}

/// What one that stays comes to now.
fn one(draft: &mut Draft<'_>, old: &Nic, new: &PlannedNic) -> Nic {
    let address = address(draft, old, new);
    let nic = new.nic(draft.spec().uuid, old.index, address);
    let field = |field| Field::Nic(old.index, field);
    let mut row = |class, name, old: Option<String>, new: Option<String>| {
        if old != new {
            draft.note(class, field(name), old, new);
        }
    };
    row(Class::Restart, NicField::Network, shown(&old.network), shown(&nic.network));
    row(Class::Restart, NicField::Type, shown(&kind(&old.link)), shown(&kind(&nic.link)));
    row(Class::Restart, NicField::Bridge, bridge_text(&old.link), bridge_text(&nic.link));
    row(Class::Restart, NicField::Mac, shown(&old.mac), shown(&nic.mac));
    row(Class::Restart, NicField::Mtu, maybe(&old.mtu), maybe(&nic.mtu));
    row(Class::Restart, NicField::Vlan, maybe(&old.vlan), maybe(&nic.vlan));
    // Another port has its own rules from its beginning.
    let anew = old.network != nic.network || old.link != nic.link;
    let guards = if anew { Class::Restart } else { Class::Live };
    let fixed = old.link == Link::User && !driver(draft.spec().hypervisor).capabilities().resize.forwards;
    let forwards = if fixed { Class::Restart } else { guards };
    let mut row = |class, name, old: Option<String>, new: Option<String>| {
        if old != new {
            draft.note(class, field(name), old, new);
        }
    };
    row(forwards, NicField::Ports, list(&old.forwards), list(&nic.forwards));
    let (before, after) = (old.guard.clone().unwrap_or_default(), nic.guard.clone().unwrap_or_default());
    row(guards, NicField::Allow, list(&before.allow), list(&after.allow));
    row(guards, NicField::Deny, list(&before.deny), list(&after.deny));
    row(guards, NicField::Rate, maybe(&before.rate), maybe(&after.rate));
    row(guards, NicField::Spoof, yes(&before.spoof), yes(&after.spoof));
    if draft.restarts() {
        return nic;
    }
    let live_guard: Option<Guard> = if anew { old.guard.clone() } else { nic.guard };
    let live_forwards: Vec<Forward> = if anew || fixed { old.forwards.clone() } else { nic.forwards };
    Nic { guard: live_guard, forwards: live_forwards, ..old.clone() }
}

/// The address it has, as long as it is one that it should have.
fn address(draft: &mut Draft<'_>, old: &Nic, new: &PlannedNic) -> Option<Address> {
    let has = old.address.as_ref().filter(|_| old.network == new.network);
    let fits = |address: &&Address| {
        let subnet = new.subnet.as_ref().is_some_and(|subnet| {
            subnet.net.contains(&address.ip.addr()) && subnet.net.prefix_len() == address.ip.prefix_len()
        });
        subnet && new.address.is_none_or(|asked| asked == address.ip.addr())
    };
    if let Some(kept) = has.filter(fits) {
        return Some(kept.clone());
    }
    let was = old.address.as_ref().map(|address| address.ip.addr().to_string());
    let becomes = match (new.address, &new.subnet) {
        (Some(asked), _) => Some(asked.to_string()),
        (None, Some(subnet)) => Some(format!("one of {}", subnet.net)),
        (None, None) => None,
    };
    if was != becomes && (old.network == new.network || new.address.is_some()) {
        draft.note(Class::Restart, Field::Nic(old.index, NicField::Address), was, becomes);
    }
    None
}
