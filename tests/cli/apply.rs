use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{config, hang_switch, world};
use crate::trials;
use crate::world::{Outcome, Run, World, eventually, exercised, v};

pub fn trials() -> Vec<Trial> {
    trials![
        what_is_declared_is_made_once,
        nobody_is_there_to_ask,
        who_is_there_is_asked,
        what_is_declared_no_more,
        one_made_by_hand_is_taken_in_when_asked,
        one_that_fails_keeps_no_other,
        a_wrong_config_changes_nothing,
        one_apply_at_a_time,
        protected_vms_stay,
        a_declared_name,
        what_is_made_anew,
        what_cannot_be_made_anew_stays,
        an_address_that_is_given_up_first,
        labels_and_origin_are_shown,
    ]
}

/// Declares VMs, each with its own words.
fn declare(world: &World, vms: &[(&str, &str)]) {
    let vms = vms.iter().map(|(name, words)| format!("[[vm]]\nname = '{name}'\ntemplate = 'xs'\n{words}\n"));
    world.config(&config(world, &vms.collect::<String>()));
}

const RESTS: &str = "running = false\n";

fn apply(world: &World, more: &[&str]) -> Run {
    world.v(["apply", "--yes"].iter().chain(more))
}

fn nothing_to_do(world: &World) {
    let plan = world.v(["plan"]).ok();
    assert_eq!((plan.stdout.as_str(), plan.stderr.as_str()), ("", "nothing to do\n"));
}

/// `vm change field` of each row, with what became of it.
fn fates(run: &Run) -> Vec<(String, Value)> {
    let rows: Vec<Value> = serde_json::from_str(&run.stdout).expect("apply prints JSON");
    let word = |row: &Value, key: &str| row[key].as_str().expect("a word").to_owned();
    rows.iter()
        .map(|row| (["vm", "change", "field"].map(|key| word(row, key)).join(" "), row["done"].clone()))
        .collect()
}

fn what_is_declared_is_made_once() -> Outcome {
    let world = world();
    declare(&world, &[("web", RESTS), ("db", "running = false\nvcpu = 2\nlabels = { role = 'db' }")]);
    let first = apply(&world, &[]).ok();
    assert!(first.stdout.contains("web") && first.stdout.contains("create"), "{first:?}");
    for said in ["2 VMs to create", "created `web` (number 1, on qemu", "created `db` (number 2", "2 changes done"] {
        assert!(first.stderr.contains(said), "{said:?} in {}", first.stderr);
    }
    nothing_to_do(&world);
    assert_eq!(apply(&world, &[]).ok().stderr, "nothing to do\n");
    assert_eq!(apply(&world, &["-o", "json"]).ok().stdout, "[]\n");
    let db = world.info("db");
    assert_eq!((&db["vcpu"], &db["labels"], &db["declared"]), (&json!(2), &json!({"role": "db"}), &json!(true)));
    let before = world.ls();

    declare(
        &world,
        &[("web", RESTS), ("db", "running = false\nvcpu = 3\nrestart = 'always'\nlabels = { tier = '1' }")],
    );
    let changed = apply(&world, &["-o", "json"]).ok();
    let expected = ["db live vcpu", "db live restart", "db live labels.role", "db live labels.tier"];
    assert_eq!(fates(&changed), expected.map(|row| (row.to_owned(), json!(true))));
    assert!(changed.stderr.contains("changed `db`: vcpu, restart, labels.role, labels.tier"), "{changed:?}");
    nothing_to_do(&world);
    let db = world.info("db");
    assert_eq!((&db["vcpu"], &db["labels"]), (&json!(3), &json!({"tier": "1"})));
    assert_eq!(db["spec"]["policy"]["restart"], "always");
    assert_eq!(before[0], world.row("web"), "the other is as it was");
    let told = world.v(["vm", "history", "db"]).ok().stdout;
    assert!(told.contains("altered") && told.contains("vcpu, restart, labels.role, labels.tier"), "{told}");
    Ok(())
}

fn nobody_is_there_to_ask() -> Outcome {
    let world = world();
    declare(&world, &[("web", RESTS)]);
    world.v(["apply"]).fails(2, &["nobody is there to answer", "`v apply --yes`"]);
    world.assert_empty();
    Ok(())
}

/// What `v apply` says on a terminal where `answer` is typed, and its exit code; `meanwhile` happens before that.
fn asked(world: &World, answer: &str, meanwhile: impl FnOnce()) -> (String, Option<i32>) {
    let command = format!("'{}' apply", v().display());
    let mut terminal = world.other("script", ["-qefc", &command, "/dev/null"]);
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a terminal");
    let (mut keys, mut screen) = (terminal.stdin.take().expect("keys"), terminal.stdout.take().expect("a screen"));
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b"[y/N] ") {
        assert_eq!(screen.read(&mut byte).expect("it says something"), 1, "{}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    meanwhile();
    keys.write_all(answer.as_bytes()).expect("it listens");
    screen.read_to_end(&mut said).expect("it ends");
    (String::from_utf8_lossy(&said).into_owned(), terminal.wait().expect("it ends").code())
}

fn who_is_there_is_asked() -> Outcome {
    let world = world();
    declare(&world, &[("web", RESTS)]);
    let (said, code) = asked(&world, "n\n", || ());
    assert!(said.contains("create") && said.contains("nothing was done"), "{said}");
    assert_eq!(code, Some(0));
    world.assert_empty();

    // A question holds nobody up, and its answer is to what was shown.
    let (said, code) = asked(&world, "y\n", || drop(apply(&world, &[]).ok()));
    assert!(said.contains("something else to do by now") && said.contains("`v apply` again"), "{said}");
    assert_eq!(code, Some(4));
    declare(&world, &[("web", RESTS), ("db", RESTS)]);
    let (said, code) = asked(&world, "y\n", || ());
    assert!(said.contains("created `db`"), "{said}");
    assert_eq!((code, world.ls().len()), (Some(0), 2));
    Ok(())
}

fn what_is_declared_no_more() -> Outcome {
    let world = world();
    let all = [
        ("rests", RESTS),
        ("stays", "running = false\non-remove = 'keep'"),
        ("goes", "running = false\non-remove = 'delete'"),
    ];
    declare(&world, &all);
    apply(&world, &[]).ok();
    declare(&world, &[]);
    let gone = apply(&world, &[]).ok();
    assert!(gone.stderr.contains("deleted `goes`") && gone.stderr.contains("let go of `rests`"), "{gone:?}");
    let names: Vec<Value> = world.ls().into_iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["rests", "stays"]);
    assert_eq!(world.row("stays")["declared"], false);
    let origin = world.v(["vm", "info", "rests"]).ok().stdout;
    assert!(origin.contains("declared once, and no more"), "{origin}");
    nothing_to_do(&world);

    let uuid = world.row("rests")["uuid"].clone();
    declare(&world, &all[..2]);
    apply(&world, &[]).ok();
    assert_eq!((&world.row("rests")["uuid"], &world.row("rests")["declared"]), (&uuid, &json!(true)), "taken back");
    nothing_to_do(&world);
    Ok(())
}

fn one_made_by_hand_is_taken_in_when_asked() -> Outcome {
    let world = world();
    for name in ["web", "mine"] {
        world.v(["vm", "create", "-t", "xs", "-n", name]).ok();
    }
    let mine = world.info("mine");
    let uuid = world.row("web")["uuid"].clone();
    declare(&world, &[("web", "running = false\nlabels = { role = 'web' }"), ("db", RESTS)]);
    let refused = apply(&world, &["-o", "json"]).fails(4, &["made by hand", "v apply --adopt web", "created `db`"]);
    assert_eq!(fates(&refused), [("web refused vm".to_owned(), json!(null)), ("db create vm".to_owned(), json!(true))]);
    assert_eq!(world.row("web")["labels"], json!({}));

    apply(&world, &["--adopt", "web"]).ok();
    let web = world.row("web");
    assert_eq!((&web["uuid"], &web["declared"], &web["labels"]), (&uuid, &json!(true), &json!({"role": "web"})));
    nothing_to_do(&world);
    apply(&world, &["--adopt", "nobody"]).fails(2, &["`--adopt nobody`"]);
    assert_eq!(world.info("mine"), mine, "never touched");
    Ok(())
}

fn one_that_fails_keeps_no_other() -> Outcome {
    let world = world();
    let missing = world.dir().join("later.img");
    let words = format!("running = false\ndisk = [{{ name = 'os', path = '{}' }}]", missing.display());
    declare(&world, &[("bad", &words), ("good", RESTS)]);
    let failed = apply(&world, &["-o", "json"]).fails(1, &["cannot create `bad`", "later.img", "created `good`"]);
    assert_eq!(
        fates(&failed),
        [("bad create vm".to_owned(), json!(false)), ("good create vm".to_owned(), json!(true))]
    );
    let rows: Vec<Value> = serde_json::from_str(&failed.stdout).expect("JSON");
    assert!(rows[0]["error"].as_str().expect("why").contains("later.img"), "{rows:?}");

    world.image("later.img", 8);
    let rest = apply(&world, &[]).ok();
    assert!(rest.stderr.contains("created `bad`") && !rest.stderr.contains("good"), "{rest:?}");
    nothing_to_do(&world);
    Ok(())
}

fn a_wrong_config_changes_nothing() -> Outcome {
    let world = world();
    declare(&world, &[("web", RESTS)]);
    apply(&world, &[]).ok();
    let before = world.ls();
    declare(&world, &[("web", "running = false\nvcpu = 4"), ("db", "vcpu = 0")]);
    apply(&world, &[]).fails(2, &["vcpu"]);
    assert_eq!(world.ls(), before);
    Ok(())
}

/// The first waits for the switch; killed there, it leaves nothing in the way of the next.
fn one_apply_at_a_time() -> Outcome {
    let world = world();
    declare(&world, &[("web", RESTS)]);
    let switch = hang_switch(&world);
    let mut first = world.command(["apply", "--yes"]).spawn().expect("v starts");
    eventually("it asks the switch", Duration::from_secs(20), || switch.is_asked());
    let pid = format!("another apply is at work (pid {})", first.id());
    apply(&world, &[]).fails(4, &[&pid]);
    assert_eq!(world.v(["plan"]).code, Some(10), "who only looks is let in");
    first.kill().expect("kill -9");
    first.wait().expect("it ends");
    drop(switch);
    exercised("killed", "an apply");
    apply(&world, &[]).ok();
    nothing_to_do(&world);
    Ok(())
}

fn protected_vms_stay() -> Outcome {
    let world = world();
    for name in ["web", "db"] {
        world.v(["vm", "create", "-t", "xs", "-n", name]).ok();
    }
    assert_eq!(world.v(["vm", "protect", "web"]).ok().stderr, "protected `web`\n");
    let words = ["cannot delete `web`: it is protected", "v vm protect --off web"];
    world.v(["vm", "delete", "web"]).fails(4, &words);
    world.v(["vm", "delete", "--force", "web"]).fails(4, &words);
    world.v(["vm", "delete", "--all"]).fails(4, &[words[0], "deleted `db`"]);
    assert_eq!(world.row("web")["protected"], true);
    world.v(["vm", "protect", "--off", "web"]).ok();
    world.v(["vm", "delete", "web"]).ok();

    declare(&world, &[("web", "running = false\nprotect = true")]);
    apply(&world, &[]).ok();
    apply(&world, &["--replace", "web"]).fails(4, &["protected"]);
    declare(&world, &[("web", RESTS)]);
    apply(&world, &[]).ok();
    assert_eq!(world.row("web")["protected"], false);
    let protected = world.v(["vm", "protect", "web"]).ok().stderr;
    assert_eq!(
        protected,
        "protected `web`\nnote: the config declares `web` with `protect = false`: the next `v apply` sets that\n"
    );
    apply(&world, &[]).ok();
    assert_eq!(world.row("web")["protected"], false);
    declare(&world, &[("web", "running = false\nprotect = true")]);
    assert_eq!(world.v(["vm", "protect", "web"]).ok().stderr, "protected `web`\n");
    nothing_to_do(&world);
    Ok(())
}

fn a_declared_name() -> Outcome {
    let world = world();
    declare(&world, &[("web", RESTS)]);
    apply(&world, &[]).ok();
    let uuid = world.row("web")["uuid"].clone();
    declare(&world, &[("web", RESTS), ("www", RESTS)]);
    world.v(["vm", "rename", "web", "www"]).fails(4, &["the config declares both"]);
    declare(&world, &[("www", RESTS)]);
    assert_eq!(world.v(["vm", "rename", "web", "www"]).ok().stderr, "renamed `web` to `www`\n");
    assert_eq!(world.row("www")["uuid"], uuid);
    nothing_to_do(&world);

    // Before the config has the new name, as where it is written and applied in one go.
    declare(&world, &[("www", "running = false\non-remove = 'delete'")]);
    apply(&world, &[]).ok();
    let renamed = world.v(["vm", "rename", "www", "web"]).ok().stderr;
    let note = "note: the config still declares `www`: until it names `web` instead, `v apply` makes another `www`\n";
    assert_eq!(renamed, format!("renamed `www` to `web`\n{note}"));
    apply(&world, &[]).ok();
    assert_eq!(world.row("web")["uuid"], uuid, "an apply leaves it alone");
    assert_ne!(world.row("www")["uuid"], uuid);
    declare(&world, &[("web", RESTS)]);
    apply(&world, &[]).ok();
    assert_eq!(world.row("web")["uuid"], uuid, "it is taken back");
    assert_eq!(world.ls().len(), 1);
    declare(&world, &[("www", RESTS)]);
    world.v(["vm", "rename", "web", "www"]).ok();
    nothing_to_do(&world);

    let deleted = world.v(["vm", "delete", "www"]).ok().stderr;
    assert_eq!(deleted, "deleted `www`\nnote: the config declares `www`: the next `v apply` makes it anew\n");
    apply(&world, &[]).ok();
    assert_ne!(world.row("www")["uuid"], uuid);
    declare(&world, &[]);
    assert_eq!(world.v(["vm", "delete", "www"]).ok().stderr, "deleted `www`\n");
    Ok(())
}

fn what_is_made_anew() -> Outcome {
    let world = world();
    let user = world.file("user.toml", "[[user]]\nname = 'anon'\n");
    let words = format!("running = false\nuser-data = '{}'", user.display());
    declare(&world, &[("web", &words), ("db", RESTS)]);
    apply(&world, &[]).ok();
    assert_eq!(world.info("web")["login"], "anon");
    let (web, db) = (world.row("web"), world.row("db"));
    fs::write(&user, "[[user]]\nname = 'other'\n").expect("the file");
    let waits = apply(&world, &["-o", "json"]).ok();
    assert_eq!(fates(&waits), [("web replace user-data".to_owned(), json!(null))]);
    assert_eq!(world.row("web"), web);
    // What cannot be made anew is not deleted.
    fs::rename(world.dir().join("os.img"), world.dir().join("away.img")).expect("a rename");
    apply(&world, &["--replace", "web"]).fails(1, &["cannot create `web`", "os.img"]);
    assert_eq!(world.row("web"), web);
    fs::rename(world.dir().join("away.img"), world.dir().join("os.img")).expect("a rename");
    apply(&world, &["--replace", "web"]).ok();
    assert_eq!(world.info("web")["login"], "other");
    assert_ne!(world.row("web")["uuid"], web["uuid"]);
    assert_eq!(world.row("db"), db);
    nothing_to_do(&world);
    Ok(())
}

/// Whatever a create would be refused for is known before the VM makes way.
fn what_cannot_be_made_anew_stays() -> Outcome {
    let world = world();
    declare(&world, &[("web", RESTS)]);
    apply(&world, &[]).ok();
    world.v(["vm", "create", "-t", "xs", "-n", "mine", "--address", "10.44.0.77"]).ok();
    let (web, mine) = (world.row("web"), world.info("mine"));
    let disk = world.state().join("vm").join(web["uuid"].as_str().expect("a uuid")).join("os.raw");
    fs::write(&disk, "what the guest wrote").expect("the disk");
    let mac = mine["spec"]["nics"][0]["mac"].as_str().expect("a MAC");
    let dir = world.dir().display();
    let rows = [
        ("net = [{ name = 'main', address = '10.44.0.77' }]".to_owned(), 4, "`10.44.0.77` of network `main` is taken"),
        (format!("net = [{{ name = 'main', mac = '{mac}' }}]"), 4, "is taken: a NIC of VM 2, `mine`, has it"),
        (format!("disk = [{{ name = 'os', path = '{dir}/os.img', size = '1MiB' }}]"), 2, "below the"),
        (format!("kernel = '{dir}'"), 2, "is a directory, not a plain file"),
        (format!("disk = [{{ name = 'os', path = '{dir}/none.img' }}]"), 1, "none.img"),
    ];
    for (words, code, said) in rows {
        declare(&world, &[("web", &format!("{RESTS}{words}"))]);
        let failed = apply(&world, &["--replace", "web"]).fails(code, &["cannot create `web`", said]);
        assert!(!failed.stderr.contains("deleted"), "{words}: {failed:?}");
        assert_eq!(world.row("web")["uuid"], web["uuid"], "{words}");
        assert_eq!(fs::read(&disk).expect("the disk"), b"what the guest wrote", "{words}");
    }
    assert_eq!(world.info("mine"), mine, "never touched");
    Ok(())
}

/// What others of the plan have, and will not have any more, is in nobody's way.
fn an_address_that_is_given_up_first() -> Outcome {
    let world = world();
    let at = |ip: &str| format!("running = false\non-remove = 'delete'\nnet = [{{ name = 'main', address = '{ip}' }}]");
    let [first, second, third] = ["10.44.0.71", "10.44.0.72", "10.44.0.73"].map(at);
    declare(&world, &[("web", &first), ("moves", &second), ("goes", &third)]);
    apply(&world, &[]).ok();
    let web = world.row("web")["uuid"].clone();
    declare(&world, &[("web", &third), ("moves", &second)]);
    apply(&world, &["--replace", "web"]).ok();
    let anew = world.row("web")["uuid"].clone();
    assert_ne!(anew, web);
    declare(&world, &[("web", &second), ("moves", &first)]);
    apply(&world, &["--replace", "web"]).ok();
    assert_ne!(world.row("web")["uuid"], anew);
    // Its own is in its way no more than another's.
    apply(&world, &["--replace", "web"]).ok();
    nothing_to_do(&world);
    Ok(())
}

fn labels_and_origin_are_shown() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "a", "--label", "role=db", "--label", "tier=1"]).ok();
    world.v(["vm", "create", "-t", "xs", "-n", "b", "--label", "role=web"]).ok();
    let listed = |labels: &[&str]| -> Vec<Value> {
        let args = ["vm", "ls", "-o", "json"].into_iter().chain(labels.iter().flat_map(|label| ["--label", label]));
        let rows: Vec<Value> = serde_json::from_str(&world.v(args).ok().stdout).expect("JSON");
        rows.into_iter().map(|row| row["name"].clone()).collect()
    };
    assert_eq!(listed(&["role"]), ["a", "b"]);
    assert_eq!(listed(&["role=db"]), ["a"]);
    assert_eq!(listed(&["role=web", "tier"]), Vec::<Value>::new());
    assert_eq!(world.v(["vm", "ls", "--label", "none"]).ok().stderr, "no VM has that label\n");
    assert!(world.v(["-v", "vm", "ls"]).ok().stdout.contains("role=db, tier=1"));
    let info = world.v(["vm", "info", "a"]).ok().stdout;
    assert!(info.contains("role=db, tier=1") && info.contains("made by hand"), "{info}");
    declare(&world, &[("c", "running = false\nvcpu-max = 4\nvram-max = '1G'")]);
    apply(&world, &[]).ok();
    let info = world.v(["vm", "info", "c"]).ok().stdout;
    for shown in ["1, up to 4", "512MiB, up to 1GiB", "declared by the config"] {
        assert!(info.contains(shown), "{shown}: {info}");
    }
    Ok(())
}
