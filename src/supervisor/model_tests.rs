//! One VM in a world of its own: random commands, steps of its supervisor, ends and kills, in
//! random order. The decisions are the real ones; processes, ports and the lock are a few fields.

use proptest::prelude::*;
use uuid::Uuid;

use super::again::{self, Next};
use super::decide::{self, Decision, decide};
use crate::host::{Handle, Timestamp};
use crate::spec::{Event, Exit, Intent, Policy, Restart, State, VmSpec};
use crate::store::Record;
use crate::vm::{Purpose, awaits_another_run};

#[derive(Debug, Clone, Copy)]
enum Op {
    /// `v vm start`, `delete`, or any other command that meets the VM.
    Start,
    Delete,
    Meet,
    /// What a command asks of the supervisor.
    Stop(Intent),
    GiveUpStop,
    Pause,
    Resume,
    /// The supervisor comes one step further.
    Advance,
    /// The hypervisor ends.
    Exits(bool),
    KillSupervisor,
}

/// How far the supervisor, which holds the lock, has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The start is recorded; ports come next, then the process, then the boot.
    Starting,
    Plugged,
    Launched,
    Watching,
    /// It has seen the end and has still to clear up and to record it.
    Ended,
    Cleared,
    /// `restarting` is recorded, because somebody asked for it.
    Between,
    /// `restarting` is recorded, by the restart policy; the attempt is due some time.
    Waiting,
}

#[derive(Debug)]
struct World {
    record: Record,
    gone: bool,
    supervisor: Option<Phase>,
    hypervisor: Option<Handle>,
    ports: bool,
    /// Of the present run, as the supervisor remembers it.
    asked: Option<Intent>,
    seen: Option<Exit>,
    processes: i32,
    /// A restart was accepted and nothing has come between: the VM must run again in the end.
    owed: bool,
}

impl World {
    fn new(restart: Restart) -> Self {
        let spec = VmSpec { policy: Policy { restart, ..Policy::default() }, ..VmSpec::sample(Uuid::nil()) };
        let record = Record {
            spec,
            state: State::Stopped,
            intent: None,
            exit: None,
            runtime: None,
            owner: None,
            progress: None,
            declared: None,
            retries: None,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            started_at: None,
        };
        Self {
            record,
            gone: false,
            supervisor: None,
            hypervisor: None,
            ports: false,
            asked: None,
            seen: None,
            processes: 100,
            owed: false,
        }
    }

    fn process(&mut self) -> Handle {
        self.processes += 1;
        Handle { pid: self.processes, start_time: 1 }
    }

    fn act(&mut self, op: Op) {
        if self.gone {
            return;
        }
        match op {
            Op::Start => {
                // What `vm::start` looks at first.
                if self.supervisor.is_none() && !awaits_another_run(&self.record) {
                    self.meet();
                }
                if self.record.state.after(&Event::Start).is_ok() {
                    self.launch(Purpose::Start);
                }
            }
            Op::Meet => self.meet(),
            Op::Delete => {
                self.meet();
                if self.record.apply(&Event::Delete).is_ok() {
                    self.gone = true;
                }
            }
            Op::Stop(intent) => self.stop(intent),
            Op::GiveUpStop if self.supervisor == Some(Phase::Watching) => {
                if self.record.apply(&Event::StopGivenUp).is_ok() {
                    (self.record.intent, self.asked, self.owed) = (None, None, false);
                }
            }
            Op::Pause if self.supervisor == Some(Phase::Watching) => drop(self.record.apply(&Event::Pause)),
            Op::Resume if self.supervisor == Some(Phase::Watching) => drop(self.record.apply(&Event::Resume)),
            Op::Advance => self.advance(),
            Op::Exits(clean) => self.exits(clean),
            Op::KillSupervisor => self.supervisor = None,
            Op::GiveUpStop | Op::Pause | Op::Resume => {}
        }
    }

    /// `vm::reconcile`.
    fn meet(&mut self) {
        if self.supervisor.is_some() || !self.record.state.is_live() {
            return;
        }
        let policy = self.record.spec.policy.restart != Restart::No;
        if self.hypervisor.is_some() || awaits_another_run(&self.record) || policy {
            self.launch(Purpose::Adopt);
        } else {
            self.ports = false;
            self.record.end_unseen().unwrap();
        }
    }

    /// A supervisor, from the lock on.
    fn launch(&mut self, purpose: Purpose) {
        if self.supervisor.is_some() {
            return;
        }
        let us = self.process();
        for _ in 0..3 {
            let alive = self.hypervisor;
            match decide(&mut self.record, purpose, us, |handle| Some(handle) == alive) {
                Err(_) | Ok(Decision::Nothing) => return,
                Ok(Decision::CutShort(process)) => {
                    assert_eq!(process, self.hypervisor, "what is ended is the process that lives");
                    (self.hypervisor, self.ports) = (None, false);
                    decide::cut_short(&mut self.record, None, Timestamp::UNIX_EPOCH, us).unwrap();
                }
                Ok(Decision::Wait(_)) => {
                    assert_eq!(self.hypervisor, None, "nothing runs while it waits");
                    self.supervisor = Some(Phase::Waiting);
                    return;
                }
                Ok(Decision::Start) => {
                    assert_eq!(self.hypervisor, None, "no second hypervisor beside a first");
                    self.asked = self.record.intent;
                    self.supervisor = Some(Phase::Starting);
                    return;
                }
                Ok(Decision::Adopt(process)) => {
                    assert_eq!(Some(process), self.hypervisor, "what is adopted lives");
                    self.record.runtime.as_mut().unwrap().supervisor = us;
                    self.asked = self.record.intent;
                    self.supervisor = Some(Phase::Watching);
                    // What was asked is done again: it may have been no more than a wish.
                    return;
                }
            }
        }
        panic!("the decisions go round in circles: {:?}", self.record);
    }

    fn stop(&mut self, intent: Intent) {
        self.meet();
        match self.supervisor {
            Some(Phase::Watching) if self.record.apply(&Event::Stop).is_ok() => {
                self.record.intent = Some(intent);
                self.asked = Some(intent);
                self.owed = intent == Intent::Restart;
            }
            // Nobody is to be asked: it is not started again.
            Some(Phase::Waiting) => {
                self.record.apply(&Event::Stop).unwrap();
                (self.record.runtime, self.record.retries, self.supervisor) = (None, None, None);
            }
            // The start is given up.
            Some(Phase::Starting | Phase::Plugged | Phase::Launched) => {
                self.hypervisor = None;
                (self.asked, self.seen, self.owed) = (None, Some(Exit::Forced), false);
                self.supervisor = Some(Phase::Ended);
            }
            _ => {}
        }
    }

    fn advance(&mut self) {
        let Some(phase) = self.supervisor else { return };
        self.supervisor = match phase {
            Phase::Starting => {
                self.ports = true;
                Some(Phase::Plugged)
            }
            Phase::Plugged => {
                let process = self.process();
                self.hypervisor = Some(process);
                self.record.runtime.as_mut().unwrap().hypervisor = Some(process);
                Some(Phase::Launched)
            }
            Phase::Launched if self.hypervisor.is_none() => {
                (self.asked, self.seen) = (None, Some(Exit::BootFailed { detail: String::new() }));
                Some(Phase::Ended)
            }
            Phase::Launched => {
                self.record.apply(&Event::Booted).unwrap();
                (self.record.intent, self.asked, self.owed) = (None, None, false);
                Some(Phase::Watching)
            }
            Phase::Watching if self.hypervisor.is_none() => {
                self.seen.get_or_insert(Exit::Unseen);
                Some(Phase::Ended)
            }
            // A guest that was asked to end does so.
            Phase::Watching if self.record.state == State::Stopping => {
                self.hypervisor = None;
                self.seen = Some(Exit::Stopped);
                Some(Phase::Ended)
            }
            Phase::Watching => Some(Phase::Watching),
            Phase::Ended => {
                self.ports = false;
                Some(Phase::Cleared)
            }
            Phase::Cleared => {
                let exit = self.seen.take().unwrap();
                let us = self.process();
                match again::settle(&mut self.record, exit, self.asked, Timestamp::UNIX_EPOCH, us).unwrap() {
                    Next::End | Next::GiveUp { .. } => None,
                    Next::AtOnce => Some(Phase::Between),
                    Next::Again(_) => Some(Phase::Waiting),
                }
            }
            Phase::Between | Phase::Waiting => {
                let us = self.process();
                decide::start(&mut self.record, us).unwrap();
                self.asked = self.record.intent;
                Some(Phase::Starting)
            }
        };
    }

    fn exits(&mut self, clean: bool) {
        if self.hypervisor.take().is_none() {
            return;
        }
        match self.supervisor {
            Some(Phase::Watching) => {
                self.seen = Some(if clean { Exit::PoweredOff } else { Exit::Killed { signal: 9 } });
                self.supervisor = Some(Phase::Ended);
            }
            // A start that fails by itself is told, and not tried again.
            Some(Phase::Launched) => self.owed = false,
            _ => {}
        }
    }

    /// What must hold after everything that happens.
    fn check(&self) {
        let record = &self.record;
        let state = record.state;
        if let Some(process) = self.hypervisor {
            let named = record.runtime.as_ref().and_then(|runtime| runtime.hypervisor);
            assert_eq!(named, Some(process), "the record names the hypervisor that lives: {self:?}");
            assert!(state.is_live() && state != State::Restarting, "{self:?}");
        }
        if !state.is_live() {
            assert_eq!((self.supervisor, self.ports), (None, false), "nothing is left of a run: {self:?}");
            assert!(record.runtime.is_none() && record.intent.is_none(), "{self:?}");
            assert!(!self.owed, "a restart is never forgotten: {self:?}");
        }
        assert_eq!(state == State::Deleting, self.gone, "{self:?}");
        let restarts = record.intent == Some(Intent::Restart);
        assert!(!self.owed || restarts, "the wish is written down: {self:?}");
        assert!(state != State::Restarting || restarts || record.retries.is_some(), "{self:?}");
    }

    /// Commands that meet the VM, and time: it comes to rest, and can then be used as ever.
    fn comes_to_rest(mut self) {
        let owed = self.owed;
        for _ in 0..40 {
            self.meet();
            self.advance();
            self.check();
        }
        if self.gone {
            return;
        }
        assert!(matches!(self.record.state, State::Stopped | State::Crashed | State::Running | State::Paused));
        let runs = matches!(self.record.state, State::Running | State::Paused);
        assert_eq!(runs, self.hypervisor.is_some() && self.supervisor == Some(Phase::Watching), "{self:?}");
        assert!(runs || !owed, "what was to be restarted runs: {self:?}");
        self.act(Op::Start);
        (0..10).for_each(|_| self.advance());
        assert!(self.hypervisor.is_some(), "it can be started: {self:?}");
        self.check();
    }
}

/// By weight. Plain numbers are drawn, because a tree of strategies for each takes seconds.
const OPS: [Op; 22] = [
    Op::Start,
    Op::Start,
    Op::Start,
    Op::Meet,
    Op::Pause,
    Op::Resume,
    Op::GiveUpStop,
    Op::Stop(Intent::Stop),
    Op::Stop(Intent::ForceStop),
    Op::Stop(Intent::Restart),
    Op::Stop(Intent::Restart),
    Op::Advance,
    Op::Advance,
    Op::Advance,
    Op::Advance,
    Op::Advance,
    Op::Advance,
    Op::Exits(true),
    Op::Exits(false),
    Op::KillSupervisor,
    Op::KillSupervisor,
    Op::Delete,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn any_sequence_of_commands_ends_and_kills(policy in 0..3_usize, ops in prop::collection::vec(0..OPS.len(), 0..60)) {
        let mut world = World::new([Restart::No, Restart::OnCrash, Restart::Always][policy]);
        for op in ops {
            world.act(OPS[op]);
            world.check();
        }
        world.comes_to_rest();
    }
}
