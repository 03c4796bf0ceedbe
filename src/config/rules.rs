//! What the grammar cannot say: limits, keys that exclude each other, references.

use std::collections::HashSet;

use super::draft::{Draft, Named, Placed};
use super::file::{DiskEntry, NetEntry, Network, NetworkKind, NodeEntry, Template};
use super::limits::{MAX_DISKS, MAX_NICS, MAX_SECONDS, SECTOR, check_vcpu, check_vram};
use super::link::LinkEntry;
use super::source::{Source, did_you_mean};
use crate::error::{Error, Result};
use crate::spec::Name;

/// The first-boot volume's name among a VM's disks.
const SEED: &str = "seed";

pub(super) fn check(draft: &Draft) -> Result<()> {
    for (index, network) in draft.networks.iter().enumerate() {
        check_network(network)?;
        for other in &draft.networks[..index] {
            check_overlap(network, &other.entry)?;
        }
    }
    draft.templates.iter().try_for_each(|template| check_template(template, draft))
}

/// `[node]` is merged key by key, so each file's is checked by itself.
pub(super) fn check_node(node: &NodeEntry, source: &Source) -> Result<()> {
    if let Some(user) = &node.user {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        let starts = user.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        if !starts || user.len() > 31 || !user.bytes().all(legal) {
            return Err(source.wrong("node.user", format_args!("is `{}`, no user's name", user.escape_debug())));
        }
    }
    let Some(ovs_db) = &node.ovs_db else { return Ok(()) };
    let address = ["unix:", "tcp:", "ssl:"].iter().find_map(|scheme| ovs_db.strip_prefix(scheme));
    if address.is_none_or(str::is_empty) || ovs_db.chars().any(char::is_control) {
        return Err(source
            .wrong("node.ovs-db", format_args!("must be the address of a database, not `{}`", ovs_db.escape_debug()))
            .hint("write it like `unix:/run/openvswitch/db.sock`, `tcp:127.0.0.1:6640` or `ssl:…`"));
    }
    Ok(())
}

fn check_network(network: &Placed<Network>) -> Result<()> {
    let Network { bridge, create, subnet, gateway, dns, kind, .. } = &network.entry;
    if *kind == NetworkKind::User {
        let refused = [
            ("bridge", bridge.is_some()),
            ("create", create.is_some()),
            ("subnet", subnet.is_some()),
            ("gateway", gateway.is_some()),
            ("dns", !dns.is_empty()),
        ];
        if let Some((key, _)) = refused.iter().find(|(_, given)| *given) {
            return Err(network
                .wrong(key, "cannot be set for a network of the type `user`, which has no bridge and its own addresses")
                .hint(format!("remove `{key}`, or write `type = \"ovs\"` or `type = \"bridge\"`")));
        }
    }
    if let Some(bridge) = bridge {
        check_bridge(bridge).map_err(|what| network.wrong("bridge", what))?;
    }
    let Some(subnet) = subnet else {
        let orphan = [("gateway", gateway.is_some()), ("dns", !dns.is_empty())].into_iter().find(|(_, given)| *given);
        return orphan.map_or(Ok(()), |(key, _)| {
            Err(network
                .wrong(key, "is set without a `subnet`; the guest's own DHCP decides it then")
                .hint(format!("add `subnet = …`, or remove `{key}`")))
        });
    };
    if !(8..=30).contains(&subnet.prefix_len()) {
        return Err(network.wrong("subnet", format_args!("must be from /30 to /8 in size, not `{subnet}`")));
    }
    if subnet.trunc() != *subnet {
        let hint = format!("did you mean `{}`?", subnet.trunc());
        return Err(network.wrong("subnet", format_args!("is `{subnet}`, the address of a host in it")).hint(hint));
    }
    let Some(gateway) = gateway else { return Ok(()) };
    if !subnet.contains(gateway) {
        return Err(network
            .wrong("gateway", format_args!("is `{gateway}`, which is outside the subnet `{subnet}`"))
            .hint("remove it to take the subnet's first address"));
    }
    if *gateway == subnet.network() || *gateway == subnet.broadcast() {
        return Err(network
            .wrong("gateway", format_args!("is `{gateway}`, which no host can have in the subnet `{subnet}`"))
            .hint("remove it to take the subnet's first address"));
    }
    Ok(())
}

/// Two networks on one bridge would give the same address twice.
fn check_overlap(network: &Placed<Network>, other: &Network) -> Result<()> {
    let (Some(subnet), Some(taken)) = (network.entry.subnet, other.subnet) else { return Ok(()) };
    let overlap = subnet.contains(&taken) || taken.contains(&subnet);
    if !overlap || network.entry.bridge() != other.bridge() {
        return Ok(());
    }
    Err(network
        .wrong(
            "subnet",
            format_args!(
                "is `{subnet}`, which overlaps with `{taken}` of the network `{}` on the same bridge `{}`",
                other.name,
                other.bridge()
            ),
        )
        .hint("give it a subnet of its own, or another bridge"))
}

/// What Linux and Open vSwitch both take as an interface's name, and no option of a program.
fn check_bridge(bridge: &str) -> Result<(), String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if (1..=15).contains(&bridge.len())
        && bridge.bytes().all(legal)
        && !matches!(bridge, "." | "..")
        && !bridge.starts_with('-')
    {
        return Ok(());
    }
    Err(format!(
        "must be 1 to 15 letters, digits, `_`, `.` or `-`, and not begin with `-`, unlike `{}`",
        bridge.escape_debug()
    ))
}

fn check_policy(template: &Placed<Template>) -> Result<()> {
    let Template { vram, autostart, autostart_order, autostart_delay, limits, stop_timeout, .. } = &template.entry;
    let orphan = [("autostart-order", autostart_order.is_some()), ("autostart-delay", autostart_delay.is_some())];
    if let Some((key, _)) = orphan.iter().find(|(_, given)| *given && !autostart) {
        return Err(template
            .wrong(key, "is set for a VM that is not started with the host")
            .hint(format!("add `autostart = true`, or remove `{key}`")));
    }
    if let Some(delay) = autostart_delay.filter(|delay| *delay > MAX_SECONDS) {
        return Err(template.wrong("autostart-delay", format_args!("must be at most {MAX_SECONDS} s, not `{delay}`")));
    }
    if let Some(timeout) = stop_timeout.filter(|timeout| !(1..=MAX_SECONDS).contains(timeout)) {
        return Err(template.wrong("stop-timeout", format_args!("must be from 1 to {MAX_SECONDS} s, not `{timeout}`")));
    }
    if let Some(memory) = limits.memory.filter(|memory| memory <= vram) {
        return Err(template
            .wrong("limits.memory", format_args!("is {memory}, and the guest alone may use its `vram` of {vram}"))
            .hint("leave the hypervisor room: 128MiB more than `vram`, with QEMU 256MiB"));
    }
    Ok(())
}

fn check_template(template: &Placed<Template>, draft: &Draft) -> Result<()> {
    let Template { vcpu, vram, kernel, initramfs, cmdline, firmware, disks, nets, .. } = &template.entry;
    check_vcpu(*vcpu).map_err(|what| template.wrong("vcpu", what))?;
    check_vram(*vram).map_err(|what| template.wrong("vram", what))?;
    check_policy(template)?;
    if kernel.is_some() && firmware.is_some() {
        return Err(template
            .wrong("firmware", "is set together with `kernel`; a VM boots by one of them")
            .hint("remove `firmware` or `kernel`"));
    }
    if kernel.is_none() {
        let orphan = [("initramfs", initramfs.is_some()), ("cmdline", cmdline.is_some())];
        if let Some((key, _)) = orphan.iter().find(|(_, given)| *given) {
            let hint = format!("add `kernel = …`, or remove `{key}`");
            return Err(template.wrong(key, "is set without a `kernel` that it would be for").hint(hint));
        }
        if disks.is_empty() {
            return Err(template
                .wrong("", "has neither a disk nor a kernel, so there is nothing to boot")
                .hint("add a `[[template.vm.disk]]` with a `name` and a `path` or an `image`"));
        }
    }
    if cmdline.as_deref().is_some_and(|cmdline| cmdline.chars().any(char::is_control)) {
        return Err(template.wrong("cmdline", "holds a control character; a kernel's command line is one line"));
    }
    if disks.len() > MAX_DISKS {
        return Err(template.wrong("disk", format_args!("has {} disks, and {MAX_DISKS} is the most", disks.len())));
    }
    if nets.len() > MAX_NICS {
        return Err(template.wrong("net", format_args!("has {} NICs, and {MAX_NICS} is the most", nets.len())));
    }
    let mut names = HashSet::new();
    for (index, disk) in disks.iter().enumerate() {
        check_disk(template, index, disk, draft)?;
        if !names.insert(&disk.name) {
            return Err(template.wrong(
                &format!("disk[{index}].name"),
                format_args!("is `{}`, the name of another disk of this VM", disk.name),
            ));
        }
    }
    nets.iter().enumerate().try_for_each(|(index, net)| check_net(template, index, net, draft))
}

fn check_disk(template: &Placed<Template>, index: usize, disk: &DiskEntry, draft: &Draft) -> Result<()> {
    let key = |key: &str| format!("disk[{index}]{}{key}", if key.is_empty() { "" } else { "." });
    if disk.name.as_str() == SEED {
        return Err(template
            .wrong(&key("name"), "is `seed`, the name of the first-boot volume")
            .hint("choose another"));
    }
    if disk.path.is_some() && disk.image.is_some() {
        return Err(template
            .wrong(&key("image"), "is set together with `path`; a disk is cloned from one of them")
            .hint("remove `image` or `path`"));
    }
    if disk.path.is_none() && disk.image.is_none() {
        if disk.size.is_none() {
            return Err(template
                .wrong(&key(""), "has no `path`, no `image` and no `size`")
                .hint("say what it is cloned from, or how large a blank disk is: `size = \"10G\"`"));
        }
        if disk.readonly {
            return Err(template
                .wrong(&key("readonly"), "is set for a blank disk, which would stay empty")
                .hint("remove `readonly`, or add a `path` or an `image`"));
        }
    }
    if let Some(size) = disk.size.filter(|size| !size.bytes().is_multiple_of(SECTOR)) {
        return Err(template
            .wrong(&key("size"), format_args!("must be whole sectors of {SECTOR} bytes, not `{size}`"))
            .hint("write it in whole MiB, like `512MiB`"));
    }
    match &disk.image {
        Some(image) if draft.images.iter().all(|known| known.entry.name != *image) => {
            let error = template.wrong(&key("image"), format_args!("is `{image}`, and there is no such `[[image]]`"));
            Err(error.hint(meant(image, &draft.images, "[[image]]")))
        }
        _ => Ok(()),
    }
}

fn check_net(template: &Placed<Template>, index: usize, net: &NetEntry, draft: &Draft) -> Result<()> {
    let network = draft.networks.iter().find(|network| network.entry.name == net.name);
    match (net.link, network) {
        // What a network of that name would be follows from the type.
        (Some(_), None) | (None, Some(_)) => Ok(()),
        (None, None) => Err(unknown_network(template, index, net, draft)),
        (Some(link), Some(network)) if network.entry.kind.fits(link) => Ok(()),
        (Some(link), Some(network)) => {
            let (link, kind) = (link.as_str(), network.entry.kind);
            Err(template
                .wrong(
                    &format!("net[{index}].type"),
                    format_args!(
                        "is `{link}`, which the network `{}` of the type `{}` cannot have",
                        net.name,
                        kind.as_str()
                    ),
                )
                .hint(match kind {
                    NetworkKind::Ovs => "write `vhost` or `tap`, or remove the type",
                    NetworkKind::Bridge => "write `tap`, or remove the type",
                    NetworkKind::User => "write `user`, or remove the type",
                }))
        }
    }
}

fn unknown_network(template: &Placed<Template>, index: usize, net: &NetEntry, draft: &Draft) -> Error {
    let types = format!(
        "write its type: `type = \"{}\"`, `\"{}\"` or `\"{}\"`",
        LinkEntry::Vhost.as_str(),
        LinkEntry::Tap.as_str(),
        LinkEntry::User.as_str()
    );
    let names = draft.networks.iter().map(|network| network.entry.name.as_str());
    let hint = match did_you_mean(net.name.as_str(), names) {
        Some(meant) => format!("{meant} Otherwise {types}"),
        None => types,
    };
    let what = format_args!("is `{}`, and there is no such `[[network]]` to take the type from", net.name).to_string();
    template.wrong(&format!("net[{index}].name"), what).hint(hint)
}

/// The nearest name, else those there are.
fn meant<T: Named>(name: &Name, known: &[Placed<T>], table: &str) -> String {
    let names: Vec<&str> = known.iter().map(|placed| placed.entry.name().as_str()).collect();
    match did_you_mean(name.as_str(), names.iter().copied()) {
        Some(hint) => hint,
        None if names.is_empty() => format!("add an `{table}` of that name"),
        None => format!("there are {}", super::or_one_of(&names).replace(" or ", " and ")),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load::of_text;
    use crate::error::Kind;

    const VM: &str = "template.vm = [{ name = 'xs', vcpu = 1, vram = 2, disk = [{ name = 'os', path = 'a' }] }]";

    /// Text, a part of the message, a part of the hint.
    fn run<'a>(rows: impl IntoIterator<Item = (String, &'a str, &'a str)>) {
        for (text, message, hint) in rows {
            let error = of_text(&text).expect_err(&text);
            assert_eq!(error.kind(), Kind::Usage, "{text}");
            assert!(error.message().starts_with("`/etc/virshle/config.toml` line "), "{text}: {error}");
            assert!(error.message().contains(message), "{text}: {error}");
            assert!(error.hint_text().unwrap_or_default().contains(hint), "{text}: {:?}", error.hint_text());
        }
    }

    #[test]
    fn networks() {
        let network = |rest: &str| format!("network = [{{ name = 'main', {rest} }}]");
        let two = |a: &str, b: &str| format!("network = [{{ name = 'a', {a} }}, {{ name = 'b', {b} }}]");
        run([
            (
                "network = [{ name = 'main' }, { name = 'lan' }, { name = 'main' }]".into(),
                "line 1, column 58: `network[2].name` is `main`, which `network[0]` in line 1 has already",
                "rename",
            ),
            (network("bridge = ''"), "`network[0].bridge` must be 1 to 15", ""),
            (network("bridge = 'a/b'"), "unlike `a/b`", ""),
            (network("bridge = '..'"), "unlike `..`", ""),
            (network("bridge = '--db=tcp:x'"), "unlike `--db=tcp:x`", ""),
            (network("bridge = '-a'"), "unlike `-a`", ""),
            (network("bridge = 'sixteen-letters-'"), "unlike `sixteen-letters-`", ""),
            (network("bridge = \"a\\nb\""), "unlike `a\\nb`", ""),
            (
                network("subnet = '10.0.0.0/31'"),
                "line 1, column 38: `network[0].subnet` must be from /30 to /8 in size, not `10.0.0.0/31`",
                "",
            ),
            (network("subnet = '10.0.0.0/7'"), "must be from /30 to /8", ""),
            (
                network("subnet = '10.44.0.5/24'"),
                "is `10.44.0.5/24`, the address of a host in it",
                "did you mean `10.44.0.0/24`?",
            ),
            (
                network("subnet = '10.44.0.0/24', gateway = '10.44.1.1'"),
                "`network[0].gateway` is `10.44.1.1`, which is outside the subnet `10.44.0.0/24`",
                "remove it",
            ),
            (network("subnet = '10.44.0.0/24', gateway = '10.44.0.0'"), "which no host can have", "remove it"),
            (network("subnet = '10.44.0.0/24', gateway = '10.44.0.255'"), "which no host can have", "remove it"),
            (network("gateway = '10.44.0.1'"), "`network[0].gateway` is set without a `subnet`", "add `subnet"),
            (network("dns = ['10.44.0.1']"), "`network[0].dns` is set without a `subnet`", "add `subnet"),
            (
                network("type = 'user', bridge = 'br0'"),
                "`network[0].bridge` cannot be set for a network of the type `user`",
                "remove `bridge`",
            ),
            (network("type = 'user', create = true"), "`network[0].create` cannot be set", "remove `create`"),
            (network("type = 'user', subnet = '10.0.0.0/24'"), "`network[0].subnet` cannot be set", "remove `subnet`"),
            (network("type = 'user', gateway = '10.0.0.1'"), "`network[0].gateway` cannot be set", "remove `gateway`"),
            (network("type = 'user', dns = ['10.0.0.1']"), "`network[0].dns` cannot be set", "remove `dns`"),
            (
                two("subnet = '10.0.0.0/16'", "subnet = '10.0.3.0/24'"),
                "`network[1].subnet` is `10.0.3.0/24`, which overlaps with `10.0.0.0/16` of the network `a`",
                "another bridge",
            ),
        ]);
        for text in [
            network("bridge = 'a_.-0123456789Z'"),
            network("subnet = '10.0.0.0/8'"),
            network("subnet = '10.0.0.0/30', gateway = '10.0.0.2', dns = ['::1']"),
            network("type = 'user'"),
            two("subnet = '10.0.0.0/24', bridge = 'a'", "subnet = '10.0.0.0/24', bridge = 'b'"),
            two("subnet = '10.0.0.0/24'", "subnet = '10.0.1.0/24'"),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }

    #[test]
    fn nodes() {
        for (address, right) in [
            ("unix:/run/openvswitch/db.sock", true),
            ("tcp:127.0.0.1:6640", true),
            ("ssl:[::1]:6640", true),
            ("", false),
            ("unix:", false),
            ("/run/openvswitch/db.sock", false),
            ("--help", false),
        ] {
            let read = of_text(&format!("node.ovs-db = '{address}'"));
            assert_eq!(read.is_ok(), right, "{address}: {read:?}");
            if let Err(error) = read {
                assert!(error.message().contains("line 1, column 15: `node.ovs-db` must be the address"), "{error}");
            }
        }
    }

    #[test]
    fn templates_and_disks() {
        let vm = |from: &str, to: &str| VM.replace(from, to);
        let disk = |disk: &str| VM.replace("{ name = 'os', path = 'a' }", disk);
        let many = |one: &str, n: usize| (0..n).map(|i| one.replace('#', &i.to_string())).collect::<Vec<_>>().join(",");
        let image = "image = [{ name = 'debian-12', path = 'a' }]\n";
        run([
            (vm("vcpu = 1", "vcpu = 0"), "`template.vm[0].vcpu` must be from 1 to 255, not `0`", ""),
            (vm("vcpu = 1", "vcpu = 256"), "must be from 1 to 255, not `256`", ""),
            (vm("vram = 2", "vram = '15MiB'"), "`template.vm[0].vram` must be from 16MiB to 16TiB, not `15MiB`", ""),
            (vm("vram = 2", "vram = '17T'"), "not `17TiB`", ""),
            (vm("vram = 2", "vram = 0.3"), "`template.vm[0].vram` must be whole MiB, like `307MiB`", ""),
            (
                vm("vram = 2", "vram = 2, autostart-order = 1"),
                "`template.vm[0].autostart-order` is set for a VM that is not started with the host",
                "add `autostart = true`",
            ),
            (
                vm("vram = 2", "vram = 2, autostart = true, autostart-delay = 100000"),
                "`template.vm[0].autostart-delay` must be at most 86400 s, not `100000`",
                "",
            ),
            (vm("vram = 2", "vram = 2, stop-timeout = 0"), "must be from 1 to 86400 s, not `0`", ""),
            (
                vm("vram = 2", "vram = 2, limits.memory = 2"),
                "`template.vm[0].limits.memory` is 2GiB, and the guest alone may use its `vram` of 2GiB",
                "leave the hypervisor room",
            ),
            (vm("vram = 2", "vram = 2, limits.cpus = 0"), "`0` is not a number of processors", ""),
            ("node.user = 'Root Beer'".to_owned(), "`node.user` is `Root Beer`, no user's name", ""),
            (
                disk(""),
                "line 1, column 16: `template.vm[0]` has neither a disk nor a kernel",
                "add a `[[template.vm.disk]]`",
            ),
            (
                vm("vram = 2", "vram = 2, initramfs = 'a'"),
                "`template.vm[0].initramfs` is set without a `kernel`",
                "add `kernel",
            ),
            (
                vm("vram = 2", "vram = 2, cmdline = 'a'"),
                "`template.vm[0].cmdline` is set without a `kernel`",
                "remove `cmdline`",
            ),
            (
                vm("vram = 2", "vram = 2, kernel = 'a', firmware = 'b'"),
                "`template.vm[0].firmware` is set together with `kernel`",
                "remove",
            ),
            (
                vm("vram = 2", "vram = 2, kernel = 'a', cmdline = \"a\\nb\""),
                "`template.vm[0].cmdline` holds a control character",
                "",
            ),
            (disk("{ name = 'seed', size = 1 }"), "`template.vm[0].disk[0].name` is `seed`", "choose another"),
            (
                disk("{ name = 'a', path = 'a', image = 'debian-12' }"),
                "`template.vm[0].disk[0].image` is set together with `path`",
                "remove",
            ),
            (
                disk("{ name = 'a' }"),
                "`template.vm[0].disk[0]` has no `path`, no `image` and no `size`",
                "size = \"10G\"",
            ),
            (
                disk("{ name = 'a', size = 1, readonly = true }"),
                "`template.vm[0].disk[0].readonly` is set for a blank disk",
                "remove",
            ),
            (
                disk("{ name = 'a', size = '1000B' }"),
                "`template.vm[0].disk[0].size` must be whole sectors of 512 bytes, not `1000B`",
                "whole MiB",
            ),
            (
                disk("{ name = 'a', size = 1 }, { name = 'a', size = 1 }"),
                "`template.vm[0].disk[1].name` is `a`, the name of another disk",
                "",
            ),
            (
                disk(&many("{ name = 'a#', size = 1 }", 17)),
                "`template.vm[0].disk` has 17 disks, and 16 is the most",
                "",
            ),
            (
                disk("{ name = 'a', image = 'debian-12' }"),
                "`template.vm[0].disk[0].image` is `debian-12`, and there is no such `[[image]]`",
                "add an `[[image]]`",
            ),
            (
                format!("{image}{}", disk("{ name = 'a', image = 'debain-12' }")),
                "line 2, column 81: `template.vm[0].disk[0].image` is `debain-12`",
                "did you mean `debian-12`?",
            ),
            (format!("{image}{}", disk("{ name = 'a', image = 'windows' }")), "is `windows`", "there are `debian-12`"),
        ]);
        run([(
            "template.vm = [\n{ name = 'xs', vcpu = 1, vram = 1, kernel = 'k' },\n{ name = 'xs', vcpu = 1, vram = 1, kernel = 'k' }]".into(),
            "line 3, column 10: `template.vm[1].name` is `xs`, which `template.vm[0]` in line 2 has already",
            "rename",
        ), (
            "[[image]]\nname = 'a'\npath = 'a'\n[[image]]\nname = 'a'\npath = 'b'".into(),
            "line 5, column 8: `image[1].name` is `a`, which `image[0]` in line 2 has already",
            "rename",
        )]);
        for text in [
            VM.to_owned(),
            disk(&many("{ name = 'a#', size = 1 }", 16)),
            vm("vram = 2", "vram = 0.5, kernel = 'a', initramfs = 'b', cmdline = 'quoted=\"a b\" #$(x)'"),
            "template.vm = [{ name = 'k', vcpu = 1, vram = 1, kernel = 'a' }]".to_owned(),
            disk("{ name = 'a', path = 'a', size = '10G', readonly = true }"),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }

    #[test]
    fn nics() {
        let nets = |networks: &str, list: &str| {
            let open = VM.strip_suffix(" }]").unwrap();
            format!("{networks}\n{open}, net = [{list}] }}]")
        };
        let (ovs, bridge, user) = (
            "network = [{ name = 'main' }]",
            "network = [{ name = 'main', type = 'bridge' }]",
            "network = [{ name = 'main', type = 'user' }]",
        );
        run([
            (
                nets("", "{ name = 'main' }"),
                "`template.vm[0].net[0].name` is `main`, and there is no such `[[network]]`",
                "write its type: `type = \"vhost\"`, `\"tap\"` or `\"user\"`",
            ),
            (
                nets(ovs, "{ name = 'main' }, { name = 'mian' }"),
                "`template.vm[0].net[1].name` is `mian`",
                "did you mean `main`? Otherwise write its type",
            ),
            (
                nets(ovs, "{ name = 'main', type = 'user' }"),
                "`template.vm[0].net[0].type` is `user`, which the network `main` of the type `ovs` cannot have",
                "`vhost` or `tap`",
            ),
            (
                nets(bridge, "{ name = 'main', type = 'vhost' }"),
                "is `vhost`, which the network `main` of the type `bridge` cannot have",
                "write `tap`",
            ),
            (nets(bridge, "{ name = 'main', type = 'user' }"), "is `user`", "write `tap`"),
            (nets(user, "{ name = 'main', type = 'vhost' }"), "is `vhost`", "write `user`"),
            (nets(user, "{ name = 'main', type = 'tap' }"), "is `tap`", "write `user`"),
            (nets(ovs, &["{ name = 'main' }"; 9].join(",")), "`template.vm[0].net` has 9 NICs, and 8 is the most", ""),
        ]);
        for text in [
            nets(ovs, "{ name = 'main' }, { name = 'main', type = 'vhost' }, { name = 'main', type = 'tap' }"),
            nets(bridge, "{ name = 'main', type = 'tap' }, { name = 'main' }"),
            nets(user, "{ name = 'main', type = 'user' }, { name = 'main' }"),
            nets("", "{ name = 'main', type = 'vhost' }, { name = 'b', type = 'tap' }, { name = 'c', type.user = {} }"),
            nets(ovs, &["{ name = 'main' }"; 8].join(",")),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }
}
