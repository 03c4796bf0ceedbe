//! The host's rules for the networks that Virshle keeps: two nftables tables of its own, `inet` for
//! what the host routes and `bridge` for the ports of Linux bridges. Ports of Open vSwitch are
//! guarded by its flows.
//!
//! ```text
//! what is recorded ──► ruleset (pure) ──► nft -f -, one transaction: both tables replaced whole
//! ```
//!
//! Nobody else's table is read for it or changed, so that other rules still count: a packet must
//! pass theirs too. [`obstacles`] says where they stop it, [`admit`] asks firewalld to let it pass.

mod apply;
mod firewalld;
mod forwards;
mod guard;
mod inet;
mod obstacles;
mod rules;
mod text;

use crate::spec::{Address, Forward, Guard, Mac, Name, NetworkSpec, Switch};
pub use apply::{apply, is_there};
pub use firewalld::{admit, dismiss};
pub use forwards::check_free;
pub use obstacles::obstacles;

/// The port of a NIC whose VM is live, or starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The host's name for it.
    pub port: String,
    pub network: Name,
    pub switch: Switch,
    pub mac: Mac,
    pub address: Option<Address>,
    pub guard: Option<Guard>,
    pub forwards: Vec<Forward>,
}

/// What `nft -f -` reads to make both tables what they should be, whatever they were; a table with
/// nothing in it is removed. Interfaces with a name that cannot stand in a rule are left out, which
/// [`apply`] refuses.
pub fn ruleset(table: &str, networks: &[NetworkSpec], ports: &[Port]) -> String {
    let mut text = String::new();
    for family in ["inet", "bridge"] {
        text.push_str(&text::removal(family, table));
    }
    let mut networks: Vec<&NetworkSpec> = networks.iter().filter(|network| text::is_plain(&network.device())).collect();
    networks.sort_by(|one, two| one.name.cmp(&two.name));
    let mut ports: Vec<&Port> = ports.iter().filter(|port| text::is_plain(&port.port)).collect();
    ports.sort_by(|one, two| one.port.cmp(&two.port));
    ports.dedup_by(|one, two| one.port == two.port);
    let tables = [inet::table(&networks, &ports), guard::table(&networks, &ports)];
    for table_text in tables.into_iter().flatten() {
        text.push_str(&table_text.finish(table));
    }
    text
}
