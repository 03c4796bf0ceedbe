//! What a declared VM says, laid over its template.

use std::collections::{HashMap, VecDeque};

use super::declared::{DeclaredVm, VmEntry};
use super::file::{DiskEntry, NetEntry, Template};
use super::placed::{Origin, Placed};
use super::policy::LimitsEntry;
use crate::error::Result;
use crate::spec::{Label, Name};

/// The template with the VM's words in it, each key still knowing who said it.
pub(super) fn lay(vm: &Placed<VmEntry>, template: &Placed<Template>) -> Result<Placed<Template>> {
    let (own, below) = (&vm.entry, template.entry.clone());
    let (disks, disk_origins) = disks(vm, below.disks);
    let (nets, net_origins) = nets(vm, below.nets);
    let mut labels = below.labels;
    for (key, value) in own.labels.iter() {
        let label = Label { key: key.to_owned(), value: value.to_owned() };
        labels
            .set(label)
            .map_err(|error| vm.wrong("labels", format_args!("are too many with the template's: {error}")))?;
    }
    // A VM boots by a kernel or by firmware: who names one, names the way.
    let by_firmware = own.firmware.is_some() && own.kernel.is_none();
    let by_kernel = own.kernel.is_some() && own.firmware.is_none();
    let not_started = own.autostart == Some(false);
    let effective = Template {
        name: below.name,
        vcpu: own.vcpu.unwrap_or(below.vcpu),
        vram: own.vram.unwrap_or(below.vram),
        vcpu_max: own.vcpu_max.or(below.vcpu_max),
        vram_max: own.vram_max.or(below.vram_max),
        hypervisor: own.hypervisor.or(below.hypervisor),
        kernel: own.kernel.clone().or(below.kernel.filter(|_| !by_firmware)),
        initramfs: own.initramfs.clone().or(below.initramfs.filter(|_| !by_firmware)),
        cmdline: own.cmdline.clone().or(below.cmdline.filter(|_| !by_firmware)),
        firmware: own.firmware.clone().or(below.firmware.filter(|_| !by_kernel)),
        restart: own.restart.unwrap_or(below.restart),
        watchdog: own.watchdog.unwrap_or(below.watchdog),
        autostart: own.autostart.unwrap_or(below.autostart),
        autostart_order: own.autostart_order.or(below.autostart_order.filter(|_| !not_started)),
        autostart_delay: own.autostart_delay.or(below.autostart_delay.filter(|_| !not_started)),
        limits: LimitsEntry {
            cpus: own.limits.cpus.or(below.limits.cpus),
            memory: own.limits.memory.or(below.limits.memory),
        },
        stop_timeout: own.stop_timeout.or(below.stop_timeout),
        protect: own.protect.unwrap_or(below.protect),
        labels,
        disks,
        nets,
    };
    Ok(vm.over(own.name.clone(), template, effective, disk_origins, net_origins))
}

/// As the rest of the program reads it.
pub(super) fn declared(vm: &VmEntry, template: Template) -> DeclaredVm {
    DeclaredVm {
        name: vm.name.clone(),
        template,
        running: vm.running,
        on_remove: vm.on_remove,
        user_data: vm.user_data.paths().to_vec(),
    }
}

fn disks(vm: &Placed<VmEntry>, below: Vec<DiskEntry>) -> (Vec<DiskEntry>, Vec<Origin>) {
    lay_list(
        &vm.entry.disks,
        below,
        |disk| &disk.name,
        |index, own, disk| {
            // What it is cloned from is one thing, in two spellings.
            if own.path.is_some() || own.image.is_some() {
                disk.path.clone_from(&own.path);
                disk.image.clone_from(&own.image);
            }
            disk.size = own.size.or(disk.size);
            if vm.says(&format!("disk[{index}].readonly")) {
                disk.readonly = own.readonly;
            }
        },
    )
}

fn nets(vm: &Placed<VmEntry>, below: Vec<NetEntry>) -> (Vec<NetEntry>, Vec<Origin>) {
    lay_list(
        &vm.entry.nets,
        below,
        |net| &net.name,
        |index, own, net| {
            let says = |key: &str| vm.says(&format!("net[{index}].{key}"));
            net.link = own.link.or(net.link);
            net.address = own.address.or(net.address);
            net.mac = own.mac.or(net.mac);
            net.rate = own.rate.or(net.rate);
            net.spoof = own.spoof.or(net.spoof);
            // A list that is written empty takes the template's away.
            if says("ports") {
                net.ports.clone_from(&own.ports);
            }
            if says("allow") {
                net.allow.clone_from(&own.allow);
            }
            if says("deny") {
                net.deny.clone_from(&own.deny);
            }
        },
    )
}

/// The first of a name meets the first of that name below, and so on; one that meets none comes after them.
fn lay_list<T: Clone>(
    own: &[T],
    below: Vec<T>,
    name: impl Fn(&T) -> &Name,
    lay: impl Fn(usize, &T, &mut T),
) -> (Vec<T>, Vec<Origin>) {
    let mut origins: Vec<Origin> = (0..below.len()).map(|index| Origin { vm: None, template: Some(index) }).collect();
    let mut unmet: HashMap<Name, VecDeque<usize>> = HashMap::new();
    for (index, entry) in below.iter().enumerate() {
        unmet.entry(name(entry).clone()).or_default().push_back(index);
    }
    let mut laid = below;
    for (index, entry) in own.iter().enumerate() {
        match unmet.get_mut(name(entry)).and_then(VecDeque::pop_front) {
            Some(place) => {
                lay(index, entry, &mut laid[place]);
                origins[place].vm = Some(index);
            }
            None => {
                laid.push(entry.clone());
                origins.push(Origin { vm: Some(index), template: None });
            }
        }
    }
    (laid, origins)
}

#[cfg(test)]
mod tests {
    use crate::config::load::of_text;
    use crate::config::{DeclaredVm, LinkEntry};
    use crate::spec::{Restart, Size};

    /// A VM over a template that says every key.
    fn lay(vm: &str) -> DeclaredVm {
        let text = format!(
            r#"
            network = [{{ name = "lan", subnet = "10.44.0.0/24" }}, {{ name = "slirp", type = "user" }}]
            image = [{{ name = "debian", path = "/d.raw" }}]
            vm = [{{ name = "db", template = "xs", {vm} }}]
            [[template.vm]]
            name = "xs"
            vcpu = 1
            vram = 2
            vcpu-max = 4
            vram-max = 4
            hypervisor = "qemu"
            kernel = "/k"
            initramfs = "/i"
            cmdline = "quiet"
            restart = "on-crash"
            watchdog = true
            autostart = true
            autostart-order = 5
            autostart-delay = 6
            limits = {{ cpus = 1.5, memory = 3 }}
            stop-timeout = 30
            protect = true
            labels = {{ role = "db", team = "a" }}
            disk = [{{ name = "os", path = "/os.raw", size = 10, readonly = true }}, {{ name = "data", size = 1 }}]
            [[template.vm.net]]
            name = "lan"
            type = "tap"
            address = "10.44.0.5"
            mac = "02:00:00:00:00:01"
            ports = ["8080:80"]
            allow = ["tcp/22"]
            deny = ["tcp/23"]
            rate = "1Mbit"
            spoof = true
            [[template.vm.net]]
            name = "slirp"
            [[template.vm.net]]
            name = "lan"
            mac = "02:00:00:00:00:02"
            "#
        );
        let config = of_text(&text).unwrap_or_else(|error| panic!("{vm}: {:?}", error.chain()));
        config.vms.into_iter().next().expect("a VM")
    }

    /// The keys of the effective template in which the VM differs from its template, each as it is then.
    fn changed(vm: &str) -> Vec<(String, serde_json::Value)> {
        let json = |vm: &DeclaredVm| serde_json::to_value(&vm.template).unwrap().as_object().cloned().unwrap();
        let (bare, laid) = (json(&lay("")), json(&lay(vm)));
        laid.into_iter().filter(|(key, value)| bare[key] != *value).collect()
    }

    #[test]
    fn a_scalar_replaces() {
        let rows: [(&str, &[(&str, &str)]); 17] = [
            ("", &[]),
            ("vcpu = 2", &[("vcpu", "2")]),
            ("vram = '2.5G'", &[("vram", "\"2560MiB\"")]),
            ("vcpu-max = 8", &[("vcpu-max", "8")]),
            ("vram-max = 8", &[("vram-max", "\"8GiB\"")]),
            ("hypervisor = 'auto'", &[("hypervisor", "\"auto\"")]),
            ("kernel = 'k2'", &[("kernel", "\"/etc/virshle/k2\"")]),
            ("initramfs = '~/i2'", &[("initramfs", "\"/home/anon/i2\"")]),
            ("cmdline = ''", &[("cmdline", "\"\"")]),
            ("restart = 'no'", &[("restart", "\"no\"")]),
            ("watchdog = false", &[("watchdog", "false")]),
            ("autostart-order = 0", &[("autostart-order", "0")]),
            ("autostart-delay = 0", &[("autostart-delay", "0")]),
            ("stop-timeout = 60", &[("stop-timeout", "60")]),
            ("protect = false", &[("protect", "false")]),
            // What goes together goes together.
            (
                "firmware = '/f'",
                &[("kernel", "null"), ("initramfs", "null"), ("cmdline", "null"), ("firmware", "\"/f\"")],
            ),
            ("autostart = false", &[("autostart", "false"), ("autostart-order", "null"), ("autostart-delay", "null")]),
        ];
        for (vm, expected) in rows {
            let mut changed: Vec<_> = changed(vm).into_iter().map(|(key, value)| (key, value.to_string())).collect();
            let mut expected: Vec<_> =
                expected.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            changed.sort();
            expected.sort();
            assert_eq!(changed, expected, "{vm}");
        }
        assert_eq!(lay("restart = 'no'").template.restart, Restart::No);
    }

    #[test]
    fn limits_and_labels_are_laid_key_by_key() {
        let rows = [
            ("limits = { cpus = 2 }", r#"{"cpus":2.0,"memory":"3GiB"}"#, r#"{"role":"db","team":"a"}"#),
            ("limits = { memory = 5 }", r#"{"cpus":1.5,"memory":"5GiB"}"#, r#"{"role":"db","team":"a"}"#),
            ("limits = {}, labels = {}", r#"{"cpus":1.5,"memory":"3GiB"}"#, r#"{"role":"db","team":"a"}"#),
            (
                "labels = { role = '', site = 'x' }",
                r#"{"cpus":1.5,"memory":"3GiB"}"#,
                r#"{"role":"","site":"x","team":"a"}"#,
            ),
        ];
        for (vm, limits, labels) in rows {
            let template = lay(vm).template;
            assert_eq!(serde_json::to_string(&template.limits).unwrap(), limits, "{vm}");
            assert_eq!(serde_json::to_string(&template.labels).unwrap(), labels, "{vm}");
        }
    }

    #[test]
    fn disks_meet_by_name() {
        let os = r#"{"name":"os","path":"/os.raw","image":null,"size":"10GiB","readonly":true}"#;
        let data = r#"{"name":"data","path":null,"image":null,"size":"1GiB","readonly":false}"#;
        let more = r#"{"name":"more","path":null,"image":null,"size":"2GiB","readonly":false}"#;
        let rows = [
            ("disk = []", vec![os.to_owned(), data.to_owned()]),
            ("disk = [{ name = 'os' }]", vec![os.to_owned(), data.to_owned()]),
            ("disk = [{ name = 'data', size = 5 }]", vec![os.to_owned(), data.replace("1GiB", "5GiB")]),
            (
                "disk = [{ name = 'more', size = 2 }, { name = 'os', readonly = false, size = 20 }]",
                vec![os.replace("true", "false").replace("10GiB", "20GiB"), data.to_owned(), more.to_owned()],
            ),
            (
                "disk = [{ name = 'os', image = 'debian' }]",
                vec![os.replace("\"/os.raw\",\"image\":null", "null,\"image\":\"debian\""), data.to_owned()],
            ),
            (
                "disk = [{ name = 'data', path = 'x' }]",
                vec![os.to_owned(), data.replacen("null", "\"/etc/virshle/x\"", 1)],
            ),
        ];
        for (vm, expected) in rows {
            assert_eq!(
                serde_json::to_string(&lay(vm).template.disks).unwrap(),
                format!("[{}]", expected.join(",")),
                "{vm}"
            );
        }
    }

    #[test]
    fn nics_of_a_network_meet_in_their_order() {
        let nets = |vm: &str| lay(vm).template.nets;
        let template = nets("");
        assert_eq!(nets("net = [{ name = 'lan' }, { name = 'lan' }, { name = 'slirp' }]"), template);
        // The second of `lan` is the template's second of it, wherever they stand.
        let laid =
            nets("net = [{ name = 'lan' }, { name = 'slirp', ports = ['81:80'] }, { name = 'lan', rate = '2Mbit' }]");
        assert_eq!((laid.len(), &laid[0]), (3, &template[0]));
        assert_eq!((laid[1].ports.len(), laid[2].rate, laid[2].mac), (1, "2Mbit".parse().ok(), template[2].mac));
        // The third of it is new.
        let laid = nets("net = [{ name = 'lan' }, { name = 'lan' }, { name = 'lan', spoof = true }]");
        assert_eq!((laid.len(), &laid[..3]), (4, &template[..]));
        assert_eq!((laid[3].name.as_str(), laid[3].spoof, laid[3].mac), ("lan", Some(true), None));

        let first = |keys: &str| nets(&format!("net = [{{ name = 'lan', {keys} }}]")).remove(0);
        let was = &template[0];
        assert_eq!(first("type = 'vhost'").link, Some(LinkEntry::Vhost));
        assert_eq!(first("address = '10.44.0.6'").address, "10.44.0.6".parse().ok());
        assert_eq!(first("mac = '02:00:00:00:00:09'").mac, "02:00:00:00:00:09".parse().ok());
        assert_eq!(first("spoof = false").spoof, Some(false));
        // A list replaces, an empty one too, and a list that is not said stays.
        let open = first("allow = [], deny = []");
        assert_eq!((open.allow.len(), open.deny.len(), &open.ports), (0, 0, &was.ports));
        let closed = first("ports = []");
        assert_eq!((closed.ports.len(), &closed.allow, &closed.deny), (0, &was.allow, &was.deny));
        assert_eq!(first("ports = ['1:1', '2:2']").ports.len(), 2);
    }

    #[test]
    fn a_kernel_of_its_own_comes_before_the_templates_firmware() {
        let config = of_text(
            "template.vm = [{ name = 'xs', vcpu = 1, vram = 2, firmware = '/f', disk = [{ name = 'os', size = 1 }] }]
            vm = [{ name = 'db', template = 'xs', kernel = '/k' }]",
        );
        let template = &config.unwrap().vms[0].template;
        assert_eq!((&template.firmware, template.kernel.as_deref()), (&None, Some(std::path::Path::new("/k"))));
        assert_eq!(template.vram, Size::gib(2));
    }

    #[test]
    fn labels_have_their_most_together() {
        let label = |n: usize| format!("l{n} = ''");
        let labels: Vec<String> = (0..63).map(label).collect();
        let vm = format!("labels = {{ {} }}", labels.join(", "));
        let text = format!(
            "template.vm = [{{ name = 'xs', vcpu = 1, vram = 2, kernel = 'k', labels = {{ role = 'db', team = 'a' }} }}]
            vm = [{{ name = 'db', template = 'xs',\n{vm} }}]"
        );
        let error = of_text(&text).unwrap_err();
        let message = "line 3, column 10: `vm[0].labels` are too many with the template's: a VM can have 64 labels";
        assert!(error.message().ends_with(message), "{error}");
    }
}
