//! Every example in `templates/`, as it would be launched: the argv, and the JSON of each call. The
//! files beside this one are what was agreed; `GOLDEN=write` writes them anew, for a person to read.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::trials;
use crate::world::{Outcome, World, exercised, run};

pub fn trials() -> Vec<Trial> {
    trials![every_example_for_every_hypervisor]
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn every_example_for_every_hypervisor() -> Outcome {
    let mut expected = Vec::new();
    let mut names: Vec<PathBuf> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("templates"))
        .expect("templates")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    let mut wrong = Vec::new();
    for path in names {
        for hypervisor in ["cloud-hypervisor", "qemu"] {
            let example = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let file = here().join(format!("{example}.{hypervisor}.txt"));
            if hypervisor == "qemu" && kernel_serves_vsock() {
                exercised("golden files", "without QEMU: what they hold is a host without /dev/vhost-vsock");
                expected.push(file);
                continue;
            }
            let shown = launch(&path, hypervisor);
            if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
                fs::write(&file, &shown).expect("the golden file is written");
            }
            if fs::read_to_string(&file).unwrap_or_default() != shown {
                wrong.push(format!("{}:\n{shown}", file.display()));
            }
            expected.push(file);
        }
    }
    assert!(wrong.is_empty(), "not as agreed (`GOLDEN=write` accepts it):\n{}", wrong.join("\n"));
    for entry in fs::read_dir(here()).expect("the golden files") {
        let path = entry.expect("an entry").path();
        let forgotten = path.extension().is_some_and(|extension| extension == "txt") && !expected.contains(&path);
        assert!(!forgotten, "{} belongs to no example", path.display());
    }
    Ok(())
}

fn kernel_serves_vsock() -> bool {
    fs::OpenOptions::new().read(true).write(true).open("/dev/vhost-vsock").is_ok()
}

/// Programs that run beside a hypervisor: none is run here, passt is only asked what it can do.
fn beside(world: &mut World) {
    let programs = world.dir().join("beside");
    fs::create_dir(&programs).expect("a folder");
    for name in ["passt", "vhost-device-vsock"] {
        let script = programs.join(name);
        fs::write(&script, "#!/bin/sh\necho ' --vhost-user'\n").expect("a script");
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it may run");
    }
    world.prepend_path(&programs);
}

/// What each template of the example would launch on a hypervisor, or why it is refused.
fn launch(example: &Path, hypervisor: &str) -> String {
    let mut world = World::new();
    world.switch();
    beside(&mut world);
    for name in ["code.fd", "vars.fd"] {
        world.file(name, [0; 4096]);
    }
    let text = fs::read_to_string(example).expect("the example");
    // Its images and kernels are made up; its bridge is not on this machine.
    let mut config = String::new();
    for line in text.lines() {
        let key = line.split('=').next().unwrap_or_default().trim();
        if matches!(key, "path" | "kernel" | "initramfs") {
            let file = line.split('"').nth(1).expect("a path").rsplit('/').next().expect("a file name").to_owned();
            let made = world.image(&file, 4);
            config += &format!("{key} = {made:?}\n");
        } else if key == "type" && line.contains("\"bridge\"") {
            config += "type = \"ovs\"\n";
        } else if key == "bridge" {
            config += "bridge = \"vsbr0\"\n";
        } else if !(line.starts_with("hypervisor") || line.starts_with("accel") || line.trim() == "[node]") {
            config += &format!("{line}\n");
        }
    }
    let dir = world.dir().display();
    config += &format!(
        "[node]\nhypervisor = \"{hypervisor}\"\naccel = \"kvm\"\n\
         [node.cloud-hypervisor]\nprogram = \"/bin/true\"\nfirmware = \"{dir}/code.fd\"\n\
         [node.qemu]\nprogram = \"/bin/true\"\nfirmware = \"{dir}/code.fd\"\nvars = \"{dir}/vars.fd\"\n"
    );
    world.config(&config);
    let templates: Vec<serde_json::Value> =
        serde_json::from_str(&world.v(["template", "ls", "-o", "json"]).ok().stdout).expect("JSON");
    let mut shown = String::new();
    for template in templates {
        let name = template["name"].as_str().expect("a name");
        shown += &format!("## {name}\n\n");
        let created = run(world.command(["vm", "create", "-t", name, "-n", name]), std::time::Duration::from_secs(60));
        if created.code == Some(0) {
            shown += &world.v(["vm", "show-launch", name]).ok().stdout;
        } else {
            shown += &format!("refused (exit code {}):\n{}", created.code.expect("a code"), created.stderr);
        }
        let row = world.ls().into_iter().find(|row| row["name"] == name);
        if let Some(row) = row {
            let uuid = row["uuid"].as_str().expect("a uuid");
            let low = u32::from_str_radix(&uuid[uuid.len() - 8..], 16).expect("hex");
            shown = shown.replace(&(0x4000_0000 | low & 0x3fff_ffff).to_string(), "CID");
            shown = shown.replace(uuid, "UUID");
            for nic in row["nics"].as_array().expect("NICs") {
                shown = shown.replace(nic["mac"].as_str().expect("a MAC"), "MAC");
            }
        }
        shown.push('\n');
    }
    shown.replace(&world.dir().display().to_string(), "DIR")
}
