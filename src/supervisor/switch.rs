//! The VM's ports while the guest runs: a task beside the main loop that sees them go and puts
//! them back.
//!
//! ```text
//! told by the switch ─► missing ─► put back ─► restored          taken by another: left alone
//! the switch has started anew ─► its guard is put back: until then nothing passes
//! the link stays down ─► its socket is deaf ─► dead ─► unplug ─ the guest lets go ─► plug ─► restored
//!                                                        └─ it does not: told, `v vm restart` mends it
//! ```
//!
//! Calls that can take seconds run on a thread, so a switch that hangs never delays a stop. Before
//! the ports are released the task is closed: nothing of it is at work any more then.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::care::{Action, Care, Means};
use crate::error::{Error, Kind, Result};
use crate::host::{self, Cancel, Server};
use crate::hypervisor::{Hotplug, MachineEvent};
use crate::network::ovs::{Ovs, follow};
use crate::network::{self, Port};
use crate::spec::{self, Actor, Link, Nic, PortTrouble, VmSpec};
use crate::vm::{self, Site};

/// After this long the guards are put in once more: an earlier supervisor may have missed that the
/// switch started anew.
const UNSEEN: Duration = Duration::from_secs(3);
/// How often a hypervisor that waits for its switch is told that the guest is off.
const NUDGE: Duration = Duration::from_millis(500);
/// For so long.
const NUDGES: Duration = Duration::from_secs(60);
/// How long a guest that was asked to shut down may be held up by that.
const STOP: Duration = Duration::from_secs(10);

/// The task, as the main loop sees it.
#[derive(Debug)]
pub(super) struct Switch {
    hands: Arc<Hands>,
    events: mpsc::UnboundedSender<MachineEvent>,
    tasks: Vec<JoinHandle<()>>,
    /// Whether the hypervisor has to be told that nobody will connect any more.
    waits: bool,
}

impl Switch {
    pub(super) fn watch(site: &Site, spec: &VmSpec, ovs: &Ovs, hotplug: Option<Box<dyn Hotplug>>) -> Self {
        let cancel = Cancel::default();
        let hands = Arc::new(Hands {
            site: site.clone(),
            spec: spec.clone(),
            ovs: ovs.until(&cancel),
            run: site.hypervisor_run(spec.uuid),
            cancel,
            turn: Mutex::new(()),
        });
        let now = Instant::now();
        let cares = spec.nics.iter().filter_map(|nic| {
            let means = means(&nic.link, hotplug.is_some())?;
            Some(Care::new(nic.clone(), nic.port(spec.number), (spec.uuid, spec.name.clone()), means, now))
        });
        let cares: Vec<Care> = cares.collect();
        let (events, told) = mpsc::unbounded_channel();
        let waits = hotplug.is_some();
        let mut tasks = Vec::new();
        if !cares.is_empty() {
            let worker =
                Worker { site: site.clone(), hands: hands.clone(), hotplug, events: told, cares, noted: Vec::new() };
            tasks.push(tokio::task::spawn_local(worker.run()));
        }
        Self { hands, events, tasks, waits }
    }

    /// What the hypervisor tells and matters here.
    pub(super) fn tell(&mut self, event: &MachineEvent) {
        match event {
            MachineEvent::PoweredOff => self.nudge(Duration::ZERO),
            MachineEvent::Unplugged(_) | MachineEvent::Rebooted => {
                // A VM without ports has nobody who listens.
                let _ = self.events.send(event.clone());
            }
            _ => {}
        }
    }

    /// The guest was asked to shut down, and has so long for it.
    pub(super) fn stopping(&mut self, patience: Duration) {
        self.nudge((patience / 2).min(STOP));
    }

    /// A cloud-hypervisor that waits for its switch holds up a guest that lets go of the NIC, and
    /// does not end with it. A client that comes and goes ends the wait. Only when nobody else has
    /// ended it after a while: the NIC is lost by it.
    fn nudge(&mut self, after: Duration) {
        if self.waits {
            let hands = self.hands.clone();
            self.tasks.push(tokio::task::spawn_local(async move { hands.nudge(after).await }));
        }
    }

    /// Ends it; nothing touches the switch any more when this returns.
    pub(super) async fn close(self) {
        self.hands.cancel.set();
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        let hands = self.hands;
        let at_rest =
            tokio::task::spawn_blocking(move || drop(hands.turn.lock().unwrap_or_else(PoisonError::into_inner)));
        let _ = at_rest.await;
    }
}

fn bridge(link: &Link) -> Option<&str> {
    match link {
        Link::Vhost { bridge, .. } | Link::Tap { bridge, .. } => Some(bridge),
        Link::User => None,
    }
}

fn means(link: &Link, replaceable: bool) -> Option<Means> {
    match link {
        Link::Vhost { .. } if replaceable => Some(Means::Replaceable),
        Link::Vhost { .. } | Link::Tap { switch: spec::Switch::Ovs, .. } => Some(Means::Told),
        Link::Tap { switch: spec::Switch::Bridge, .. } => Some(Means::Poll),
        Link::User => None,
    }
}

/// What acts on the switch. It works on other threads too, one call at a time.
#[derive(Debug)]
struct Hands {
    site: Site,
    spec: VmSpec,
    ovs: Ovs,
    run: PathBuf,
    cancel: Cancel,
    turn: Mutex<()>,
}

impl Hands {
    fn socket(&self, nic: &Nic) -> PathBuf {
        self.run.join(nic.socket())
    }

    fn restore(&self, nic: &Nic) -> Result<bool> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.cancel.check()?;
        let spec = &self.spec;
        // It may have another guard by now.
        let recorded = self.site.store()?.get(spec.uuid)?;
        let recorded = recorded.and_then(|record| record.spec.nics.into_iter().find(|now| now.index == nic.index));
        let nic = &recorded.unwrap_or_else(|| nic.clone());
        // Its bridge first, and what else this host is on it.
        vm::networks::restore(&self.site, nic)?;
        let port = Port { vm: spec.uuid, vm_number: spec.number, vm_name: spec.name.as_str(), nic, ovs: &self.ovs };
        network::driver(&nic.link).restore(&port, &self.socket(nic))
    }

    async fn nudge(&self, after: Duration) {
        tokio::time::sleep(after).await;
        let until = Instant::now() + NUDGES;
        while Instant::now() < until {
            for nic in self.spec.nics.iter().filter(|nic| matches!(nic.link, Link::Vhost { .. })) {
                let socket = self.socket(nic);
                if host::server_state(&socket).is_ok_and(|server| server == Server::Listening) {
                    tracing::warn!(port = nic.port(self.spec.number), "the hypervisor waits no more for its switch");
                    drop(UnixStream::connect(socket).await);
                }
            }
            tokio::time::sleep(NUDGE).await;
        }
    }
}

struct Worker {
    site: Site,
    hands: Arc<Hands>,
    hotplug: Option<Box<dyn Hotplug>>,
    events: mpsc::UnboundedReceiver<MachineEvent>,
    cares: Vec<Care>,
    /// What the record says.
    noted: Vec<PortTrouble>,
}

impl Worker {
    async fn run(self) {
        let names: Vec<String> =
            self.cares.iter().filter(|care| care.is_told()).map(|care| care.port.clone()).collect();
        let (tell, told) = watch::channel(None);
        let hands = self.hands.clone();
        let guarded = self.cares.iter().find(|care| care.is_told() && care.nic.guard.is_some());
        let bridge = guarded.and_then(|care| bridge(&care.nic.link)).map(str::to_owned);
        let anew = Notify::new();
        let watched = async {
            let Some(bridge) = bridge else { return std::future::pending().await };
            loop {
                hands.ovs.started_anew(&bridge).await;
                anew.notify_one();
            }
        };
        let followed = async {
            if names.is_empty() {
                std::future::pending::<()>().await;
            }
            follow(&hands.ovs, &names, &tell).await;
        };
        tokio::select! {
            () = followed => {}
            () = watched => {}
            () = self.care(told, &anew) => {}
        }
    }

    async fn care(mut self, mut told: watch::Receiver<Option<network::ovs::Sightings>>, anew: &Notify) {
        // A supervisor that was killed may have left some.
        let record = self.site.store().and_then(|store| store.get(self.hands.spec.uuid)).ok().flatten();
        self.noted = record.and_then(|record| record.runtime).map(|runtime| runtime.troubles).unwrap_or_default();
        self.noted.retain(|trouble| self.cares.iter().any(|care| care.port == trouble.port));
        self.note();
        // It may have started anew while no supervisor was there.
        self.cares.iter_mut().for_each(|care| care.forgotten(Instant::now() + UNSEEN));
        loop {
            let due = self.cares.iter().filter_map(Care::due).min();
            let due = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = told.changed() => {
                    let seen = told.borrow_and_update();
                    for care in &mut self.cares {
                        if let Some(sight) = seen.as_ref().and_then(|seen| seen.get(&care.port)) {
                            care.see(sight, Instant::now());
                        }
                    }
                }
                Some(event) = self.events.recv() => {
                    let of = |care: &Care| match event {
                        MachineEvent::Unplugged(index) => care.nic.index == index,
                        _ => true,
                    };
                    self.cares.iter_mut().filter(|care| of(care)).for_each(|care| care.unplugged(Instant::now()));
                }
                () = anew.notified() => self.cares.iter_mut().for_each(|care| care.forgotten(Instant::now())),
                () = due => {}
            }
            // First what is known is told, and again what came of it.
            self.note();
            self.act().await;
            self.note();
        }
    }

    /// Does what is due.
    async fn act(&mut self) {
        for care in &mut self.cares {
            let Some(action) = care.begin(Instant::now()) else { continue };
            let nic = care.nic.clone();
            let hands = self.hands.clone();
            let refused = || Error::new(Kind::Failed, "this hypervisor cannot replace a NIC");
            match (action, &self.hotplug) {
                // Only system calls, and often: not worth a thread.
                (Action::Restore, _) if !care.is_told() => care.restored(hands.restore(&nic), Instant::now()),
                (Action::Restore, _) => {
                    let done = tokio::task::spawn_blocking(move || hands.restore(&nic)).await;
                    let done = done.unwrap_or_else(|error| Err(Error::failed("not put back").source(error)));
                    care.restored(done, Instant::now());
                }
                (Action::Guard, _) => {
                    let done = tokio::task::spawn_blocking(move || hands.restore(&nic)).await;
                    let done = done.unwrap_or_else(|error| Err(Error::failed("not guarded").source(error)));
                    care.guarded(done, Instant::now());
                }
                // While the guest reboots nobody listens, and nobody answers.
                (Action::Listen, Some(hotplug)) if !hotplug.answers().await => {
                    care.heard(Server::Listening, Instant::now());
                }
                (Action::Listen, _) => match host::server_state(&hands.socket(&nic)) {
                    Ok(server) => care.heard(server, Instant::now()),
                    Err(error) => tracing::warn!(%error, "this kernel does not say how a socket stands"),
                },
                (Action::Unplug, Some(hotplug)) => care.asked_to_unplug(hotplug.unplug(&nic).await, Instant::now()),
                (Action::Plug, Some(hotplug)) => {
                    care.plugged(hotplug.plug(&nic, &hands.socket(&nic)).await, Instant::now());
                }
                (Action::Unplug | Action::Plug, None) => care.plugged(Err(refused()), Instant::now()),
            }
        }
    }

    /// Writes what happened, and what is wrong now, if that has changed.
    fn note(&mut self) {
        let happenings: Vec<_> = self.cares.iter_mut().flat_map(Care::happenings).collect();
        let troubles: Vec<_> = self.cares.iter().filter_map(|care| care.trouble().cloned()).collect();
        if happenings.is_empty() && troubles == self.noted {
            return;
        }
        let spec = &self.hands.spec;
        let write = || -> Result<()> {
            let mut store = self.site.store()?.acting_as(Actor::Supervisor);
            for happening in &happenings {
                store.tell(spec, happening)?;
            }
            store.update(spec.uuid, |record| {
                if let Some(runtime) = &mut record.runtime {
                    // Others are not told by the switch.
                    runtime.troubles.retain(|trouble| self.cares.iter().all(|care| care.port != trouble.port));
                    runtime.troubles.extend(troubles.iter().cloned());
                }
                Ok(())
            })
        };
        if let Err(error) = write() {
            tracing::warn!(error = %error.chain().join(": "), "the state of the ports was not recorded");
        }
        self.noted = troubles;
    }
}
