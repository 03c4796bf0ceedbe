use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::fixtures::payload::{self, Variant};
use crate::lifecycle::template;
use crate::trials;
use crate::world::{Outcome, World, need_program, need_root, run, skip};

pub fn trials() -> Vec<Trial> {
    trials![the_hosts_own_folders]
}

/// In a mount namespace whose `/etc`, `/run` and `/var/lib` are the test's own.
const SCRIPT: &str = r#"
set -eu
etc=$1 v=$2 home=$3
mount --bind "$etc" /etc
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
"$v" vm ls -o json > /dev/null
"$v" relay --listen 2> "$home/helper.log" &
helper=$!
trap 'kill $helper' EXIT
for _ in $(seq 300); do [ -S /run/virshle/virshle.sock ] && break; sleep 0.1; done
as() { uid=$1; shift; setpriv --reuid "$uid" --regid "$uid" "$@"; }
echo "member:" $(as 65534 --groups 4242 "$v" template ls -o json | grep -c '"name": "hosts"')
as 65534 --groups 4242 "$v" vm create -t hosts -n web
echo "host:" $("$v" vm ls -o json | grep -c '"name": "web"')
echo "session:" $(as 65534 --groups 4242 "$v" --session vm ls -o json)
echo "stranger:" $(as 1 --clear-groups "$v" vm ls -o json)
as 1 --clear-groups "$v" doctor | grep -o 'usermod -aG virshle'
as 65534 --clear-groups "$v" doctor | grep -o 'log in again'
as 65534 --groups 4242 "$v" doctor -o json | grep -o "by root's helper"
if as 4243 --groups 4242 "$v" vm ls; then echo "hypervisors are served"; fi
echo "folder:" $(stat -c %a /run/virshle /run/virshle/relay)
as 65534 --groups 4242 "$v" vm delete web
kill -9 $helper
trap - EXIT
if as 65534 --groups 4242 "$v" vm ls; then echo "a dead helper is not told"; fi
"#;

fn the_hosts_own_folders() -> Outcome {
    need_root()?;
    let (unshare, _) = (need_program("unshare")?, need_program("setpriv")?);
    if !Command::new(&unshare).args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        return skip("no mount namespace can be made");
    }
    let world = World::new();
    let etc = world.dir().join("etc");
    fs::create_dir_all(etc.join("virshle")).expect("a folder");
    fs::copy("/etc/nsswitch.conf", etc.join("nsswitch.conf")).expect("the host's own");
    let users = fs::read_to_string("/etc/passwd").expect("the host's users");
    fs::write(etc.join("passwd"), users + "virshle-vm:x:4243:4243::/:/usr/sbin/nologin\n").expect("the users");
    let groups = fs::read_to_string("/etc/group").expect("the host's groups");
    fs::write(etc.join("group"), groups + "virshle:x:4242:nobody,virshle-vm\n").expect("the groups");
    let program = world.dir().join("v");
    fs::hard_link(crate::world::v(), &program)
        .or_else(|_| fs::copy(crate::world::v(), &program).map(drop))
        .expect("a copy of v");
    let hypervisor = crate::world::v().parent().expect("its folder").join("examples/cloud-hypervisor");
    let kernel = payload::build(world.dir(), Variant::Halt).expect("the payload is built");
    let config = format!(
        "[node]\nhypervisor = \"cloud-hypervisor\"\naccel = \"kvm\"\n[node.cloud-hypervisor]\nprogram = {hypervisor:?}\n{}",
        template("hosts", &kernel)
    );
    fs::write(etc.join("virshle/config.toml"), config).expect("a config");
    fs::set_permissions(world.dir(), Permissions::from_mode(0o755)).expect("all may look");
    fs::set_permissions(world.home(), Permissions::from_mode(0o777)).expect("all may write");

    let mut command = Command::new(unshare);
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(etc).arg(program).arg(world.home());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", world.home()).env("USER", "tester").stdin(std::process::Stdio::null());
    let done = run(command, Duration::from_secs(120)).ok();
    for line in [
        "member: 1",
        "web",
        "host: 1",
        "session: []",
        "stranger: []",
        "usermod -aG virshle",
        "log in again",
        "by root's helper",
        "folder: 711 700",
    ] {
        assert!(
            done.stdout.lines().any(|said| said == line),
            "{line:?} is missing in:\n{}\n{}",
            done.stdout,
            done.stderr
        );
    }
    assert!(done.stderr.contains("helper does not answer on `/run/virshle/virshle.sock`"), "{}", done.stderr);
    assert!(done.stderr.contains("`virshle-vm` is not one of the group"), "{}", done.stderr);
    for said in ["a dead helper", "hypervisors are served"] {
        assert!(!done.stdout.contains(said), "{}", done.stdout);
    }
    Ok(())
}
