use std::collections::HashMap;

use super::lines::{Lines, list, text};
use crate::config::{Config, LinkEntry, NetEntry, Template};
use crate::error::Result;
use crate::spec::{Link, Mac, Name, Nic, VmSpec};
use crate::template;

/// The template's come first, in its order; what it does not have comes after them.
pub(super) fn disks(lines: &mut Lines, config: &Config, spec: &VmSpec, below: &Template, tables: &str) -> Result<()> {
    let there = template::disks(config, below)?;
    let in_order =
        there.iter().enumerate().all(|(index, disk)| spec.disks.get(index).is_some_and(|is| is.name == disk.name));
    lines.unsaid |= !in_order;
    for (index, disk) in spec.disks.iter().enumerate() {
        let mut table = Lines::default();
        table.say("name", text(&disk.name));
        let named = table.text().len();
        let below = there.get(index);
        let source = below.and_then(|below| below.source.as_ref());
        match &disk.source {
            Some(path) if source != Some(path) => match config.images.iter().find(|image| image.path == *path) {
                Some(image) => table.say("image", text(&image.name)),
                None => table.say("path", text(path.display())),
            },
            None if source.is_some() => table.unsaid = true,
            _ => {}
        }
        table.maybe("size", disk.size, below.and_then(|below| below.size), text);
        table.value("readonly", disk.readonly, &below.is_some_and(|below| below.readonly), |on| on);
        lines.unsaid |= table.unsaid;
        if below.is_none() || table.text().len() > named {
            lines.table(&format!("{tables}disk"), &table);
        }
    }
    Ok(())
}

/// The k-th of a network lies over the template's k-th of that network.
pub(super) fn nets(lines: &mut Lines, config: &Config, spec: &VmSpec, below: &Template, tables: &str) {
    let in_order =
        below.nets.iter().enumerate().all(|(index, net)| spec.nics.get(index).is_some_and(|is| is.network == net.name));
    lines.unsaid |= !in_order;
    // Those that say something, and those that must be there for a later one of their network to be met.
    let said: Vec<(Lines, bool)> =
        spec.nics.iter().enumerate().map(|(index, nic)| net(config, spec, nic, below.nets.get(index))).collect();
    let mut last: HashMap<&Name, usize> = HashMap::new();
    for (index, (nic, (_, says))) in spec.nics.iter().zip(&said).enumerate() {
        if *says {
            last.insert(&nic.network, index);
        }
    }
    for (index, (nic, (table, _))) in spec.nics.iter().zip(&said).enumerate() {
        lines.unsaid |= table.unsaid;
        if last.get(&nic.network).is_some_and(|last| index <= *last) {
            lines.table(&format!("{tables}net"), table);
        }
    }
}

/// What one says, and whether that is more than what is there without it.
fn net(config: &Config, spec: &VmSpec, nic: &Nic, below: Option<&NetEntry>) -> (Lines, bool) {
    let mut table = Lines::default();
    table.say("name", text(&nic.network));
    let named = table.text().len();
    let link = match nic.link {
        Link::Vhost { .. } => LinkEntry::Vhost,
        Link::Tap { .. } => LinkEntry::Tap,
        Link::User => LinkEntry::User,
    };
    let usual = match below {
        Some(below) => config.link(below),
        None => config.network(&nic.network).map(|network| network.kind.default_link()),
    };
    table.maybe("type", Some(link), usual, LinkEntry::as_str);
    // An address that nobody named stays the VM's as long as nobody names another.
    let asked = below.and_then(|below| below.address);
    let address = nic.address.as_ref().map(|address| address.ip.addr());
    if asked.is_some() {
        table.maybe("address", address, asked, text);
    }
    let own = below.and_then(|below| below.mac).unwrap_or_else(|| Mac::of(spec.uuid, nic.index));
    table.value("mac", nic.mac, &own, text);
    let guard = nic.guard.clone().unwrap_or_default();
    let (ports, allow, deny) =
        below.map_or_else(Default::default, |net| (&net.ports[..], &net.allow[..], &net.deny[..]));
    table.value("ports", nic.forwards.as_slice(), &ports, list);
    table.value("allow", guard.allow.as_slice(), &allow, list);
    table.value("deny", guard.deny.as_slice(), &deny, list);
    table.maybe("rate", guard.rate, below.and_then(|net| net.rate), text);
    table.value("spoof", guard.spoof, &below.and_then(|net| net.spoof).unwrap_or_default(), |on| on);
    let says = below.is_none() || table.text().len() > named;
    (table, says)
}
