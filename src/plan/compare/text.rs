//! Values as a plan shows them: in the words of the config. Nothing is `None`.

use std::fmt::Display;
use std::path::Path;

use crate::config::{DeclaredVm, DiskEntry, NetEntry};
use crate::plan::change::{Change, Class, Field};
use crate::spec::Disk;

pub(super) fn shown<T: Display>(value: &T) -> Option<String> {
    Some(value.to_string())
}

pub(super) fn maybe<T: Display>(value: &Option<T>) -> Option<String> {
    value.as_ref().map(ToString::to_string)
}

pub(super) fn yes(value: &bool) -> Option<String> {
    Some(if *value { "yes" } else { "no" }.to_owned())
}

pub(super) fn path(value: Option<&Path>) -> Option<String> {
    value.map(|path| path.display().to_string())
}

pub(super) fn list<T: Display>(values: &[T]) -> Option<String> {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// As much of a digest as tells two apart.
pub(super) fn digest(value: &Option<String>) -> Option<String> {
    value.as_ref().map(|digest| digest.chars().take(12).collect())
}

/// `os.qcow2, 20GiB`.
pub(super) fn disk(disk: &Disk) -> String {
    let source = disk.source.as_deref().map(|path| path.display().to_string());
    let readonly = disk.readonly.then(|| "readonly".to_owned());
    source.into_iter().chain(maybe(&disk.size)).chain(readonly).collect::<Vec<_>>().join(", ")
}

/// `xs: 1 vCPU, 2GiB, disk os 20GiB, net main`.
pub(super) fn vm(entry: &DeclaredVm) -> String {
    let template = &entry.template;
    let disk = |disk: &DiskEntry| match disk.size {
        Some(size) => format!(", disk {} {size}", disk.name),
        None => format!(", disk {}", disk.name),
    };
    let net = |net: &NetEntry| match net.address {
        Some(address) => format!(", net {} {address}", net.name),
        None => format!(", net {}", net.name),
    };
    let disks: String = template.disks.iter().map(disk).collect();
    let nets: String = template.nets.iter().map(net).collect();
    format!("{}: {} vCPU, {}{disks}{nets}", template.name, template.vcpu, template.vram)
}

/// A row that waits for nothing.
pub(super) fn row(class: Class, field: Field, old: Option<String>, new: Option<String>) -> Change {
    Change { class, field, old, new, needs: None, why: None, hint: None }
}

/// A row that says why nothing is done, and what to do about it.
pub(super) fn refused(field: Field, why: impl Into<String>, hint: impl Into<String>) -> Change {
    let change = row(Class::Refused, field, None, None);
    Change { why: Some(why.into()), hint: Some(hint.into()), ..change }
}
