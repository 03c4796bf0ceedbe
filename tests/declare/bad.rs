//! What is not as it should be: VMs that are damaged, names that are taken, configs that are wrong.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::Signal;

use super::same::Untouched;
use super::{command_of, vm};
use crate::lifecycle::{Stage, alive, kill};
use crate::network::lan::{LAN, on_a_host};
use crate::trials;
use crate::world::{Outcome, World, eventually};

pub fn trials() -> Vec<Trial> {
    trials![
        a_vm_that_crashed_is_started,
        a_half_made_vm_is_made,
        a_disk_that_is_missing_costs_the_vm,
        a_name_of_a_vm_made_by_hand,
        a_template_changed_under_ten_vms,
        references_that_lead_nowhere,
        a_wrong_config_changes_nothing,
        one_apply_at_a_time,
        a_protected_vm_is_not_deleted,
        nothing_without_a_yes,
        one_that_fails_does_not_stop_the_rest,
        what_somebody_else_has_costs_no_restart,
    ]
}

const LIMIT: Duration = Duration::from_secs(20);

/// A stage that declares these.
fn declares(vms: &str) -> Result<Stage, crate::world::Skip> {
    let stage = Stage::either()?;
    stage.config(vms);
    Ok(stage)
}

fn a_vm_that_crashed_is_started() -> Outcome {
    let stage = declares(&vm("web", "halt", ""))?;
    let world = &stage.world;
    world.apply(&[]).ok();
    let pids = ["supervisor_pid", "hypervisor_pid"].map(|which| stage.pid("web", which));
    pids.iter().for_each(|pid| kill(*pid, Signal::KILL));
    eventually("both are gone", LIMIT, || !pids.iter().any(|pid| alive(*pid)));
    let plan = world.plan(&[]);
    assert_eq!((plan.code, plan.lines()), (Some(10), vec!["web start running crashed→running".to_owned()]));
    world.apply(&[]).ok();
    assert_eq!(world.state_of("web"), "running");
    world.assert_in_order();
    Ok(())
}

fn a_half_made_vm_is_made() -> Outcome {
    let mut stage = Stage::either()?;
    let disk = stage.world.image("os.img", 1);
    let over = format!("running = false\ndisk = [{{ name = \"os\", path = {disk:?} }}]");
    stage.config(&vm("web", "halt", &over));
    let program = crate::world::v();
    stage.world.use_program(&crate::crash::program());
    let mut command = stage.world.command(["apply", "--yes"]);
    command.env("VIRSHLE_FAILPOINT", "create/disk os/after");
    let cut = crate::world::run(command, LIMIT);
    assert_eq!(cut.code, None, "it was killed: {}", cut.stderr);
    stage.world.use_program(&program);
    let world = &stage.world;
    let plan = world.plan(&[]);
    assert_eq!((plan.code, plan.fields()), (Some(10), vec!["web create vm".to_owned()]));
    assert_eq!(plan.rows[0]["old"], "half created", "{:#?}", plan.lines());
    world.apply(&[]).ok();
    assert_eq!(world.state_of("web"), "stopped");
    world.assert_in_order();

    // One that somebody began to make by hand, and is nobody's now.
    world.v(["vm", "delete", "web"]).ok();
    stage.config("");
    let mut command = world.other(crate::crash::program(), ["vm", "create", "-t", "halt", "-n", "web"]);
    command.env("VIRSHLE_FAILPOINT", "create/folder/after");
    assert_eq!(crate::world::run(command, LIMIT).code, None, "it was killed");
    stage.config(&vm("web", "halt", &over));
    assert_eq!(world.plan(&[]).fields(), ["web create vm"]);
    world.apply(&[]).ok();
    world.assert_in_order();
    Ok(())
}

fn a_disk_that_is_missing_costs_the_vm() -> Outcome {
    let disk = "running = false\ndisk = [{ name = \"data\", size = \"2MiB\" }]";
    let stage = declares(&vm("web", "halt", disk))?;
    let world = &stage.world;
    world.apply(&[]).ok();
    let file = Path::new(world.info("web")["folder"].as_str().expect("a folder")).join("data.raw");
    let number = world.row("web")["number"].clone();
    fs::remove_file(&file).expect("the disk goes");
    let plan = world.plan(&[]);
    assert_eq!((plan.code, plan.fields()), (Some(10), vec!["web replace disk.data needs --replace web".into()]));
    assert_eq!(plan.rows[0]["old"], "missing");
    let run = world.apply(&[]).ok();
    assert!(run.stderr.contains("--replace web"), "what waits is told: {}", run.stderr);
    assert_eq!((file.exists(), &world.row("web")["number"]), (false, &number), "nothing is made anew unasked");
    world.apply(&["--replace", "web"]).ok();
    assert_ne!(world.row("web")["number"], number);
    let file = Path::new(world.info("web")["folder"].as_str().expect("a folder")).join("data.raw");
    assert_eq!(fs::metadata(file).expect("the disk").len(), 2 << 20);
    world.assert_in_order();
    Ok(())
}

fn a_name_of_a_vm_made_by_hand() -> Outcome {
    let stage = declares("")?;
    let world = &stage.world;
    stage.create("halt", "web");
    stage.start("web");
    let (before, pid) = (Untouched::of(world, "web"), stage.pid("web", "hypervisor_pid"));
    stage.config(&(vm("web", "halt", "labels.role = \"front\"") + &vm("new", "halt", "running = false")));
    let plan = world.plan(&[]);
    assert_eq!((plan.code, plan.fields()), (Some(4), vec!["web refused vm".to_owned(), "new create vm".to_owned()]));
    let row = plan.rows[0].clone();
    assert!(row["why"].as_str().is_some_and(|why| why.contains("by hand")), "{row}");
    // What is not refused is done.
    world.apply(&[]).fails(4, &["`web`", "v apply --adopt web"]);
    assert_eq!(world.state_of("new"), "stopped");
    before.still_holds(world, "web", "it is not adopted");

    world.v(["apply", "--yes", "--adopt", "nobody"]).fails(2, &["nobody"]);
    let adopt = [command_of(row["hint"].as_str().expect("a hint")), vec!["--yes".to_owned()]].concat();
    world.v(&adopt).ok();
    assert_eq!(world.info("web")["spec"]["labels"]["role"], "front");
    assert_eq!(stage.pid("web", "hypervisor_pid"), pid, "it runs on");
    world.assert_in_order();
    Ok(())
}

fn a_template_changed_under_ten_vms() -> Outcome {
    let declared: String = (0..10).map(|at| vm(&format!("vm{at}"), "button", "")).collect();
    let stage = declares(&declared)?;
    let world = &stage.world;
    world.apply(&[]).ok();
    let pids =
        |stage: &Stage| -> Vec<i32> { (0..10).map(|at| stage.pid(&format!("vm{at}"), "hypervisor_pid")).collect() };
    let before = pids(&stage);
    let text = fs::read_to_string(world.config_file()).expect("the config");
    let button = "name = \"button\"\nvcpu = 1\nvram = \"64MiB\"\n";
    assert!(text.contains(button));
    let changed = "name = \"button\"\nvcpu = 2\nvram = \"64MiB\"\nlabels.team = \"a\"\n";
    world.config(&text.replace(button, changed));
    let plan = world.plan(&[]);
    assert_eq!(plan.code, Some(10));
    for at in 0..10 {
        let of: Vec<String> = plan.lines().into_iter().filter(|line| line.starts_with(&format!("vm{at} "))).collect();
        let mut wanted =
            [format!("vm{at} live labels.team -→a"), format!("vm{at} restart vcpu 1→2 needs --restart")].to_vec();
        wanted.sort();
        assert_eq!(
            {
                let mut of = of;
                of.sort();
                of
            },
            wanted
        );
    }
    world.apply(&[]).ok();
    assert_eq!(pids(&stage), before, "none is disturbed");
    assert_eq!(world.plan(&[]).rows.len(), 10, "what waits, waits");
    world.apply(&["--restart"]).ok();
    assert!(pids(&stage).iter().zip(&before).all(|(now, then)| now != then));
    assert!(world.ls().iter().all(|row| row["vcpu"] == 2 && row["state"] == "running"), "{:#?}", world.ls());
    world.assert_in_order();
    Ok(())
}

fn references_that_lead_nowhere() -> Outcome {
    let stage = declares("")?;
    let world = &stage.world;
    let rows = [
        (vm("web", "buton", ""), vec!["buton", "did you mean `button`?"]),
        (vm("web", "button", "net = [{ name = \"lan\" }]"), vec!["`lan`", "[[network]]"]),
        (vm("web", "button", "disk = [{ name = \"os\", image = \"debian\" }]"), vec!["`debian`", "[[image]]"]),
        (vm("web", "button", "template = \"button\""), vec!["template"]),
        ("[[vm]]\nname = \"web\"\n".to_owned(), vec!["template"]),
        (vm("web", "web", "") + "[[template.vm]]\nname = \"web\"\ntemplate = \"button\"\n", vec!["template"]),
        (vm("web", "button", "") + &vm("web", "button", ""), vec!["`web`"]),
    ];
    for (text, words) in rows {
        stage.config(&text);
        for command in [&["plan"][..], &["apply", "--yes"]] {
            let run = world.v(command).fails(2, &words);
            assert_eq!(run.stdout, "", "{text}");
        }
        assert_eq!(world.ls().len(), 0);
    }
    // A file is another matter: it may be there the next time.
    stage.config(&(vm("web", "button", "user-data = \"nowhere.yaml\"") + &vm("b", "button", "running = false")));
    assert_eq!(world.plan(&[]).fields(), ["web refused user-data", "b create vm"]);
    world.apply(&[]).fails(4, &["nowhere.yaml"]);
    assert_eq!(world.state_of("b"), "stopped");
    world.file("r/etc/virshle/nowhere.yaml", "#cloud-config\n");
    world.apply(&[]).ok();
    world.assert_in_order();
    Ok(())
}

fn a_wrong_config_changes_nothing() -> Outcome {
    let stage = declares(&(vm("web", "halt", "") + &vm("gone", "halt", "on-remove = \"delete\"")))?;
    let world = &stage.world;
    world.apply(&[]).ok();
    let before = ["web", "gone"].map(|name| Untouched::of(world, name));
    let pids = ["web", "gone"].map(|name| stage.pid(name, "hypervisor_pid"));
    let good = fs::read_to_string(world.config_file()).expect("the config");
    for wrong in
        ["vcpu = \"many\"", "vcpuu = 2", "protect = true\non-remove = \"delete\"", "running = \"perhaps\"", "]"]
    {
        stage.config(&vm("web", "halt", wrong));
        for command in [&["plan"][..], &["apply", "--yes", "--restart"]] {
            let run = world.v(command);
            assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{wrong}: {}", run.stderr);
        }
        ["web", "gone"].iter().zip(&before).for_each(|(name, before)| before.still_holds(world, name, wrong));
        assert!(pids.iter().all(|pid| alive(*pid)), "{wrong}");
    }
    world.config(&good);
    world.assert_in_order();
    Ok(())
}

fn one_apply_at_a_time() -> Outcome {
    // It hears no button, so its stop takes as long as it may.
    let deaf = |running: bool| vm("deaf", "halt", &format!("stop-timeout = 60\nrunning = {running}"));
    let stage = declares(&deaf(true))?;
    let world = &stage.world;
    world.apply(&[]).ok();
    stage.config(&(deaf(false) + &vm("other", "button", "")));
    let mut first =
        world.command(["apply", "--yes"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("v starts");
    eventually("it is at work", LIMIT, || world.state_of("deaf") == "stopping");
    let pid = format!("pid {}", first.id());
    world.apply(&[]).fails(4, &["another apply is at work", &pid]);
    assert_eq!(world.plan(&[]).code, Some(4), "a VM that somebody is at work on is left alone, and a plan looks on");
    world.v(["vm", "stop", "--force", "--timeout", "0", "deaf"]).ok();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut first.stderr.take().expect("a pipe"), &mut said).expect("stderr is read");
    assert_eq!(first.wait().expect("it ends").code(), Some(0), "{said}");
    assert_eq!([world.state_of("deaf"), world.state_of("other")], ["stopped", "running"], "the rest is done: {said}");
    world.assert_in_order();
    Ok(())
}

fn a_protected_vm_is_not_deleted() -> Outcome {
    let stage = declares(&vm("web", "button", "protect = true\non-remove = \"delete\""))?;
    let world = &stage.world;
    world.v(["plan"]).fails(2, &["protect", "on-remove"]);

    stage.config(&vm("web", "button", "on-remove = \"delete\""));
    world.apply(&[]).ok();
    world.v(["vm", "protect", "web"]).ok();
    assert_eq!(world.plan(&[]).fields(), ["web live protect"], "the config would take it back");
    stage.config("");
    let plan = world.plan(&[]);
    assert_eq!((plan.code, plan.fields()), (Some(4), vec!["web refused protect".to_owned()]));
    let pid = stage.pid("web", "hypervisor_pid");
    world.apply(&[]).fails(4, &["`web`", "v vm protect --off web"]);
    assert!(alive(pid), "it is not even stopped");
    world.v(command_of(plan.rows[0]["hint"].as_str().expect("a hint"))).ok();
    assert_eq!(world.plan(&[]).fields(), ["web delete vm"]);
    world.apply(&[]).ok();
    world.assert_empty();
    world.assert_in_order();
    Ok(())
}

fn nothing_without_a_yes() -> Outcome {
    let stage = declares(&vm("web", "button", ""))?;
    let world = &stage.world;
    world.v(["apply"]).fails(2, &["--yes"]);
    world.v(["apply", "--yes", "--replace", "other"]).fails(2, &["other"]);
    assert_eq!(world.ls().len(), 0);
    let plan = world.v(["plan"]);
    assert_eq!(plan.code, Some(10), "{}", plan.stderr);
    assert!(plan.stdout.contains("web") && plan.stdout.contains("create"), "{}", plan.stdout);
    let shown = world.apply(&[]).ok();
    for line in plan.stdout.lines() {
        assert!(shown.stdout.contains(line) || shown.stderr.contains(line), "{line:?} is in:\n{shown:?}");
    }
    let again = world.apply(&[]).ok();
    assert!(again.stderr.contains("nothing to do"), "{again:?}");
    assert!(world.v(["plan"]).ok().stderr.contains("nothing to do"));
    assert_eq!(world.v(["plan", "-o", "json"]).ok().stdout.trim(), "[]");
    Ok(())
}

fn one_that_fails_does_not_stop_the_rest() -> Outcome {
    let stage = Stage::either()?;
    let world: &World = &stage.world;
    let image = world.image("os.img", 1);
    let with_disk = |name| vm(name, "button", &format!("disk = [{{ name = \"os\", path = {image:?} }}]"));
    let declared = with_disk("a") + &vm("b", "button", "") + &vm("c", "button", "vcpu = 2");
    stage.config(&declared);
    let away = world.dir().join("away.img");
    fs::rename(&image, &away).expect("the image is away");
    let run = world.v(["apply", "--yes", "-o", "json"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("`a`") && run.stderr.contains("os.img"), "{}", run.stderr);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&run.stdout).expect("apply prints JSON");
    for row in &rows {
        let failed = row["vm"] == "a";
        assert_eq!(row["done"], !failed, "{row}");
        assert_eq!(row["error"].is_string(), failed, "{row}");
    }
    assert_eq!([world.state_of("b"), world.state_of("c")], ["running", "running"]);
    fs::rename(&away, &image).expect("the image is back");
    world.apply(&[]).ok();
    assert_eq!(world.state_of("a"), "running");
    world.assert_in_order();
    Ok(())
}

fn what_somebody_else_has_costs_no_restart() -> Outcome {
    let stage = declares("")?;
    let world = &stage.world;
    let on = |name: &str, more: &str| vm(name, "button", &format!("net = [{{ name = \"lan\"{more} }}]"));
    let declare = |more: &str| stage.config(&(LAN.to_owned() + &on("web", more)));
    let taken = [("address", "10.44.0.9"), ("mac", "02:00:00:00:00:09")];
    let wishes = taken.map(|(key, value)| format!(", {key} = \"{value}\""));
    // Declared no more, it keeps what it has.
    stage.config(&(LAN.to_owned() + &on("old", &wishes.concat())));
    on_a_host(world, || {
        world.apply(&[]).ok();
        declare("");
        world.apply(&[]).ok();
        let pid = stage.pid("web", "hypervisor_pid");
        for (wish, (key, value)) in wishes.iter().zip(taken) {
            declare(wish);
            assert_eq!(world.plan(&["--restart"]).fields(), [format!("web restart net.0.{key}")]);
            world.apply(&["--restart"]).fails(4, &[value, "`old`"]);
            assert_eq!(stage.pid("web", "hypervisor_pid"), pid, "its guest was told nothing");
        }
    })
}
