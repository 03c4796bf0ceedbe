//! The NICs, by place. What a port lets through and what leads to it follows as it runs.

use ipnet::Ipv4Net;

use super::draft::Draft;
use super::text::{list, maybe, refused, shown, yes};
use crate::config::{DeclaredVm, Keeping, Network};
use crate::error::Result;
use crate::hypervisor::driver;
use crate::plan::change::{Change, Class, Field, NicField, Wishes};
use crate::plan::look::{Seen, Situation};
use crate::spec::{Address, Link, Mac, Nic, Subnet, Switch, VmSpec, ip6_of};
use crate::store::check_asked;
use crate::template::{self, PlannedNic, Settled};

pub(super) fn compare(draft: &mut Draft<'_>) -> Result<()> {
    let (spec, situation) = (draft.spec(), draft.situation);
    let wanted = template::nics(&situation.config, &draft.entry.template, &mut |network| {
        let kept = kept(spec, network);
        Ok(Settled { kept, ipv6: situation.ipv6, net6: situation.prefixes.get(&network.name).copied() })
    })?;
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

/// Why it cannot be: what it names as its MAC follows from another VM's uuid, and is given up for one that is
/// named alone.
pub(super) fn taken_mac(situation: &Situation, wishes: &Wishes, entry: &DeclaredVm) -> Option<Change> {
    let keeps = |seen: &&Seen, mac: Mac| {
        let spec = &seen.record.spec;
        let own = |nic: &&Nic| nic.mac == mac && Mac::of(spec.uuid, nic.index) == mac;
        let other = spec.name != entry.name && !seen.is_abandoned() && !wishes.replace.contains(&spec.name);
        let place = spec.nics.iter().find(own).filter(|_| other).map(|nic| usize::from(nic.index));
        let nets = situation.config.vm(&spec.name).filter(|_| place.is_some()).map(|vm| &vm.template.nets);
        let net = place.zip(nets).and_then(|(place, nets)| nets.get(place));
        net.is_some_and(|net| net.mac.is_none())
    };
    for (index, mac) in (0..).zip(&entry.template.nets).filter_map(|(index, net)| Some((index, net.mac?))) {
        if let Some(holder) = situation.seen.iter().find(|seen| keeps(seen, mac)).map(|seen| &seen.record.spec.name) {
            let why = format!("`{holder}` has the MAC `{mac}`, which follows from its uuid");
            let hint = format!("name another `mac` for this VM, or one for `{holder}`");
            return Some(refused(Field::Nic(index, NicField::Mac), why, hint));
        }
    }
    None
}

/// Who keeps a bridge that belongs to whoever made it first was seen when the VM was plugged in.
fn kept(spec: &VmSpec, network: &Network) -> bool {
    let nic = spec.nics.iter().find(|nic| nic.network == network.name);
    match nic.map(|nic| bridge(&nic.link)) {
        Some(Some((bridge, _, kept))) if network.keeping() == Keeping::OursIfFree && bridge == network.bridge() => kept,
        _ => Settled::by_config(network).kept,
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
    let moves = old.network != nic.network;
    // A MAC that nobody asks for is the one it has. Its own is given up by nobody: see `taken_mac`.
    let keeps = !moves && new.mac.is_none() && !draft.situation.config.names_mac(old.mac);
    let nic = Nic { mac: if keeps { old.mac } else { nic.mac }, ..nic };
    let fixed = old.link == Link::User && !driver(draft.spec().hypervisor).capabilities().resize.forwards;
    let mut row = |class, field, old_text: Option<String>, new_text: Option<String>| {
        old_text == new_text || draft.note(class, Field::Nic(old.index, field), old_text, new_text)
    };
    row(Class::Restart, NicField::Network, shown(&old.network), shown(&nic.network));
    row(Class::Restart, NicField::Type, shown(&kind(&old.link)), shown(&kind(&nic.link)));
    row(Class::Restart, NicField::Bridge, bridge_text(&old.link), bridge_text(&nic.link));
    row(Class::Restart, NicField::Mac, shown(&old.mac), shown(&nic.mac));
    row(Class::Restart, NicField::Mtu, maybe(&old.mtu), maybe(&nic.mtu));
    row(Class::Restart, NicField::Vlan, maybe(&old.vlan), maybe(&nic.vlan));
    // Another port has its own rules from its beginning.
    let anew = moves || old.link != nic.link;
    let class = if anew { Class::Restart } else { Class::Live };
    let ports = if fixed { Class::Restart } else { class };
    let forwards = row(ports, NicField::Ports, list(&old.forwards), list(&nic.forwards));
    let (before, after) = (old.guard.clone().unwrap_or_default(), nic.guard.clone().unwrap_or_default());
    let mut guard = row(class, NicField::Allow, list(&before.allow), list(&after.allow));
    guard &= row(class, NicField::Deny, list(&before.deny), list(&after.deny));
    guard &= row(class, NicField::Rate, maybe(&before.rate), maybe(&after.rate));
    guard &= row(class, NicField::Spoof, yes(&before.spoof), yes(&after.spoof));
    if draft.restarts() {
        return nic;
    }
    let mut kept = old.clone();
    if forwards {
        kept.forwards = nic.forwards;
    }
    if guard && !anew {
        kept.guard = nic.guard;
    }
    kept
}

/// The address it has, as long as it is one that it can have.
fn address(draft: &mut Draft<'_>, old: &Nic, new: &PlannedNic) -> Option<Address> {
    let config = &draft.situation.config;
    let stays = old.network == new.network;
    let fits = |address: &&Address| {
        let ip = address.ip.addr();
        let wanted =
            if config.names_address(&old.network, ip) { new.address == Some(ip) } else { new.address.is_none() };
        // The store keeps it by the same rule.
        let of = |subnet: &Subnet| check_asked(subnet, ip).is_ok();
        stays && wanted && new.subnet.as_ref().is_some_and(of)
    };
    let kept = old.address.as_ref().filter(fits).map(|address| address.ip.addr());
    let becomes = match (kept.or(new.address), &new.subnet) {
        (Some(ip), Some(subnet)) => Some(reached(
            &Address {
                ip6: subnet.net6.map(|net6| ip6_of(subnet.net, ip, net6)),
                domain: subnet.domain.clone(),
                ..Address::new(Ipv4Net::new_assert(ip, subnet.net.prefix_len()), subnet.gateway, subnet.dns.clone())
            },
            lacks_prefix(draft, new),
        )),
        (None, Some(subnet)) => Some(format!("one of {}", subnet.net)),
        (_, None) => None,
    };
    let was = old.address.as_ref().map(|was| reached(was, false));
    if was == becomes {
        return old.address.clone();
    }
    if stays || new.address.is_some() {
        let (was, becomes) = shortened(was, becomes);
        draft.note(Class::Restart, Field::Nic(old.index, NicField::Address), was, becomes);
    }
    None
}

/// Whether its IPv6 address will be in a /64 that is yet to be made up.
fn lacks_prefix(draft: &Draft<'_>, nic: &PlannedNic) -> bool {
    let network = draft.situation.config.network(&nic.network);
    // Every port of a network that Virshle keeps has a guard.
    draft.situation.ipv6
        && nic.guard.is_some()
        && nic.subnet.as_ref().is_some_and(|subnet| subnet.net6.is_none())
        && network.is_some_and(Network::needs_prefix6)
}

/// An address, and what is known with it, in the order of what a person looks for.
fn reached(address: &Address, lacks_prefix: bool) -> String {
    let gateway = address.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    let dns = list(&address.dns).map(|dns| format!(", dns {dns}")).unwrap_or_default();
    let ip6 = match address.ip6 {
        Some(ip6) => format!(", {ip6}"),
        None if lacks_prefix => ", one of a private /64".to_owned(),
        None => String::new(),
    };
    let domain = address.domain.as_ref().map(|domain| format!(", domain {domain}")).unwrap_or_default();
    format!("{}{gateway}{dns}{ip6}{domain}", address.ip)
}

/// The addresses alone, where they tell the two apart.
fn shortened(was: Option<String>, becomes: Option<String>) -> (Option<String>, Option<String>) {
    let short = |text: &Option<String>| {
        text.as_ref().map(|text| match text.starts_with("one of") {
            true => text.clone(),
            false => text.split('/').next().unwrap_or(text).to_owned(),
        })
    };
    match (short(&was), short(&becomes)) {
        (one, other) if one != other => (one, other),
        _ => (was, becomes),
    }
}
