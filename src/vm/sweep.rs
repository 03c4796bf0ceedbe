use super::site::remove_tree;
use super::{Site, delete};
use crate::error::Result;
use crate::spec::State;
use crate::store::Store;

/// Undoes what a dead `create` left half made and finishes what a dead `delete` left half gone.
/// What a living process is at work on is left alone.
pub fn sweep(site: &Site, store: &mut Store) -> Result<()> {
    for record in store.list()? {
        let abandoned = record.owner.is_none_or(|owner| !owner.is_alive());
        if !abandoned {
            continue;
        }
        match record.state {
            State::Creating => {
                tracing::info!(vm = %record.spec.name, "undoing a create that was cut short");
                remove_tree(&site.dirs.vm(record.spec.uuid))?;
                store.remove(record.spec.uuid)?;
            }
            State::Deleting => {
                tracing::info!(vm = %record.spec.name, "finishing a delete that was cut short");
                delete::finish(site, store, &record.spec)?;
            }
            _ => {}
        }
    }
    Ok(())
}
