//! Whose a VM is: made by hand and taken in, renamed, deleted by hand, and declared as it is.

use std::fs;

use libtest_mimic::Trial;

use super::vm;
use crate::lifecycle::Stage;
use crate::trials;
use crate::world::{Outcome, World, exercised};

pub fn trials() -> Vec<Trial> {
    trials![
        what_is_exported_declares_the_vm,
        the_config_names_its_vms,
        deleted_by_hand_and_made_anew,
        an_address_passes_from_one_to_the_next,
        an_address_that_is_named_is_nobody_elses,
    ]
}

fn what_is_exported_declares_the_vm() -> Outcome {
    let stage = Stage::either()?;
    let world = &stage.world;
    exercised("v vm export", "VMs of a template, of one that changed, and of one that is gone");
    let image = world.image("os.img", 1);
    let lan = "[[network]]\nname = \"lan\"\ntype = \"bridge\"\nbridge = \"vt0\"\nsubnet = \"10.44.0.0/24\"\n";
    let kernel = world.dir().join("payload-BUTTON.elf");
    let special = |keys: &str| {
        format!(
            "{lan}{}{keys}\n[[template.vm.disk]]\nname = \"os\"\npath = {image:?}\nsize = \"2MiB\"\n\
             [[template.vm.net]]\nname = \"lan\"\nports = [\"8080:80\"]\nallow = [\"tcp/22\"]\nrate = \"10Mbit\"\n",
            crate::lifecycle::template("special", &kernel)
        )
    };
    stage.config(&special("labels.role = \"db\"\nrestart = \"always\"\nautostart = true\nautostart-order = 3"));
    world.v(["vm", "create", "-t", "button", "-n", "plain"]).ok();
    world.v(["vm", "create", "-t", "special", "-n", "rich", "--label", "team=a b"]).ok();
    world.v(["vm", "create", "-t", "echo", "-n", "orphan"]).ok();
    stage.start("plain");
    let pid = stage.pid("plain", "hypervisor_pid");
    // Of one the template has changed meanwhile, and of one it is gone.
    stage.config(&special("cmdline = \"quiet\"\nstop-timeout = 9"));
    let text = fs::read_to_string(world.config_file()).expect("the config");
    let text = text.replace("name = \"echo\"", "name = \"other\"");
    world.config(&text);
    let exported = world.v(["vm", "export", "plain", "rich", "orphan"]).ok().stdout;
    world.config(&format!("{text}{exported}"));
    world.v(["config", "check"]).ok();
    let names = ["plain", "rich", "orphan"];
    let before = names.map(|name| world.info(name)["spec"].clone());
    let plan = world.plan(&[]);
    assert_eq!((plan.code, plan.rows.len()), (Some(4), 3), "they are somebody's: {:#?}", plan.lines());
    let adopt: Vec<&str> = names.iter().flat_map(|name| ["--adopt", name]).collect();
    world.apply(&adopt).ok();
    world.assert_in_order();
    for (name, mut before) in names.into_iter().zip(before) {
        let mut after = world.info(name)["spec"].clone();
        if name == "orphan" {
            // The template that it is made from now is its own.
            before["template"] = after["template"].take();
            after["template"] = before["template"].clone();
        }
        assert_eq!(after, before, "`{name}` is what it was:\n{exported}");
    }
    assert_eq!(stage.pid("plain", "hypervisor_pid"), pid);
    // And it says the same again; of the orphan but for the template, which the config has now.
    let again = world.v(["vm", "export", "plain", "rich"]).ok().stdout;
    assert!(exported.starts_with(again.trim_end()), "{exported}\n{again}");
    Ok(())
}

fn the_config_names_its_vms() -> Outcome {
    let stage = Stage::either()?;
    let world = &stage.world;
    stage.config(&vm("web", "button", ""));
    world.apply(&[]).ok();
    let pid = stage.pid("web", "hypervisor_pid");
    // First the VM, then the config: between them it is nobody's to touch.
    let said = world.v(["vm", "rename", "web", "front"]).ok().stderr;
    assert!(said.contains("still declares `web`"), "{said}");
    assert_eq!(world.plan(&[]).fields(), ["web create vm", "web start running"]);
    stage.config(&vm("front", "button", ""));
    world.apply(&[]).ok();
    assert_eq!(stage.pid("front", "hypervisor_pid"), pid, "it is the same VM");
    // First the config, then the VM.
    stage.config(&vm("last", "button", ""));
    world.v(["vm", "rename", "front", "last"]).ok();
    world.assert_in_order();
    assert_eq!(stage.pid("last", "hypervisor_pid"), pid, "it is the same VM still");
    // A name that the config has for another.
    stage.config(&(vm("last", "button", "") + &vm("other", "button", "")));
    world.v(["vm", "rename", "last", "other"]).fails(4, &["`last`", "`other`"]);
    stage.config(&vm("last", "button", ""));
    world.assert_in_order();
    Ok(())
}

fn deleted_by_hand_and_made_anew() -> Outcome {
    let stage = Stage::either()?;
    let world = &stage.world;
    stage.config(&(vm("web", "button", "running = false") + &vm("safe", "button", "protect = true\nrunning = false")));
    world.apply(&[]).ok();
    let said = world.v(["vm", "delete", "web"]).ok();
    assert!(said.stderr.contains("v apply"), "the next apply makes it anew: {}", said.stderr);
    world.v(["vm", "delete", "--force", "safe"]).fails(4, &["protect", "v vm protect --off safe"]);
    assert_eq!(world.plan(&[]).fields(), ["web create vm"]);
    world.apply(&[]).ok();
    world.assert_in_order();
    world.apply(&["--replace", "safe"]).fails(4, &["`safe`", "protect"]);
    // So that what this test made can go.
    world.v(["vm", "protect", "--off", "safe"]).ok();
    Ok(())
}

/// VMs `a`, `b` and so on that do not run, each with one NIC that says this.
fn with_nics(stage: &Stage, nics: &[&str]) {
    let lan = "[[network]]\nname = \"lan\"\ntype = \"bridge\"\nbridge = \"vt0\"\nsubnet = \"10.44.0.0/24\"\n";
    let vms = nics
        .iter()
        .zip(["a", "b", "c"])
        .map(|(nic, name)| vm(name, "button", &format!("running = false\nnet = [{{ name = \"lan\"{nic} }}]")));
    stage.config(&(lan.to_owned() + &vms.collect::<String>()));
}

fn addresses<const N: usize>(world: &World, names: [&str; N]) -> [String; N] {
    names.map(|name| world.row(name)["address"].as_str().expect("an address").to_owned())
}

fn an_address_passes_from_one_to_the_next() -> Outcome {
    let stage = Stage::either()?;
    let world = &stage.world;
    let with = |at: u8| format!(", address = \"10.44.0.{at}\", mac = \"52:54:00:00:00:{at}\"");
    let declare = |a, b| with_nics(&stage, &[&with(a), &with(b)]);
    declare(11, 12);
    world.apply(&[]).ok();
    declare(12, 13);
    world.apply(&[]).ok();
    world.assert_in_order();
    assert_eq!(addresses(world, ["a", "b"]), ["10.44.0.12", "10.44.0.13"]);
    declare(14, 12);
    world.apply(&[]).ok();
    world.assert_in_order();
    assert_eq!(addresses(world, ["a", "b"]), ["10.44.0.14", "10.44.0.12"]);
    // To one that is made, of one that is made anew.
    with_nics(&stage, &[&with(15), &with(16), &with(14)]);
    world.apply(&["--replace", "b"]).ok();
    world.assert_in_order();
    assert_eq!(addresses(world, ["a", "b", "c"]), ["10.44.0.15", "10.44.0.16", "10.44.0.14"]);
    Ok(())
}

fn an_address_that_is_named_is_nobody_elses() -> Outcome {
    let stage = Stage::either()?;
    let world = &stage.world;
    with_nics(&stage, &["", "", ", address = \"10.44.0.2\""]);
    world.apply(&[]).ok();
    world.assert_in_order();
    assert_eq!(addresses(world, ["a", "b", "c"]), ["10.44.0.3", "10.44.0.4", "10.44.0.2"]);
    // Named no more, it stays.
    with_nics(&stage, &["", "", ""]);
    world.assert_settled();
    with_nics(&stage, &["", ", mac = \"52:54:00:00:00:01\"", ""]);
    world.apply(&[]).ok();
    with_nics(&stage, &["", "", ""]);
    world.assert_settled();
    Ok(())
}
