//! `[[vm]]`: each as what it comes to with its template, and all of them beside each other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;

use super::super::declared::{DeclaredVm, VmEntry};
use super::super::draft::Draft;
use super::super::file::{NetEntry, Template};
use super::super::overlay;
use super::super::placed::Placed;
use super::{meant, template};
use crate::error::Result;
use crate::spec::{Forward, Mac, Name, OnRemove, Protocol};

pub(super) fn check_all(draft: &Draft) -> Result<Vec<DeclaredVm>> {
    let templates: HashMap<&Name, &Placed<Template>> =
        draft.templates.iter().map(|template| (&template.entry.name, template)).collect();
    let mut taken = Taken::default();
    let mut vms = Vec::with_capacity(draft.vms.len());
    for vm in &draft.vms {
        let named = &vm.entry.template;
        let template = templates.get(named).ok_or_else(|| {
            vm.wrong("template", format_args!("is `{named}`, and there is no such `[[template.vm]]`")).hint(meant(
                named,
                &draft.templates,
                "a `[[template.vm]]`",
            ))
        })?;
        let effective = overlay::lay(vm, template)?;
        template::check(&effective, draft)?;
        check_removal(vm, effective.entry.protect)?;
        taken.add(&vm.entry.name, &effective)?;
        vms.push(overlay::declared(&vm.entry, effective.entry));
    }
    Ok(vms)
}

fn check_removal(vm: &Placed<VmEntry>, protect: bool) -> Result<()> {
    if vm.entry.on_remove != OnRemove::Delete || !protect {
        return Ok(());
    }
    Err(vm
        .wrong("on-remove", "is `delete` for a VM that cannot be deleted (`protect = true`)")
        .hint("write `on-remove = \"stop\"`, or `protect = false`"))
}

/// What one VM alone can have.
#[derive(Default)]
struct Taken<'a> {
    macs: HashMap<Mac, &'a Name>,
    /// By network: in another one the same address is another's.
    addresses: HashMap<(Name, Ipv4Addr), &'a Name>,
    ports: HashMap<(Protocol, u16), Vec<(&'a Name, Forward)>>,
}

impl<'a> Taken<'a> {
    fn add(&mut self, vm: &'a Name, effective: &Placed<Template>) -> Result<()> {
        let nets = &effective.entry.nets;
        nets.iter().enumerate().try_for_each(|(index, net)| self.add_net(vm, effective, index, net))
    }

    fn add_net(&mut self, vm: &'a Name, effective: &Placed<Template>, index: usize, net: &NetEntry) -> Result<()> {
        let key = |key: &str| format!("net[{index}].{key}");
        if let Some(mac) = net.mac
            && let Some(other) = put(&mut self.macs, mac, vm)
        {
            return Err(effective
                .wrong(&key("mac"), format_args!("is `{mac}`, which the VM `{other}` has already"))
                .hint("give each VM its own, or none: one that follows from the VM is taken then"));
        }
        if let Some(address) = net.address
            && let Some(other) = put(&mut self.addresses, (net.name.clone(), address), vm)
        {
            return Err(effective
                .wrong(&key("address"), format_args!("is `{address}`, which the VM `{other}` has already"))
                .hint("give each VM its own, or none: a free one is taken then"));
        }
        for port in &net.ports {
            let others = self.ports.entry((port.protocol, port.host_port)).or_default();
            if let Some((other, theirs)) = others.iter().find(|(_, theirs)| theirs.clashes(port)) {
                let what =
                    format_args!("has `{port}`, and the VM `{other}` has `{theirs}`, at the same port of the host");
                return Err(effective
                    .wrong(&key("ports"), what)
                    .hint("give each VM its own; `ports = []` in a VM takes its template's away"));
            }
            others.push((vm, port.clone()));
        }
        Ok(())
    }
}

/// Takes it, or says who has it already.
fn put<'a, K: std::hash::Hash + Eq>(taken: &mut HashMap<K, &'a Name>, what: K, vm: &'a Name) -> Option<&'a Name> {
    match taken.entry(what) {
        Entry::Occupied(other) => Some(other.get()),
        Entry::Vacant(free) => {
            free.insert(vm);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use crate::config::load::of_text;
    use crate::config::{HypervisorSetting, Running};
    use crate::spec::{OnRemove, Restart, Size};

    /// The template in line 3, its disk in line 4 and its NICs in line 5.
    const TEMPLATE: &str = "\
        image = [{ name = 'debian', path = 'd.raw' }]
        network = [{ name = 'lan', subnet = '10.44.0.0/24' }, { name = 'slirp', type = 'user' }]
        template.vm = [{ name = 'xs', vcpu = 1, vram = 2, vcpu-max = 2, autostart = true, autostart-order = 5, cmdline = 'quiet', kernel = 'k',
            limits = { cpus = 1, memory = 3 }, stop-timeout = 30, disk = [{ name = 'os', path = 'os.raw', size = 10 }],
            net = [{ name = 'lan', mac = '02:00:00:00:00:01', ports = ['8080:80'] }, { name = 'slirp' }] }]\n";

    /// One VM in line 6.
    fn vm(rest: &str) -> String {
        vms(&[&format!("name = 'db'{}{rest}", if rest.is_empty() { "" } else { ", " })])
    }

    fn vms(list: &[&str]) -> String {
        let list: Vec<String> = list.iter().map(|vm| format!("{{ template = 'xs', {vm} }}")).collect();
        format!("{TEMPLATE}vm = [{}]", list.join(",\n"))
    }

    #[test]
    fn what_a_vm_may_say() {
        let config = of_text(&vm("")).unwrap();
        let db = config.vm(&"db".parse().unwrap()).unwrap();
        assert_eq!(db.template, config.templates[0]);
        assert_eq!((db.running, db.on_remove, db.user_data.len()), (Running::Yes, OnRemove::Stop, 0));
        let config = of_text(&vm(
            "running = 'leave', on-remove = 'delete', hypervisor = 'qemu', restart = 'always', vram = '2.5G', user-data = 'a'",
        ));
        let db = &config.unwrap().vms[0];
        assert_eq!((db.running, db.on_remove), (Running::Leave, OnRemove::Delete));
        assert_eq!(db.template.hypervisor, Some(HypervisorSetting::Qemu));
        assert_eq!((db.template.restart, db.template.vram), (Restart::Always, Size::mib(2560)));
        for text in [
            vms(&["name = 'a'", "name = 'b', net = [{ name = 'lan', mac = '02:00:00:00:00:02', ports = [] }]"]),
            vms(&["name = 'a', on-remove = 'keep', protect = true"]),
            vms(&["name = 'a', running = false, autostart = false, firmware = 'f'"]),
            // The same address in two networks, and the same port of two of the host's addresses.
            "template.vm = [{ name = 'xs', vcpu = 1, vram = 2, kernel = 'k' }]
            [[network]]
            name = 'a'
            bridge = 'x'
            subnet = '10.0.0.0/24'
            create = false
            [[network]]
            name = 'b'
            bridge = 'y'
            subnet = '10.0.0.0/24'
            create = false
            [[network]]
            name = 'u'
            type = 'user'
            [[vm]]
            name = 'a'
            template = 'xs'
            net = [{ name = 'a', address = '10.0.0.5' }, { name = 'u', ports = ['127.0.0.1:80:80'] }]
            [[vm]]
            name = 'b'
            template = 'xs'
            net = [{ name = 'b', address = '10.0.0.5' }, { name = 'u', ports = ['127.0.0.2:80:80', '80:80/udp'] }]"
                .to_owned(),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }

    #[test]
    fn what_is_wrong_with_a_vm_is_told_where_it_is_said() {
        run([
            (
                vm("").replace("'xs', name", "'sx', name"),
                "line 6, column 20: `vm[0].template` is `sx`",
                "did you mean `xs`?",
            ),
            (
                "vm = [{ name = 'db', template = 'xs' }]".into(),
                "line 1, column 33: `vm[0].template` is `xs`",
                "add a `[[template.vm]]`",
            ),
            (
                vms(&["name = 'a'", "name = 'a'"]),
                "line 7, column 27: `vm[1].name` is `a`, which `vm[0]` in line 6 has already",
                "rename",
            ),
            (
                vm("").replace("'xs', name", "'db', name"),
                "`vm[0].template` is `db`, and there is no such",
                "there are `xs`",
            ),
            (vm("vcpu = 256"), "line 6, column 46: `vm[0].vcpu` must be from 1 to 255", ""),
            (vm("vcpu-max = 300"), "`vm[0].vcpu-max` must be from 1 to 255, not `300`", ""),
            (vm("vram = '15M'"), "`vm[0].vram` must be from 16MiB", ""),
            (
                vm("vram-max = 1"),
                "`vm[0].vram-max` is 1GiB, and must be the `vram` of 2GiB, or more by a multiple of 128MiB",
                "",
            ),
            (vm("vram-max = '2100M'"), "or more by a multiple of 128MiB", ""),
            (vm("stop-timeout = 0"), "`vm[0].stop-timeout` must be from 1", ""),
            (vm("autostart-delay = 100000"), "`vm[0].autostart-delay` must be at most", ""),
            (
                vm("autostart = false, autostart-order = 1"),
                "`vm[0].autostart-order` is set for a VM that is not started",
                "",
            ),
            (vm("kernel = 'k', firmware = 'f'"), "`vm[0].firmware` is set together with `kernel`", ""),
            (vm("firmware = 'f', cmdline = 'c'"), "`vm[0].cmdline` is set without a `kernel`", ""),
            (
                vm("limits = { memory = 1 }"),
                "line 6, column 59: `vm[0].limits.memory` is 1GiB, and the guest alone",
                "",
            ),
            (
                vm("on-remove = 'delete', protect = true"),
                "line 6, column 51: `vm[0].on-remove` is `delete` for a VM that cannot be deleted",
                "`protect = false`",
            ),
            (
                vm("disk = [{ name = 'data' }]"),
                "line 6, column 47: `vm[0].disk[0]` has no `path`, no `image` and no `size`",
                "",
            ),
            (vm("disk = [{ name = 'seed', size = 1 }]"), "`vm[0].disk[0].name` is `seed`", ""),
            (vm("disk = [{ name = 'os' }, { name = 'os' }]"), "`vm[0].disk[1]` has no `path`", ""),
            (
                vm("disk = [{ name = 'os' }, { name = 'os', size = 1 }]"),
                "`vm[0].disk[1].name` is `os`, the name of another disk",
                "",
            ),
            (
                vm("disk = [{ name = 'os', image = 'debain' }]"),
                "`vm[0].disk[0].image` is `debain`",
                "did you mean `debian`?",
            ),
            (
                vm("disk = [{ name = 'os', image = 'debian', path = 'x' }]"),
                "`vm[0].disk[0].image` is set together with `path`",
                "",
            ),
            (vm("disk = [{ name = 'os', size = '1000B' }]"), "`vm[0].disk[0].size` must be whole sectors", ""),
            (vm("net = [{ name = 'lna' }]"), "line 6, column 55: `vm[0].net[0].name` is `lna`", "did you mean `lan`?"),
            (vm("net = [{ name = 'lan', type = 'user' }]"), "`vm[0].net[0].type` is `user`", ""),
            (
                vm("net = [{ name = 'lan', address = '10.0.0.5' }]"),
                "`vm[0].net[0].address` is `10.0.0.5`, which is outside",
                "",
            ),
            (
                vm("net = [{ name = 'slirp', rate = '1Mbit' }]"),
                "`vm[0].net[0].rate` is set, and the network `slirp`",
                "",
            ),
            (
                vm("net = [{ name = 'slirp', mac = '02:00:00:00:00:01' }]"),
                "`vm[0].net[0].mac` is `02:00:00:00:00:01`, which `template.vm[0].net[0]` has already",
                "",
            ),
            (
                vm("net = [{ name = 'slirp', ports = ['8080:81'] }]"),
                "`vm[0].net[0].ports` has `8080:81/tcp`, and `template.vm[0].net[0]` has `8080:80/tcp`",
                "",
            ),
            (
                vm(&format!("net = [{}]", ["{ name = 'lan' }"; 8].join(","))),
                "`vm[0].net` has 9 NICs, and 8 is the most",
                "",
            ),
        ]);
    }

    #[test]
    fn what_only_a_vm_makes_wrong_in_its_template_names_the_vm() {
        run([
            (
                vm("vcpu = 4"),
                "line 3, column 70: `template.vm[0].vcpu-max` is 2, less than the `vcpu` of 4, in the VM `db`",
                "",
            ),
            (
                vm("vram = 3"),
                "line 4, column 43: `template.vm[0].limits.memory` is 3GiB, and the guest alone may use its `vram` of 3GiB, in the VM `db`",
                "leave the hypervisor room",
            ),
        ]);
    }

    #[test]
    fn two_vms_share_no_mac_no_address_and_no_port() {
        let two = |one: &str, two: &str| {
            let net = |name: &str, rest: &str| {
                format!("name = '{name}', net = [{{ name = 'lan', mac = '02:00:00:00:00:0{name}', {rest} }}]")
            };
            vms(&[&net("a", one), &net("b", two)])
        };
        let bare = "ports = []";
        run([
            (
                vms(&["name = 'a'", "name = 'b'"]),
                "line 5, column 42: `template.vm[0].net[0].mac` is `02:00:00:00:00:01`, which the VM `a` has already, in the VM `b`",
                "give each VM its own",
            ),
            (
                two(bare, "mac = '02:00:00:00:00:0a'").replace("mac = '02:00:00:00:00:0b', ", ""),
                "line 7, column 61: `vm[1].net[0].mac` is `02:00:00:00:00:0a`, which the VM `a` has already",
                "",
            ),
            (
                two("address = '10.44.0.5'", "address = '10.44.0.5', ports = []"),
                "`vm[1].net[0].address` is `10.44.0.5`, which the VM `a` has already",
                "a free one",
            ),
            (
                two("", ""),
                "`template.vm[0].net[0].ports` has `8080:80/tcp`, and the VM `a` has `8080:80/tcp`, at the same port of the host, in the VM `b`",
                "`ports = []`",
            ),
            (
                two("", "ports = ['127.0.0.1:8080:1']"),
                "`vm[1].net[0].ports` has `127.0.0.1:8080:1/tcp`, and the VM `a` has `8080:80/tcp`",
                "",
            ),
        ]);
        for right in [two(bare, bare), two("", bare), two("", "ports = ['8080:80/udp', '8081:80']")] {
            assert!(of_text(&right).is_ok(), "{right}: {:?}", of_text(&right));
        }
    }
}
