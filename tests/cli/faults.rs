use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use super::{config, world};
use crate::trials;
use crate::world::{Outcome, World, need_program, need_root, run};

pub fn trials() -> Vec<Trial> {
    trials![
        what_does_not_exist,
        configs_that_are_wrong,
        a_config_is_checked_without_being_used,
        images_that_are_wrong,
        no_space,
        a_state_folder_that_cannot_be_written,
        databases_that_are_wrong,
        a_locked_database,
        no_hypervisor,
        what_a_hypervisor_cannot_do,
        a_path_too_long_for_a_socket,
        disks_that_are_missing,
    ]
}

fn disks_that_are_missing() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "lab"]).ok();
    let declared = config(&world, "[[vm]]\nname = 'web'\ntemplate = 'xs'\nrunning = false\n");
    world.config(&declared);
    world.v(["apply", "--yes"]).ok();
    let file = |vm: &str, name: &str| format!("{}/{name}", world.info(vm)["folder"].as_str().expect("a folder"));
    let by_hand = |vm: &str, file: &str| {
        let (delete, create) = (format!("`v vm delete {vm}`"), format!("`v vm create -t xs -n {vm}`"));
        let words = [&format!("cannot start `{vm}`"), file, "is missing", "put it back", &delete, &create, "lost"];
        let before = world.row(vm);
        world.v(["vm", "start", vm]).fails(1, &words);
        assert_eq!(world.row(vm), before, "it was not begun");
    };
    fs::remove_file(file("lab", "seed.img")).expect("it goes");
    by_hand("lab", &file("lab", "seed.img"));
    // `v vm create` refuses a name that the config declares.
    let entry = "[[vm]]\nname = 'lab'\ntemplate = 'xs'\nrunning = false\n";
    world.config(&(declared.clone() + entry));
    let failed = world.v(["vm", "start", "lab"]).fails(1, &["`v vm delete lab` and `v apply` make it anew"]);
    assert!(!failed.stderr.contains("v vm create"), "{}", failed.stderr);
    world.v(["vm", "delete", "lab"]).ok();
    world.v(["apply", "--yes"]).ok();
    assert!(!world.v(["vm", "start", "lab"]).stderr.contains("is missing"), "all is there again");
    world.config(&declared);

    fs::remove_file(file("web", "os.raw")).expect("it goes");
    let words = ["cannot start `web`", "disk `os`", "is missing", "put it back", "`v apply --replace web`", "lost"];
    world.v(["vm", "start", "web"]).fails(1, &words);
    world.v(["apply", "--yes", "--replace", "web"]).ok();
    assert!(!world.v(["vm", "start", "web"]).stderr.contains("is missing"), "all is there again");
    // Nobody can make it anew from a config that does not have it, or that is wrong.
    fs::remove_file(file("web", "os.raw")).expect("it goes");
    for wrong in [config(&world, ""), declared.replace("'xs'", "'sx'")] {
        world.config(&wrong);
        by_hand("web", &file("web", "os.raw"));
    }
    Ok(())
}

fn what_does_not_exist() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "sx"]).fails(3, &["`sx`", "did you mean `xs`?"]);
    world.v(["template", "show", "large"]).fails(3, &["`large`", "xs"]);
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    for verb in ["start", "stop", "info", "pause", "resume", "delete", "log", "ssh", "console", "restart", "history"] {
        world.v(["vm", verb, "wbe"]).fails(3, &["`wbe`", "`web`"]);
    }
    world.v(["vm", "info", "--id", "7"]).fails(3, &["7"]);
    world.v(["vm", "start", "web", "nobody"]).fails(3, &["nobody"]);
    assert_eq!(world.state_of("web"), "stopped", "one that is missing: nothing is done to the others");
    for (verb, words) in [("stop", "not running"), ("pause", "not running"), ("resume", "not running")] {
        world.v(["vm", verb, "web"]).fails(4, &[words]);
    }
    world.v(["vm", "ssh", "web"]).fails(4, &["stopped", "v vm start"]);
    world.v(["vm", "console", "web"]).fails(4, &["stopped"]);
    Ok(())
}

fn configs_that_are_wrong() -> Outcome {
    let world = world();
    let right = config(&world, "");
    for (from, to, words) in [
        ("vcpu = 1", "vpcu = 1", &["line 16", "column 1", "`vpcu`", "did you mean `vcpu`?"][..]),
        ("vcpu = 1", "vcpu = \"one\"", &["line 16", "vcpu"]),
        ("vcpu = 1", "vcpu = 0", &["line 16", "vcpu"]),
        ("vcpu = 1", "", &["vcpu"]),
        ("\"512MiB\"", "\"512 bananas\"", &["line 17", "bananas"]),
        ("hypervisor = \"qemu\"", "hypervisor = \"qmeu\"", &["line 3", "qemu"]),
        ("[[template.vm.disk]]", "[[template.vm.dsik]]", &["line 18", "did you mean `disk`?"]),
        ("name = \"xs\"", "name = \"XS\"", &["line 15", "XS"]),
        ("type = \"ovs\"", "type = \"osv\"", &["line 11", "ovs"]),
        ("subnet = \"10.44.0.0/24\"", "subnet = \"10.44.0.0\"", &["line 12", "subnet"]),
        ("[[network]]", "[[network]", &["line 9"]),
    ] {
        let text = right.replacen(from, to, 1);
        assert_ne!(text, right, "{from} is in the config");
        world.config(&text);
        for args in [&["vm", "create", "-t", "xs"][..], &["config", "check"], &["template", "ls"]] {
            let failed = world.v(args).fails(2, words);
            assert!(failed.stderr.contains("config.toml"), "the file is named:\n{}", failed.stderr);
        }
    }
    for (more, words) in [
        ("[[template.vm]]\nname = \"xs\"\nvcpu = 1\nvram = 1\n", &["`xs`"][..]),
        ("[[template.vm]]\nname = \"empty\"\n", &["vcpu"]),
        ("[[template.vm]]\nname = \"diskless\"\nvcpu = 1\nvram = 1\n", &["disk"]),
        (
            "[[template.vm]]\nname = \"b\"\nvcpu = 1\nvram = 1\n[[template.vm.disk]]\nname = \"os\"\nimage = \"debain\"\n\
             [[image]]\nname = \"debian\"\npath = \"/x\"\n",
            &["debain", "did you mean `debian`?"],
        ),
        ("[[vm]]\nname = \"db\"\ntemplate = \"sx\"\n", &["`vm[0].template` is `sx`", "did you mean `xs`?"]),
        ("[[vm]]\nname = \"db\"\ntemplate = \"xs\"\nrunning = \"yes\"\n", &["`true`, `false` or `\"leave\"`"]),
        (
            "[[vm]]\nname = \"db\"\ntemplate = \"xs\"\non-remove = \"delete\"\nprotect = true\n",
            &["`vm[0].on-remove`", "cannot be deleted"],
        ),
    ] {
        world.config(&config(&world, more));
        world.v(["config", "check"]).fails(2, words);
    }
    fs::remove_file(world.config_file()).expect("the config goes");
    world.v(["vm", "create", "-t", "xs"]).fails(2, &["config.toml"]);
    // What does not need the config goes on.
    world.v(["vm", "ls"]).ok();
    Ok(())
}

fn a_config_is_checked_without_being_used() -> Outcome {
    let world = World::new();
    let templates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    for entry in fs::read_dir(templates).expect("templates") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            world.v(["config".as_ref(), "check".as_ref(), path.as_os_str()]).ok();
        }
    }
    let declared = world.file("vm.toml", config(&world, "[[vm]]\nname = \"db\"\ntemplate = \"xs\"\n"));
    let said = world.v(["config".as_ref(), "check".as_ref(), declared.as_os_str()]).ok().stderr;
    assert!(said.contains("is fine: 1 template, 1 network, 0 images, 1 VM\n"), "{said}");
    world.v(["config", "check", "/no/such/file"]).fails(2, &["/no/such/file"]);
    let schema = world.v(["config", "schema"]).ok();
    let schema: serde_json::Value = serde_json::from_str(&schema.stdout).expect("the schema is JSON");
    assert!(schema["properties"]["template"].is_object(), "{schema:#}");
    assert!(!world.state().exists(), "nothing is made");
    Ok(())
}

fn images_that_are_wrong() -> Outcome {
    need_program("qemu-img")?;
    let mut world = world();
    let image = world.dir().join("os.img");
    let with = |bytes: &[u8]| fs::write(&image, bytes).expect("an image");
    let create = |world: &World| world.v(["vm", "create", "-t", "xs", "-n", "a"]);

    fs::remove_file(&image).expect("it goes");
    create(&world).fails(1, &["os.img"]);
    fs::create_dir(&image).expect("a folder");
    create(&world).fails(1, &["os.img", "is a directory"]);
    fs::remove_dir(&image).expect("it goes");
    with(b"");
    create(&world).fails(1, &["empty"]);
    // Larger than the template's 16 MiB.
    with(b"x");
    fs::OpenOptions::new().write(true).open(&image).expect("it opens").set_len(64 << 20).expect("it grows");
    create(&world)
        .fails(2, &["16MiB", "64MiB", "never shrunk"].map(|word| if word == "never shrunk" { "shrink" } else { word }));

    let qcow2 = world.dir().join("q.img");
    let mut make = Command::new("qemu-img");
    make.args(["create", "-q", "-f", "qcow2"]).arg(&qcow2).arg("8M");
    run(make, Duration::from_secs(30)).ok();
    let good = fs::read(&qcow2).expect("a qcow2");
    let patched = |offset: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
        image
    };
    with(&good[..60]);
    create(&world).fails(1, &["os.img"]);
    with(&patched(24, &(1u64 << 60).to_be_bytes()));
    create(&world).fails(1, &["os.img"]);
    with(&patched(40, &(1u64 << 40).to_be_bytes()));
    create(&world).fails(1, &["os.img"]);
    // As somebody who may not read it.
    if need_root().is_ok() {
        with(&[1; 4096]);
        fs::set_permissions(&image, PermissionsExt::from_mode(0o000)).expect("unreadable");
        world.become_user(65534, 65534);
        world.v(["vm", "create", "-t", "xs", "-n", "a"]).fails(1, &["os.img", "Permission denied"]);
        world.become_user(0, 0);
        fs::set_permissions(&image, PermissionsExt::from_mode(0o644)).expect("readable");
    }
    // A backing file would let an image name any file of this host.
    let backed = world.dir().join("backed.qcow2");
    let mut make = Command::new("qemu-img");
    make.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(&qcow2).arg(&backed);
    run(make, Duration::from_secs(30)).ok();
    fs::copy(&backed, &image).expect("a copy");
    create(&world).fails(1, &["os.img", "another file"]);
    world.assert_empty();
    Ok(())
}

fn no_space() -> Outcome {
    need_root()?;
    let mut world = world();
    world.mount_state("2m")?;
    let small = world.state();
    // 8 MiB of data would not fit; only its holes do.
    fs::write(world.dir().join("os.img"), vec![1; 8 << 20]).expect("an image");
    world.v(["vm", "create", "-t", "xs"]).fails(1, &["no space", "free"]);
    assert_eq!(fs::read_dir(small.join("vm")).into_iter().flatten().count(), 0, "nothing is left");
    world.v(["vm", "ls"]).ok();
    Ok(())
}

fn a_state_folder_that_cannot_be_written() -> Outcome {
    need_root()?;
    let mut world = world();
    world.become_user(65534, 65534);
    let state = world.state();
    fs::create_dir_all(&state).expect("a folder");
    fs::set_permissions(&state, PermissionsExt::from_mode(0o555)).expect("read-only");
    world.v(["vm", "create", "-t", "xs"]).fails(1, &["virshle"]);
    world.v(["vm", "ls"]).ok();
    Ok(())
}

fn databases_that_are_wrong() -> Outcome {
    need_program("sqlite3")?;
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "a"]).ok();
    let database = world.state().join("virshle.sqlite");
    let mut vacuum = Command::new("sqlite3");
    vacuum.arg(&database).arg("PRAGMA wal_checkpoint(TRUNCATE);");
    run(vacuum, Duration::from_secs(10)).ok();
    let good = fs::read(&database).expect("the database");

    fs::write(&database, "this is no database, and it is long enough to have a header ".repeat(20)).expect("garbage");
    let garbage = fs::read(&database).expect("garbage");
    for args in [&["vm", "ls"][..], &["vm", "create", "-t", "xs"], &["vm", "delete", "--all"]] {
        world.v(args).fails(1, &["virshle.sqlite"]);
    }
    assert!(fs::read(&database).expect("garbage") == garbage, "it is left as it was");

    fs::write(&database, &good).expect("the good one");
    let mut newer = Command::new("sqlite3");
    newer.arg(&database).arg("PRAGMA user_version = 99;");
    run(newer, Duration::from_secs(10)).ok();
    world.v(["vm", "ls"]).fails(1, &["99", "newer"]);
    world.v(["vm", "create", "-t", "xs"]).fails(1, &["newer"]);

    fs::write(&database, &good).expect("the good one");
    assert_eq!(world.ls().len(), 1, "nothing was lost");
    assert_eq!(fs::read_dir(world.state().join("vm")).expect("folders").count(), 1, "no disk was touched");
    Ok(())
}

fn a_locked_database() -> Outcome {
    need_program("sqlite3")?;
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "a"]).ok();
    let database = world.state().join("virshle.sqlite");
    let mut holder = Command::new("sqlite3");
    holder.arg(&database).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut holder = holder.spawn().expect("sqlite3 starts");
    let mut input = holder.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut input, b"BEGIN IMMEDIATE;\nSELECT 1;\n").expect("it is told");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().expect("a pipe")), &mut line)
        .expect("it answers");
    // Readers do not wait for a writer.
    let listed = world.v(["vm", "ls"]).ok();
    assert!(listed.took < Duration::from_secs(5), "{:?}", listed.took);
    world.v(["vm", "create", "-t", "xs", "-n", "b"]).fails(1, &["locked"]);
    drop(input);
    holder.wait().expect("sqlite3 ends");
    world.v(["vm", "create", "-t", "xs", "-n", "b"]).ok();
    assert_eq!(world.ls().len(), 2);
    Ok(())
}

fn no_hypervisor() -> Outcome {
    let mut world = world();
    let text = config(&world, "");
    world.config(&text.replace("program = \"/bin/true\"", "program = \"/no/such/qemu\""));
    world.v(["vm", "create", "-t", "xs"]).fails(2, &["/no/such/qemu", "node.qemu"]);
    world.config(&text.replace("\"qemu\"\n[node.qemu]\nprogram = \"/bin/true\"", "\"cloud-hypervisor\"\n[node.qemu]"));
    let empty = world.dir().join("empty");
    fs::create_dir(&empty).expect("a folder");
    world.only_path(&empty);
    world.v(["vm", "create", "-t", "xs"]).fails(1, &["cloud-hypervisor", "not installed"]);
    world.v(["doctor"]).fails(1, &["broken"]);
    Ok(())
}

/// What the chosen hypervisor lacks is refused at create, by the name of the one that has it.
fn what_a_hypervisor_cannot_do() -> Outcome {
    let mut world = world();
    // With passt it could.
    let empty = world.dir().join("empty");
    fs::create_dir(&empty).expect("a folder");
    world.only_path(&empty);
    let text =
        config(&world, "").replace("hypervisor = \"qemu\"", "hypervisor = \"cloud-hypervisor\"\naccel = \"kvm\"");
    let text = text.replace("[node.qemu]", "[node.cloud-hypervisor]\nprogram = \"/bin/true\"\n[node.qemu]");
    world.config(&text.replace("name = \"main\"\ntype = \"tap\"", "name = \"slirp\"\ntype = \"user\""));
    world.v(["vm", "create", "-t", "xs"]).fails(2, &["user", "qemu"]);
    world.config(&text.replace("accel = \"kvm\"", "accel = \"tcg\""));
    world.v(["vm", "create", "-t", "xs"]).fails(2, &["qemu"]);
    assert_eq!(world.ls().len(), 0);
    Ok(())
}

fn a_path_too_long_for_a_socket() -> Outcome {
    let world = world();
    let deep = world.dir().join("d".repeat(100)).join("e".repeat(100));
    fs::create_dir_all(deep.join("etc/virshle")).expect("folders");
    fs::copy(world.config_file(), deep.join("etc/virshle/config.toml")).expect("a config");
    let at = |args: &[&str]| {
        let mut command = world.command(args);
        command.env("VIRSHLE_ROOT", &deep);
        run(command, Duration::from_secs(60))
    };
    at(&["vm", "create", "-t", "xs", "-n", "a"]).fails(2, &["107", "shorter", "40 bytes"]);
    assert!(!deep.join("var").exists() && !deep.join("run").exists(), "nothing is made");

    // A VM that is there already, in a root that was moved.
    world.v(["vm", "create", "-t", "xs", "-n", "a"]).ok();
    fs::rename(world.root().join("var"), deep.join("var")).expect("it is moved");
    at(&["vm", "start", "a"]).fails(2, &["cannot start `a`", "107", "shorter"]);
    at(&["vm", "ls", "--state", "stopped", "-o", "json"]).ok();
    at(&["vm", "delete", "a"]).ok();

    // The longest that is said to be possible is.
    let longest = world.dir().join("f".repeat(40 - 1 - world.dir().as_os_str().len()));
    fs::create_dir_all(longest.join("etc/virshle")).expect("folders");
    fs::copy(world.config_file(), longest.join("etc/virshle/config.toml")).expect("a config");
    let mut command = world.command(["vm", "create", "-t", "xs", "-n", "a"]);
    command.env("VIRSHLE_ROOT", &longest);
    run(command, Duration::from_secs(60)).ok();
    Ok(())
}
