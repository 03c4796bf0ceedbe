//! Any VM that was made as the config says is as it should be, and any becomes any other.

use std::collections::BTreeSet;

use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::config::{Config, DeclaredVm, Running, Template, of_text};
use crate::plan::model::Model;
use crate::plan::{Class, Field, Need, Wishes};
use crate::spec::{Mac, Name, OnRemove, VmSpec};

const NETWORKS: &str = r#"
[[network]]
name = "main"
type = "bridge"
bridge = "vbr0"
subnet = "10.44.0.0/24"

[[network]]
name = "ovs"
bridge = "vsbr0"
subnet = "10.45.0.0/24"
vlan = 5
mtu = 1400

[[network]]
name = "slirp"
type = "user"
"#;

/// One key in a template, or none.
fn key(name: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = String> {
    option::of(select(values))
        .prop_map(move |value| value.map_or_else(String::new, |value| format!("{name} = {value}\n")))
}

fn disks() -> impl Strategy<Value = String> {
    let disk = |name: &'static str| {
        let cloned =
            (select(vec!["a", "b"]), option::of(1..4u32), any::<bool>()).prop_map(|(source, size, readonly)| {
                let size = size.map_or_else(String::new, |size| format!(", size = {size}"));
                format!("path = '/{source}'{size}, readonly = {readonly}")
            });
        let blank = (1..4u32).prop_map(|size| format!("size = {size}"));
        prop_oneof![cloned, blank].prop_map(move |rest| format!("{{ name = '{name}', {rest} }}"))
    };
    (disk("os"), disk("data"), disk("log"))
        .prop_flat_map(|(a, b, c)| subsequence(vec![a, b, c], 1..=3).prop_shuffle())
        .prop_map(|disks| format!("disk = [{}]\n", disks.join(", ")))
}

fn nets() -> impl Strategy<Value = String> {
    let kept = |network: &'static str, types: &'static [&'static str]| {
        let rest = (
            select(types),
            select(vec!["", ", ports = ['80:80']", ", ports = ['80:80', '53:53/udp']"]),
            select(vec!["", ", allow = ['tcp/22']", ", deny = ['any from 192.0.2.7'], spoof = true"]),
            select(vec!["", ", rate = '1Gbit'"]),
            select(vec!["", ", mac = '02:00:00:00:00:01'"]),
        );
        rest.prop_map(move |(kind, ports, rules, rate, mac)| {
            format!("{{ name = '{network}', type = '{kind}'{ports}{rules}{rate}{mac} }}")
        })
    };
    let user = select(vec!["", ", ports = ['8080:80']"]).prop_map(|ports| format!("{{ name = 'slirp'{ports} }}"));
    let nic = prop_oneof![kept("main", &["tap"]), kept("ovs", &["vhost", "tap"]), user];
    // Two at most with the same MAC or port are more than the rules allow.
    option::of(nic).prop_map(|nic| format!("net = [{}]\n", nic.unwrap_or_default()))
}

fn sizes() -> impl Strategy<Value = String> {
    (1..4u32, 0..4u32, 1..4u64, 0..4u64, any::<bool>()).prop_map(|(vcpu, more_vcpu, vram, more_vram, limited)| {
        let vcpu_max = if more_vcpu > 0 { format!("vcpu-max = {}\n", vcpu + more_vcpu) } else { String::new() };
        let vram_max = if more_vram > 0 { format!("vram-max = {}\n", vram + more_vram) } else { String::new() };
        let limit = if limited { format!("limits.memory = {}\n", vram + 1) } else { String::new() };
        format!("vcpu = {vcpu}\nvram = {vram}\n{vcpu_max}{vram_max}{limit}")
    })
}

fn boot() -> impl Strategy<Value = String> {
    select(vec![
        "",
        "firmware = '/fw/a'\n",
        "firmware = '/fw/b'\n",
        "kernel = '/k/a'\n",
        "kernel = '/k/b'\ninitramfs = '/k/i'\ncmdline = 'quiet'\n",
    ])
    .prop_map(str::to_owned)
}

fn policy() -> impl Strategy<Value = String> {
    (
        key("restart", &["'on-crash'", "'always'"]),
        key("watchdog", &["true"]),
        select(vec!["", "autostart = true\n", "autostart = true\nautostart-order = 5\n"]),
        key("limits.cpus", &["0.5", "2"]),
        key("stop-timeout", &["5", "300"]),
        key("labels.role", &["''", "'db'"]),
    )
        .prop_map(|(restart, watchdog, autostart, cpus, timeout, labels)| {
            format!("{restart}{watchdog}{autostart}{cpus}{timeout}{labels}")
        })
}

fn entry() -> impl Strategy<Value = DeclaredVm> {
    let hypervisor = key("hypervisor", &["'auto'", "'qemu'", "'cloud-hypervisor'"]);
    let template = (select(vec!["xs", "s"]), sizes(), hypervisor, boot(), policy(), disks(), nets());
    let running = select(vec![Running::Yes, Running::No, Running::Leave]);
    let user_data = subsequence(vec!["/u/a".into(), "/u/b".into()], 0..=2);
    let on_remove = select(vec![OnRemove::Stop, OnRemove::Keep, OnRemove::Delete]);
    (template, running, on_remove, user_data).prop_map(|(template, running, on_remove, user_data)| {
        let (name, sizes, hypervisor, boot, policy, disks, nets) = template;
        let text = format!("name = '{name}'\n{sizes}{hypervisor}{boot}{policy}{disks}{nets}");
        let template: Template = toml::from_str(&text).expect(&text);
        DeclaredVm { name: "web".parse().unwrap(), template, running, on_remove, user_data }
    })
}

fn config(vms: Vec<DeclaredVm>) -> Config {
    Config { vms, ..of_text(NETWORKS).unwrap() }
}

fn made(entry: &DeclaredVm) -> Model {
    let mut model = Model::new(config(vec![entry.clone()]));
    model.apply(&model.plan(&Wishes::default()));
    model
}

/// Without what only its past decides: addresses and MACs that nobody asks for, a size that nobody says.
fn settled(model: &mut Model, entry: &DeclaredVm) -> VmSpec {
    let mut spec = model.seen("web").record.spec.clone();
    for (nic, net) in spec.nics.iter_mut().zip(&entry.template.nets) {
        nic.address = nic.address.take().filter(|_| net.address.is_some());
        nic.mac = net.mac.unwrap_or(Mac::of(spec.uuid, nic.index));
    }
    for (disk, entry) in spec.disks.iter_mut().zip(&entry.template.disks) {
        disk.size = disk.size.filter(|_| entry.size.is_some());
    }
    spec
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_vm_that_was_made_as_it_is_declared_is_left_alone(entry in entry()) {
        let plan = made(&entry).plan(&Wishes::default());
        prop_assert!(plan.items.is_empty(), "{plan:#?}");
        // Nor is one that was made by hand and is taken in, but for being taken in.
        let mut model = made(&entry);
        model.seen("web").record.declared = None;
        let wishes = Wishes { adopt: BTreeSet::from([entry.name.clone()]), ..Wishes::default() };
        let plan = model.plan(&wishes);
        prop_assert_eq!(plan.lines().count(), 1, "{:#?}", plan);
        model.apply(&plan);
        let plan = model.plan(&Wishes::default());
        prop_assert!(plan.items.is_empty(), "{plan:#?}");
    }

    /// What needs nothing, then what needs a restart, then what loses data: after each step only
    /// what waits is left, and in the end the VM is as if it had been made so.
    #[test]
    fn any_vm_becomes_any_other(from in entry(), to in entry()) {
        let mut model = made(&from);
        let steady = |name: &Name| BTreeSet::from([name.clone()]);
        model.configure(config(vec![to.clone()]));
        model.apply(&model.plan(&Wishes::default()));
        let plan = model.plan(&Wishes::default());
        prop_assert!(plan.lines().all(|(_, change)| change.needs.is_some()), "{plan:#?}");

        let restart = Wishes { restart: true, ..Wishes::default() };
        model.apply(&model.plan(&restart));
        let plan = model.plan(&restart);
        let waits = |need: &Option<Need>| matches!(need, Some(Need::Replace(_)));
        prop_assert!(plan.lines().all(|(_, change)| change.class == Class::Replace && waits(&change.needs)), "{plan:#?}");
        let kept = plan.items.is_empty();
        if !kept {
            model.apply(&model.plan(&Wishes { replace: steady(&to.name), ..Wishes::default() }));
        }
        let plan = model.plan(&Wishes::default());
        prop_assert!(plan.items.is_empty(), "{plan:#?}");
        prop_assert_eq!(model.seen("web").state.is_live(), match to.running {
            Running::Yes => true,
            Running::No => false,
            Running::Leave => from.running == Running::Yes,
        });
        if kept {
            prop_assert_eq!(settled(&mut model, &to), settled(&mut made(&to), &to));
        }
    }

    #[test]
    fn what_is_declared_no_more_goes_as_it_was_declared(entry in entry()) {
        let mut model = made(&entry);
        let lived = model.seen("web").state.is_live();
        model.configure(config(Vec::new()));
        model.apply(&model.plan(&Wishes::default()));
        prop_assert_eq!(model.situation.seen.is_empty(), entry.on_remove == OnRemove::Delete);
        if let Some(seen) = model.situation.seen.first() {
            prop_assert_eq!(seen.state.is_live(), lived && entry.on_remove == OnRemove::Keep);
        }
        prop_assert!(model.plan(&Wishes::default()).items.is_empty());
        // It may come back, as it is.
        model.configure(config(vec![entry.clone()]));
        model.apply(&model.plan(&Wishes::default()));
        prop_assert!(model.plan(&Wishes::default()).items.is_empty());
    }
}

/// No VM is given the address of a name server. One that has it keeps it.
#[test]
fn a_vm_that_is_the_name_server_is_left_alone() {
    let text = format!("name = 'xs'\nvcpu = 1\nvram = 1\nnet = [{{ name = 'main' }}]\n{DISK}");
    let networks =
        "[[network]]\nname = 'main'\ntype = 'bridge'\nsubnet = '10.44.0.0/24'\nuplink = 'eth0'\ndns = ['10.44.0.2']";
    let mut model = Model::new(Config { vms: vec![declared(&text)], ..of_text(networks).unwrap() });
    model.apply(&model.plan(&Wishes::default()));
    let address = model.seen("web").record.spec.nics[0].address.clone();
    assert_eq!(address.unwrap().ip.addr().to_string(), "10.44.0.2");
    let plan = model.plan(&Wishes::default());
    assert!(plan.items.is_empty(), "{plan:#?}");
}

/// Done live it would come before the restart that gives the guest less.
#[test]
fn a_limit_that_the_guest_is_above_comes_with_its_restart() {
    let vm = |vram, limit| declared(&format!("name = 'xs'\nvcpu = 1\nvram = {vram}\nlimits.memory = {limit}\n{DISK}"));
    let mut model = made(&vm(4, 5));
    for (vram, limit, class) in
        [(2, 3, Class::Restart), (2, 4, Class::Restart), (4, 6, Class::Live), (6, 7, Class::Live)]
    {
        model.configure(config(vec![vm(vram, limit)]));
        for restart in [false, true] {
            let plan = model.plan(&Wishes { restart, ..Wishes::default() });
            let change = plan.lines().map(|(_, change)| change).find(|change| change.field == Field::LimitMemory);
            assert_eq!(change.unwrap().class, class, "{vram} {limit} {restart}");
        }
    }
}

const DISK: &str = "disk = [{ name = 'os', path = '/a' }]\n";

fn declared(template: &str) -> DeclaredVm {
    let template: Template = toml::from_str(template).expect(template);
    let (name, user_data) = ("web".parse().unwrap(), Vec::new());
    DeclaredVm { name, template, running: Running::Yes, on_remove: OnRemove::Stop, user_data }
}
