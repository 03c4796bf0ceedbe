//! What is killed: each verb with what it needs before it, and what shall be true after it.

use std::ffi::OsStr;
use std::time::Duration;

use virshle::spec::State;
use virshle::vm::Observed;

use super::left::observed;
use crate::lifecycle::Stage;
use crate::world::{Run, run};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Nothing,
    Stopped,
    Running,
    /// One that nothing was done to yet, and that does not run.
    Fresh,
}

pub struct Verb {
    pub name: &'static str,
    pub args: &'static [&'static str],
    pub before: Before,
    /// Whether the verb has been done, with the hypervisor's process before it.
    pub is_done: fn(&Stage, Option<i32>) -> bool,
}

const CREATE: &[&str] = &["vm", "create", "-t", "crash-me", "-n", "a", "--count", "2"];

/// One line more is one verb more.
pub const VERBS: &[Verb] = &[
    Verb { name: "create", args: CREATE, before: Before::Nothing, is_done: created },
    Verb { name: "start", args: &["vm", "start", "a"], before: Before::Stopped, is_done: runs },
    Verb { name: "stop", args: &["vm", "stop", "a"], before: Before::Running, is_done: is_off },
    Verb {
        name: "stop --force",
        args: &["vm", "stop", "--force", "--timeout", "0", "a"],
        before: Before::Running,
        is_done: is_off,
    },
    Verb { name: "restart", args: &["vm", "restart", "a"], before: Before::Running, is_done: runs_anew },
    Verb { name: "rename", args: &["vm", "rename", "a", "b"], before: Before::Running, is_done: is_renamed },
    Verb { name: "delete", args: &["vm", "delete", "a"], before: Before::Stopped, is_done: is_gone },
    Verb { name: "delete --force", args: &["vm", "delete", "--force", "a"], before: Before::Running, is_done: is_gone },
    Verb { name: "apply", args: &["apply", "--yes", "--adopt", "a"], before: Before::Fresh, is_done: is_reshaped },
];

/// What brings a host to order after something was killed on it.
pub fn mend(stage: &Stage) -> Run {
    stage.world.v(["repair"])
}

/// What there would still be to mend.
pub fn unmended(stage: &Stage) -> String {
    stage.world.v(["repair", "--dry-run", "-o", "json"]).ok().stdout.trim().to_owned()
}

fn find(stage: &Stage, name: &str) -> Option<Observed> {
    observed(&stage.world).into_iter().find(|vm| vm.record.spec.name.as_str() == name)
}

/// The hypervisor's process.
pub fn process(stage: &Stage, name: &str) -> Option<i32> {
    Some(find(stage, name)?.record.runtime?.hypervisor?.pid)
}

fn created(stage: &Stage, _: Option<i32>) -> bool {
    let vms = observed(&stage.world);
    vms.len() == 2 && vms.iter().all(|vm| vm.state == State::Stopped)
}

fn runs(stage: &Stage, _: Option<i32>) -> bool {
    find(stage, "a").is_some_and(|vm| vm.state == State::Running)
}

fn runs_anew(stage: &Stage, before: Option<i32>) -> bool {
    runs(stage, before) && process(stage, "a").is_some_and(|now| Some(now) != before)
}

fn is_off(stage: &Stage, _: Option<i32>) -> bool {
    find(stage, "a").is_some_and(|vm| matches!(vm.state, State::Stopped | State::Crashed))
}

fn is_renamed(stage: &Stage, _: Option<i32>) -> bool {
    find(stage, "b").is_some() && find(stage, "a").is_none()
}

/// As the config declares it: with one more disk, and where there is a switch with one more NIC.
fn is_reshaped(stage: &Stage, _: Option<i32>) -> bool {
    let config = std::fs::read_to_string(stage.world.config_file()).expect("the config");
    let nics = if config.contains("[[vm.net]]") { 2 } else { 0 };
    find(stage, "a").is_some_and(|vm| {
        let spec = vm.record.spec;
        let data = stage.world.state().join("vm").join(spec.uuid.to_string()).join("data.raw");
        let on_main = spec.nics.iter().filter(|nic| nic.network.as_str() == "main").count();
        spec.disks.len() == 2 && on_main == nics && data.metadata().is_ok_and(|data| data.len() == 4 << 20)
    })
}

fn is_gone(stage: &Stage, _: Option<i32>) -> bool {
    observed(&stage.world).is_empty()
}

/// Brings about what a verb needs before it, from whatever is there. A supervisor gets its
/// environment from the command that launches it.
pub fn prepare(stage: &Stage, verb: &Verb, env: &[(&str, &OsStr)]) {
    let v = |args: &[&str]| drop(with_env(stage, args, env).ok());
    let vms = observed(&stage.world);
    let a = find(stage, "a");
    let anew = matches!(verb.before, Before::Nothing | Before::Fresh);
    if !vms.is_empty() && (anew || a.is_none()) {
        stage.world.v(["vm", "delete", "--force", "--all"]).ok();
    }
    if verb.before == Before::Nothing {
        return;
    }
    match a.filter(|_| !anew) {
        None => {
            // The config declares an `a`: only one that is there can take its name.
            stage.world.v(["vm", "create", "-t", "crash-me", "-n", "made"]).ok();
            stage.world.v(["vm", "rename", "made", "a"]).ok();
        }
        Some(a) if a.state.is_live() => drop(stage.world.v(["vm", "stop", "--force", "--timeout", "0", "a"]).ok()),
        Some(_) => {}
    }
    if verb.before == Before::Running {
        v(&["vm", "start", "a"]);
    }
}

pub fn with_env(stage: &Stage, args: &[&str], env: &[(&str, &OsStr)]) -> Run {
    let mut command = stage.world.command(args);
    command.envs(env.iter().copied());
    run(command, Duration::from_secs(120))
}
