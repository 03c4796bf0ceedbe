use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use super::{config, world};
use crate::trials;
use crate::world::{Outcome, World, eventually, exercised, need_program, run};

pub fn trials() -> Vec<Trial> {
    trials![
        a_vm_is_made_from_a_template,
        the_image_is_never_changed,
        names,
        names_that_the_config_declares,
        numbers_are_never_given_twice,
        count_is_all_or_nothing,
        fifty_at_once,
        overrides,
        addresses_and_ports_that_were_asked_for,
        a_subnet_that_the_host_has_elsewhere,
        a_qcow2_is_converted_once,
        an_interrupted_copy_leaves_nothing,
        a_killed_create_is_swept_up,
        the_seed_holds_what_was_given,
        the_callers_own_keys,
        user_data_that_is_wrong,
        a_session_keeps_to_the_users_folders,
    ]
}

fn a_vm_is_made_from_a_template() -> Outcome {
    let world = world();
    let made = world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    assert_eq!(made.stdout, "web\n", "data is the name alone");
    let row = world.row("web");
    assert_eq!(row["state"], "stopped");
    assert_eq!(row["number"], 1);
    assert_eq!(row["vram_bytes"], 512 << 20);
    let info = world.info("web");
    let folder = std::path::PathBuf::from(info["folder"].as_str().expect("a folder"));
    let disk = fs::metadata(folder.join("os.raw")).expect("a disk");
    assert_eq!(disk.len(), 16 << 20, "grown to the template's size");
    assert!(disk.blocks() * 512 < 2 << 20, "holes stay holes: {} KiB allocated", disk.blocks() / 2);
    assert_eq!(disk.mode() & 0o777, 0o600, "only its owner may read it");
    for file in ["seed.img", "efivars.fd"] {
        assert!(folder.join(file).is_file(), "{file}");
    }
    for way in ["web", "1", info["uuid"].as_str().expect("a uuid"), &info["uuid"].as_str().expect("a uuid")[..8]] {
        let found = world.v(["vm", "info", way, "-o", "json"]).ok();
        assert!(found.stdout.contains(info["uuid"].as_str().expect("a uuid")), "found by {way}");
    }
    world.v(["vm", "info", "--id", "1"]).ok();
    world.v(["vm", "delete", "web"]).ok();
    world.assert_empty();
    Ok(())
}

fn the_image_is_never_changed() -> Outcome {
    let world = world();
    let image = world.dir().join("os.img");
    fs::set_permissions(&image, std::os::unix::fs::PermissionsExt::from_mode(0o444)).expect("read-only");
    let before = (fs::read(&image).expect("the image"), fs::metadata(&image).expect("the image").mtime_nsec());
    world.v(["vm", "create", "-t", "xs", "-n", "a"]).ok();
    world.v(["vm", "create", "-t", "xs", "--count", "3"]).ok();
    let after = (fs::read(&image).expect("the image"), fs::metadata(&image).expect("the image").mtime_nsec());
    assert!(before == after, "the image changed");
    Ok(())
}

fn names() -> Outcome {
    let world = world();
    let long = "a".repeat(64);
    for (name, word) in [
        ("web/1", "`/`"),
        ("a\nb", "`\\n`"),
        (long.as_str(), "64"),
        ("Web", "`W`"),
        ("42", "digits"),
        ("-a", "-"),
        ("a-", "`-`"),
        ("", "empty"),
    ] {
        let failed = world.v(["vm", "create", "-t", "xs", &format!("--name={name}")]);
        failed.fails(2, &[word]);
    }
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).fails(4, &["`web`"]);
    let made_up = world.v(["vm", "create", "-t", "xs"]).ok();
    assert!(made_up.stdout.trim().contains('-'), "a made-up name: {}", made_up.stdout);
    assert_eq!(world.ls().len(), 2);
    Ok(())
}

fn names_that_the_config_declares() -> Outcome {
    let world = world();
    let vm = |name: &str| format!("[[vm]]\nname = '{name}'\ntemplate = 'xs'\nrunning = false\n");
    world.config(&config(&world, &(vm("web") + &vm("lab-2"))));
    let hint = "`v apply` makes it";
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).fails(4, &["the config declares `web`", hint]);
    world.v(["vm", "create", "-t", "xs", "-n", "lab", "--count", "2"]).fails(4, &["the config declares `lab-2`", hint]);
    world.assert_empty();
    world.v(["vm", "create", "-t", "xs", "-n", "lab"]).ok();
    world.v(["vm", "create", "-t", "xs"]).ok();
    world.v(["plan"]).fails(10, &["2 VMs to create"]);

    // One that is there may come to be it.
    let renamed = world.v(["vm", "rename", "lab", "web"]).ok().stderr;
    let note = "note: the config declares `web`: `v apply --adopt web` takes this VM in\n";
    assert_eq!(renamed, format!("renamed `lab` to `web`\n{note}"));
    world.v(["apply", "--yes", "--adopt", "web"]).ok();
    assert_eq!(world.row("web")["declared"], true);
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).fails(4, &["`web`"]);
    Ok(())
}

fn numbers_are_never_given_twice() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "a"]).ok();
    world.v(["vm", "delete", "a"]).ok();
    world.v(["vm", "create", "-t", "xs", "-n", "a"]).ok();
    assert_eq!(world.row("a")["number"], 2);
    assert_eq!(world.row("a")["address"], "10.44.0.2", "addresses are used again, the lowest first");
    Ok(())
}

fn count_is_all_or_nothing() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web", "--count", "3"]).ok();
    let names: Vec<_> = world.ls().iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(names, ["web-1", "web-2", "web-3"]);
    world.v(["vm", "delete", "web-1", "web-3"]).ok();
    // The second of three is taken: none is made.
    world.v(["vm", "create", "-t", "xs", "-n", "web", "--count", "3"]).fails(4, &["web-2"]);
    assert_eq!(world.ls().len(), 1);
    assert_eq!(fs::read_dir(world.state().join("vm")).expect("folders").count(), 1, "no folder is left");
    world.v(["vm", "delete", "--all"]).ok();
    world.assert_empty();
    Ok(())
}

fn fifty_at_once() -> Outcome {
    let world = world();
    // The database is made in the same race.
    let children: Vec<_> = (0..50)
        .map(|_| {
            let mut command = world.command(["vm", "create", "-t", "xs"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("v starts")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("v ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let rows = world.ls();
    assert_eq!(rows.len(), 50);
    let distinct = |key: &dyn Fn(&Value) -> String| rows.iter().map(key).collect::<HashSet<_>>().len();
    assert_eq!(distinct(&|row| row["number"].to_string()), 50, "numbers");
    assert_eq!(distinct(&|row| row["name"].to_string()), 50, "names");
    assert_eq!(distinct(&|row| row["nics"][0]["mac"].to_string()), 50, "MACs");
    assert_eq!(distinct(&|row| row["nics"][0]["address"].to_string()), 50, "addresses");
    Ok(())
}

fn overrides() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "big", "--vcpu", "2", "--vram", "1.5G"]).ok();
    let row = world.row("big");
    assert_eq!((row["vcpu"].as_u64(), row["vram_bytes"].as_u64()), (Some(2), Some(3 << 29)));
    world.v(["vm", "create", "-t", "xs", "--vcpu", "0"]).fails(2, &["vcpu"]);
    world.v(["vm", "create", "-t", "xs", "--vram", "lots"]).fails(2, &["lots"]);
    world.v(["vm", "create", "-t", "xs", "--count", "0"]).fails(2, &["count"]);

    let room = "vcpu = 1\nvcpu-max = 2\nvram-max = \"1G\"\n";
    world.config(&config(&world, "").replacen("vcpu = 1\n", room, 1));
    let create = |name: &str, more: &[&str]| world.v([&["vm", "create", "-t", "xs", "-n", name], more].concat());
    create("most", &["--vcpu", "2", "--vram", "1G"]).ok();
    create("more", &["--vcpu", "3"]).fails(2, &["the `vcpu-max` of the template `xs` is 2", "another `vcpu`"]);
    create("more", &["--vram", "2G"]).fails(2, &["the `vram-max` of the template `xs` is 1GiB", "another `vram`"]);
    create("more", &["--vram", "600M"]).fails(2, &["by a multiple of 128MiB"]);
    assert_eq!(world.ls().len(), 2, "what is refused is not there");
    Ok(())
}

fn addresses_and_ports_that_were_asked_for() -> Outcome {
    let world = world();
    let create = |more: &[&str]| world.v([&["vm", "create", "-t", "xs"], more].concat());
    let made = create(&["-n", "web", "--address", "10.44.0.9", "--port", "8080:80", "--port", "5353:53/udp"]).ok();
    for part in ["10.44.0.9", "8080:80/tcp", "5353:53/udp"] {
        assert!(made.stderr.contains(part), "{}", made.stderr);
    }
    let nic = &world.row("web")["nics"][0];
    assert_eq!(nic["address"], "10.44.0.9/24");
    assert_eq!(nic["ports"], serde_json::json!(["8080:80/tcp", "5353:53/udp"]));
    let spec = &world.info("web")["spec"];
    assert_eq!(spec["nics"][0]["guard"], serde_json::json!({ "spoof": false }), "on a network that is kept");
    assert_eq!(spec["nics"][0]["link"]["create"], true);
    assert!(spec["vsock"].as_u64().is_some_and(|cid| cid >= 1 << 30), "{spec}");
    if let Some(address6) = nic["address6"].as_str() {
        assert!(address6.starts_with("fd") && address6.ends_with("::9/64"), "{address6}");
        let wide = world.v(["vm", "ls", "-v"]).ok().stdout;
        assert!(wide.contains(address6.trim_end_matches("/64")), "{wide}");
        exercised("addresses", "of IPv6");
    }
    let info = world.v(["vm", "info", "web"]).ok().stdout;
    for part in ["8080:80/tcp, 5353:53/udp", "vsock"] {
        assert!(info.contains(part), "{info}");
    }

    create(&["--address", "10.44.0.9"]).fails(4, &["10.44.0.9", "web"]);
    create(&["--address", "10.45.0.9"]).fails(2, &["`10.45.0.9` is in no subnet"]);
    create(&["--address", "10.44.0.1"]).fails(2, &["the gateway"]);
    create(&["--address", "10.44.0.7", "--count", "2"]).fails(2, &["2 VMs cannot all have the address"]);
    create(&["--port", "80"]).fails(2, &["`80` is no forward"]);
    create(&["--port", "80:1", "--port", "127.0.0.1:80:2"]).fails(2, &["the same port of the host"]);
    assert_eq!(world.ls().len(), 1, "what was refused made nothing");
    world.config(&config(
        &world,
        "address = '10.44.0.20'\nmac = '02:00:00:00:00:07'\nallow = ['tcp/22']\nrate = '1Mbit'",
    ));
    create(&["--count", "2"]).fails(2, &["2 VMs cannot all have the address `10.44.0.20`"]);
    create(&["-n", "db"]).ok();
    let nic = &world.info("db")["spec"]["nics"][0];
    assert_eq!((&nic["mac"], &nic["address"]["ip"]), (&"02:00:00:00:00:07".into(), &"10.44.0.20/24".into()));
    assert_eq!(nic["guard"], serde_json::json!({ "spoof": false, "allow": ["in tcp/22"], "rate": "1Mbit" }));
    create(&["--address", "10.44.0.21"]).fails(4, &["02:00:00:00:00:07", "db"]);
    let shown = world.v(["template", "show", "xs"]).ok().stdout;
    for part in ["10.44.0.20", "02:00:00:00:00:07", "in tcp/22", "1Mbit each way"] {
        assert!(shown.contains(part), "{shown}");
    }
    world.config(&config(&world, "").replace("subnet =", "create = false\nsubnet ="));
    create(&["--port", "8080:80"]).fails(2, &["no NIC of the template can have ports"]);
    create(&["-n", "old"]).ok();
    assert_eq!(world.info("old")["spec"]["nics"][0].get("guard"), None, "a bridge of the site's is as it was");
    Ok(())
}

fn a_subnet_that_the_host_has_elsewhere() -> Outcome {
    let mut world = world();
    let programs = world.dir().join("routes");
    fs::create_dir(&programs).expect("a folder");
    let script =
        "#!/bin/sh\necho '[{\"dst\":\"default\",\"dev\":\"eth9\"},{\"dst\":\"10.0.0.0/8\",\"dev\":\"wg7\"}]'\n";
    fs::write(programs.join("ip"), script).expect("a script");
    fs::set_permissions(programs.join("ip"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it may run");
    world.prepend_path(&programs);
    world.v(["vm", "create", "-t", "xs"]).fails(4, &["`main` cannot have `10.44.0.0/24`", "`10.0.0.0/8`", "`wg7`"]);
    world.config(&config(&world, "").replace("subnet =", "create = false\nsubnet ="));
    world.v(["vm", "create", "-t", "xs"]).ok();
    Ok(())
}

fn a_qcow2_is_converted_once() -> Outcome {
    need_program("qemu-img")?;
    let world = world();
    let raw = world.dir().join("os.img");
    let qcow2 = world.dir().join("os.qcow2");
    let mut convert = std::process::Command::new("qemu-img");
    convert.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(&qcow2);
    run(convert, Duration::from_secs(60)).ok();
    world.config(&config(&world, "").replace("os.img", "os.qcow2"));
    let before = fs::read(&qcow2).expect("the qcow2");
    world.v(["vm", "create", "-t", "xs", "-n", "a"]).ok();
    let cache = || -> Vec<_> {
        let entries = fs::read_dir(world.state().join("cache")).expect("a cache").map(|entry| entry.expect("an entry"));
        let raw = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "raw"));
        raw.map(|entry| (entry.path(), entry.metadata().expect("its data").mtime_nsec())).collect()
    };
    let converted = cache();
    assert_eq!(converted.len(), 1);
    world.v(["vm", "create", "-t", "xs", "-n", "b"]).ok();
    assert_eq!(cache(), converted, "the second one uses the first one's conversion");
    assert!(fs::read(&qcow2).expect("the qcow2") == before, "the original is never written");
    for name in ["a", "b"] {
        let folder = world.info(name)["folder"].as_str().expect("a folder").to_owned();
        let disk = fs::read(format!("{folder}/os.raw")).expect("a disk");
        assert!(disk[..8 << 20] == fs::read(&raw).expect("the raw image")[..], "the same content");
    }
    exercised("image formats", "raw, qcow2");
    Ok(())
}

/// A world whose image takes a while to copy.
fn slow_world() -> World {
    let world = world();
    let file = fs::File::create(world.dir().join("os.img")).expect("an image");
    let block = vec![0x55; 1 << 20];
    for _ in 0..1500 {
        std::io::Write::write_all(&mut &file, &block).expect("the image is written");
    }
    world.config(&config(&world, "").replace("size = \"16MiB\"", ""));
    world
}

fn an_interrupted_copy_leaves_nothing() -> Outcome {
    let world = slow_world();
    let mut command = world.command(["vm", "create", "-t", "xs", "-n", "cut"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("v starts");
    eventually("a copy is under way", Duration::from_secs(60), || partial(&world));
    signal(child.id(), rustix::process::Signal::INT);
    let output = child.wait_with_output().expect("v ends");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"));
    world.assert_empty();
    Ok(())
}

fn a_killed_create_is_swept_up() -> Outcome {
    let world = slow_world();
    let mut command = world.command(["vm", "create", "-t", "xs", "-n", "cut"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("v starts");
    eventually("a copy is under way", Duration::from_secs(60), || partial(&world));
    child.kill().expect("kill -9");
    child.wait().expect("v ends");
    assert_eq!(world.state_of("cut"), "creating", "ls says what it is, and changes nothing");
    world.v(["vm", "start", "cut"]).fails(4, &["being created"]);
    // The next create undoes it, so its name is free again.
    world.config(&config(&world, "").replace("os.img", "vars.fd").replace("size = \"16MiB\"", ""));
    world.v(["vm", "create", "-t", "xs", "-n", "cut"]).ok();
    assert_eq!(world.ls().len(), 1);
    world.v(["vm", "delete", "cut"]).ok();
    world.assert_empty();
    Ok(())
}

fn partial(world: &World) -> bool {
    let folders = fs::read_dir(world.state().join("vm")).into_iter().flatten().flatten();
    folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten()).any(|file| {
        file.path().extension().is_some_and(|extension| extension == "partial")
            && file.metadata().is_ok_and(|metadata| metadata.len() > 0)
    })
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("the signal is sent");
}

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJq2yXHmBcR3yQ0p6pE8Vf1yQ8M8J5g9b2w0nR1b3c4d \"it's\" $(id) #: \\ ü";

fn the_seed_holds_what_was_given() -> Outcome {
    need_program("mcopy")?;
    let world = world();
    let users = format!(
        "[[user]]\nname = \"anon\"\nsudo = false\nshell = \"/bin/sh\"\n[user.ssh]\nauthorized_keys = ['''{KEY}''']\n"
    );
    let toml = world.file("users.toml", users);
    let raw = world.file("raw.yaml", "#cloud-config\nwrite_files:\n- path: /x\n  content: '$(reboot): \"quoted\"'\n");
    world.v(["vm", "create", "-t", "xs", "-n", "web", "-u"]).fails(2, &[]);
    let args = [
        "vm",
        "create",
        "-t",
        "xs",
        "-n",
        "web",
        "-u",
        toml.to_str().expect("a path"),
        "-u",
        raw.to_str().expect("a path"),
    ];
    world.v(args).ok();
    let seed = format!("{}/seed.img", world.info("web")["folder"].as_str().expect("a folder"));
    let read = |name: &str| {
        let mut command = std::process::Command::new("mcopy");
        command.args(["-i", &seed, &format!("::{name}"), "-"]);
        run(command, Duration::from_secs(10)).ok().stdout
    };
    let meta: Value = serde_json::from_str(&read("meta-data")).expect("meta-data is JSON");
    assert_eq!(meta["local-hostname"], "web");
    assert_eq!(meta["instance-id"], world.info("web")["uuid"]);
    let network: Value = serde_json::from_str(&read("network-config")).expect("network-config is JSON");
    assert!(network.to_string().contains("10.44.0.2/24"), "{network}");
    let user_data = read("user-data");
    assert!(user_data.contains("multipart/mixed"), "ours and the raw one, side by side:\n{user_data}");
    Ok(())
}

fn the_callers_own_keys() -> Outcome {
    need_program("mcopy")?;
    let world = world();
    let said = world.v(["vm", "create", "-t", "xs", "-n", "bare"]).ok();
    assert!(said.stderr.contains("no ssh key"), "{}", said.stderr);
    fs::write(world.home().join(".ssh/id_ed25519.pub"), format!("{KEY}\n")).expect("a key");
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    let info = world.info("web");
    assert_eq!(info["login"], "tester");
    let seed = format!("{}/seed.img", info["folder"].as_str().expect("a folder"));
    let mut command = std::process::Command::new("mcopy");
    command.args(["-i", &seed, "::user-data", "-"]);
    let text = run(command, Duration::from_secs(10)).ok().stdout;
    let json: Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").expect("cloud-config")).expect("JSON");
    assert_eq!(json["users"][0]["name"], "tester");
    assert_eq!(json["users"][0]["ssh_authorized_keys"][0], KEY, "every character survives");
    Ok(())
}

/// Without `--root`, an ordinary user's VMs lie in the user's own folders.
fn a_session_keeps_to_the_users_folders() -> Outcome {
    crate::world::need_root()?;
    let mut world = world();
    let home = world.home();
    fs::create_dir_all(home.join(".config/virshle")).expect("a folder");
    fs::copy(world.config_file(), home.join(".config/virshle/config.toml")).expect("a config");
    let runtime = world.dir().join("run-user");
    fs::create_dir(&runtime).expect("a runtime folder");
    let program = world.dir().join("v");
    fs::copy(crate::world::v(), &program).expect("a copy of v, where the user may run it");
    world.use_program(&program);
    world.become_user(65534, 65534);
    let v = |args: &[&str]| {
        let mut command = world.command(args);
        command.env_remove("VIRSHLE_ROOT").env("XDG_RUNTIME_DIR", &runtime);
        run(command, Duration::from_secs(60))
    };
    v(&["vm", "create", "-t", "xs", "-n", "mine"]).ok();
    assert!(home.join(".local/share/virshle/virshle.sqlite").is_file());
    assert!(v(&["vm", "ls"]).ok().stdout.contains("mine"));
    let shown = v(&["vm", "show-launch", "mine"]).ok().stdout;
    assert!(shown.contains(&format!("{}/virshle/vm/", runtime.display())), "{shown}");
    let elsewhere = v(&["vm", "info", "mine"]).ok().stdout;
    assert!(elsewhere.contains(".local/share/virshle/vm/"), "{elsewhere}");
    v(&["vm", "delete", "mine"]).ok();
    assert!(!world.state().exists(), "nothing of another place is made");
    Ok(())
}

fn user_data_that_is_wrong() -> Outcome {
    let world = world();
    for (text, words) in [
        ("[[user]]\nnmae = \"a\"\n", &["nmae", "name"][..]),
        ("[[user]]\nname = \"Root!\"\n", &["Root!"]),
        ("[[user]]\nname = \"a\"\n[[user]]\nname = \"a\"\n", &["`a`"]),
        ("[[user]]\nname = \"a\"\npassword_hash = \"hunter2\"\n", &["password_hash"]),
        ("[[user]]\nname = \"a\"\n[user.ssh]\nauthorized_keys = [\"not a key\"]\n", &["key"]),
        ("cloud-init = \"no-such.yaml\"\n", &["no-such.yaml"]),
        ("[[user]\n", &["line 1"]),
    ] {
        let file = world.file("users.toml", text);
        let failed = world.v(["vm", "create", "-t", "xs", "-u", file.to_str().expect("a path")]).fails(2, words);
        assert!(!failed.stderr.contains("hunter2"), "a secret is not printed");
    }
    world.v(["vm", "create", "-t", "xs", "-u", "/no/such/file"]).fails(2, &["/no/such/file"]);
    assert_eq!(world.ls().len(), 0);
    Ok(())
}
