//! How runs end, and what does not end them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::{Stage, Test, alive, kill, template};
use crate::fixtures::payload::{self, CTRL_O, CTRL_R, Variant};
use crate::world::{Outcome, Skip, eventually, exercised, need_root, run, skip};

pub const TESTS: &[(&str, Test)] = &[
    ("a_reboot_never_ends_a_vm", a_reboot_never_ends_a_vm),
    ("a_seccomp_kill_is_named", a_seccomp_kill_is_named),
    ("out_of_memory_is_named", out_of_memory_is_named),
    ("the_policy_is_carried_out_and_shown", the_policy_is_carried_out_and_shown),
];

const LIMIT: Duration = Duration::from_secs(20);

/// Attached to the console, with the past read.
pub fn attach(stage: &Stage, name: &str) -> UnixStream {
    let uuid = stage.world.row(name)["uuid"].as_str().expect("a uuid").to_owned();
    let socket = stage.world.root().join("run/virshle/vm").join(uuid).join("console.sock");
    let stream = UnixStream::connect(&socket).expect("the console listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a deadline");
    stream
}

/// Types `text`, and waits until it comes back `times` times in all of the log.
fn echoes(stage: &Stage, name: &str, console: &mut UnixStream, text: &str) {
    console.write_all(text.as_bytes()).expect("it is typed");
    eventually(&format!("{text:?} comes back"), LIMIT, || stage.log(name).contains(text));
}

fn a_reboot_never_ends_a_vm(stage: &Stage) -> Outcome {
    let world = &stage.world;
    stage.create("echo", "a");
    stage.start("a");
    let (hypervisor, since) = (stage.pid("a", "hypervisor_pid"), world.row("a")["up_since"].clone());
    let said = |times: usize| stage.log("a").matches("virshle payload").count() == times;
    eventually("the guest writes", LIMIT, || said(1));
    let mut console = attach(stage, "a");
    echoes(stage, "a", &mut console, "before");
    for reboot in 1..=2 {
        console.write_all(&[CTRL_R]).expect("it is typed");
        eventually("it is up again", LIMIT, || said(1 + reboot));
        // The same client goes on.
        echoes(stage, "a", &mut console, &format!("after-{reboot}"));
        let row = world.row("a");
        assert_eq!((&row["state"], &row["up_since"]), (&"running".into(), &since), "one run");
        assert_eq!(stage.pid("a", "hypervisor_pid"), hypervisor);
    }
    let mut seen = vec![0; 4096];
    let count = console.read(&mut seen).expect("it is shown");
    assert!(String::from_utf8_lossy(&seen[..count]).contains("virshle payload"));
    world.v(["vm", "stop", "a"]).ok();
    assert_eq!(world.row("a")["last_exit"]["reason"], "stopped");
    Ok(())
}

fn a_seccomp_kill_is_named(stage: &Stage) -> Outcome {
    stage.create("halt", "a");
    stage.start("a");
    kill(stage.pid("a", "hypervisor_pid"), Signal::SYS);
    eventually("it is seen", LIMIT, || stage.world.state_of("a") == "crashed");
    assert_eq!(stage.world.row("a")["last_exit"]["signal"], 31);
    let info = stage.world.v(["vm", "info", "a"]).ok().stdout;
    assert!(info.contains("SIGSYS") && info.contains("seccomp"), "{info}");
    Ok(())
}

/// A memory group of its own, gone when dropped.
struct Group {
    dir: PathBuf,
}

impl Group {
    fn new(limit: u64) -> Result<Self, Skip> {
        need_root()?;
        let name = format!("virshle-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let name = name.replace(['(', ')'], "");
        for (root, file, version) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "version 1"),
            ("/sys/fs/cgroup", "memory.max", "version 2"),
        ] {
            let dir = std::path::Path::new(root).join(&name);
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            let group = Self { dir };
            if fs::write(group.dir.join(file), limit.to_string()).is_ok() {
                // What would be swapped out would not be missed. Not every kernel counts swap.
                let _ = fs::write(group.dir.join("memory.swap.max"), "0");
                let _ = fs::write(group.dir.join("memory.swappiness"), "0");
                exercised("memory groups", version);
                return Ok(group);
            }
        }
        skip("no memory cgroup can be made here")
    }

    /// The command, in the group from its first moment on.
    fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("/bin/sh");
        wrapped.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.dir.join("cgroup.procs"));
        wrapped.arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                wrapped.env(name, value);
            }
        }
        wrapped
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes end with the world of the test, a moment earlier or later.
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn out_of_memory_is_named(stage: &Stage) -> Outcome {
    // Enough for a supervisor, the command and an idle hypervisor; not for the guest's memory too.
    let group = Group::new(44 << 20)?;
    stage.create("echo", "a");
    run(group.wrap(&stage.world.command(["vm", "start", "a"])), LIMIT).ok();
    let supervisor = stage.pid("a", "supervisor_pid");
    eventually("the guest writes", LIMIT, || stage.log("a").contains("virshle payload"));
    attach(stage, "a").write_all(&[CTRL_O]).expect("it is typed");
    eventually("the kernel ends it", LIMIT, || stage.world.state_of("a") == "crashed");
    assert_eq!(stage.world.row("a")["last_exit"]["reason"], "out-of-memory");
    let info = stage.world.v(["vm", "info", "a"]).ok().stdout;
    assert!(info.contains("out of memory"), "{info}");
    // By whom else it is killed is told apart, in the same group.
    eventually("the supervisor ends", LIMIT, || !alive(supervisor));
    run(group.wrap(&stage.world.command(["vm", "start", "a"])), LIMIT).ok();
    kill(stage.pid("a", "hypervisor_pid"), Signal::KILL);
    eventually("it is seen", LIMIT, || stage.world.state_of("a") == "crashed");
    assert_eq!(stage.world.row("a")["last_exit"]["reason"], "killed");
    stage.world.v(["vm", "delete", "a"]).ok();
    Ok(())
}

fn the_policy_is_carried_out_and_shown(stage: &Stage) -> Outcome {
    let world = &stage.world;
    // It does not hear the button.
    let kernel = payload::build(world.dir(), Variant::Halt).expect("a payload");
    stage.config(&format!(
        "{}watchdog = true\nrestart = \"on-crash\"\nstop-timeout = 1\nautostart = true\nautostart-order = 3\n\
         limits = {{ cpus = 1.5, memory = \"256MiB\" }}\n",
        template("kept", &kernel)
    ));
    stage.create("kept", "a");
    stage.start("a");
    let info = world.v(["vm", "info", "a"]).ok().stdout;
    for line in ["restart", "watchdog", "autostart", "limits", "stop timeout"] {
        assert!(info.lines().any(|shown| shown.starts_with(line)), "{line:?} is missing in\n{info}");
    }
    // Its hypervisor has taken the device.
    let uuid = world.row("a")["uuid"].as_str().expect("a uuid").to_owned();
    let mut api = Vec::new();
    for entry in walk(&world.root().join("run/virshle/vm").join(uuid)) {
        if entry.file_name().is_some_and(|name| name == "api.sock") {
            api.push(entry);
        }
    }
    let mut socket = UnixStream::connect(&api[0]).expect("the API listens");
    socket.set_read_timeout(Some(LIMIT)).expect("a deadline");
    socket.write_all(b"GET /api/v1/vm.info HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is asked");
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !answer.contains("\"watchdog\"") {
        let count = socket.read(&mut buffer).expect("an answer");
        assert_ne!(count, 0, "{answer}");
        answer += &String::from_utf8_lossy(&buffer[..count]);
    }
    assert!(answer.contains("\"watchdog\":true"), "{answer}");
    // The template's time to shut down is that of the command and of SIGTERM.
    world.v(["vm", "stop", "a"]).fails(1, &["has not shut down in 1 s"]);
    kill(stage.pid("a", "supervisor_pid"), Signal::TERM);
    eventually("its power is cut", LIMIT, || world.state_of("a") == "stopped");
    assert_eq!(world.row("a")["last_exit"]["reason"], "forced");

    stage.create("halt", "plain");
    let info = world.v(["vm", "info", "plain"]).ok().stdout;
    for line in ["restart", "watchdog", "autostart", "limits", "stop timeout"] {
        assert!(!info.lines().any(|shown| shown.starts_with(line)), "{line:?} is as usual in\n{info}");
    }
    Ok(())
}

fn walk(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files
}
