//! VMs as units of a real systemd, pid 1 of a container.

mod guest;
mod hardening;
mod names;
mod network;

use std::fs;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::fixtures::payload::PRESSED;
use crate::fixtures::systemd::{Host, template};
use crate::trials;
use crate::world::{Outcome, eventually, need_program};

const LIMIT: Duration = Duration::from_secs(30);

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![
        a_vm_is_a_unit,
        vms_start_and_stop_with_the_host,
        a_replaced_program_keeps_the_guests,
        what_is_declared_is_made_by_a_unit,
    ];
    trials.extend(guest::trials());
    trials.extend(hardening::trials());
    trials.extend(names::trials());
    trials.extend(network::trials());
    trials
}

fn pid(info: &Value, which: &str) -> i64 {
    info[which].as_i64().unwrap_or_else(|| panic!("no {which} in {info:#}"))
}

/// The life of VMs as units: start, status, journal, stop, a killed supervisor, limits, failures.
fn a_vm_is_a_unit() -> Outcome {
    need_program("cc")?;
    let limits = "limits = { cpus = 1.5, memory = \"200MiB\" }";
    let bad = "kernel = \"/opt/virshle/init\"";
    let mut host = Host::new(&format!(
        "{}{}[[template.vm]]\nname = \"bad\"\nvcpu = 1\nvram = \"64MiB\"\n{bad}\n",
        template("limited", "/opt/virshle/payload-BUTTON.elf".as_ref(), limits),
        template("deaf", "/opt/virshle/payload-HALT.elf".as_ref(), "stop-timeout = 3")
    ))?;
    // For one that hangs. A guest has its own time, whatever the unit says.
    host.unit("virshle-vm@.service.d/short.conf", "[Service]\nTimeoutStopSec=1s\n");
    host.boot();
    let doctor = host.v(["doctor"]).stdout;
    assert!(doctor.contains("systemd: each VM is a unit"), "{doctor}");

    // Started by `v`, stopped by systemd.
    let web = host.create("button", "web");
    assert!(host.v(["vm", "start", "web"]).ok().stderr.contains("started `web`"));
    assert_eq!(host.row("web")["state"], "running");
    assert_eq!(host.property(&web, "ActiveState"), "active");
    assert_eq!(host.property(&web, "Slice"), "virshle.slice");
    assert_eq!(host.property(&web, "StatusText"), "web: running");
    assert_eq!(host.property(&web, "MainPID"), inner(&host, "web", "supervisor_pid"));
    host.v(["vm", "pause", "web"]).ok();
    let status = host.run(["systemctl", "--no-pager", "status", &web]).stdout;
    assert!(status.contains("Status: \"web: paused\""), "{status}");
    host.v(["vm", "resume", "web"]).ok();
    host.v(["vm", "start", "web"]).fails(4, &["already running"]);
    assert!(host.journal(&web).contains("running pid="), "{}", host.journal(&web));
    assert!(host.v(["vm", "log", "--supervisor", "web"]).ok().stdout.contains("running pid="));
    host.run(["systemctl", "stop", &web]).ok();
    let row = host.row("web");
    assert_eq!((&row["state"], &row["last_exit"]["reason"]), (&"stopped".into(), &"stopped".into()));
    assert!(host.v(["vm", "log", "web"]).stdout.contains(PRESSED.trim()), "its power button was pressed");

    // The other way round; and one right after the other.
    host.run(["systemctl", "start", &web]).ok();
    assert_eq!(host.row("web")["state"], "running");
    for _ in 0..3 {
        host.v(["vm", "stop", "web"]).ok();
        host.v(["vm", "start", "web"]).ok();
        host.v(["vm", "restart", "web"]).ok();
    }
    assert_eq!(host.row("web")["state"], "running");
    assert_eq!(host.property(&web, "NRestarts"), "0");

    a_killed_supervisor_comes_back(&host, &web);
    a_guest_has_its_own_time(&host);
    a_supervisor_that_hangs_is_not_waited_for(&host, &web);
    limits_hold(&host);
    a_failed_start_is_told(&host);
    without_units(&host);
    Ok(())
}

/// A process as the host sees it.
fn inner(host: &Host, name: &str, which: &str) -> String {
    pid(&host.info(name), which).to_string()
}

fn a_killed_supervisor_comes_back(host: &Host, web: &str) {
    let (supervisor, hypervisor) = (inner(host, "web", "supervisor_pid"), inner(host, "web", "hypervisor_pid"));
    host.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", web]).ok();
    // `ls` starts nothing: it is systemd that brings it back.
    eventually("it is adopted", LIMIT, || {
        host.row("web")["unwatched"] == false && host.property(web, "MainPID") != supervisor && {
            host.property(web, "ActiveState") == "active"
        }
    });
    assert_eq!(inner(host, "web", "hypervisor_pid"), hypervisor, "the guest is the same");
    assert_eq!(inner(host, "web", "supervisor_pid"), host.property(web, "MainPID"));
    assert_eq!(host.property(web, "NRestarts"), "1");
    assert_eq!(host.property(web, "StatusText"), "web: running");

    // The guest ends by itself, or is killed: what follows is no business of systemd's.
    host.run(["kill", "-KILL", &hypervisor]).ok();
    eventually("the end is seen", LIMIT, || host.row("web")["state"] == "crashed");
    eventually("its unit ends", LIMIT, || host.property(web, "ActiveState") == "inactive");
    host.v(["vm", "start", "web"]).ok();
    host.run(["systemctl", "stop", web]).ok();
    assert_eq!(host.row("web")["last_exit"]["reason"], "stopped");

    // Killed when the guest has ended already: it stays as it was left.
    host.v(["vm", "start", "web"]).ok();
    let (supervisor, hypervisor) = (inner(host, "web", "supervisor_pid"), inner(host, "web", "hypervisor_pid"));
    host.run(["kill", "-STOP", &supervisor]).ok();
    host.run(["kill", "-KILL", &hypervisor, &supervisor]).ok();
    eventually("the end is seen", LIMIT, || host.row("web")["state"] == "crashed");
    eventually("its unit ends", LIMIT, || host.property(web, "ActiveState") == "inactive");
    assert_eq!(host.row("web")["state"], "crashed");
}

/// Longer than the unit's: systemd is asked for it.
fn a_guest_has_its_own_time(host: &Host) {
    let unit = host.create("deaf", "deaf");
    host.v(["vm", "start", "deaf"]).ok();
    host.run(["systemctl", "stop", &unit]).ok();
    assert_eq!(host.row("deaf")["last_exit"]["reason"], "forced");
    let journal = host.journal(&unit);
    assert!(journal.contains("SIGTERM: the guest") && !journal.contains("timed out"), "{journal}");
}

/// One that does not hear SIGTERM: as good as one that hangs.
fn a_supervisor_that_hangs_is_not_waited_for(host: &Host, web: &str) {
    let folder = "/run/systemd/system/virshle-vm@.service.d";
    let deaf = format!("mkdir -p {folder} && printf '[Service]\nKillSignal=SIGWINCH\n' >{folder}/deaf.conf");
    host.run(["sh", "-c", &format!("{deaf} && systemctl daemon-reload")]).ok();
    host.v(["vm", "start", "web"]).ok();
    let hypervisor = inner(host, "web", "hypervisor_pid");
    host.run(["systemctl", "stop", web]);
    let row = host.row("web");
    assert_eq!((&row["state"], &row["last_exit"]["reason"]), (&"stopped".into(), &"forced".into()));
    host.run(["kill", "-0", &hypervisor]).fails(1, &["No such process"]);
    host.run(["sh", "-c", &format!("rm -r {folder} && systemctl daemon-reload && systemctl reset-failed")]).ok();
}

fn limits_hold(host: &Host) {
    let unit = host.create("limited", "small");
    let started = host.v(["vm", "start", "small"]).ok();
    assert!(!started.stderr.contains("warning"), "{}", started.stderr);
    assert_eq!(host.property(&unit, "MemoryMax"), (200 << 20).to_string());
    let quota = host.property(&unit, "CPUQuotaPerSecUSec");
    assert_eq!(quota.trim_end_matches('s').parse(), Ok(1.5), "{quota}");
    // The kernel knows them, and the hypervisor is among those they are for.
    let group = host.property(&unit, "ControlGroup");
    let legacy = host.run(["test", "-d", "/sys/fs/cgroup/memory"]).code == Some(0);
    let files = match legacy {
        true => [
            (format!("memory{group}/memory.limit_in_bytes"), "209715200"),
            (format!("cpu{group}/cpu.cfs_quota_us"), "150000"),
        ],
        false => [(format!("{group}/memory.max"), "209715200"), (format!("{group}/cpu.max"), "150000 100000")],
    };
    for (file, value) in &files {
        assert_eq!(host.run(["cat", &format!("/sys/fs/cgroup/{file}")]).ok().stdout.trim(), *value, "{file}");
    }
    let processes = format!("/sys/fs/cgroup/{}{group}/cgroup.procs", if legacy { "memory" } else { "" });
    let processes = host.run(["cat", &processes]).ok().stdout;
    assert!(processes.lines().any(|pid| pid == inner(host, "small", "hypervisor_pid")), "{processes}");
    host.v(["vm", "delete", "--force", "small"]).ok();
    let left = host.run(["find", "/run/systemd/system.control", "-name", "*.conf", "-path", &format!("*{unit}*")]);
    assert_eq!(left.stdout, "", "nothing is left of the limits");
}

fn a_failed_start_is_told(host: &Host) {
    let unit = host.create("bad", "bad");
    let failed = host.v(["vm", "start", "bad"]).fails(1, &["cannot start `bad`"]);
    assert!(!failed.stderr.contains("without a word"), "the reason is the supervisor's own: {}", failed.stderr);
    let info = host.v(["vm", "info", "bad"]).ok().stdout;
    assert!(info.contains("boot failed"), "{info}");
    eventually("no failed unit is left", LIMIT, || host.property(&unit, "ActiveState") == "inactive");
    assert_eq!(host.run(["systemctl", "is-system-running"]).stdout.trim(), "running");
    assert_eq!(host.property(&unit, "NRestarts"), "0", "a start that failed is not tried again");
}

/// In another mode, and where nobody installed the units, a VM is a process of its own.
fn without_units(host: &Host) {
    let program = host.run(["readlink", "-f", "/usr/bin/v"]).ok().stdout;
    host.run(["sh", "-c", "mkdir -p /tmp/units /tmp/r/etc && cp -r /etc/virshle/. /tmp/r/etc/virshle"]).ok();
    host.run(["/opt/virshle/v", "units", "--dir", "/tmp/units"]).ok();
    host.run(["sh", "-c", "systemd-analyze verify --man=no /tmp/units/*.slice /tmp/units/virshle-[as]*.service"]).ok();
    host.run(["systemd-analyze", "verify", "--man=no", "/tmp/units/virshle-vm@x.service"]).ok();
    let unit = host.run(["cat", "/tmp/units/virshle-vm@.service"]).ok().stdout;
    assert!(unit.contains(&format!("ExecStart={} supervise", program.trim())), "{unit}");

    let rooted = |args: &[&'static str]| host.v(["--root", "/tmp/r"].into_iter().chain(args.iter().copied()));
    rooted(&["vm", "create", "-t", "limited", "-n", "small"]).ok();
    let started = rooted(&["vm", "start", "small"]).ok().stderr;
    assert!(started.contains("nothing holds `small` to its limits"), "{started}");
    assert!(rooted(&["vm", "log", "--supervisor", "small"]).ok().stdout.contains("no unit of systemd"));
    let doctor = rooted(&["doctor"]).stdout;
    assert!(doctor.contains("nothing holds them to the limits"), "{doctor}");
    rooted(&["vm", "delete", "--force", "small"]).ok();

    host.run(["sh", "-c", "rm /etc/systemd/system/virshle* -r && systemctl daemon-reload"]).ok();
    let doctor = host.v(["doctor"]).stdout;
    assert!(doctor.contains("the units are not installed") && doctor.contains("v units --dir"), "{doctor}");
    host.v(["vm", "start", "web"]).ok();
    assert_eq!(host.row("web")["state"], "running");
    host.v(["vm", "stop", "web"]).ok();
}

/// Autostart in its order; and the way down: guests first, the switch after them.
fn vms_start_and_stop_with_the_host() -> Outcome {
    need_program("cc")?;
    let button = "/opt/virshle/payload-BUTTON.elf";
    let mut config = String::new();
    for (name, more) in [
        ("first", "autostart = true\nautostart-delay = 1"),
        ("second", "autostart = true\nautostart-order = 5\nautostart-delay = 60"),
        ("none", "autostart = true\nautostart-order = 1\nstop-timeout = 1"),
    ] {
        let kernel = if name == "none" { "/opt/virshle/payload-HALT.elf" } else { button };
        config += &template(name, kernel.as_ref(), more);
    }
    config += "[[template.vm]]\nname = \"bad\"\nvcpu = 1\nvram = \"64MiB\"\nkernel = \"/opt/virshle/init\"\nautostart = true\n";
    let mut host = Host::new(&config)?;
    // A switch, that notes how the VMs are when it is stopped.
    host.unit(
        "openvswitch-switch.service",
        "[Unit]\nDescription=A switch\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n\
         ExecStop=/bin/sh -c 'v vm ls -o json >/var/lib/virshle/at-the-switch-s-end'\n[Install]\nWantedBy=multi-user.target\n",
    );
    host.boot();
    for (template, name) in [
        ("second", "late"),
        ("first", "early"),
        ("none", "deaf"),
        ("bad", "bad"),
        ("button", "off"),
        ("button", "lonely"),
    ] {
        host.create(template, name);
    }
    host.run(["systemctl", "start", "openvswitch-switch.service"]).ok();
    host.v(["vm", "autostart"]).fails(1, &["cannot start `bad`", "started `early`", "started `late`"]);
    let started = |host: &Host, name: &str| host.row(name)["up_since"].as_str().expect("it runs").to_owned();
    let order = ["early", "deaf", "late"];
    let times = order.map(|name| started(&host, name));
    assert!(times.is_sorted(), "{times:?}");
    let time = |index: usize| times[index].parse::<jiff::Timestamp>().expect("a time");
    assert!(
        time(1).duration_since(time(0)).as_secs() >= 1,
        "the second order waits for the delay of the first: {times:?}"
    );
    assert_eq!(host.row("off")["state"], "stopped", "it does not start with the host");
    // Again: what runs is left alone.
    host.v(["vm", "autostart"]).fails(1, &["cannot start `bad`"]);
    assert_eq!(order.map(|name| started(&host, name)), times);
    host.v(["vm", "delete", "bad"]).ok();

    // A supervisor that nobody brings back.
    host.v(["vm", "start", "lonely"]).ok();
    let folder =
        format!("/run/systemd/system/virshle-vm@{}.service.d", host.row("lonely")["uuid"].as_str().expect("a uuid"));
    let once = format!(
        "mkdir -p {folder} && printf '[Service]\\nRestart=no\\nRestartForceExitStatus=\\n' >{folder}/once.conf"
    );
    host.run(["sh", "-c", &format!("{once} && systemctl daemon-reload")]).ok();
    host.run(["kill", "-KILL", &inner(&host, "lonely", "supervisor_pid")]).ok();
    eventually("it is unwatched", LIMIT, || host.row("lonely")["unwatched"] == true);

    host.shut_down();
    let noted = fs::read_to_string(host.path("state/at-the-switch-s-end")).expect("the switch was stopped");
    let noted: Vec<Value> = serde_json::from_str(&noted).expect("JSON");
    assert_eq!(noted.len(), 5);
    for row in &noted {
        let reason = match row["name"].as_str() {
            Some("deaf") => Value::from("forced"),
            Some("off") => Value::Null,
            _ => Value::from("stopped"),
        };
        assert_eq!((&row["state"], &row["last_exit"]["reason"]), (&"stopped".into(), &reason), "{row:#}");
    }
    let console = |name: &str| {
        let uuid = noted.iter().find(|row| row["name"] == name).expect("a row")["uuid"].as_str().expect("a uuid");
        fs::read_to_string(host.path(&format!("state/vm/{uuid}/console.log"))).expect("its console")
    };
    for name in ["early", "late", "lonely"] {
        assert!(console(name).contains(PRESSED), "{name}: {}", console(name));
    }

    // The next life of the host brings them back.
    host.boot();
    for name in order {
        assert_eq!(host.row(name)["state"], "running", "{name}");
    }
    assert_eq!(host.row("off")["state"], "stopped");
    assert_eq!(host.property("virshle-autostart.service", "ActiveState"), "active");
    let times = order.map(|name| started(&host, name));
    assert!(times.is_sorted(), "{times:?}");
    host.shut_down();
    Ok(())
}

/// The config is applied by a unit; a guest that runs gets another limit and notices nothing.
fn what_is_declared_is_made_by_a_unit() -> Outcome {
    need_program("cc")?;
    let declared = "[[vm]]\nname = \"web\"\ntemplate = \"button\"\nlimits = { memory = \"200MiB\" }\n\
                    [[vm]]\nname = \"rests\"\ntemplate = \"button\"\nrunning = false\n";
    let mut host = Host::new(declared)?;
    host.boot();
    let enabled = host.run(["systemctl", "is-enabled", "virshle-apply"]).stdout;
    assert_eq!(enabled.trim(), "disabled", "nobody has asked for it yet");
    host.run(["systemctl", "start", "virshle-apply"]).ok();
    let said = host.journal("virshle-apply.service");
    assert!(said.contains("created `web`") && said.contains("started `web`"), "{said}");
    assert_eq!((&host.row("web")["state"], &host.row("rests")["state"]), (&"running".into(), &"stopped".into()));
    let unit = format!("virshle-vm@{}.service", host.row("web")["uuid"].as_str().expect("a uuid"));
    let memory = |host: &Host| host.property(&unit, "MemoryMax");
    assert_eq!((host.property(&unit, "ActiveState"), memory(&host)), ("active".to_owned(), (200 << 20).to_string()));
    let before = inner(&host, "web", "hypervisor_pid");

    let config = fs::read_to_string(host.path("opt/config/config.toml")).expect("the config");
    host.configure(&config.replace("200MiB", "300MiB"));
    host.run(["systemctl", "restart", "virshle-apply"]).ok();
    assert_eq!(memory(&host), (300 << 20).to_string());
    assert_eq!(inner(&host, "web", "hypervisor_pid"), before, "its guest runs on");
    assert_eq!(host.v(["plan"]).ok().stderr, "nothing to do\n");
    host.shut_down();
    Ok(())
}

/// An upgrade of `v`, and systemd's own, change nothing for a guest.
fn a_replaced_program_keeps_the_guests() -> Outcome {
    need_program("cc")?;
    let mut host = Host::new("")?;
    host.boot();
    let unit = host.create("button", "web");
    host.v(["vm", "start", "web"]).ok();
    let hypervisor = inner(&host, "web", "hypervisor_pid");
    host.install(&crate::world::v());
    let runs_replaced = |host: &Host| {
        let supervisor = host.property(&unit, "MainPID");
        host.run(["readlink", &format!("/proc/{supervisor}/exe")]).stdout.contains("(deleted)")
    };
    assert!(runs_replaced(&host), "it runs the program that is gone");
    host.run(["systemctl", "daemon-reexec"]).ok();
    host.run(["systemctl", "reload", &unit]).ok();
    eventually("it runs the new program", LIMIT, || {
        host.property(&unit, "MainPID") != "0" && !runs_replaced(&host) && host.row("web")["unwatched"] == false
    });
    eventually("its unit is active", LIMIT, || host.property(&unit, "ActiveState") == "active");
    assert_eq!(host.row("web")["state"], "running");
    assert_eq!(inner(&host, "web", "hypervisor_pid"), hypervisor, "the guest is the same");
    host.run(["systemctl", "stop", &unit]).ok();
    assert_eq!(host.row("web")["last_exit"]["reason"], "stopped");
    Ok(())
}
