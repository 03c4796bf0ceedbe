//! `[[template.vm]]` and its disks.

use std::collections::HashSet;

use super::super::draft::Draft;
use super::super::file::{DiskEntry, Template};
use super::super::limits::{
    MAX_DISKS, MAX_NICS, MAX_SECONDS, SECTOR, check_vcpu, check_vcpu_max, check_vram, check_vram_max,
};
use super::super::placed::Placed;
use super::{meant, net};
use crate::error::Result;

/// The first-boot volume's name among a VM's disks.
const SEED: &str = "seed";

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

const LARGER: &str = "write a larger one, in the template or in the VM itself";

pub(super) fn check(template: &Placed<Template>, draft: &Draft) -> Result<()> {
    let Template { vcpu, vram, vcpu_max, vram_max, kernel, initramfs, cmdline, firmware, disks, nets, .. } =
        &template.entry;
    check_vcpu(*vcpu).map_err(|what| template.wrong("vcpu", what))?;
    check_vram(*vram).map_err(|what| template.wrong("vram", what))?;
    if let Some(max) = *vcpu_max {
        check_vcpu_max(*vcpu, max).map_err(|what| template.wrong("vcpu-max", what).hint(LARGER))?;
    }
    if let Some(max) = *vram_max {
        check_vram_max(*vram, max).map_err(|what| template.wrong("vram-max", what).hint(LARGER))?;
    }
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
    net::check_all(template, draft)
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
            Err(error.hint(meant(image, &draft.images, "an `[[image]]`")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{VM, run};
    use crate::config::load::of_text;

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
                vm("vcpu = 1", "vcpu = 2, vcpu-max = 1"),
                "line 1, column 52: `template.vm[0].vcpu-max` is 1, less than the `vcpu` of 2",
                "",
            ),
            (vm("vcpu = 1", "vcpu = 1, vcpu-max = 256"), "`template.vm[0].vcpu-max` must be from 1 to 255", ""),
            (
                vm("vram = 2", "vram = 2, vram-max = 1"),
                "`template.vm[0].vram-max` is 1GiB, and must be the `vram` of 2GiB, or more by a multiple of 128MiB",
                "",
            ),
            (vm("vram = 2", "vram = 2, vram-max = '2100M'"), "`template.vm[0].vram-max` is 2100MiB, and must", ""),
            (vm("vram = 2", "vram = 2, vram-max = '17T'"), "`template.vm[0].vram-max` must be from 16MiB to 16TiB", ""),
            (
                vm("vram = 2", "vram = 2, labels = { Role = 'db' }"),
                "`template.vm[0].labels`: `Role` is no label's name",
                "",
            ),
            (vm("vram = 2", "vram = 2, labels.role = \"a\\nb\""), "the label `role` has a value of more than", ""),
            (vm("vram = 2", "vram = 2, labels.role = 1"), "`template.vm[0].labels.role` must be a text", ""),
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
            vm("vram = 2", "vram = 2, vcpu-max = 1, vram-max = '2176M', protect = true, labels = { role = 'db' }"),
            vm("vram = 2", "vram = 0.5, kernel = 'a', initramfs = 'b', cmdline = 'quoted=\"a b\" #$(x)'"),
            "template.vm = [{ name = 'k', vcpu = 1, vram = 1, kernel = 'a' }]".to_owned(),
            disk("{ name = 'a', path = 'a', size = '10G', readonly = true }"),
        ] {
            assert!(of_text(&text).is_ok(), "{text}: {:?}", of_text(&text));
        }
    }
}
