//! Applies that end, or fail, while a VM is between two states.

use libtest_mimic::Trial;

use super::vm;
use crate::lifecycle::{Stage, alive};
use crate::trials;
use crate::world::Outcome;

pub fn trials() -> Vec<Trial> {
    trials![what_could_not_be_made_anew_runs_again]
}

/// Its address is to be given up by another VM of the plan, which cannot be changed.
fn what_could_not_be_made_anew_runs_again() -> Outcome {
    let stage = Stage::either()?;
    let world = &stage.world;
    let declare = |web: &str, holder: &str| {
        let lan = "[[network]]\nname = \"lan\"\ntype = \"bridge\"\nbridge = \"vt0\"\nsubnet = \"10.44.0.0/24\"\n";
        let holder = format!("running = false\n{holder}");
        stage.config(&(lan.to_owned() + &vm("web", "button", web) + &vm("holder", "button", &holder)));
    };
    let at = |ip: u8| format!("net = [{{ name = \"lan\", address = \"10.44.0.{ip}\" }}]\n");
    declare("running = \"leave\"", &at(71));
    world.apply(&[]).ok();
    stage.start("web");
    let uuid = world.row("web")["uuid"].clone();
    let missing = "disk = [{ name = \"os\", path = \"/nowhere/os.img\" }]\n";
    for (running, state) in [("true", "running"), ("\"leave\"", "running"), ("false", "stopped")] {
        let before = stage.pid("web", "hypervisor_pid");
        declare(&format!("running = {running}\n{}", at(71)), &(at(72) + missing));
        let run = world.apply(&["--replace", "web"]).fails(1, &["stopped `web`", "cannot create `web`", "10.44.0.71"]);
        assert!(!alive(before), "{}", run.stderr);
        assert_eq!((world.state_of("web").as_str(), &world.row("web")["uuid"]), (state, &uuid), "{}", run.stderr);
        assert_eq!(run.stderr.contains("started `web`"), state == "running", "{}", run.stderr);
    }
    Ok(())
}
