//! The programs that run beside a hypervisor: there before it, adopted with it, ended with it.
//!
//! ```text
//! gate ─► recorded ─► its program ─► it listens ─► (next one …) ─► the hypervisor
//! ```
//!
//! One that ends while the guest runs is not brought back: what it served would not find it again.
//! That is told in the log and in the history, and a NIC's is a trouble of its port.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::timeout;

use crate::error::{Error, OrFailed, Result};
use crate::host::{Child, Gate, Server, Spawn, server_state};
use crate::hypervisor::{Helper as Plan, LaunchLog};
use crate::spec::{Serves, VmSpec};
use crate::store::Helper;
use crate::vm::{Site, Steps};

/// How often a helper that starts is looked at.
const POLL: Duration = Duration::from_millis(3);
/// After SIGKILL only a process stuck in the kernel takes longer.
const KILLED: Duration = Duration::from_secs(10);

/// Those of one run. Dropping the value ends them.
#[derive(Debug, Default)]
pub(super) struct Helpers {
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    serves: Serves,
    child: Child,
}

impl Helpers {
    /// Starts them one after the other. `recorded` is told each while it waits at its gate.
    pub(super) async fn start(
        site: &Site,
        spec: &VmSpec,
        plans: &[Plan],
        gate: &Gate,
        deadline: Duration,
        steps: &Steps,
        recorded: impl Fn(Helper) -> Result<()>,
    ) -> Result<Self> {
        let mut helpers = Self::default();
        let until = Instant::now() + deadline;
        for plan in plans {
            let name = plan.serves.program();
            let started = async {
                let (log, file) = LaunchLog::open(&site.helper_log(spec.uuid, plan.serves))?;
                let failed = || format!("cannot run `{}`", plan.program.display());
                let gated =
                    Spawn::new(&plan.program).args(&plan.args).log(file).detached().start_at(gate).or_failed(failed)?;
                let process = gated.handle();
                steps.step(&format!("{name} process"), || recorded(Helper { serves: plan.serves, process }))?;
                let child = gated.open().or_failed(failed)?;
                listens(plan, &child, &log, until).await?;
                Ok(Running { serves: plan.serves, child })
            };
            helpers.running.push(steps.wait(name, started).await?);
        }
        Ok(helpers)
    }

    /// Those of an earlier supervisor's run, and what is served no more.
    pub(super) fn adopt(recorded: &[Helper]) -> (Self, Vec<Serves>) {
        let (mut helpers, mut lost) = (Self::default(), Vec::new());
        for Helper { serves, process } in recorded {
            match Child::adopt(*process) {
                Ok(Some(child)) => helpers.running.push(Running { serves: *serves, child }),
                Ok(None) | Err(_) => lost.push(*serves),
            }
        }
        (helpers, lost)
    }

    /// Waits until one ends, and forgets it. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> Serves {
        let mut waits: Vec<Pin<Box<dyn Future<Output = _> + '_>>> = Vec::new();
        for one in &self.running {
            waits.push(Box::pin(one.child.wait()));
        }
        let index = poll_fn(|context| {
            let ended = waits.iter_mut().position(|wait| wait.as_mut().poll(context).is_ready());
            ended.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        drop(waits);
        self.running.remove(index).serves
    }

    /// Ends them, and returns when they are gone.
    pub(super) async fn end(self) {
        for Running { serves, child } in self.running {
            let gone = match child.signal(Signal::KILL) {
                Ok(()) => timeout(KILLED, child.wait()).await.is_ok_and(|ended| ended.is_ok()),
                Err(_) => false,
            };
            if !gone {
                tracing::warn!(pid = child.pid(), "`{}` does not end", serves.program());
            }
        }
    }

    /// Lets them run on without us.
    pub(super) fn leave(self) {
        self.running.into_iter().for_each(|one| one.child.leave());
    }

    pub(super) fn pids(&self) -> Vec<i32> {
        self.running.iter().map(|one| one.child.pid()).collect()
    }
}

/// Waits for a server. The socket's file is there a moment before anybody listens.
async fn is_served(socket: &Path, until: Instant) -> bool {
    loop {
        match server_state(socket) {
            Ok(Server::Listening | Server::Connected) => return true,
            Ok(Server::Deaf) => {}
            // A kernel that does not say how a socket stands.
            Err(_) if socket.exists() => return true,
            Err(_) => {}
        }
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until it can be connected to.
async fn listens(plan: &Plan, child: &Child, log: &LaunchLog, until: Instant) -> Result<()> {
    let name = plan.serves.program();
    let error = tokio::select! {
        biased;
        there = is_served(&plan.socket, until) => match there {
            true => return Ok(()),
            false => Error::failed(format!("`{name}` does not listen on `{}`", plan.socket.display())),
        },
        _ = child.wait() => Error::failed(format!("`{name}` ended while it was starting")),
    };
    Err(match log.last_words() {
        Some(words) => error.source(words),
        None => error,
    })
}
