//! Ports that are taken away while their VM runs.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::{Stage, Test};
use crate::fixtures::netns::in_private_network;
use crate::fixtures::ovs::PrivateOvs;
use crate::fixtures::payload::{self, Variant};
use crate::world::{Outcome, Run, eventually, exercised, need_program, need_root, skip};

pub const TESTS: &[(&str, Test)] = &[
    ("a_vhost_port_is_put_back", a_vhost_port_is_put_back),
    ("a_tap_is_put_back_on_its_switch", a_tap_is_put_back_on_its_switch),
    ("a_guard_is_put_back_into_its_switch", a_guard_is_put_back_into_its_switch),
    ("a_tap_is_put_back_on_its_bridge", a_tap_is_put_back_on_its_bridge),
];

const LIMIT: Duration = Duration::from_secs(60);

/// A template of one NIC, whose network is `network`. Its guest hears nothing: any other payload
/// takes the interrupt of a hot-unplug for the power button.
fn config(stage: &Stage, db: Option<&str>, link: &str, network: &str) {
    let kernel = payload::build(stage.world.dir(), Variant::Halt).expect("a payload");
    stage.config(&format!(
        "{}[[template.vm.net]]\nname = \"lan\"\ntype = \"{link}\"\n[[network]]\nname = \"lan\"\n{network}\n",
        super::template("plugged", &kernel)
    ));
    if let Some(db) = db {
        let config = fs::read_to_string(stage.world.config_file()).expect("the config");
        stage.world.config(&config.replacen("[node]\n", &format!("[node]\novs-db = \"{db}\"\n"), 1));
    }
}

fn cut(stage: &Stage) -> Run {
    stage.world.v(["vm", "stop", "--force", "--timeout", "0", "a"]).ok()
}

fn ailments(stage: &Stage) -> Vec<String> {
    let troubles = stage.world.row("a")["troubles"].as_array().expect("a list").clone();
    troubles.iter().map(|trouble| trouble["ailment"].as_str().expect("a word").to_owned()).collect()
}

/// What the history says of ports, oldest first.
fn port_history(stage: &Stage) -> Vec<String> {
    let database = rusqlite::Connection::open(stage.world.state().join("virshle.sqlite")).expect("the database");
    let query = "SELECT json_extract(happening, '$.what') FROM history ORDER BY id";
    let mut statement = database.prepare(query).expect("a query");
    let words = statement.query_map([], |row| row.get::<_, String>(0)).expect("rows");
    words.map(|word| word.expect("a word")).filter(|word| word.starts_with("port-")).collect()
}

fn a_vhost_port_is_put_back(stage: &Stage) -> Outcome {
    let ovs = match PrivateOvs::start(true) {
        Ok(ovs) => ovs,
        Err(reason) => return skip(reason),
    };
    exercised("switch", "Open vSwitch with DPDK (vhost)");
    config(stage, Some(&ovs.db), "vhost", "bridge = \"vsbr0\"\ncreate = true");
    let vsctl = |args: &[&str]| ovs.vsctl(args).expect("ovs-vsctl").trim().trim_matches('"').to_owned();
    let is_back = || vsctl(&["list-ports", "vsbr0"]) == "v1n0";
    let is_ours = || vsctl(&["get", "Port", "v1n0", "external_ids:virshle-vm"]) == stage.world.row("a")["uuid"];
    stage.create("plugged", "a");
    stage.start("a");
    assert_eq!(ailments(stage), Vec::<String>::new());
    vsctl(&["del-port", "v1n0"]);
    eventually("the port is back", LIMIT, is_back);
    assert!(is_ours());

    // The payload has no driver, so the real program does not notice that its switch was away, and
    // its socket stays deaf. That is told, and it is tried: this guest cannot give up a device.
    if !stage.program.ends_with("examples/cloud-hypervisor") {
        eventually("the NIC is found cut off", LIMIT, || ailments(stage) == ["dead"]);
        assert_eq!(port_history(stage), ["port-lost", "port-restored", "port-dead"]);
        let shown = stage.world.v(["vm", "info", "a"]).ok().stdout;
        assert!(shown.contains("cut off") && shown.contains("v vm restart a"), "{shown}");
        let listed = stage.world.v(["vm", "ls"]).ok().stdout;
        assert!(listed.contains("running (port lost)"), "{listed}");
        cut(stage);
        stage.start("a");
        assert_eq!(ailments(stage), Vec::<String>::new(), "a restart mends it");
    }

    // The bridge too, which the config allows to be made.
    vsctl(&["del-br", "vsbr0"]);
    eventually("the bridge is back", LIMIT, || ovs.vsctl(&["br-exists", "vsbr0"]).is_ok() && is_back());

    // What somebody else has put there is left alone, also at the end.
    vsctl(&["del-port", "v1n0", "--", "add-port", "vsbr0", "v1n0", "--", "set", "Interface", "v1n0", "type=internal"]);
    eventually("it is told", LIMIT, || ailments(stage) == ["taken"]);

    // A switch that hangs delays no stop.
    ovs.freeze_switch();
    let stopped = cut(stage);
    ovs.thaw_switch();
    assert!(stopped.took < Duration::from_secs(20), "{:?}", stopped.took);
    assert!(is_back(), "it is not ours");
    stage.world.v(["vm", "delete", "a"]).ok();
    vsctl(&["del-br", "vsbr0"]);
    stage.world.assert_empty();
    Ok(())
}

fn a_tap_is_put_back_on_its_switch(stage: &Stage) -> Outcome {
    let done = in_private_network(|| {
        let ovs = match PrivateOvs::start(false) {
            Ok(ovs) => ovs,
            Err(reason) => return skip(reason),
        };
        exercised("switch", "Open vSwitch (tap)");
        config(stage, Some(&ovs.db), "tap", "bridge = \"vsbr0\"\ncreate = true");
        let ports = || ovs.vsctl(&["list-ports", "vsbr0"]).unwrap_or_default().trim().to_owned();
        stage.create("plugged", "a");
        stage.start("a");
        assert_eq!(ports(), "v1n0");
        for harm in [["del-port", "v1n0"], ["del-br", "vsbr0"]] {
            ovs.vsctl(&harm).expect("ovs-vsctl");
            eventually("the port is back", LIMIT, || ports() == "v1n0");
            eventually("all is well", LIMIT, || ailments(stage).is_empty());
        }
        // While nobody can put it back; a new supervisor finds it missing, too.
        ovs.kill_switch();
        ovs.vsctl(&["--no-wait", "del-port", "v1n0"]).expect("ovs-vsctl");
        eventually("it is told", LIMIT, || ailments(stage) == ["missing"]);
        super::kill(stage.pid("a", "supervisor_pid"), rustix::process::Signal::KILL);
        eventually("it is seen", LIMIT, || stage.world.row("a")["unwatched"] == true);
        stage.world.v(["vm", "pause", "a"]).ok();
        stage.world.v(["vm", "resume", "a"]).ok();
        ovs.start_switch().expect("ovs-vswitchd");
        eventually("the port is back", LIMIT, || ports() == "v1n0" && ailments(stage).is_empty());
        cut(stage);
        assert_eq!(ports(), "", "nobody puts it back after the end");
        stage.world.v(["vm", "delete", "a"]).ok();
        Ok(())
    });
    done.map_err(crate::world::Skip)?
}

fn a_guard_is_put_back_into_its_switch(stage: &Stage) -> Outcome {
    let done = in_private_network(|| {
        let ovs = match PrivateOvs::start_beside("guard") {
            Ok(ovs) => ovs,
            Err(reason) => return skip(reason),
        };
        exercised("switch", "Open vSwitch (tap)");
        let flows = || {
            let socket = format!("unix:{}/vsbr0.mgmt", ovs.dir.display());
            let mut program = std::process::Command::new("ovs-ofctl");
            let run = program.args(["-O", "OpenFlow14", "dump-flows", &socket, "in_port=8200"]).output();
            String::from_utf8_lossy(&run.expect("ovs-ofctl").stdout).matches("actions=").count()
        };
        // A network that Virshle keeps, with nobody's addresses: its guests have their own MACs.
        config(stage, Some(&ovs.db), "tap", "bridge = \"vsbr0\"\ncreate = true");
        stage.create("plugged", "a");
        stage.start("a");
        let guarded = flows();
        assert!(guarded > 2, "{guarded} flows");
        for supervised in [true, false] {
            if !supervised {
                super::kill(stage.pid("a", "supervisor_pid"), rustix::process::Signal::KILL);
                eventually("it is seen", LIMIT, || stage.world.row("a")["unwatched"] == true);
            }
            ovs.kill_switch();
            ovs.start_switch().expect("ovs-vswitchd");
            if !supervised {
                assert_eq!(flows(), 0, "nobody has put them back");
                stage.world.v(["vm", "pause", "a"]).ok();
                stage.world.v(["vm", "resume", "a"]).ok();
            }
            eventually("its guard is back", LIMIT, || flows() == guarded);
            eventually("all is well", LIMIT, || ailments(stage).is_empty());
        }
        cut(stage);
        eventually("no flow of it is left", LIMIT, || flows() == 0);
        stage.world.v(["vm", "delete", "a"]).ok();
        Ok(())
    });
    done.map_err(crate::world::Skip)?
}

fn a_tap_is_put_back_on_its_bridge(stage: &Stage) -> Outcome {
    need_root()?;
    need_program("ip")?;
    let done = in_private_network(|| {
        exercised("switch", "Linux bridge (tap)");
        let ip = |args: &[&str]| {
            let output = std::process::Command::new("ip").args(args).output().expect("ip runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        config(stage, None, "tap", "type = \"bridge\"\nbridge = \"br7\"\ncreate = true");
        stage.create("plugged", "a");
        stage.start("a");
        ip(&["link", "del", "br7"]);
        eventually("the tap is back", LIMIT, || ip(&["-o", "link", "show", "master", "br7"]).contains("v1n0"));
        let told: Value = stage.world.row("a")["troubles"].clone();
        assert_eq!(told, Value::Array(Vec::new()));
        eventually("it is noted", LIMIT, || port_history(stage) == ["port-lost", "port-restored"]);
        cut(stage);
        stage.world.v(["vm", "delete", "a"]).ok();
    });
    done.map_err(crate::world::Skip)
}
