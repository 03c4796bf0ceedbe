//! VMs that run on cloud-hypervisor: what reaches them at once, what waits for a restart, and that
//! nothing else is disturbed.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;
use virshle::host::Dirs;
use virshle::vm::Site;

use super::vm;
use crate::fixtures::echo::{Echo, ask_tcp};
use crate::fixtures::netns::{OUTSIDE, Outside};
use crate::fixtures::payload::{self, Variant};
use crate::lifecycle::{Kind, Stage, alive, template};
use crate::network::lan::{LAN, ip, on_a_host, run};
use crate::world::{Outcome, eventually, trial};

type Test = fn(&Stage) -> Outcome;

const TESTS: &[(&str, Test)] = &[
    ("what_reaches_a_vm_that_runs", what_reaches_a_vm_that_runs),
    ("a_port_is_opened_under_a_vm_that_runs", a_port_is_opened_under_a_vm_that_runs),
    ("ports_are_exchanged_under_vms_that_run", ports_are_exchanged_under_vms_that_run),
    ("a_port_comes_from_one_that_restarts_to_one_that_runs", a_port_comes_from_one_that_restarts_to_one_that_runs),
    ("what_needs_a_restart_waits_for_it", what_needs_a_restart_waits_for_it),
    ("a_disk_of_another_image_costs_the_vm", a_disk_of_another_image_costs_the_vm),
    ("what_is_declared_no_more", what_is_declared_no_more),
    ("a_guest_that_powered_off_is_started", a_guest_that_powered_off_is_started),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, test) in TESTS {
        for kind in [Kind::Real, Kind::Fake] {
            trials.push(trial(format!("declare::live::{name} [{}]", kind.label()), move || test(&Stage::new(kind)?)));
        }
    }
    trials
}

const LIMIT: Duration = Duration::from_secs(20);

/// A template with room to grow.
fn roomy(stage: &Stage, guest: Variant) -> String {
    let kernel = payload::build(stage.world.dir(), guest).expect("the payload is built");
    template("roomy", &kernel) + "vcpu-max = 4\nvram-max = \"448MiB\"\nstop-timeout = 10\n"
}

/// What the hypervisor itself says of its VM.
fn hypervisor_says(stage: &Stage, name: &str) -> Value {
    let uuid = stage.world.row(name)["uuid"].as_str().expect("a uuid").parse().expect("a uuid");
    let site = Site::new(Dirs::find(Some(&stage.world.root())).expect("the folders"));
    let mut stream = UnixStream::connect(site.hypervisor_run(uuid).join("api.sock")).expect("its API");
    stream.set_read_timeout(Some(LIMIT)).expect("a deadline");
    stream.write_all(b"GET /api/v1/vm.info HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n").expect("it listens");
    let mut answer = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        let count = stream.read(&mut buffer).expect("it answers");
        answer.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&answer);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        if let Some(body) = body.and_then(|body| serde_json::from_str(body).ok()) {
            return body;
        }
        assert_ne!(count, 0, "half an answer: {text}");
    }
}

fn what_reaches_a_vm_that_runs(stage: &Stage) -> Outcome {
    let world = &stage.world;
    // Any other payload takes the interrupt that tells of more memory for the power button.
    let base = roomy(stage, Variant::Halt) + &vm("other", "roomy", "") + &vm("third", "halt", "");
    let declare = |more: &str| stage.config(&(base.clone() + &vm("web", "roomy", more)));
    declare("disk = [{ name = \"data\", size = \"1MiB\" }]");
    world.apply(&[]).ok();
    let names = ["web", "other", "third"];
    let before = names.map(|name| stage.pid(name, "hypervisor_pid"));
    let supervisors = names.map(|name| stage.pid(name, "supervisor_pid"));
    assert_eq!(hypervisor_says(stage, "web")["memory_actual_size"], 64 << 20);

    declare(
        "disk = [{ name = \"data\", size = \"3MiB\" }]\nvcpu = 3\nvram = \"320MiB\"\nrestart = \"on-crash\"\n\
         stop-timeout = 20\nautostart = true\nlabels.role = \"front\"",
    );
    let plan = world.plan(&[]);
    assert_eq!(plan.code, Some(10));
    assert!(plan.rows.iter().all(|row| row["vm"] == "web" && row["change"] == "live"), "{:#?}", plan.lines());
    for line in [
        "web live vcpu 1→3",
        "web live vram 64MiB→320MiB",
        "web live disk.data.size 1MiB→3MiB",
        "web live labels.role -→front",
        "web live restart no→on-crash",
        "web live stop-timeout 10 s→20 s",
    ] {
        assert!(plan.lines().iter().any(|found| found == line), "{line}: {:#?}", plan.lines());
    }
    world.apply(&[]).ok();
    assert_eq!(names.map(|name| stage.pid(name, "hypervisor_pid")), before, "all run on");
    assert_eq!(names.map(|name| stage.pid(name, "supervisor_pid")), supervisors);
    let said = hypervisor_says(stage, "web");
    assert_eq!(said["memory_actual_size"], 320 << 20, "{said:#}");
    assert_eq!(said["config"]["cpus"]["boot_vcpus"], 3, "{said:#}");
    let info = world.info("web");
    let disk = Path::new(info["folder"].as_str().expect("a folder")).join("data.raw");
    assert_eq!(fs::metadata(disk).expect("the disk").len(), 3 << 20);
    assert_eq!(
        (&info["spec"]["labels"]["role"], &info["spec"]["policy"]["restart"]),
        (&"front".into(), &"on-crash".into())
    );
    world.assert_in_order();

    // Back again is another matter; while it does not run, nothing is.
    declare("disk = [{ name = \"data\", size = \"3MiB\" }]\nvcpu = 3");
    assert!(world.plan(&[]).lines().contains(&"web restart vram 320MiB→64MiB needs --restart".to_owned()));
    world.v(["vm", "stop", "--force", "--timeout", "0", "web"]).ok();
    assert!(world.plan(&[]).lines().contains(&"web live vram 320MiB→64MiB".to_owned()));
    world.apply(&[]).ok();
    let said = hypervisor_says(stage, "web");
    assert_eq!((&said["memory_actual_size"], &said["config"]["cpus"]["boot_vcpus"]), (&(64 << 20).into(), &3.into()));
    assert_eq!(["other", "third"].map(|name| stage.pid(name, "hypervisor_pid")), before[1..], "these run on");
    world.assert_in_order();
    Ok(())
}

/// The payload has no network. Another stands in its place on the bridge, with its address.
fn a_port_is_opened_under_a_vm_that_runs(stage: &Stage) -> Outcome {
    let world = &stage.world;
    let declare = |more: &str| {
        stage.config(&(LAN.to_owned() + &vm("web", "button", &format!("net = [{{ name = \"lan\", {more} }}]"))));
    };
    declare("address = \"10.44.0.9\"");
    on_a_host(world, || {
        world.apply(&[]).ok();
        let pid = stage.pid("web", "hypervisor_pid");
        let client = Outside::behind("wan0").expect("a namespace");
        ip("addr add 198.51.100.1/24 dev wan0");
        client.run(|| ip(&format!("addr add 198.51.100.2/24 dev {OUTSIDE}")));
        client.run(|| ip("route add default via 198.51.100.1"));
        let guest = Outside::behind("stand0").expect("a namespace");
        guest.run(|| ip(&format!("addr add 10.44.0.9/24 dev {OUTSIDE}")));
        guest.run(|| ip("route add default via 10.44.0.1"));
        ip("link set stand0 master vtest0");
        let _server = guest.run(|| Echo::serve(80)).expect("a server");
        let asks = || client.run(|| ask_tcp(([198, 51, 100, 1], 8080), "a byte").ok());
        assert_eq!(asks(), None, "nothing leads there yet");

        declare("address = \"10.44.0.9\", ports = [\"8080:80\"]");
        assert_eq!(world.plan(&[]).fields(), ["web live net.0.ports"]);
        world.apply(&[]).ok();
        assert_eq!(asks().as_deref(), Some("198.51.100.2 a byte"));
        assert_eq!(stage.pid("web", "hypervisor_pid"), pid, "it runs on");
        world.assert_in_order();

        declare("address = \"10.44.0.9\", deny = [\"in tcp/80\"], ports = [\"8080:80\"]");
        assert_eq!(world.plan(&[]).fields(), ["web live net.0.deny"]);
        world.apply(&[]).ok();
        declare("address = \"10.44.0.9\"");
        let fields = world.plan(&[]).fields();
        assert_eq!(fields, ["web live net.0.ports", "web live net.0.deny"]);
        world.apply(&[]).ok();
        assert_eq!(asks(), None, "it is closed again");
        assert_eq!(stage.pid("web", "hypervisor_pid"), pid);
        world.assert_in_order();
    })
}

fn ports_are_exchanged_under_vms_that_run(stage: &Stage) -> Outcome {
    let world = &stage.world;
    let declare = |ports: [u16; 2]| {
        let vms = [("web", 8), ("db", 9)].iter().zip(ports).map(|((name, ip), port)| {
            let net = format!("address = \"10.44.0.{ip}\", ports = [\"{port}:80\"]");
            vm(name, "button", &format!("net = [{{ name = \"lan\", {net} }}]"))
        });
        stage.config(&(LAN.to_owned() + &vms.collect::<String>()));
    };
    // The payload has no network: what the kernel would do is told by its rules.
    let led = |ports: [u16; 2]| {
        let rules = run("nft", "list ruleset");
        for (ip, port) in [8, 9].iter().zip(ports) {
            assert!(rules.contains(&format!("tcp . {port} : 10.44.0.{ip} . 80")), "{ip}, {port}: {rules}");
        }
    };
    declare([8080, 8081]);
    on_a_host(world, || {
        world.apply(&[]).ok();
        led([8080, 8081]);
        let before = ["web", "db"].map(|name| stage.pid(name, "hypervisor_pid"));
        declare([8081, 8080]);
        assert_eq!(world.plan(&[]).fields(), ["web live net.0.ports", "db live net.0.ports"]);
        world.apply(&[]).ok();
        led([8081, 8080]);
        world.assert_in_order();
        assert_eq!(["web", "db"].map(|name| stage.pid(name, "hypervisor_pid")), before, "they run on");
    })
}

fn what_needs_a_restart_waits_for_it(stage: &Stage) -> Outcome {
    let world = &stage.world;
    let roomy = roomy(stage, Variant::Button);
    let declare = |more: &str| stage.config(&(roomy.clone() + &vm("web", "roomy", more) + &vm("other", "roomy", "")));
    declare("");
    world.apply(&[]).ok();
    let before = ["web", "other"].map(|name| stage.pid(name, "hypervisor_pid"));
    let changed = "cmdline = \"quiet\"\nlabels.role = \"front\"\ndisk = [{ name = \"data\", size = \"1MiB\" }]\n";
    declare(changed);
    let waits = ["web restart cmdline needs --restart", "web restart disk.data needs --restart"];
    let plan = world.plan(&[]);
    assert_eq!(plan.code, Some(10));
    assert!(waits.iter().all(|line| plan.fields().iter().any(|found| found == line)), "{:#?}", plan.fields());
    let run = world.apply(&[]).ok();
    assert!(run.stderr.contains("--restart"), "what waits is told: {}", run.stderr);
    assert_eq!(["web", "other"].map(|name| stage.pid(name, "hypervisor_pid")), before);
    assert_eq!(world.info("web")["spec"]["labels"]["role"], "front", "what needs no restart is done");
    let plan = world.plan(&[]);
    assert_eq!((plan.code, plan.fields()), (Some(10), waits.map(str::to_owned).to_vec()), "the rest still waits");
    let wished = world.plan(&["--restart"]);
    assert!(wished.rows.iter().all(|row| row["needs"].is_null()), "{:#?}", wished.lines());

    // What could be had live comes with the restart: this guest would take it for the power button.
    declare(&(changed.to_owned() + "vcpu = 2"));
    world.apply(&["--restart"]).ok();
    assert_eq!(hypervisor_says(stage, "web")["config"]["cpus"]["boot_vcpus"], 2, "it was there from the start");
    assert_ne!(stage.pid("web", "hypervisor_pid"), before[0]);
    assert!(!alive(before[0]));
    assert_eq!(stage.pid("other", "hypervisor_pid"), before[1], "what does not change runs on");
    let launch = world.v(["vm", "show-launch", "web"]).ok().stdout;
    assert!(launch.contains("quiet") && launch.contains("data.raw"), "{launch}");
    world.assert_in_order();
    Ok(())
}

fn a_disk_of_another_image_costs_the_vm(stage: &Stage) -> Outcome {
    let world = &stage.world;
    let images = [1, 2].map(|mib| world.image(&format!("{mib}.img"), mib));
    let declare = |image: &Path| {
        let disk = format!("disk = [{{ name = \"os\", path = {image:?} }}]");
        stage.config(&(vm("web", "button", &disk) + &vm("other", "button", "")));
    };
    declare(&images[0]);
    world.apply(&[]).ok();
    let before = ["web", "other"].map(|name| stage.pid(name, "hypervisor_pid"));
    let uuid = world.row("web")["uuid"].clone();
    declare(&images[1]);
    let waits = vec!["web replace disk.os.source needs --replace web".to_owned()];
    assert_eq!(world.plan(&[]).fields(), waits);
    for flags in [&[][..], &["--restart"], &["--replace", "other", "--restart"]] {
        let other = flags.contains(&"other");
        let run = world.apply(flags).ok();
        assert!(run.stderr.contains("--replace web"), "{}", run.stderr);
        assert_eq!(stage.pid("web", "hypervisor_pid"), before[0]);
        assert_eq!(stage.pid("other", "hypervisor_pid") != before[1], other, "one is made anew for the asking");
        assert_eq!(world.plan(&["--restart"]).fields(), waits);
    }
    // One that could not be made anew runs on.
    let small = format!("disk = [{{ name = \"os\", path = {:?}, size = \"1MiB\" }}]", images[1]);
    stage.config(&(vm("web", "button", &small) + &vm("other", "button", "")));
    let failed = world.apply(&["--replace", "web"]).fails(2, &["cannot create `web`", "below the"]);
    assert!(!failed.stderr.contains("stopped"), "{}", failed.stderr);
    assert_eq!(stage.pid("web", "hypervisor_pid"), before[0]);
    declare(&images[1]);
    world.apply(&["--replace", "web"]).ok();
    assert_ne!(world.row("web")["uuid"], uuid);
    assert!(!alive(before[0]));
    let disk = Path::new(world.info("web")["folder"].as_str().expect("a folder")).join("os.raw");
    assert_eq!(fs::metadata(disk).expect("the disk").len(), 2 << 20);
    world.assert_in_order();
    Ok(())
}

fn what_is_declared_no_more(stage: &Stage) -> Outcome {
    let world = &stage.world;
    let stays = vm("stays", "button", "");
    let kept = |word: &str| vm(word, "button", &format!("on-remove = \"{word}\""));
    let all = stays.clone() + &kept("stop") + &kept("keep") + &kept("delete");
    stage.config(&all);
    world.apply(&[]).ok();
    let pid = |name: &str| stage.pid(name, "hypervisor_pid");
    let (stays_as, keeps_as, others) = (pid("stays"), pid("keep"), [pid("stop"), pid("delete")]);
    stage.config(&stays);
    let mut fields = world.plan(&[]).fields();
    fields.sort();
    assert_eq!(fields, ["delete delete vm", "keep live declared", "stop live declared", "stop stop running"]);
    world.apply(&[]).ok();
    world.assert_in_order();
    assert_eq!((pid("stays"), pid("keep")), (stays_as, keeps_as));
    assert!(!others.iter().any(|pid| alive(*pid)));
    assert_eq!(world.state_of("stop"), "stopped");
    assert!(world.ls().iter().all(|row| row["name"] != "delete"));

    // From then on they are nobody's, until they are declared again.
    world.v(["vm", "start", "stop"]).ok();
    let started = pid("stop");
    world.assert_settled();
    let number = world.row("stop")["number"].clone();
    stage.config(&all);
    let mut fields = world.plan(&[]).fields();
    fields.sort();
    assert_eq!(fields, ["delete create vm", "delete start running", "keep live declared", "stop live declared"]);
    world.apply(&[]).ok();
    assert_eq!((pid("stays"), pid("keep"), pid("stop")), (stays_as, keeps_as, started));
    assert_eq!((world.state_of("delete").as_str(), &world.row("stop")["number"]), ("running", &number));
    world.assert_in_order();
    Ok(())
}

fn a_guest_that_powered_off_is_started(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.config(&(vm("brief", "poweroff", "running = \"leave\"") + &vm("long", "button", "")));
    world.apply(&[]).ok();
    assert_eq!(world.state_of("brief"), "stopped", "whether it runs is up to others");
    stage.start("brief");
    eventually("it ends", LIMIT, || world.state_of("brief") == "stopped");
    world.assert_settled();
    world.v(["vm", "stop", "long"]).ok();
    let plan = world.plan(&[]);
    assert_eq!((plan.code, plan.lines()), (Some(10), vec!["long start running stopped→running".to_owned()]));
    world.apply(&[]).ok();
    assert_eq!(world.state_of("long"), "running");

    stage.config(&(vm("brief", "poweroff", "") + &vm("long", "button", "running = false")));
    let plan = world.plan(&[]);
    let mut lines = plan.lines();
    lines.sort();
    assert_eq!(lines, ["brief start running stopped→running", "long stop running running→stopped"]);
    // It powers itself off again at once; either is the truth.
    let _ = world.apply(&[]);
    assert_eq!(world.state_of("long"), "stopped");
    eventually("it ends", LIMIT, || world.state_of("brief") == "stopped");
    assert_eq!(world.plan(&[]).lines(), ["brief start running stopped→running"]);
    Ok(())
}

fn a_port_comes_from_one_that_restarts_to_one_that_runs(stage: &Stage) -> Outcome {
    let world = &stage.world;
    let ports = "net = [{ name = \"lan\", ports = [\"8080:80\"] }]";
    let declare = |web: &str, db: &str| {
        // Who takes comes first in the config.
        stage.config(&(LAN.to_owned() + &vm("db", "button", db) + &vm("web", "button", web)));
    };
    declare(ports, "net = [{ name = \"lan\" }]");
    on_a_host(world, || {
        world.apply(&[]).ok();
        let [web, db] = ["web", "db"].map(|name| stage.pid(name, "hypervisor_pid"));
        declare("", ports);
        let waits = ["db live net.0.ports needs --restart", "web restart net.0 needs --restart"];
        assert_eq!(world.plan(&[]).fields(), waits);
        world.apply(&[]).ok();
        assert_eq!(world.plan(&["--restart"]).fields(), ["db live net.0.ports", "web restart net.0"]);
        world.apply(&["--restart"]).ok();
        assert_eq!(stage.pid("db", "hypervisor_pid"), db, "it runs on");
        assert!(stage.runs_anew("web", web));
        world.assert_in_order();
    })
}
