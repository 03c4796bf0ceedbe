//! A supervisor as a unit: `virshle-vm@<uuid>.service`, started by systemd.
//!
//! systemd passes nothing on to what it starts, so the launcher listens on `<uuid>.start`, beside
//! the VM's runtime folder: the supervisor connects, is told what it is wanted for, and later says
//! that the VM runs, or why not. One that finds nobody there was started by systemd alone.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::launch::Purpose;
use super::{Site, make_private};
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Activity, Lock, LockError, Mode, ServiceManager, Unit};
use crate::spec::{Actor, Limits, VmSpec};

/// What a supervisor in a unit is started for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub purpose: Purpose,
    /// Whose wish it is.
    pub actor: Actor,
    /// Seconds for the hypervisor to come up and boot.
    pub deadline: u64,
}

/// Whether the VMs of this site are units.
pub fn serves(site: &Site) -> bool {
    site.dirs.mode == Mode::System && matches!(ServiceManager::find(), ServiceManager::Systemd(_))
}

/// Whether the name servers of this site's networks are units.
pub(super) fn serves_networks(site: &Site) -> bool {
    serves(site) && ServiceManager::has_unit(host::NETWORK_UNIT)
}

/// Whether the VM has no limits, or something that holds it to them.
pub fn limits_hold(site: &Site, spec: &VmSpec) -> bool {
    spec.policy.limits == Limits::default() || serves(site)
}

/// Removes what systemd remembers of a VM that is deleted.
pub(super) fn forget(site: &Site, spec: &VmSpec) -> Result<()> {
    if spec.policy.limits != Limits::default()
        && serves(site)
        && let Err(error) = Unit::of(spec.uuid).forget()
    {
        // It is in /run: gone with the next boot.
        tracing::warn!(vm = %spec.name, %error, "limits not removed");
    }
    Ok(())
}

/// A unit that was asked to start.
#[derive(Debug)]
pub(super) struct Launched(mpsc::Receiver<Result<Met>>);

/// Who came.
#[derive(Debug)]
pub(super) enum Met {
    /// It knows its order; its word is awaited. With the command that shows its log.
    Supervisor(File, String),
    /// Nobody, for the VM runs already, and is watched.
    Running,
}

impl Launched {
    pub(super) fn meet(self) -> Result<Met> {
        self.0.recv().or_failed(|| "its launcher ended in a panic".to_owned())?
    }
}

/// Starts the VM's unit. `None`: systemd would not, and the guest, which runs, is better watched by
/// a process of its own than by nobody (on the way down a host starts no unit any more).
pub(super) fn launch(
    site: &Site,
    spec: &VmSpec,
    purpose: Purpose,
    deadline: Duration,
    until: Instant,
) -> Result<Option<Launched>> {
    let failed = || format!("cannot launch the supervisor of `{}`", spec.name);
    let door = match Door::open(site, spec.uuid).map_err(|error| error.context(failed()))? {
        Some(door) => Some(door),
        None if purpose == Purpose::Adopt => None,
        None => {
            return Err(Error::refused(format!("cannot start `{}`", spec.name))
                .source(Error::failed("another command is starting it")));
        }
    };
    let unit = Unit::of(spec.uuid);
    match unit.start() {
        Err(error) if purpose == Purpose::Adopt => {
            tracing::info!(%error, "systemd starts no unit");
            return Ok(None);
        }
        started => started.or_failed(failed)?,
    }
    let order = Order { purpose, actor: host::caller(), deadline: deadline.as_secs().max(1) };
    let lock = site.lock(spec.uuid);
    let (sender, receiver) = mpsc::channel();
    // On a thread of its own: each of many supervisors is told at once what it is wanted for.
    std::thread::spawn(move || {
        // Nobody may wait any more.
        let _ = sender.send(meet(door.as_ref(), &unit, &order, &lock, until));
    });
    Ok(Some(Launched(receiver)))
}

/// Where a launcher waits for the supervisor. One at a time for each VM: the lock lies with the
/// VM's disks, so that it is deleted with it.
struct Door {
    listener: UnixListener,
    path: PathBuf,
    _lock: Lock,
}

impl Door {
    /// `None`: another launcher has it.
    fn open(site: &Site, vm: Uuid) -> Result<Option<Self>> {
        let lock = match Lock::try_take(&site.dirs.vm(vm).join("launch.lock")) {
            Ok(lock) => lock,
            Err(LockError::Held) => return Ok(None),
            Err(LockError::Io(error)) => return Err(Error::failed("cannot take the launcher's lock").source(error)),
        };
        let path = start_socket(site, vm);
        if let Some(folder) = path.parent() {
            make_private(folder)?;
        }
        // Of a launcher that was killed; anything else that is wrong is told by the bind.
        let _ = fs::remove_file(&path);
        let listen = || {
            let listener = UnixListener::bind(&path)?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(listener)
        };
        let listener = listen().or_failed(|| format!("cannot listen on `{}`", path.display()))?;
        Ok(Some(Self { listener, path, _lock: lock }))
    }

    fn accept(&self, patience: Duration) -> io::Result<Option<UnixStream>> {
        let timeout = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(false)?;
        Ok(Some(stream))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn start_socket(site: &Site, vm: Uuid) -> PathBuf {
    site.dirs.run(vm).with_extension("start")
}

/// How often systemd is asked what has become of the unit.
const LOOK: Duration = Duration::from_millis(250);

/// Waits for the supervisor, or for a reason why none comes.
fn meet(door: Option<&Door>, unit: &Unit, order: &Order, lock: &std::path::Path, until: Instant) -> Result<Met> {
    let log = format!("journalctl -u {}", unit.name());
    let come = |patience| -> Result<Option<Met>> {
        let Some(door) = door else {
            host::pause(patience);
            return Ok(None);
        };
        let failed = || "cannot talk to its supervisor".to_owned();
        let Some(mut stream) = door.accept(patience).or_failed(failed)? else { return Ok(None) };
        let mut line = serde_json::to_vec(order).or_failed(failed)?;
        line.push(b'\n');
        // One that is gone already is seen by whoever waits for its word.
        let _ = stream.write_all(&line);
        Ok(Some(Met::Supervisor(File::from(OwnedFd::from(stream)), log.clone())))
    };
    loop {
        if let Some(met) = come(LOOK)? {
            return Ok(met);
        }
        match unit.activity().or_failed(|| format!("cannot ask for `{}`", unit.name()))? {
            Activity::Active if Lock::is_held(lock).or_failed(|| format!("cannot look at `{}`", lock.display()))? => {
                return Ok(Met::Running);
            }
            // The end of an earlier run had not come to systemd's ears when it was asked.
            Activity::Active => unit.start().or_failed(|| format!("cannot start `{}`", unit.name()))?,
            Activity::Inactive => {
                // It may have come and gone while systemd was asked.
                return come(Duration::ZERO)?.ok_or_else(|| {
                    Error::failed("its supervisor ended without a word").hint(format!("its log: `{log}`"))
                });
            }
            Activity::Busy => {}
        }
        if Instant::now() >= until {
            return Err(Error::failed("its supervisor does not answer").hint(format!("its log: `{log}`")));
        }
    }
}

/// How long a launcher that listens may take to say what it wants.
const TOLD: Duration = Duration::from_secs(5);

/// In the unit: what it is wanted for, and by whom, if somebody listens.
pub fn take_order(site: &Site, vm: Uuid) -> Option<(Order, OwnedFd)> {
    let stream = UnixStream::connect(start_socket(site, vm)).ok()?;
    stream.set_read_timeout(Some(TOLD)).ok()?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).ok()?;
    Some((serde_json::from_str(&line).ok()?, stream.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Dirs;

    #[test]
    fn a_supervisor_is_told_its_order_and_the_door_is_closed_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::new(Dirs::find(Some(dir.path())).unwrap());
        let vm = Uuid::from_u128(7);
        assert!(take_order(&site, vm).is_none(), "nobody listens");
        make_private(&site.dirs.vm(vm)).unwrap();
        let door = Door::open(&site, vm).unwrap().unwrap();
        assert!(Door::open(&site, vm).unwrap().is_none(), "one launcher at a time");
        assert!(door.accept(Duration::ZERO).unwrap().is_none());

        let order = Order { purpose: Purpose::Adopt, actor: host::caller(), deadline: 9 };
        let supervisor = std::thread::spawn({
            let site = site.clone();
            move || take_order(&site, vm)
        });
        let until = Instant::now() + Duration::from_secs(20);
        let met = meet(Some(&door), &Unit::of(vm), &order, &site.lock(vm), until).unwrap();
        let (told, socket) = supervisor.join().unwrap().unwrap();
        assert_eq!(told, order);
        File::from(socket).write_all(b"null\n").unwrap();
        let Met::Supervisor(ready, _) = met else { panic!("{met:?}") };
        assert_eq!(io::read_to_string(ready).unwrap(), "null\n");
        drop(door);
        assert!(!start_socket(&site, vm).exists());
        assert!(Door::open(&site, vm).unwrap().is_some());
    }
}
