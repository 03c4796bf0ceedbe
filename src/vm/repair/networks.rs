//! Networks that a killed command left half up or half down, or that lack what their record says;
//! and bridges with this store's mark that no record knows.

use super::{Action, Finding, Kind, Remedy};
use crate::error::Result;
use crate::host::find_program;
use crate::store::{NetworkState, Store};
use crate::vm::Site;
use crate::vm::networks::{self, Condition};

pub(super) fn survey(site: &Site, store: Option<&Store>) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for (record, condition) in store.map_or_else(|| Ok(Vec::new()), |store| networks::unwell(site, store))? {
        let name = record.spec.name;
        let (kind, what, action) = match (condition, record.state) {
            (Condition::CutShort, NetworkState::GoingDown) => {
                (Kind::HalfDownNetwork, "its way down was cut short", Action::Finish)
            }
            (Condition::CutShort, _) => (Kind::HalfUpNetwork, "its way up was cut short", Action::Finish),
            _ => (Kind::DamagedNetwork, "it is up, and something of it is missing", Action::Mend),
        };
        let place = format!("network {name}");
        found.push(Finding { kind, what: what.to_owned(), place, action, vm: None, remedy: Remedy::Network(name) });
    }
    // Without the program none was ever made.
    if find_program("ip").is_some() {
        for bridge in networks::strays(site, store)? {
            found.push(Finding {
                kind: Kind::StrayBridge,
                what: "a bridge of a network that is not recorded".to_owned(),
                place: bridge.clone(),
                action: Action::Remove,
                vm: None,
                remedy: Remedy::Bridge(bridge),
            });
        }
    }
    Ok(found)
}
