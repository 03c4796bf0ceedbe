//! What the grammar cannot say: limits, keys that exclude each other, references.

mod bridge;
mod net;
mod network;
mod template;
mod vm;

use super::declared::DeclaredVm;
use super::draft::{Draft, Named};
use super::file::NodeEntry;
use super::placed::Placed;
use super::source::{Source, did_you_mean};
use crate::error::Result;
use crate::spec::Name;
pub use net::check_address;

/// Whether all is right, and what the declared VMs come to.
pub(super) fn check(draft: &Draft) -> Result<Vec<DeclaredVm>> {
    for (index, network) in draft.networks.iter().enumerate() {
        network::check(network)?;
        for other in &draft.networks[..index] {
            bridge::check_beside(network, &other.entry)?;
        }
    }
    draft.templates.iter().try_for_each(|template| template::check(template, draft))?;
    vm::check_all(draft)
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

/// The nearest name, else those there are.
fn meant<T: Named>(name: &Name, known: &[Placed<T>], table: &str) -> String {
    let names: Vec<&str> = known.iter().map(|placed| placed.entry.name().as_str()).collect();
    match did_you_mean(name.as_str(), names.iter().copied()) {
        Some(hint) => hint,
        None if names.is_empty() => format!("add {table} of that name"),
        None => format!("there are {}", super::or_one_of(&names).replace(" or ", " and ")),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load::of_text;
    use crate::error::Kind;

    pub(super) const VM: &str =
        "template.vm = [{ name = 'xs', vcpu = 1, vram = 2, disk = [{ name = 'os', path = 'a' }] }]";

    /// Text, a part of the message, a part of the hint.
    pub(super) fn run<'a>(rows: impl IntoIterator<Item = (String, &'a str, &'a str)>) {
        for (text, message, hint) in rows {
            let error = of_text(&text).expect_err(&text);
            assert_eq!(error.kind(), Kind::Usage, "{text}");
            assert!(error.message().starts_with("`/etc/virshle/config.toml` line "), "{text}: {error}");
            assert!(error.message().contains(message), "{text}: {error}");
            assert!(error.hint_text().unwrap_or_default().contains(hint), "{text}: {:?}", error.hint_text());
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
}
