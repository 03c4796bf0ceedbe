use std::fs;
use std::io::{Cursor, Read};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use super::hang_switch;
use super::world;
use crate::trials;
use crate::world::{Outcome, World, eventually, exercised};

pub fn trials() -> Vec<Trial> {
    trials![another_name, names_that_are_refused, a_killed_rename_is_finished]
}

/// The host names in the first-boot volume: its meta-data's and its user-data's.
fn host_names(world: &World, name: &str) -> [String; 2] {
    let folder = world.info(name)["folder"].as_str().expect("a folder").to_owned();
    let bytes = fs::read(format!("{folder}/seed.img")).expect("the first-boot volume");
    let system = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).expect("FAT");
    [("meta-data", "local-hostname"), ("user-data", "hostname")].map(|(file, key)| {
        let mut text = String::new();
        system.root_dir().open_file(file).expect("a document").read_to_string(&mut text).expect("its text");
        let json: Value = serde_json::from_str(text.trim_start_matches("#cloud-config\n")).expect("JSON");
        json[key].as_str().expect("a name").to_owned()
    })
}

fn another_name() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    let before = world.row("web");
    let said = world.v(["vm", "rename", "web", "db"]).ok().stderr;
    assert_eq!(said, "renamed `web` to `db`\n");
    let after = world.row("db");
    for key in ["uuid", "number", "address", "created_at", "state"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    assert_eq!(host_names(&world, "db"), ["db", "db"]);
    world.v(["vm", "info", "web"]).fails(3, &["`web`"]);

    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    assert_eq!(host_names(&world, "web"), ["web", "web"], "the old name is free");
    world.v(["vm", "rename", "1", "mail"]).ok();
    world.v(["vm", "rename", before["uuid"].as_str().expect("a uuid"), "mail-2"]).ok();
    world.v(["vm", "rename", "mail-2", "mail-2"]).ok();
    assert_eq!(host_names(&world, "mail-2"), ["mail-2", "mail-2"]);
    let folder = world.info("mail-2")["folder"].as_str().expect("a folder").to_owned();
    assert!(
        !fs::read_dir(folder)
            .expect("it")
            .any(|entry| { entry.expect("an entry").file_name().to_string_lossy().ends_with(".partial") })
    );
    world.v(["vm", "delete", "--all"]).ok();
    world.assert_empty();
    Ok(())
}

fn names_that_are_refused() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    world.v(["vm", "create", "-t", "xs", "-n", "db"]).ok();
    world.v(["vm", "rename", "web", "db"]).fails(4, &["cannot rename `web` to `db`", "taken by VM 2"]);
    world.v(["vm", "rename", "wbe", "mail"]).fails(3, &["`wbe`", "did you mean `web`?"]);
    for name in ["Web", "", "42", "a.b", "../x"] {
        world.v(["vm", "rename", "web", name]).fails(2, &["name"]);
    }
    world.v(["vm", "rename", "web"]).fails(2, &["NEW"]);
    assert_eq!(host_names(&world, "web"), ["web", "web"]);
    assert_eq!(host_names(&world, "db"), ["db", "db"]);
    Ok(())
}

/// It is killed while it waits for the switch; the record and the volume have the new name by then.
fn a_killed_rename_is_finished() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    for (new, next) in [("db", &["repair"][..]), ("mail", &["vm", "rename", "mail", "mail"])] {
        let old = world.ls()[0]["name"].as_str().expect("a name").to_owned();
        let switch = hang_switch(&world);
        let mut rename = world.command(["vm", "rename", &old, new]).spawn().expect("v starts");
        eventually("it asks the switch", Duration::from_secs(20), || switch.is_asked());
        world.v(["vm", "rename", new, "third"]).fails(4, &["another command is at work on it"]);
        world.v(["vm", "delete", new]).fails(4, &["another command is at work on it"]);
        rename.kill().expect("kill -9");
        rename.wait().expect("it ends");
        drop(switch);

        let listed = world.v(["repair", "--dry-run"]).ok();
        assert!(listed.stdout.contains("half-renamed") && listed.stderr.contains("1 left-over;"), "{listed:?}");
        world.v(next).ok();
        assert_eq!(world.v(["repair", "--dry-run"]).ok().stderr, "nothing to repair\n");
        assert_eq!(host_names(&world, new), [new, new]);
    }
    exercised("killed", "a rename");
    world.v(["vm", "delete", "--all"]).ok();
    world.assert_empty();
    Ok(())
}
