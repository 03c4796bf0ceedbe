use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use super::{Stage, Test, alive, kill, template};
use crate::world::{Outcome, eventually};

pub const TESTS: &[(&str, Test)] = &[
    ("two_starts_at_once", two_starts_at_once),
    ("a_kernel_that_is_none", a_kernel_that_is_none),
    ("a_program_that_is_none", a_program_that_is_none),
    ("a_program_that_hangs", a_program_that_hangs),
    ("a_version_too_old", a_version_too_old),
    ("a_start_can_be_given_up", a_start_can_be_given_up),
    ("killing_the_command_changes_nothing", killing_the_command_changes_nothing),
];

fn two_starts_at_once(stage: &Stage) -> Outcome {
    stage.create("button", "a");
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = stage.world.command(["vm", "start", "a"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("v starts")
        })
        .collect();
    let mut codes = Vec::new();
    for child in children {
        let output = child.wait_with_output().expect("v ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() || said.contains("already running") || said.contains("already starting"),
            "{said}"
        );
        codes.push(output.status.code().expect("a code"));
    }
    codes.sort_unstable();
    assert_eq!(codes, [0, 4, 4, 4], "one wins");
    assert_eq!(stage.world.state_of("a"), "running");
    Ok(())
}

fn a_kernel_that_is_none(stage: &Stage) -> Outcome {
    let garbage = stage.world.file("garbage", "this is not a kernel");
    stage.config(&template("garbage", &garbage));
    stage.create("garbage", "a");
    stage.world.v(["vm", "start", "a"]).fails(1, &["cannot start `a`", "because"]);
    let row = stage.world.row("a");
    assert_eq!((&row["state"], &row["last_exit"]["reason"]), (&"crashed".into(), &"boot-failed".into()));
    assert!(!row["last_exit"]["detail"].as_str().expect("its last words").is_empty());
    let missing = stage.world.dir().join("no-such-kernel");
    stage.config(&template("missing", &missing));
    stage.create("missing", "b");
    stage.world.v(["vm", "start", "b"]).fails(1, &["cannot start `b`", "No such file"]);
    stage.world.v(["vm", "delete", "--all"]).ok();
    stage.world.assert_empty();
    Ok(())
}

fn use_program(stage: &Stage, program: &std::path::Path) {
    let config = fs::read_to_string(stage.world.config_file()).expect("the config");
    let named = format!("program = {:?}", stage.program);
    assert!(config.contains(&named));
    stage.world.config(&config.replace(&named, &format!("program = {program:?}")));
}

fn script(stage: &Stage, name: &str, text: &str) -> std::path::PathBuf {
    let path = stage.world.file(name, text);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it may run");
    path
}

fn a_program_that_is_none(stage: &Stage) -> Outcome {
    stage.create("button", "a");
    let dying = script(stage, "dying", "#!/bin/sh\necho 'no such feature' >&2\nexit 3\n");
    use_program(stage, &dying);
    let failed = stage.world.v(["vm", "start", "a"]).fails(1, &["cannot start `a`", "no such feature"]);
    assert!(failed.took < Duration::from_secs(10), "its end is seen at once: {:?}", failed.took);
    stage.config("");
    use_program(stage, "/no/such/program".as_ref());
    stage.world.v(["vm", "start", "a"]).fails(1, &["not installed"]);
    stage.config("");
    stage.start("a");
    Ok(())
}

fn a_program_that_hangs(stage: &Stage) -> Outcome {
    stage.create("button", "a");
    let pid = stage.world.dir().join("pid");
    let hanging = script(stage, "hanging", &format!("#!/bin/sh\necho $$ > {}\nexec sleep 600\n", pid.display()));
    use_program(stage, &hanging);
    stage.world.v(["vm", "start", "a", "--timeout", "2"]).fails(1, &["cannot start `a`", "2 s"]);
    let pid: i32 = fs::read_to_string(pid).expect("it ran").trim().parse().expect("a pid");
    eventually("it is killed", Duration::from_secs(10), || !alive(pid));
    assert_eq!(stage.world.state_of("a"), "crashed");
    let run = stage.world.root().join("run/virshle/vm");
    assert_eq!(fs::read_dir(run).expect("the runtime folder").count(), 0, "nothing is left");
    Ok(())
}

fn a_version_too_old(stage: &Stage) -> Outcome {
    // The stand-in says the version that a file beside it names.
    let fake = crate::world::v().parent().expect("its folder").join("examples/cloud-hypervisor");
    let old = stage.world.dir().join("old");
    fs::copy(fake, &old).expect("a copy");
    fs::write(stage.world.dir().join("old.version"), "49.0.0").expect("its version");
    stage.create("button", "a");
    use_program(stage, &old);
    stage.world.v(["vm", "start", "a"]).fails(1, &["49.0.0", "too old", "52"]);
    Ok(())
}

fn a_start_can_be_given_up(stage: &Stage) -> Outcome {
    stage.create("button", "a");
    let hanging = script(stage, "hanging", "#!/bin/sh\nexec sleep 600\n");
    use_program(stage, &hanging);
    let mut command = stage.world.command(["vm", "start", "a"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("v starts");
    eventually("it is starting", Duration::from_secs(10), || stage.world.state_of("a") == "starting");
    stage.world.v(["vm", "pause", "a"]).fails(4, &["already starting"]);
    stage.world.v(["vm", "stop", "--force", "--timeout", "0", "a"]).ok();
    let output = child.wait_with_output().expect("v ends");
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stage.world.state_of("a"), "stopped");
    Ok(())
}

fn killing_the_command_changes_nothing(stage: &Stage) -> Outcome {
    stage.create("button", "a");
    let mut command = stage.world.command(["vm", "start", "a"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("v starts");
    eventually("it begins", Duration::from_secs(10), || stage.world.state_of("a") != "stopped");
    // It may have done its work already.
    kill(child.id().cast_signed(), Signal::KILL);
    child.wait().expect("v ends");
    eventually("the VM runs all the same", Duration::from_secs(20), || stage.world.state_of("a") == "running");
    Ok(())
}
