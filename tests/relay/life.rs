use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use libtest_mimic::Trial;

use virshle::host;

use super::{Club, Door, LIMIT};
use crate::fixtures::payload::{self, Variant};
use crate::lifecycle::{alive, kill, template};
use crate::trials;
use crate::world::{Outcome, eventually, run};

pub fn trials() -> Vec<Trial> {
    trials![
        from_create_to_delete,
        what_ends_the_caller_cancels_the_command,
        a_cancelled_create_leaves_nothing,
        systemd_starts_a_helper_for_each_connection,
        a_shell_offers_the_names_of_the_hosts_vms,
        ssh_is_the_callers,
    ]
}

fn from_create_to_delete() -> Outcome {
    let club = Club::new()?;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0Jf0bTzQ0mPz3m4nq8b5kKQ4rWw2x3w6yq0h1v9u7t tester@home";
    std::fs::write(club.world().home().join(".ssh/id.pub"), key).expect("a key");
    let created = club.v(["vm", "create", "-t", "button", "-n", "web"]).ok();
    assert!(created.stderr.contains("created `web`"), "{}", created.stderr);
    assert_eq!(created.stdout, "web\n", "what a script reads comes through a pipe");
    assert_eq!(club.state_of("web"), "stopped");
    // What it made is root's, and the member's own name and keys are in the guest.
    let uuid = club.rows()[0]["uuid"].as_str().expect("a uuid").to_owned();
    let folder = club.world().state().join("vm").join(uuid);
    let meta = std::fs::metadata(&folder).expect("the VM's folder");
    assert_eq!(
        (std::os::unix::fs::MetadataExt::uid(&meta), std::os::unix::fs::MetadataExt::mode(&meta) & 0o777),
        (0, 0o700)
    );
    let seed = super::files::seed(&club, "web");
    assert!(seed.contains(key) && seed.contains("tester"), "{seed}");

    assert!(club.v(["vm", "start", "web"]).ok().stderr.contains("started `web`"));
    assert_eq!(club.state_of("web"), "running");
    eventually("the guest writes", LIMIT, || club.v(["vm", "log", "web"]).ok().stdout.contains("virshle payload"));
    let pid = i32::try_from(club.stage.world.info("web")["supervisor_pid"].as_i64().expect("a pid")).expect("a pid");
    eventually("every command has ended", LIMIT, || club.commands().is_empty());
    assert!(alive(pid), "the supervisor outlives the command that started it");
    club.v(["vm", "pause", "web"]).ok();
    club.v(["vm", "resume", "web"]).ok();
    assert!(club.v(["vm", "show-launch", "web"]).ok().stdout.contains("cloud-hypervisor"));
    assert!(club.v(["template", "ls"]).ok().stdout.contains("button"));
    assert!(club.v(["config", "check"]).ok().stderr.contains("5 templates"));
    let doctor = run(club.member(["doctor", "-o", "json"]), LIMIT);
    assert!(doctor.stdout.contains("`nobody`, by root's helper"), "{}", doctor.stdout);

    // Exit codes are the command's own.
    club.v(["vm", "info", "wbe"]).fails(3, &["`wbe`", "`web`"]);
    club.v(["vm", "start", "web"]).fails(4, &["running"]);
    club.v(["vm", "create", "-t", "button", "-n", "web"]).fails(4, &["taken"]);
    club.v(["vm", "explode"]).fails(2, &["Usage"]);
    club.v(["vm", "stop", "web"]).ok();
    assert_eq!(club.state_of("web"), "stopped");

    // Who did it is noted: the member, not root.
    let store = rusqlite::Connection::open(club.world().state().join("virshle.sqlite")).expect("the store");
    let mut actors =
        store.prepare("SELECT DISTINCT actor FROM history WHERE name = 'web' ORDER BY id").expect("history");
    let actors: Vec<String> = actors.query_map([], |row| row.get(0)).expect("rows").flatten().collect();
    assert!(actors[0].contains("\"uid\":65534") && actors[0].contains("nobody"), "{actors:?}");
    assert!(!actors.iter().any(|actor| actor.contains("\"uid\":0")), "{actors:?}");

    club.v(["vm", "delete", "web"]).ok();
    club.world().assert_empty();
    club.close();
    Ok(())
}

fn what_ends_the_caller_cancels_the_command() -> Outcome {
    use rustix::process::Signal;
    let club = Club::new()?;
    club.v(["vm", "create", "-t", "halt", "-n", "still", "--start"]).ok();
    for (signal, code) in
        [(Signal::INT, Some(130)), (Signal::TERM, Some(143)), (Signal::HUP, Some(143)), (Signal::KILL, None)]
    {
        let mut command = club.member(["vm", "wait", "still", "--for", "stopped", "--timeout", "600"]);
        let waiting = command.stderr(Stdio::piped()).spawn().expect("v starts");
        eventually("the command runs", LIMIT, || club.commands().len() == 1);
        kill(i32::try_from(waiting.id()).expect("a pid"), signal);
        let ended = waiting.wait_with_output().expect("v ends");
        assert_eq!(ended.status.code(), code, "{signal:?}: {}", String::from_utf8_lossy(&ended.stderr));
        eventually("the command is gone", LIMIT, || club.commands().is_empty());
    }
    // A helper that is killed takes the command with it, and that is told.
    let mut command = club.member(["vm", "wait", "still", "--for", "stopped", "--timeout", "600"]);
    let waiting = command.stderr(Stdio::piped()).spawn().expect("v starts");
    eventually("the command runs", LIMIT, || club.commands().len() == 1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", club.commands()[0])).expect("its status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim();
    kill(parent.parse().expect("a pid"), Signal::KILL);
    let ended = waiting.wait_with_output().expect("v ends");
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(1) && told.contains("ended before the command"), "{told}");
    eventually("the command is gone", LIMIT, || club.commands().is_empty());
    assert_eq!(club.state_of("still"), "running", "no guest is lost by any of it");
    club.close();
    Ok(())
}

fn a_cancelled_create_leaves_nothing() -> Outcome {
    use rustix::process::Signal;
    let club = Club::new()?;
    let image = club.world().dir().join("large.img");
    let file = std::fs::File::create(&image).expect("an image");
    let block = vec![0x55; 1 << 20];
    for _ in 0..1000 {
        std::io::Write::write_all(&mut &file, &block).expect("the image is written");
    }
    let kernel = payload::build(club.world().dir(), Variant::Halt).expect("the payload is built");
    let disk = format!("[[template.vm.disk]]\nname = \"os\"\npath = {image:?}\n");
    club.stage.config(&(template("large", &kernel) + &disk));
    let folders = || std::fs::read_dir(club.world().state().join("vm")).into_iter().flatten().flatten();
    let copying = || {
        let files = folders().flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
        files.into_iter().any(|file| file.path().extension().is_some_and(|extension| extension == "partial"))
    };
    // Ctrl-C, and a caller that is gone without a word.
    for (signal, code) in [(Signal::INT, Some(1)), (Signal::KILL, None)] {
        let mut command = club.member(["vm", "create", "-t", "large", "-n", "cut"]);
        let creating = command.stderr(Stdio::piped()).spawn().expect("v starts");
        eventually("a copy is under way", LIMIT, copying);
        kill(i32::try_from(creating.id()).expect("a pid"), signal);
        let ended = creating.wait_with_output().expect("v ends");
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!((ended.status.code(), told.contains("interrupted")), (code, true), "{told}");
        eventually("the command is gone", LIMIT, || club.commands().is_empty());
        club.world().assert_empty();
    }
    club.close();
    Ok(())
}

fn systemd_starts_a_helper_for_each_connection() -> Outcome {
    let club = Club::with(Door::Systemd)?;
    club.v(["vm", "create", "-t", "halt", "-n", "web", "--start"]).ok();
    assert_eq!(club.state_of("web"), "running");
    club.v(["vm", "info", "wbe"]).fails(3, &["`web`"]);
    club.v(["vm", "delete", "--force", "web"]).ok();
    club.world().assert_empty();
    Ok(())
}

fn a_shell_offers_the_names_of_the_hosts_vms() -> Outcome {
    let club = Club::new()?;
    club.v(["vm", "create", "-t", "halt", "-n", "orchard"]).ok();
    for (line, offered) in [(["vm", "start", ""], "orchard"), (["template", "show", ""], "poweroff")] {
        let mut command = club.member(["--", "v"].into_iter().chain(line));
        let offers = run(
            {
                command.env("COMPLETE", "fish");
                command
            },
            LIMIT,
        )
        .ok();
        assert!(offers.stdout.lines().any(|line| line.starts_with(offered)), "{offers:?}");
    }
    club.v(["vm", "delete", "orchard"]).ok();
    club.close();
    Ok(())
}

fn ssh_is_the_callers() -> Outcome {
    let mut club = Club::new()?;
    let programs = club.world().dir().join("programs");
    std::fs::create_dir(&programs).expect("a folder");
    std::fs::write(programs.join("ssh"), "#!/bin/sh\necho \"$(id -u): $*\"\nexit 7\n").expect("a program");
    std::fs::set_permissions(programs.join("ssh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it may run");
    club.v(["vm", "create", "-t", "halt", "-n", "far"]).ok();
    club.v(["vm", "ssh", "far"]).fails(4, &["stopped", "v vm start"]);
    club.v(["vm", "ssh", "fra"]).fails(3, &["`far`"]);
    club.v(["vm", "start", "far"]).ok();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let store = rusqlite::Connection::open(club.world().state().join("virshle.sqlite")).expect("the store");
    store.execute("UPDATE vm SET runtime = json_set(runtime, '$.ssh', ?1)", [address.to_string()]).expect("an address");
    drop(store);
    club.stage.world.prepend_path(&programs);
    let ssh = club.v(["vm", "ssh", "far", "--", "uptime"]).fails(7, &[]);
    assert!(ssh.stdout.starts_with("65534: -o ProxyCommand=/"), "by the guest's line: {ssh:?}");
    assert!(ssh.stdout.contains(" vm ssh-proxy -- '"), "{ssh:?}");
    let known_hosts = club.world().home().join(".local/share/virshle/known_hosts");
    assert!(ssh.stdout.contains(&known_hosts.display().to_string()), "{ssh:?}");
    assert!(ssh.stdout.contains("-l tester") && ssh.stdout.ends_with(" vm/far uptime\n"), "{ssh:?}");
    assert!(known_hosts.is_dir());
    let config = club.v(["ssh-config"]).ok().stdout;
    assert!(config.contains("Host vm/far\n    User tester\n"), "{config}");
    assert!(config.contains(&known_hosts.display().to_string()), "{config}");

    // As ssh runs it: what comes back is the connection itself.
    let (ssh, proxys) = UnixStream::pair().expect("a pair");
    let mut proxy = club.member(["vm", "ssh-proxy", "--", "vm/far"]);
    let mut proxy = proxy.stdin(Stdio::null()).stdout(OwnedFd::from(proxys)).spawn().expect("v starts");
    let (mut guest, _) = listener.accept().expect("a connection");
    guest.write_all(b"SSH-2.0-far").expect("a greeting");
    assert!(proxy.wait().expect("it ends").success(), "it has done its part");
    let (bytes, mut fds) = host::receive_with(&ssh, &mut [0; 8]).expect("a message");
    assert_eq!((bytes, fds.len()), (1, 1));
    let mut greeting = [0; 11];
    TcpStream::from(fds.remove(0)).read_exact(&mut greeting).expect("the greeting");
    assert_eq!(&greeting, b"SSH-2.0-far");
    club.v(["vm", "ssh-proxy", "--", "vm/far"]).fails(2, &["takes no connection", "v ssh-config"]);
    club.close();
    Ok(())
}
