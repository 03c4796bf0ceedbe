//! What several files say together, each entry still knowing where it stands.

use std::collections::HashMap;
use std::rc::Rc;

use super::declared::VmEntry;
use super::file::{Config, File, ImageEntry, Network, NodeEntry, Template};
use super::placed::Placed;
use super::rules;
use super::source::Source;
use crate::error::Result;
use crate::spec::Name;

pub(super) trait Named {
    fn name(&self) -> &Name;
}

impl Named for Network {
    fn name(&self) -> &Name {
        &self.name
    }
}

impl Named for ImageEntry {
    fn name(&self) -> &Name {
        &self.name
    }
}

impl Named for Template {
    fn name(&self) -> &Name {
        &self.name
    }
}

impl Named for VmEntry {
    fn name(&self) -> &Name {
        &self.name
    }
}

#[derive(Debug, Default)]
pub(super) struct Draft {
    node: NodeEntry,
    pub(super) networks: Vec<Placed<Network>>,
    pub(super) images: Vec<Placed<ImageEntry>>,
    pub(super) templates: Vec<Placed<Template>>,
    pub(super) vms: Vec<Placed<VmEntry>>,
}

impl Draft {
    /// Adds a file: its entries replace those of the same name, its `[node]` keys those it says.
    pub(super) fn add(&mut self, file: File, source: Source) -> Result<()> {
        let source = Rc::new(source);
        merge_node(&mut self.node, file.node, &source);
        merge(&mut self.networks, file.network, "network", &source)?;
        merge(&mut self.images, file.image, "image", &source)?;
        merge(&mut self.templates, file.template.vm, "template.vm", &source)?;
        merge(&mut self.vms, file.vm, "vm", &source)
    }

    /// The config that it comes to, if it is right.
    pub(super) fn into_config(self) -> Result<Config> {
        fn bare<T>(entries: Vec<Placed<T>>) -> Vec<T> {
            entries.into_iter().map(|placed| placed.entry).collect()
        }
        let vms = rules::check(&self)?;
        Ok(Config {
            node: self.node,
            networks: bare(self.networks),
            images: bare(self.images),
            templates: bare(self.templates),
            vms,
            missing: None,
        })
    }
}

fn merge<T: Named>(into: &mut Vec<Placed<T>>, entries: Vec<T>, key: &str, source: &Rc<Source>) -> Result<()> {
    let others: HashMap<Name, usize> =
        into.iter().enumerate().map(|(index, other)| (other.entry.name().clone(), index)).collect();
    let mut seen: HashMap<Name, String> = HashMap::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let path = format!("{key}[{index}]");
        let placed = Placed::new(entry, Rc::clone(source), path.clone());
        let name = placed.entry.name().clone();
        let other = others.get(&name);
        if let Some(first) = seen.insert(name.clone(), path) {
            let line = source.line_of(&format!("{first}.name"));
            return Err(placed
                .wrong("name", format_args!("is `{name}`, which `{first}` in line {line} has already"))
                .hint("rename one of the two; only a file of `config.d` replaces an entry of another file"));
        }
        match other {
            Some(other) => into[*other] = placed,
            None => into.push(placed),
        }
    }
    Ok(())
}

fn merge_node(into: &mut NodeEntry, from: NodeEntry, source: &Source) {
    fn take<T>(into: &mut T, from: T, said: bool) {
        if said {
            *into = from;
        }
    }
    let NodeEntry { hypervisor, accel, ovs_db, user, hosts_file, cloud_hypervisor, qemu } = from;
    let says = |key: &str| source.says(&format!("node.{key}"));
    take(&mut into.hypervisor, hypervisor, says("hypervisor"));
    take(&mut into.accel, accel, says("accel"));
    take(&mut into.ovs_db, ovs_db, says("ovs-db"));
    take(&mut into.user, user, says("user"));
    take(&mut into.hosts_file, hosts_file, says("hosts-file"));
    take(&mut into.cloud_hypervisor.program, cloud_hypervisor.program, says("cloud-hypervisor.program"));
    take(&mut into.cloud_hypervisor.firmware, cloud_hypervisor.firmware, says("cloud-hypervisor.firmware"));
    take(&mut into.qemu.program, qemu.program, says("qemu.program"));
    take(&mut into.qemu.firmware, qemu.firmware, says("qemu.firmware"));
    take(&mut into.qemu.vars, qemu.vars, says("qemu.vars"));
}
