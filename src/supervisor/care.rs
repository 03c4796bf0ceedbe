use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::error::{Error, Kind};
use crate::host::Server;
use crate::network::ovs::Sight;
use crate::spec::{Ailment, Happening, Name, Nic, PortTrouble};

/// A link may be down for a moment: only after this is its socket looked at, and looked at again.
const GRACE: Duration = Duration::from_secs(3);
/// How often the socket of a link that stays down is looked at.
const LISTEN: Duration = Duration::from_secs(30);
/// How often a port whose bridge tells nothing is looked at.
const POLL: Duration = Duration::from_secs(10);
/// Between two tries to put a guard back, for a while.
const GUARD_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PLUG_PAUSE: Duration = Duration::from_secs(60);

/// What is to be done for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Put it back on its bridge, if it is not there.
    Restore,
    /// See how its socket stands.
    Listen,
    /// Ask the guest to give up the NIC behind it.
    Unplug,
    /// Plug the NIC in again.
    Plug,
    /// Put its guard back into a switch that has started anew.
    Guard,
}

/// Where the guest's NIC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plugged {
    In,
    /// The guest was asked to give it up.
    Asked,
    Out,
}

/// How a port can be cared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// Nothing tells of it: it is put back, if need be, from time to time.
    Poll,
    /// The switch's database tells of it.
    Told,
    /// And its NIC can be replaced.
    Replaceable,
}

/// One port, what is wrong with it, and what comes next. Pure: others look and act.
#[derive(Debug)]
pub(super) struct Care {
    pub(super) nic: Nic,
    pub(super) port: String,
    vm: Uuid,
    vm_name: Name,
    means: Means,
    trouble: Option<PortTrouble>,
    due: Option<(Instant, Action)>,
    /// When its guard is put in again.
    unguarded: Option<Instant>,
    guard_tries: u32,
    tries: u32,
    heard_deaf: bool,
    plugged: Plugged,
    happenings: Vec<Happening>,
}

impl Care {
    pub(super) fn new(nic: Nic, port: String, vm: (Uuid, Name), means: Means, now: Instant) -> Self {
        let due = (means == Means::Poll).then_some((now + POLL, Action::Restore));
        Self {
            nic,
            port,
            vm: vm.0,
            vm_name: vm.1,
            means,
            trouble: None,
            due,
            unguarded: None,
            guard_tries: 0,
            tries: 0,
            heard_deaf: false,
            plugged: Plugged::In,
            happenings: Vec::new(),
        }
    }

    pub(super) fn is_told(&self) -> bool {
        self.means != Means::Poll
    }

    pub(super) fn trouble(&self) -> Option<&PortTrouble> {
        self.trouble.as_ref()
    }

    /// What came to pass since this was asked last.
    pub(super) fn happenings(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happenings)
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due.map(|(at, _)| at).into_iter().chain(self.unguarded).min()
    }

    /// What is due; it is taken as begun.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Action> {
        let guard = self.unguarded.take_if(|at| *at <= now).map(|_| Action::Guard);
        guard.or_else(|| self.due.take_if(|(at, _)| *at <= now).map(|(_, action)| action))
    }

    /// Its switch has started anew, or did while nobody looked.
    pub(super) fn forgotten(&mut self, at: Instant) {
        if self.nic.guard.is_some() && self.is_told() {
            self.unguarded = Some(at);
            self.guard_tries = 0;
        }
    }

    /// After [`Action::Guard`]. Nothing passes on its port while that fails.
    pub(super) fn guarded(&mut self, result: Result<bool, Error>, now: Instant) {
        match result {
            // It was away, and is back with its guard.
            Ok(true) => self.restored(Ok(true), now),
            Ok(false) if self.ailment() == Some(Ailment::Failed) => self.heal(),
            Ok(false) => {}
            Err(error) => {
                if !matches!(self.ailment(), Some(Ailment::Missing | Ailment::Dead | Ailment::Taken)) {
                    self.ail(Ailment::Failed, Some(error.chain().join(": ")));
                }
                let pause = if self.guard_tries < 20 { GUARD_PAUSE } else { LONGEST_PAUSE };
                self.guard_tries += 1;
                self.unguarded = Some(now + pause);
            }
        }
    }

    /// What the switch's database says.
    pub(super) fn see(&mut self, sight: &Sight, now: Instant) {
        match sight {
            Sight::Missing => {
                if self.ailment().is_none_or(|ailment| ailment == Ailment::Failed) {
                    self.lose(None);
                }
                if self.due.is_none_or(|(_, action)| action != Action::Restore) {
                    self.tries = 0;
                    self.due = Some((now, Action::Restore));
                }
            }
            Sight::Present { vm, .. } if *vm != Some(self.vm) => {
                self.taken(vm.map_or_else(|| "it was not made by virshle".to_owned(), |vm| format!("the VM {vm}")));
            }
            Sight::Present { error, link_up, .. } => {
                if self.ailment() != Some(Ailment::Dead) {
                    match error {
                        Some(error) => self.ail(Ailment::Failed, Some(error.clone())),
                        None => self.heal(),
                    }
                }
                self.due.take_if(|(_, action)| *action == Action::Restore);
                self.go_on(*link_up == Some(true), now);
            }
        }
    }

    /// For a port that is on its switch.
    fn go_on(&mut self, link_up: bool, now: Instant) {
        match self.plugged {
            Plugged::Out if self.due.is_none() => self.due = Some((now, Action::Plug)),
            Plugged::In if link_up => {
                self.heard_deaf = false;
                self.due = None;
                if self.ailment() == Some(Ailment::Dead) {
                    self.heal();
                }
            }
            Plugged::In if self.means == Means::Replaceable && self.due.is_none() => {
                self.due = Some((now + GRACE, Action::Listen));
            }
            _ => {}
        }
    }

    /// After [`Action::Restore`].
    pub(super) fn restored(&mut self, result: Result<bool, Error>, now: Instant) {
        match result {
            Ok(put_back) => {
                if put_back && self.trouble.is_none() {
                    self.lose(None);
                }
                self.tries = 0;
                if self.ailment() != Some(Ailment::Dead) {
                    self.heal();
                }
                if self.is_told() {
                    self.go_on(false, now);
                }
            }
            Err(error) if error.kind() == Kind::Refused => self.taken(error.chain().join(": ")),
            Err(error) => {
                let reason = Some(error.chain().join(": "));
                match &mut self.trouble {
                    None => self.lose(reason),
                    Some(trouble) => trouble.detail = reason,
                }
                let pause = Duration::from_secs(1 << self.tries.min(4)).min(LONGEST_PAUSE);
                self.tries += 1;
                self.due = Some((now + pause, Action::Restore));
            }
        }
        if self.means == Means::Poll {
            self.due = Some((now + POLL, Action::Restore));
        }
    }

    /// After [`Action::Listen`]. A socket that is deaf twice stays so.
    pub(super) fn heard(&mut self, server: Server, now: Instant) {
        match (server, self.heard_deaf) {
            (Server::Deaf, true) => {
                let port = &self.port;
                tracing::error!(port, "the guest's NIC is cut off: nothing listens on its socket any more");
                let hint = format!("unless the guest gives it up, `v vm restart {}` mends it", self.vm_name);
                self.trouble = Some(self.with(Ailment::Dead, Some(hint)));
                self.happenings.push(Happening::PortDead { port: self.port.clone() });
                self.heard_deaf = false;
                self.due = Some((now, Action::Unplug));
            }
            (Server::Deaf, false) => {
                self.heard_deaf = true;
                self.due = Some((now + GRACE, Action::Listen));
            }
            _ => {
                self.heard_deaf = false;
                self.due = Some((now + LISTEN, Action::Listen));
            }
        }
    }

    /// After [`Action::Unplug`]. One that is refused may have been out already.
    pub(super) fn asked_to_unplug(&mut self, result: Result<(), Error>, now: Instant) {
        match result {
            Ok(()) => self.plugged = Plugged::Asked,
            Err(error) => {
                tracing::warn!(port = self.port, error = %error.chain().join(": "), "the NIC was not unplugged");
                self.out(now);
            }
        }
    }

    /// The guest has given it up, or has rebooted and come back without it.
    pub(super) fn unplugged(&mut self, now: Instant) {
        if self.plugged == Plugged::Asked {
            self.out(now);
        }
    }

    fn out(&mut self, now: Instant) {
        self.plugged = Plugged::Out;
        self.tries = 0;
        self.due = Some((now, Action::Plug));
    }

    /// After [`Action::Plug`].
    pub(super) fn plugged(&mut self, result: Result<(), Error>, now: Instant) {
        match result {
            Ok(()) => {
                self.plugged = Plugged::In;
                self.heal();
                self.due = Some((now + LISTEN, Action::Listen));
            }
            Err(error) => {
                let chain = error.chain().join(": ");
                tracing::warn!(port = self.port, error = chain, "the NIC was not plugged in");
                if let Some(trouble) = &mut self.trouble {
                    trouble.detail = Some(format!("{chain}; if it stays so, `v vm restart {}`", self.vm_name));
                }
                let pause = Duration::from_secs(5 << self.tries.min(4)).min(LONGEST_PLUG_PAUSE);
                self.tries += 1;
                self.due = Some((now + pause, Action::Plug));
            }
        }
    }

    fn ailment(&self) -> Option<Ailment> {
        self.trouble.as_ref().map(|trouble| trouble.ailment)
    }

    fn with(&self, ailment: Ailment, detail: Option<String>) -> PortTrouble {
        PortTrouble { port: self.port.clone(), ailment, detail }
    }

    fn ail(&mut self, ailment: Ailment, detail: Option<String>) {
        let trouble = Some(self.with(ailment, detail));
        if self.trouble != trouble {
            self.trouble = trouble;
            tracing::warn!(trouble = self.trouble.as_ref().map(ToString::to_string), "port");
        }
    }

    fn lose(&mut self, detail: Option<String>) {
        self.ail(Ailment::Missing, detail);
        self.happenings.push(Happening::PortLost { port: self.port.clone() });
    }

    /// It is not ours any more: whoever has it may be at work with it.
    fn taken(&mut self, by: String) {
        if self.trouble.is_none() {
            self.happenings.push(Happening::PortLost { port: self.port.clone() });
        }
        self.ail(Ailment::Taken, Some(by));
        self.due = None;
    }

    fn heal(&mut self) {
        let Some(trouble) = self.trouble.take() else { return };
        tracing::info!(port = self.port, was = ?trouble.ailment, "port well again");
        if trouble.ailment != Ailment::Failed {
            self.happenings.push(Happening::PortRestored { port: trouble.port });
        }
    }
}

#[cfg(test)]
#[path = "care_tests.rs"]
mod tests;
