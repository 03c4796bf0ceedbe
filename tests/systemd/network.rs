//! A network's name server as a unit.

use libtest_mimic::Trial;
use serde_json::Value;

use super::LIMIT;
use crate::fixtures::systemd::{Host, template};
use crate::trials;
use crate::world::{Outcome, eventually, need_program};

pub fn trials() -> Vec<Trial> {
    trials![a_network_is_a_unit]
}

const UNIT: &str = "virshle-network@lan.service";

fn info(host: &Host) -> Value {
    let shown = host.v(["network", "info", "lan", "-o", "json"]).ok().stdout;
    serde_json::from_str::<Vec<Value>>(&shown).expect("info prints JSON").remove(0)
}

fn a_network_is_a_unit() -> Outcome {
    need_program("cc")?;
    let nic = "[[template.vm.net]]\nname = \"lan\"";
    let mut host = Host::new(&format!(
        "{}[[network]]\nname = \"lan\"\ntype = \"bridge\"\nbridge = \"vtest0\"\nsubnet = \"10.44.0.0/24\"\n",
        template("on-lan", "/opt/virshle/payload-BUTTON.elf".as_ref(), nic)
    ))?;
    host.boot();
    // The first start of a VM brings it up, as a unit of its own.
    let web = host.create("on-lan", "web");
    host.v(["vm", "start", "web"]).ok();
    assert_eq!(host.property(UNIT, "ActiveState"), "active");
    assert_eq!(host.property(UNIT, "MainPID"), info(&host)["server_pid"].to_string());
    assert_eq!(info(&host)["state"], "up");

    // One that dies is started again, and known.
    let pid = host.property(UNIT, "MainPID");
    host.run(["kill", "-9", &pid]).ok();
    eventually("another serves", LIMIT, || {
        let now = host.property(UNIT, "MainPID");
        let info = info(&host);
        let known = info["server_pid"].as_i64().map(|pid| pid.to_string());
        now != "0" && now != pid && info["state"] == "up" && known.as_ref() == Some(&now)
    });
    // The VM's own unit comes and goes without it.
    host.run(["systemctl", "restart", &web]).ok();
    assert_eq!(host.property(UNIT, "ActiveState"), "active");
    host.v(["network", "down", "lan"]).fails(4, &["`web`"]);
    host.v(["vm", "stop", "web"]).ok();
    host.v(["network", "down", "lan"]).ok();
    assert_eq!(host.property(UNIT, "ActiveState"), "inactive");
    assert_eq!(info(&host)["state"], "down");

    // Started by systemd, and by `v`.
    host.run(["systemctl", "start", UNIT]).ok();
    assert_eq!(info(&host)["state"], "up");
    host.v(["network", "down", "lan"]).ok();
    host.v(["network", "up", "lan"]).ok();
    assert_eq!(host.property(UNIT, "MainPID"), info(&host)["server_pid"].to_string());
    host.v(["vm", "start", "web"]).ok();
    host.shut_down();

    // After the host's own end the record says that it is up, and nothing of it is there.
    host.boot();
    assert_eq!(info(&host)["state"], "damaged");
    host.v(["vm", "start", "web"]).ok();
    assert_eq!(info(&host)["state"], "up");
    host.shut_down();
    Ok(())
}
