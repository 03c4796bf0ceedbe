use libtest_mimic::Trial;
use serde_json::Value;

use super::{config, world};
use crate::trials;
use crate::world::{Outcome, World};

pub fn trials() -> Vec<Trial> {
    trials![
        over_its_template,
        with_a_template_of_its_own,
        a_nic_that_says_nothing_but_its_network,
        several_at_once,
        what_is_not_there
    ]
}

const VARIANTS: [(&str, &[&str]); 5] = [
    ("plain", &[]),
    ("large", &["--vcpu", "3", "--vram", "1GiB"]),
    ("noted", &["--label", "role=db", "--label", "example.org/tier=a b \"c\""]),
    ("placed", &["--address", "10.44.0.77"]),
    ("open", &["--port", "18080:80"]),
];

/// The text of these VMs goes into the config, they are taken in, and nothing is left to do.
#[track_caller]
fn comes_back(world: &World, more: &str, names: &[&str]) -> String {
    let text = world.v(["vm", "export"].iter().chain(names)).ok().stdout;
    let before: Vec<Value> = names.iter().map(|name| world.info(name)).collect();
    world.config(&config(world, &format!("{more}\n{text}")));
    world.v(["config", "check"]).ok();
    let args = ["apply", "--yes"].into_iter().chain(names.iter().flat_map(|name| ["--adopt", name]));
    let applied = world.v(args).ok();
    let known = |row: &str| row.contains(" live ") && (row.contains(" declared ") || row.contains(" template "));
    assert!(applied.stdout.lines().skip(1).all(known), "{applied:?}");
    let plan = world.v(["plan"]).ok();
    assert_eq!(plan.stderr, "nothing to do\n", "{text}\n{plan:?}");
    for (name, mut before) in names.iter().zip(before) {
        let after = world.info(name);
        before["spec"]["template"] = after["spec"]["template"].clone();
        assert_eq!((&after["spec"], &after["uuid"]), (&before["spec"], &before["uuid"]), "{text}");
    }
    text
}

fn over_its_template() -> Outcome {
    let world = world();
    for (name, more) in VARIANTS {
        world.v(["vm", "create", "-t", "xs", "-n", name].iter().chain(more)).ok();
    }
    let plain = world.v(["vm", "export", "plain"]).ok().stdout;
    assert_eq!(plain, "[[vm]]\nname = \"plain\"\ntemplate = \"xs\"\nrunning = false\n");
    let text = comes_back(&world, "", &VARIANTS.map(|(name, _)| name));
    assert!(!text.contains("template.vm"), "{text}");
    for said in ["vcpu = 3\nvram = \"1GiB\"", "[[vm.net]]\nname = \"main\"\nports = [\"18080:80/tcp\"]"] {
        assert!(text.contains(said), "{said:?} in:\n{text}");
    }
    Ok(())
}

fn with_a_template_of_its_own() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web", "--vcpu", "2", "--label", "role=web"]).ok();
    world.v(["vm", "create", "-t", "xs", "-n", "lost"]).ok();
    // What the template says since cannot be unsaid over it.
    let more = "[[template.vm]]\nname = 'web'\nvcpu = 1\nvram = 1\nkernel = '/vmlinuz'\n";
    let template = config(&world, more).replacen("vcpu = 1", "vcpu = 1\nvcpu-max = 4\nlabels = { new = 'yes' }", 1);
    world.config(&template);
    let text = world.v(["vm", "export", "web"]).ok().stdout;
    assert!(text.starts_with("[[template.vm]]\nname = \"web-2\"\nvcpu = 2\nvram = \"512MiB\"\n"), "{text}");
    assert!(text.contains("[[vm]]\nname = \"web\"\ntemplate = \"web-2\"\nrunning = false\n"), "{text}");
    let text = comes_back(&world, more, &["web", "lost"]);
    assert_eq!(text.matches("[[template.vm]]").count(), 2, "{text}");
    Ok(())
}

fn a_nic_that_says_nothing_but_its_network() -> Outcome {
    let world = world();
    let more = "[[network]]\nname = 'home'\ntype = 'user'\n";
    let template =
        "[[template.vm]]\nname = 'lan'\nvcpu = 1\nvram = 1\nkernel = '/vmlinuz'\nnet = [{ name = 'home' }]\n";
    world.config(&config(&world, &format!("{more}{template}")));
    world.v(["vm", "create", "-t", "lan", "-n", "web"]).ok();
    // Its template is no more.
    world.config(&config(&world, more));
    let text = comes_back(&world, more, &["web"]);
    assert!(text.contains("[[template.vm.net]]\nname = \"home\"\n"), "{text}");
    Ok(())
}

fn several_at_once() -> Outcome {
    let world = world();
    for name in ["a", "b"] {
        world.v(["vm", "create", "-t", "xs", "-n", name]).ok();
    }
    // Their template is no more.
    let renamed = config(&world, "").replace("name = \"xs\"", "name = \"other\"");
    world.config(&renamed);
    let text = world.v(["vm", "export", "--all"]).ok().stdout;
    assert_eq!(text.matches("[[template.vm]]").count(), 2, "{text}");
    world.config(&(renamed + &text));
    world.v(["apply", "--yes", "--adopt", "a", "--adopt", "b"]).ok();
    assert_eq!(world.v(["plan"]).ok().stderr, "nothing to do\n");
    Ok(())
}

fn what_is_not_there() -> Outcome {
    let world = world();
    world.v(["vm", "export", "nobody"]).fails(3, &[]);
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    world.v(["vm", "export", "nobody"]).fails(3, &["`nobody`"]);
    world.v(["vm", "export"]).fails(2, &["Usage"]);
    Ok(())
}
