use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use super::world;
use crate::trials;
use crate::world::{Outcome, exercised, need_program, run};

pub fn trials() -> Vec<Trial> {
    trials![a_configuration_for_ssh, ssh_understands_it, a_connection_that_cannot_be]
}

fn a_configuration_for_ssh() -> Outcome {
    let world = world();
    let file = world.file("users.toml", "[[user]]\nname = 'ada'\nssh.authorized_keys = ['ssh-ed25519 AAAA']\n");
    world.v(["vm", "create", "-t", "xs", "-n", "web", "-u", file.to_str().expect("UTF-8")]).ok();
    let text = world.v(["ssh-config"]).ok().stdout;
    let info = world.info("web");
    let (uuid, folder) = (info["uuid"].as_str().expect("a uuid"), info["folder"].as_str().expect("a folder"));
    let (hosts, proxy) = text.split_once("Host vm/*\n").expect("what all have");
    assert_eq!(
        hosts,
        format!(
            "# Written by `v ssh-config`: `ssh vm/NAME` logs in to a VM.\n\n\
             Host vm/web\n    User ada\n    HostKeyAlias {uuid}\n    UserKnownHostsFile \"{folder}/known_hosts\"\n\n"
        )
    );
    let lines: Vec<&str> = proxy.lines().map(str::trim).collect();
    assert!(lines[0].starts_with("ProxyCommand /") && lines[0].ends_with(" vm ssh-proxy -- '%n'"), "{text}");
    assert!(lines[0].contains(" --root "), "{text}");
    assert_eq!(lines[1..], ["ProxyUseFdpass yes", "StrictHostKeyChecking accept-new", "CheckHostIP no"]);
    Ok(())
}

fn ssh_understands_it() -> Outcome {
    need_program("ssh")?;
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    let file = world.file("ssh-config", world.v(["ssh-config"]).ok().stdout);
    let of = |host: &str| {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&file).args(["-G", host]);
        run(ssh, Duration::from_secs(60)).ok().stdout
    };
    let uuid = world.row("web")["uuid"].as_str().expect("a uuid").to_owned();
    let web = of("vm/web");
    assert!(web.contains(&format!("\nhostkeyalias {uuid}\n")), "{web}");
    for host in ["vm/web", "vm/made-since"] {
        let options = of(host);
        for option in ["proxyusefdpass yes", "stricthostkeychecking accept-new"] {
            assert!(options.contains(&format!("\n{option}\n")), "{options}");
        }
        assert!(options.contains("\nproxycommand /"), "{options}");
    }
    assert!(!of("elsewhere").contains("proxycommand /"), "other hosts are left alone");
    exercised("ssh", "reads what `v ssh-config` prints");
    Ok(())
}

fn a_connection_that_cannot_be() -> Outcome {
    let world = world();
    world.v(["vm", "create", "-t", "xs", "-n", "web"]).ok();
    for name in ["web", "vm/web"] {
        world.v(["vm", "ssh-proxy", "--", name]).fails(4, &["cannot log in to `web`: it is stopped", "v vm start"]);
    }
    world.v(["vm", "ssh-proxy", "--", "vm/wbe"]).fails(3, &["`web`"]);
    Ok(())
}
