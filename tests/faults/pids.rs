use std::process::{Child, Command};

use libtest_mimic::Trial;
use rustix::process::Signal;

use super::{LIMIT, sql};
use crate::lifecycle::{Stage, alive, kill};
use crate::trials;
use crate::world::{Outcome, World, eventually, need_program};

pub fn trials() -> Vec<Trial> {
    trials![a_pid_that_passed_to_another_process, a_pid_of_another_boot, an_owner_whose_pid_passed_on]
}

/// Somebody's process, which nobody here may touch.
struct Bystander(Child);

impl Bystander {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").spawn().expect("sleep starts"))
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Clock ticks after boot.
    fn start_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("its stat");
        let after = stat.rsplit_once(')').expect("a bracket").1;
        after.split_whitespace().nth(19).expect("field 22").parse().expect("a number")
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let living = alive(self.pid());
        let _ = self.0.kill();
        let _ = self.0.wait();
        assert!(living || std::thread::panicking(), "it was ended by somebody");
    }
}

/// A VM whose supervisor and hypervisor were both killed, still recorded as running.
fn lost(stage: &Stage) {
    stage.create("halt", "web");
    stage.start("web");
    let (supervisor, hypervisor) = (stage.pid("web", "supervisor_pid"), stage.pid("web", "hypervisor_pid"));
    kill(supervisor, Signal::KILL);
    kill(hypervisor, Signal::KILL);
    eventually("both are gone", LIMIT, || !alive(supervisor) && !alive(hypervisor));
}

fn nothing_but_the_record_is_touched(world: &World, stage: &Stage) {
    assert_eq!(world.state_of("web"), "crashed", "whoever has the pid now, it is not the VM");
    world.v(["vm", "stop", "--force", "--timeout", "0", "web"]).fails(4, &["not running"]);
    assert_eq!(world.row("web")["last_exit"]["reason"], "lost");
    stage.start("web");
    world.v(["vm", "delete", "--force", "web"]).ok();
    world.assert_empty();
}

fn a_pid_that_passed_to_another_process() -> Outcome {
    need_program("sqlite3")?;
    let stage = Stage::either()?;
    lost(&stage);
    let bystander = Bystander::new();
    let pid = bystander.pid();
    sql(
        &stage.world,
        &format!("UPDATE vm SET runtime = json_set(runtime, '$.hypervisor.pid', {pid}, '$.supervisor.pid', {pid})"),
    );
    nothing_but_the_record_is_touched(&stage.world, &stage);
    Ok(())
}

/// The same pid and the same tick after boot, of a boot before: what a host that starts the same
/// things in the same order may well come to.
fn a_pid_of_another_boot() -> Outcome {
    need_program("sqlite3")?;
    let stage = Stage::either()?;
    lost(&stage);
    let bystander = Bystander::new();
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
    let boot = u64::from_str_radix(&id[..6], 16).expect("digits") ^ 1;
    let (pid, start) = (bystander.pid(), boot << 40 | bystander.start_ticks());
    sql(
        &stage.world,
        &format!(
            "UPDATE vm SET runtime = json_set(runtime, '$.hypervisor', json_object('pid', {pid}, 'start_time', {start}))"
        ),
    );
    nothing_but_the_record_is_touched(&stage.world, &stage);
    Ok(())
}

/// A create that was killed, and whose pid is another's by now, does not block the VM for ever.
fn an_owner_whose_pid_passed_on() -> Outcome {
    need_program("sqlite3")?;
    let stage = Stage::either()?;
    let world = &stage.world;
    stage.create("halt", "web");
    let bystander = Bystander::new();
    let (pid, start) = (bystander.pid(), bystander.start_ticks() + 1);
    sql(world, &format!("UPDATE vm SET state = 'creating', owner = json_object('pid', {pid}, 'start_time', {start})"));
    world.v(["vm", "start", "web"]).fails(4, &["being created"]);
    stage.create("halt", "other");
    assert_eq!(world.ls().len(), 1, "the next create has collected it");
    world.v(["vm", "delete", "other"]).ok();
    world.assert_empty();
    Ok(())
}
