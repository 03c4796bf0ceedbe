//! Random declared states: templates and VMs, all of which pass `v config check`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::{collection, option, sample};

pub const TEMPLATES: usize = 3;
const VMS: usize = 6;

/// What all states speak of, and none changes.
#[derive(Debug, Clone)]
pub struct Things {
    /// The config's beginning: the node.
    pub node: String,
    pub kernel: PathBuf,
    pub images: Vec<PathBuf>,
    pub user_data: Vec<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct State {
    mtu: Option<u16>,
    templates: Vec<Keys>,
    /// By number: `vm2`.
    pub vms: BTreeMap<usize, Vm>,
}

/// Two states, one after the other.
#[derive(Debug, Clone)]
pub struct Pair {
    pub a: State,
    pub b: State,
    /// How many VMs of both have in one what another of them has in the other.
    pub exchanged: usize,
}

#[derive(Debug, Clone)]
pub struct Vm {
    /// By whose number its NICs are told what is theirs alone.
    like: Option<usize>,
    template: usize,
    keys: Keys,
    pub running: &'static str,
    pub on_remove: &'static str,
    user_data: Option<usize>,
    nets: Vec<Net>,
}

/// What a template says, or a VM in its place.
#[derive(Debug, Clone, Default)]
struct Keys {
    scalars: Vec<(&'static str, &'static str)>,
    labels: BTreeMap<&'static str, &'static str>,
    disks: Vec<Disk>,
    nets: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct Disk {
    name: &'static str,
    /// Its number, and whether the guest may only read it.
    image: Option<(usize, Option<bool>)>,
    mib: u64,
}

/// Which of the VM's own addresses, MACs and ports it is told.
#[derive(Debug, Clone)]
struct Net {
    network: &'static str,
    address: Option<u8>,
    mac: Option<u8>,
    ports: Option<u8>,
    more: Option<&'static str>,
}

pub fn name(vm: usize) -> String {
    format!("vm{vm}")
}

/// Keys with the values that each may have. Every value fits every other.
const SCALARS: &[(&str, &[&str])] = &[
    ("vcpu", &["1", "2", "3"]),
    ("vcpu-max", &["4", "6"]),
    ("vram", &["\"64MiB\"", "\"192MiB\"", "\"320MiB\""]),
    ("vram-max", &["\"448MiB\""]),
    ("cmdline", &["\"quiet\"", "\"\""]),
    ("restart", &["\"no\"", "\"on-crash\"", "\"always\""]),
    ("watchdog", &["true", "false"]),
    ("stop-timeout", &["20", "30"]),
    ("autostart", &["true", "true\nautostart-order = 3", "true\nautostart-order = 1\nautostart-delay = 2"]),
];
/// These need a host that runs systemd, once the VM runs.
const LIMITS: &[(&str, &[&str])] = &[("limits.cpus", &["1.5", "2"]), ("limits.memory", &["\"1GiB\"", "\"2GiB\""])];
const NETWORKS: &[&str] = &["lan", "dmz"];
const MORE: &[&str] =
    &["allow = [\"tcp/22\"]", "deny = [\"out tcp/25\"]", "rate = \"100Mbit\"", "spoof = true", "spoof = false"];

/// `runs`: its VMs may run.
fn state(runs: bool) -> impl Strategy<Value = State> {
    let templates = collection::vec(template(runs), TEMPLATES);
    let vms = collection::btree_map(0..VMS, vm(runs), 0..=VMS);
    let mtu = option::weighted(0.2, sample::select(vec![1400, 9000]));
    (mtu, templates, vms).prop_map(|(mtu, templates, vms)| State { mtu, templates, vms })
}

/// Often with VMs that exchange their NICs with all that is named for them, in rings of two or three.
pub fn pair(runs: bool) -> impl Strategy<Value = Pair> {
    let ring = sample::select(vec![1, 2, 2, 3, 3]);
    (state(runs), state(runs), collection::vec(vm(runs), 2), ring).prop_map(|(mut a, mut b, more, ring)| {
        let exchanged = if ring > 1 { exchange(&mut a, &mut b, more, ring) } else { 0 };
        Pair { a, b, exchanged }
    })
}

/// `more`: those that are in both at least.
fn exchange(a: &mut State, b: &mut State, more: Vec<Vm>, ring: usize) -> usize {
    for (number, vm) in more.into_iter().enumerate() {
        a.vms.entry(number).or_insert(vm.clone());
        b.vms.entry(number).or_insert(vm);
    }
    let both: Vec<usize> = a.vms.keys().filter(|number| b.vms.contains_key(number)).copied().collect();
    for number in &both {
        let nets = &mut a.vms.get_mut(number).expect("it is in both").nets;
        if nets.is_empty() {
            nets.push(Net { network: NETWORKS[0], address: None, mac: None, ports: None, more: None });
        }
        nets[0].address.get_or_insert(0);
        nets[0].mac.get_or_insert(0);
    }
    for members in both.chunks(ring) {
        for (at, number) in members.iter().enumerate() {
            let other = members[(at + 1) % members.len()];
            let vm = b.vms.get_mut(number).expect("it is in both");
            (vm.like, vm.nets) = (Some(other), a.vms[&other].nets.clone());
        }
    }
    both.len()
}

fn template(runs: bool) -> impl Strategy<Value = Keys> {
    let nets = collection::vec(sample::select(NETWORKS), 0..=2);
    (keys(runs, 0.4), disks(), nets).prop_map(|(keys, disks, nets)| Keys { disks, nets, ..keys })
}

fn vm(runs: bool) -> impl Strategy<Value = Vm> {
    let running = match runs {
        true => vec!["true", "true", "true", "false", "\"leave\""],
        false => vec!["false", "\"leave\""],
    };
    // A protected one cannot be deleted when it is removed.
    let kept = sample::select(vec![("stop", false), ("keep", false), ("delete", false), ("stop", true)]);
    let net = (
        sample::select(NETWORKS),
        option::of(0_u8..2),
        option::weighted(0.3, 0_u8..2),
        option::of(0_u8..3),
        option::weighted(0.4, sample::select(MORE)),
    )
        .prop_map(|(network, address, mac, ports, more)| Net { network, address, mac, ports, more });
    (
        0..TEMPLATES,
        keys(runs, 0.1),
        disks(),
        sample::select(running),
        kept,
        option::weighted(0.3, 0_usize..2),
        collection::vec(net, 0..=2),
    )
        .prop_map(|(template, mut keys, disks, running, (on_remove, protect), user_data, nets)| {
            if protect {
                keys.scalars.push(("protect", "true"));
            }
            Vm { like: None, template, keys: Keys { disks, ..keys }, running, on_remove, user_data, nets }
        })
}

/// Each key is said with this probability.
fn keys(runs: bool, said: f64) -> impl Strategy<Value = Keys> {
    let menu = [SCALARS, if runs { &[] } else { LIMITS }].concat();
    let scalars: Vec<_> = menu
        .into_iter()
        .map(|(key, values)| option::weighted(said, sample::select(values)).prop_map(move |value| (key, value)))
        .collect();
    let labels = collection::btree_map(sample::select(vec!["role", "team"]), sample::select(vec!["a", "b c"]), 0..=2);
    (scalars, labels).prop_map(|(scalars, labels)| Keys {
        scalars: scalars.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
        labels,
        ..Keys::default()
    })
}

fn disks() -> impl Strategy<Value = Vec<Disk>> {
    let image = (0_usize..2, option::weighted(0.2, any::<bool>()));
    let disk = (option::of(image), 2_u64..5);
    collection::btree_map(sample::select(vec!["os", "data", "extra"]), disk, 0..=2).prop_map(|disks| {
        let disk = |(name, (image, mib))| Disk { name, image, mib };
        disks.into_iter().map(disk).collect()
    })
}

impl State {
    /// The whole config.
    pub fn config(&self, things: &Things) -> String {
        let mut text = things.node.clone();
        for (at, network) in NETWORKS.iter().enumerate() {
            let _ = writeln!(text, "[[network]]\nname = {network:?}\ntype = \"bridge\"\nbridge = \"vt{at}\"");
            let _ = writeln!(text, "subnet = \"10.{}.0.0/24\"\nsubnet6 = false", 44 + at);
            if let Some(mtu) = self.mtu {
                let _ = writeln!(text, "mtu = {mtu}");
            }
        }
        for (at, keys) in self.templates.iter().enumerate() {
            let _ = writeln!(text, "[[template.vm]]\nname = \"t{at}\"\nkernel = {:?}", things.kernel);
            for needed in [("vcpu", "1"), ("vram", "\"64MiB\"")] {
                if !keys.scalars.iter().any(|(key, _)| *key == needed.0) {
                    let _ = writeln!(text, "{} = {}", needed.0, needed.1);
                }
            }
            keys.write(&mut text, "template.vm", things);
            for network in &keys.nets {
                let _ = writeln!(text, "[[template.vm.net]]\nname = {network:?}");
            }
        }
        for (at, vm) in &self.vms {
            let _ = writeln!(text, "[[vm]]\nname = {:?}\ntemplate = \"t{}\"", name(*at), vm.template);
            let _ = writeln!(text, "running = {}\non-remove = {:?}", vm.running, vm.on_remove);
            if let Some(file) = vm.user_data {
                let _ = writeln!(text, "user-data = {:?}", things.user_data[file]);
            }
            vm.keys.write(&mut text, "vm", things);
            for (nic, net) in vm.nets.iter().enumerate() {
                let _ = writeln!(text, "[[vm.net]]\nname = {:?}", net.network);
                net.write(&mut text, vm.like.unwrap_or(*at), nic);
            }
        }
        text
    }
}

impl Keys {
    fn write(&self, text: &mut String, table: &str, things: &Things) {
        for (key, value) in &self.scalars {
            let _ = writeln!(text, "{key} = {value}");
        }
        for (key, value) in &self.labels {
            let _ = writeln!(text, "labels.{key} = {value:?}");
        }
        for disk in &self.disks {
            let _ = writeln!(text, "[[{table}.disk]]\nname = {:?}\nsize = \"{}MiB\"", disk.name, disk.mib);
            if let Some((image, readonly)) = disk.image {
                let _ = writeln!(text, "path = {:?}", things.images[image]);
                if let Some(readonly) = readonly {
                    let _ = writeln!(text, "readonly = {readonly}");
                }
            }
        }
    }
}

impl Net {
    /// No two VMs are ever told the same.
    fn write(&self, text: &mut String, vm: usize, nic: usize) {
        let at = NETWORKS.iter().position(|network| *network == self.network).expect("one of ours");
        if let Some(way) = self.address {
            let _ = writeln!(text, "address = \"10.{}.0.{}\"", 44 + at, 100 + 20 * nic + 2 * vm + usize::from(way));
        }
        if let Some(way) = self.mac {
            let _ = writeln!(text, "mac = \"52:54:00:{way:02x}:{nic:02x}:{vm:02x}\"");
        }
        match self.ports {
            Some(0) => *text += "ports = []\n",
            Some(way) => {
                let _ = writeln!(text, "ports = [\"{}:{way}\"]", 20_000 + 10 * vm + nic);
            }
            None => {}
        }
        if let Some(more) = self.more {
            let _ = writeln!(text, "{more}");
        }
    }
}
