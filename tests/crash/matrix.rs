use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use virshle::network::passt::Passt;

use super::left;
use super::verbs::{VERBS, Verb, mend, prepare, process, unmended, with_env};
use crate::fixtures::netns::in_private_network;
use crate::fixtures::ovs::PrivateOvs;
use crate::fixtures::payload::{self, Variant};
use crate::lifecycle::{Kind, Stage, template};
use crate::world::{Outcome, Skip, exercised, need_program, need_root};

const LIMIT: Duration = Duration::from_secs(20);

pub fn run(kind: Kind) -> Outcome {
    let mut stage = Stage::new(kind)?;
    stage.world.use_program(&super::program());
    if need_root().and(need_program("ovs-vswitchd")).is_err() {
        exercised("crash matrix", "without a switch");
        configure(&stage, None);
        matrix(&stage, None);
        return Ok(());
    }
    in_private_network(|| {
        let ovs = PrivateOvs::start_beside(kind.label())?;
        ovs.add_bridge("vsbr0")?;
        exercised("crash matrix", "with taps on Open vSwitch");
        configure(&stage, Some(&ovs));
        matrix(&stage, Some(&ovs));
        Ok::<(), String>(())
    })
    .and_then(|done| done)
    .map_err(Skip)
}

/// A start that meets a reshape which was cut short goes on with it, or takes it back.
pub fn start_after_reshape(kind: Kind) -> Outcome {
    let mut stage = Stage::new(kind)?;
    stage.world.use_program(&super::program());
    configure(&stage, None);
    let apply = VERBS.last().expect("the verb that reshapes");
    for (point, disks) in [("reshape/new disk data/after", 1), ("reshape/recorded/after", 2)] {
        let env: [(&str, &OsStr); 1] = [("VIRSHLE_FAILPOINT", OsStr::new(point))];
        prepare(&stage, apply, &env);
        let cut = with_env(&stage, apply.args, &env);
        assert_ne!(cut.code, Some(0), "{point}: it was killed");
        stage.start("a");
        let vm = left::observed(&stage.world).remove(0).record;
        assert_eq!(vm.spec.disks.len(), disks, "{point}");
        let data = stage.world.state().join("vm").join(vm.spec.uuid.to_string()).join("data.raw");
        assert_eq!(data.exists(), disks == 2, "{point}");
        settle(&stage, None).unwrap_or_else(|why| panic!("{point}: {why}"));
    }
    stage.world.v(["vm", "delete", "--force", "--all"]).ok();
    Ok(())
}

/// Whether the VM has a program beside its hypervisor.
fn has_passt() -> bool {
    Passt::find().program().is_ok()
}

/// A VM with everything that a step can make, and declared with more of it: disk, seed, a port where there is a switch, and a
/// program beside the hypervisor where there is a passt.
fn configure(stage: &Stage, ovs: Option<&PrivateOvs>) {
    let kernel = payload::build(stage.world.dir(), Variant::Button).expect("the payload is built");
    let disk = stage.world.image("os.img", 1);
    let mut more = template("crash-me", &kernel) + &format!("[[template.vm.disk]]\nname = \"os\"\npath = {disk:?}\n");
    if ovs.is_some() {
        more += "[[template.vm.net]]\nname = \"main\"\ntype = \"tap\"\n";
        more += "[[network]]\nname = \"main\"\ntype = \"ovs\"\nsubnet = \"10.44.0.0/24\"\n";
    }
    if has_passt() {
        more += "[[template.vm.net]]\nname = \"slirp\"\ntype = \"user\"\n";
    }
    more += "[[vm]]\nname = \"a\"\ntemplate = \"crash-me\"\nrunning = \"leave\"\n";
    more += "[[vm.disk]]\nname = \"data\"\nsize = \"4MiB\"\n";
    if ovs.is_some() {
        more += "[[vm.net]]\nname = \"main\"\n[[vm.net]]\nname = \"main\"\ntype = \"tap\"\n";
    }
    stage.config(&more);
    if let Some(ovs) = ovs {
        let config = fs::read_to_string(stage.world.config_file()).expect("the config");
        stage.world.config(&config.replacen("[node]\n", &format!("[node]\novs-db = \"{}\"\n", ovs.db), 1));
    }
}

/// A point, and who comes to it: the command, or the VM's supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Point {
    role: String,
    name: String,
}

fn points(trace: &Path, from: usize) -> Vec<Point> {
    let text = fs::read_to_string(trace).unwrap_or_default();
    let lines = text[from..].lines();
    lines
        .map(|line| line.split_once('\t').expect("role and name"))
        .map(|(role, name)| Point { role: role.to_owned(), name: name.to_owned() })
        .collect()
}

#[allow(clippy::print_stdout)] // Its table is what this test is read for.
fn matrix(stage: &Stage, ovs: Option<&PrivateOvs>) {
    let traced: Vec<Vec<Point>> = VERBS.iter().map(|verb| trace(stage, ovs, verb)).collect();
    let mut list = String::new();
    for (verb, points) in VERBS.iter().zip(&traced) {
        points.iter().for_each(|point| list += &format!("{}\t{}\t{}\n", verb.name, point.role, point.name));
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/points.txt");
    if std::env::var_os("GOLDEN").is_some_and(|wish| wish == "write") {
        fs::write(&golden, &list).expect("the list is written");
    }
    let listed = fs::read_to_string(&golden).expect("the list is read");
    let listed = match has_passt() {
        true => listed,
        false => {
            exercised("crash matrix", "without programs beside the hypervisor: no passt that can serve it");
            listed.lines().filter(|line| !line.contains("passt")).map(|line| format!("{line}\n")).collect()
        }
    };
    assert!(list == listed, "tests/crash/points.txt is to list every point (GOLDEN=write does it):\n{list}");
    let row = |cells: [&str; 5]| {
        let [verb, point, killed, said, result] = cells;
        format!("{verb:<15} {point:<38} {killed:<11} {said:<70} {result}\n")
    };
    let mut table = row(["verb", "point", "killed", "`v repair` said", "result"]);
    let mut failed = Vec::new();
    for (verb, points) in VERBS.iter().zip(&traced) {
        for point in points {
            let (said, result) = killed_at(stage, ovs, verb, point);
            table += &row([verb.name, &point.name, &point.role, &said, result.as_ref().unwrap_or(&"FAILED")]);
            if let Err(why) = result {
                failed.push(format!("{} killed at {}: {why}", verb.name, point.name));
            }
        }
    }
    let count: usize = traced.iter().map(Vec::len).sum();
    // In one piece: another matrix may be at work beside this one.
    println!("crash matrix on {}\n{table}{count} points, {} failed", stage.program.display(), failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The verb, undisturbed: the points it comes to.
fn trace(stage: &Stage, ovs: Option<&PrivateOvs>, verb: &Verb) -> Vec<Point> {
    let file = stage.world.dir().join("trace");
    let _ = fs::remove_file(&file);
    let env: [(&str, &OsStr); 1] = [("VIRSHLE_FAILPOINT_TRACE", file.as_os_str())];
    prepare(stage, verb, &env);
    let before = process(stage, "a");
    let from = fs::metadata(&file).map_or(0, |found| found.len() as usize);
    with_env(stage, verb.args, &env).ok();
    assert!((verb.is_done)(stage, before), "`{}` is done", verb.name);
    settle(stage, ovs).expect("nothing is left without a crash");
    points(&file, from)
}

/// The verb, killed at a point, and what becomes of it: what the next command said, and how it ended.
fn killed_at(
    stage: &Stage,
    ovs: Option<&PrivateOvs>,
    verb: &Verb,
    point: &Point,
) -> (String, Result<&'static str, String>) {
    let file = stage.world.dir().join("trace");
    let _ = fs::remove_file(&file);
    let env: [(&str, &OsStr); 2] =
        [("VIRSHLE_FAILPOINT_TRACE", file.as_os_str()), ("VIRSHLE_FAILPOINT", OsStr::new(&point.name))];
    prepare(stage, verb, &env);
    let before = process(stage, "a");
    let cut = with_env(stage, verb.args, &env);
    if !points(&file, 0).contains(point) {
        return (cut.stderr, Err("the point was not reached".to_owned()));
    }
    let next = mend(stage);
    let unmended = unmended(stage);
    let said = next.stderr.lines().next().unwrap_or("-").trim().chars().take(100).collect();
    let judged = settle(stage, ovs).and_then(|()| {
        if next.code != Some(0) || unmended != "[]" {
            return Err(format!("`v repair --dry-run` finds {unmended}"));
        }
        if (verb.is_done)(stage, before) {
            return Ok(());
        }
        let again = stage.world.v(verb.args);
        if again.code != Some(0) {
            return Err(format!("the verb fails afterwards: {}", again.stderr.trim()));
        }
        settle(stage, ovs)?;
        if (verb.is_done)(stage, before) { Ok(()) } else { Err(format!("it is not done: {:#?}", stage.world.ls())) }
    });
    (
        said,
        judged
            .map(|()| "ok")
            .map_err(|why| format!("{why}\nthe killed one: {}\nthe next: {}", cut.stderr, next.stderr)),
    )
}

/// Waits until nothing is on its way any more, and nothing is left over.
fn settle(stage: &Stage, ovs: Option<&PrivateOvs>) -> Result<(), String> {
    let until = Instant::now() + LIMIT;
    loop {
        let found = left::over(&stage.world, ovs);
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(found.join("; "));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
