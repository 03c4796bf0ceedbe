//! What is on the host that no VM accounts for.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use virshle::host::Dirs;
use virshle::spec::{Link, State};
use virshle::store::{Record, Store};
use virshle::vm::{Observed, Site, observe};

use crate::fixtures::ovs::PrivateOvs;
use crate::world::World;

/// Everything of this world that should not be there; empty is in order.
pub fn over(world: &World, ovs: Option<&PrivateOvs>) -> Vec<String> {
    let observed = observed(world);
    let records: Vec<&Record> = observed.iter().map(|observed| &observed.record).collect();
    let mut found = Vec::new();
    for one in &observed {
        let (name, state) = (&one.record.spec.name, one.state);
        let moves = matches!(state, State::Starting | State::Stopping | State::Restarting);
        if one.unwatched || moves || state != one.record.state {
            found.push(format!("`{name}` is {state} (recorded: {}), unwatched: {}", one.record.state, one.unwatched));
        }
    }
    for record in &records {
        let name = &record.spec.name;
        if matches!(record.state, State::Creating | State::Deleting) {
            found.push(format!("`{name}` is still {}", record.state));
        }
        if record.progress.is_some() {
            found.push(format!("`{name}` is {} with progress {:?}", record.state, record.progress));
        }
    }
    let live: Vec<&&Record> = records.iter().filter(|record| record.state.is_live()).collect();
    let all: HashSet<String> = records.iter().map(|record| record.spec.uuid.to_string()).collect();
    let running: HashSet<String> = live.iter().map(|record| record.spec.uuid.to_string()).collect();
    for (dir, owners) in [(world.state().join("vm"), &all), (world.root().join("run/virshle/vm"), &running)] {
        found.extend(
            entries(&dir)
                .into_iter()
                .filter(|name| !owners.contains(name))
                .map(|name| format!("{}/{name} is nobody's", dir.display())),
        );
    }
    for record in &records {
        let dir = world.state().join("vm").join(record.spec.uuid.to_string());
        let half_made = |name: &String| [".new", ".partial"].iter().any(|ending| name.ends_with(ending));
        found.extend(entries(&dir).into_iter().filter(half_made).map(|name| format!("{name} is half made")));
    }
    let known: HashSet<i32> = live
        .iter()
        .filter_map(|record| record.runtime.as_ref())
        .flat_map(|runtime| {
            let helpers = runtime.helpers.iter().map(|helper| helper.process);
            [Some(runtime.supervisor), runtime.hypervisor].into_iter().flatten().chain(helpers)
        })
        .map(|handle| handle.pid)
        .collect();
    found.extend(
        processes(world)
            .into_iter()
            .filter(|pid| !known.contains(pid))
            .map(|pid| format!("process {pid} ({}) is in no record", command_line(pid))),
    );
    if let Some(ovs) = ovs {
        let ports: HashSet<String> = live
            .iter()
            .flat_map(|record| {
                let nics = record.spec.nics.iter().filter(|nic| !matches!(nic.link, Link::User));
                nics.map(|nic| nic.port(record.spec.number))
            })
            .collect();
        let there = ovs.vsctl(&["list-ports", "vsbr0"]).expect("ovs-vsctl");
        let there: HashSet<String> = there.lines().map(str::to_owned).collect();
        found.extend(there.symmetric_difference(&ports).map(|port| format!("port {port} is left, or missing")));
    }
    let addresses: Vec<_> =
        records.iter().flat_map(|record| &record.spec.nics).filter_map(|nic| nic.address.clone()).collect();
    if addresses.iter().map(|address| address.ip).collect::<HashSet<_>>().len() != addresses.len() {
        found.push(format!("an address is given twice: {addresses:?}"));
    }
    found
}

/// The VMs as `v vm ls` sees them.
pub fn observed(world: &World) -> Vec<Observed> {
    let site = Site::new(Dirs::find(Some(&world.root())).expect("the folders"));
    let store = Store::open_read_only(&site.dirs.database()).expect("the store opens");
    let records = store.map(|store| store.list().expect("the VMs are listed")).unwrap_or_default();
    records.into_iter().map(|record| observe(&site, record).expect("its lock is looked at")).collect()
}

fn entries(dir: &Path) -> Vec<String> {
    let found = fs::read_dir(dir).into_iter().flatten();
    found.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// The supervisors, hypervisors and helpers of this world: what writes its standard error into it, or
/// has shut itself out of all files and still names one of it.
pub fn processes(world: &World) -> Vec<i32> {
    let is_ours = |pid: &i32| {
        let words = command_line(*pid);
        if words.contains("--vhost-user") && words.contains(&world.dir().display().to_string()) {
            return true;
        }
        let log: Option<PathBuf> = fs::read_link(format!("/proc/{pid}/fd/2")).ok();
        log.is_some_and(|log| log.starts_with(world.dir()))
    };
    entries(Path::new("/proc")).iter().filter_map(|name| name.parse().ok()).filter(is_ours).collect()
}

pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}
