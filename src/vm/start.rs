use std::io;
use std::time::Duration;

use super::launch::{Purpose, Starting, launch};
use super::{Site, networks, observe, reconcile};
use crate::error::{Error, Result};
use crate::spec::{Event, State, VmSpec};
use crate::store::{Record, Store};

/// Launches the VM's supervisor, or tells the one that waits for the next attempt not to. Several can be under way at once; [`Starting::wait`] ends each.
pub fn start(site: &Site, store: &mut Store, record: Record, deadline: Duration) -> Result<Starting> {
    let observed = observe(site, record)?;
    // One that was to be started again has nothing to be mended first.
    let observed = match observed.state {
        State::Restarting => observed,
        _ => reconcile(site, store, observed.record)?,
    };
    let spec = &observed.record.spec;
    // Only a quick answer: the supervisor decides, holding the lock.
    observed.state.after(&Event::Start).map_err(|refusal| {
        let error = Error::refused(format!("cannot start `{}`: {refusal}", spec.name));
        match observed.unwatched {
            true => error.hint(format!("nobody can watch over it; `v vm stop --force {}` ends it", spec.name)),
            false => error,
        }
    })?;
    // What is to come into its place is finished by the supervisor, or refused by it.
    if observed.record.progress.is_none() {
        check_files(site, &observed.record)?;
    }
    site.check_socket_paths(spec.uuid).map_err(|error| error.context(format!("cannot start `{}`", spec.name)))?;
    // The supervisor asks again, when they are its own. What is refused here has not begun.
    networks::check_forwards(site, store, spec)
        .map_err(|error| error.context(format!("cannot start `{}`", spec.name)))?;
    if observed.state == State::Restarting && !observed.unwatched {
        return Ok(Starting::at_once(site, spec, deadline));
    }
    launch(site, spec, Purpose::Start, deadline)
}

/// Refuses a VM of which a file is missing. A hypervisor would say no more than that it cannot open it.
fn check_files(site: &Site, record: &Record) -> Result<()> {
    let (spec, folder) = (&record.spec, site.dirs.vm(record.spec.uuid));
    let disks = spec.disks.iter().map(|disk| (format!("its disk `{}`", disk.name), disk.file()));
    let seed = spec.seed.then(|| ("its first-boot volume".to_owned(), VmSpec::SEED.to_owned()));
    for (what, file) in disks.chain(seed) {
        let path = folder.join(file);
        if path.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(Error::failed(format!("cannot start `{}`", spec.name))
                .source(Error::failed(format!("{what} is missing: there is no file `{}`", path.display())))
                .hint(format!("put it back; else {}, and what is on its disks is lost", anew(site, record))));
        }
    }
    Ok(())
}

/// How a VM is made anew.
fn anew(site: &Site, record: &Record) -> String {
    let (name, template) = (&record.spec.name, &record.spec.template);
    // A config that is wrong is another day's matter.
    let has_entry = site.config().is_ok_and(|config| config.vm(name).is_some());
    match (has_entry, record.is_declared()) {
        (true, true) => format!("`v apply --replace {name}` makes it anew"),
        (true, false) => format!("`v vm delete {name}` and `v apply` make it anew"),
        (false, _) => format!("`v vm delete {name}` and `v vm create -t {template} -n {name}` make it anew"),
    }
}
