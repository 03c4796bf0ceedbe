//! Ports and guards of VMs that run: afterwards the host is as if they had been started so.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use libtest_mimic::Trial;
use uuid::Uuid;
use virshle::error::{Error, Result};
use virshle::host::Dirs;
use virshle::spec::{Forward, Guard, VmSpec};
use virshle::store::Store;
use virshle::vm::{Site, set_guard, set_ports};

use super::lan::{LAN, on_a_host, ruleset, run};
use crate::fixtures::ovs::PrivateOvs;
use crate::fixtures::payload::{self, Variant};
use crate::lifecycle::{Stage, template};
use crate::trials;
use crate::world::{Outcome, eventually, need_program};

pub fn trials() -> Vec<Trial> {
    trials![ports_follow_at_once, a_guard_on_a_linux_bridge_follows_at_once, a_guard_on_open_vswitch_follows_at_once]
}

const LIMIT: Duration = Duration::from_secs(30);

/// The library on the world of a stage.
struct Hands {
    site: Site,
    store: Store,
}

impl Hands {
    fn new(stage: &Stage) -> Self {
        let site = Site::new(Dirs::find(Some(&stage.world.root())).expect("the folders"));
        let store = site.store().expect("the store");
        Self { site, store }
    }

    fn spec(&self, name: &str) -> VmSpec {
        let records = self.store.list().expect("the VMs");
        records.into_iter().map(|record| record.spec).find(|spec| spec.name.as_str() == name).expect("the VM")
    }

    fn vm(&self, name: &str) -> Uuid {
        self.spec(name).uuid
    }

    fn ports(&mut self, name: &str, ports: &[&str]) -> Result<()> {
        let ports: Vec<Forward> = ports.iter().map(|port| port.parse().expect("a port")).collect();
        let vm = self.vm(name);
        set_ports(&self.site, &mut self.store, vm, &[(0, ports)])
    }

    fn guard(&mut self, name: &str, guard: &Guard) -> Result<()> {
        let vm = self.vm(name);
        set_guard(&self.site, &mut self.store, vm, &[(0, guard.clone())])
    }
}

fn stage(switch: &str) -> std::result::Result<Stage, crate::world::Skip> {
    let stage = Stage::either()?;
    let kernel = payload::build(stage.world.dir(), Variant::Button).expect("the payload is built");
    let net = "[[template.vm.net]]\nname = \"lan\"\ntype = \"tap\"\n";
    let lan = LAN.replace("\"bridge\"\n", &format!("\"{switch}\"\n"));
    stage.config(&format!("{}{net}{lan}", template("t", &kernel)));
    Ok(stage)
}

fn words(error: &Error) -> String {
    error.chain().join(": ")
}

fn ports_follow_at_once() -> Outcome {
    let stage = stage("bridge")?;
    on_a_host(&stage.world, || {
        for name in ["a", "b"] {
            stage.create("t", name);
            stage.start(name);
        }
        let mut hands = Hands::new(&stage);
        let bare = ruleset();
        hands.ports("a", &["8080:80", "5353:53/udp"]).expect("they are free");
        let led = ruleset();
        assert!(led.contains("8080") && led.contains("5353"), "{led}");
        hands.ports("a", &["8080:80", "5353:53/udp"]).expect("they are its own");
        assert_eq!(ruleset(), led);

        let listener = TcpListener::bind("127.0.0.1:9090").expect("a port");
        let error = hands.ports("a", &["8080:80", "9090:90"]).expect_err("somebody listens there");
        assert!(words(&error).contains("listens at port 9090/tcp") && error.kind().exit_code() == 4, "{error:?}");
        let error = hands.ports("b", &["127.0.0.1:8080:80"]).expect_err("it is another VM's");
        assert!(words(&error).contains("`a` has `8080:80/tcp`"), "{error:?}");
        assert_eq!(hands.spec("b").nics[0].forwards, []);
        assert_eq!(hands.spec("a").nics[0].forwards.len(), 2, "as before");
        assert_eq!(ruleset(), led);
        drop(listener);

        stage.world.v(["vm", "stop", "a"]).ok();
        eventually("they are gone", LIMIT, || !ruleset().contains("8080"));
        stage.start("a");
        assert_eq!(ruleset(), led, "as a start makes them");
        hands.ports("a", &[]).expect("none");
        assert_eq!(ruleset(), bare);
    })
}

fn guards() -> [Guard; 3] {
    let allow = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a rule")).collect();
    [
        Guard { allow: allow(&["tcp/22"]), ..Guard::default() },
        Guard {
            deny: allow(&["any from 10.44.0.9"]),
            rate: Some("10Mbit".parse().expect("a rate")),
            ..Guard::default()
        },
        Guard { spoof: true, ..Guard::default() },
    ]
}

/// Each guard under a guest that runs, and again with a start; `look` tells how the switch guards it.
fn follows(stage: &Stage, look: impl Fn() -> String) {
    stage.create("t", "a");
    stage.start("a");
    let mut hands = Hands::new(stage);
    let mut before = look();
    for guard in guards() {
        hands.guard("a", &guard).expect("it follows");
        assert_eq!(hands.spec("a").nics[0].guard.as_ref(), Some(&guard));
        let live = look();
        assert_ne!(live, before, "{guard:?}");
        stage.world.v(["vm", "stop", "a"]).ok();
        stage.start("a");
        assert_eq!(look(), live, "as a start makes it: {guard:?}");
        before = live;
    }
}

fn a_guard_on_a_linux_bridge_follows_at_once() -> Outcome {
    let stage = stage("bridge")?;
    on_a_host(&stage.world, || follows(&stage, ruleset))
}

fn a_guard_on_open_vswitch_follows_at_once() -> Outcome {
    need_program("ovs-vswitchd")?;
    let stage = stage("ovs")?;
    on_a_host(&stage.world, || {
        let ovs = PrivateOvs::start_beside("alter").expect("a switch");
        let config = fs::read_to_string(stage.world.config_file()).expect("the config");
        stage.world.config(&config.replacen("[node]\n", &format!("[node]\novs-db = \"{}\"\n", ovs.db), 1));
        let socket = format!("unix:{}/vtest0.mgmt", ovs.dir.display());
        follows(&stage, || {
            ["--no-stats --sort dump-flows", "dump-meters"]
                .map(|command| run("ovs-ofctl", &format!("-O OpenFlow14 {command} {socket}")))
                .concat()
        });
    })
}
