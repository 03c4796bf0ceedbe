//! What the flake offers, and what a NixOS guest gets of modules/guest. tests/flake/default.nix evaluates both, on a
//! stand-in of nixpkgs: that NixOS builds them is not shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{root, with_lib};
use crate::trials;
use crate::world::{Outcome, Skip};

pub fn trials() -> Vec<Trial> {
    trials![
        every_output_is_there,
        the_package_has_what_it_is_made_of,
        the_checks_are_those_of_the_suite,
        a_guest_of_each_kind,
        a_guest_without_its_seed,
        the_template_begins_a_guest,
        a_guest_has_the_last_word,
        an_image_that_firmware_boots,
    ]
}

fn flake() -> Result<&'static Value, Skip> {
    static FLAKE: OnceLock<Value> = OnceLock::new();
    if let Some(flake) = FLAKE.get() {
        return Ok(flake);
    }
    let flake = with_lib("tests/flake")?;
    Ok(FLAKE.get_or_init(|| flake))
}

fn every_output_is_there() -> Outcome {
    let flake = flake()?;
    let outputs = ["checks", "devShells", "formatter", "lib", "nixosModules", "overlays", "packages", "templates"];
    assert_eq!(flake["outputs"], json!(outputs));
    let both = |value: Value| json!({ "aarch64-linux": value, "x86_64-linux": value });
    let checks = [
        "clippy",
        "machine-boot",
        "machine-declarative",
        "machine-guest-image",
        "machine-hardening",
        "machine-ovs-restart",
        "machine-reboot",
        "machine-switch",
        "module-guest",
        "module-host",
        "nix-format",
        "nix-unused",
        "package",
        "rust-format",
    ];
    assert_eq!(flake["packages"], both(json!(["default"])));
    assert_eq!(flake["checks"], both(json!(checks)));
    assert_eq!(flake["devShells"], both(json!(["default"])));
    assert_eq!(flake["formatter"], both(json!("nixfmt-rs")));
    assert_eq!(flake["overlay"], json!(["virshle"]));
    assert_eq!(flake["nixosModules"], json!(["default", "guest"]));
    assert_eq!(flake["lib"], json!(["mkGuestImage"]));
    let files = json!(["README.md", "configuration.nix", "flake.nix"]);
    assert_eq!(flake["files"], json!({ "default": files, "guest": files, "host": files }));
    Ok(())
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn the_package_has_what_it_is_made_of() -> Outcome {
    let package = &flake()?["package"];
    assert_eq!((&package["pname"], &package["version"]), (&json!("virshle"), &json!(env!("CARGO_PKG_VERSION"))));
    let parts = package["src"].as_array().expect("the parts of the source");
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).expect("a source");
        for rest in text.split("include_str!(\"").skip(1) {
            let named = rest.split('"').next().expect("a path");
            let path = file.parent().expect("a folder").join(named).canonicalize().expect("what is included");
            let below = path.strip_prefix(root().canonicalize().expect("the root")).expect("of the project");
            let part = below.iter().next().expect("a part").to_string_lossy();
            assert!(parts.contains(&json!(part)), "{} includes `{named}`, which the package lacks", file.display());
        }
    }
    Ok(())
}

fn the_checks_are_those_of_the_suite() -> Outcome {
    let commands = &flake()?["commands"];
    let suite = fs::read_to_string(root().join("tests/run")).expect("tests/run");
    for (name, command, tools) in [
        ("clippy", "cargo clippy --all-targets --locked", &["installShellFiles", "clippy"][..]),
        ("rust-format", "cargo fmt --check", &["cargo", "rustfmt"]),
    ] {
        assert!(commands[name]["command"].as_str().is_some_and(|text| text.contains(command)), "{commands:#}");
        assert!(suite.contains(command), "`{command}` is not in tests/run");
        assert_eq!(commands[name]["tools"], json!(tools), "{name}");
    }
    // As in sources.rs.
    for (name, command, tool) in
        [("nix-format", "nixfmt --check", "nixfmt-rs"), ("nix-unused", "deadnix --fail", "deadnix")]
    {
        assert!(commands[name]["command"].as_str().is_some_and(|text| text.contains(command)), "{commands:#}");
        assert_eq!(commands[name]["tools"], json!([tool]), "{name}");
    }
    Ok(())
}

fn a_guest_of_each_kind() -> Outcome {
    let guests = &flake()?["guests"];
    for (name, console) in [("pc", "console=ttyS0"), ("arm", "console=ttyAMA0")] {
        let guest = &guests[name];
        let boot = &guest["boot"];
        assert_eq!(boot["kernelParams"], json!([console, "memhp_default_state=online"]), "{name}");
        assert_eq!(boot["initrd"]["kernelModules"], json!(["vmw_vsock_virtio_transport"]), "{name}");
        for module in ["virtio_blk", "virtio_net", "virtio_pci"] {
            let modules = boot["initrd"]["availableKernelModules"].as_array().expect("modules");
            assert!(modules.contains(&json!(module)), "{name}: {module} is not in {modules:?}");
        }
        assert_eq!(boot["loader"]["systemd-boot"]["enable"], true, "{name}");
        assert_eq!(boot["loader"]["efi"]["canTouchEfiVariables"], false, "{name}");
        assert_eq!(boot["growPartition"], true, "{name}");
        assert_eq!(guest["fileSystems"]["/"]["autoResize"], true, "{name}");
        assert_eq!(guest["services"]["openssh"]["enable"], true, "{name}");
        assert_eq!(guest["services"]["cloud-init"]["network"]["enable"], true, "{name}");
        let sources = &guest["services"]["cloud-init"]["settings"]["datasource_list"];
        assert_eq!(sources, &json!(["NoCloud", "None"]), "{name}");
        for (option, value) in [("hostName", json!("")), ("useDHCP", json!(false)), ("useNetworkd", json!(true))] {
            assert_eq!(guest["networking"][option], value, "{name}: {option}");
        }
    }
    Ok(())
}

fn a_guest_without_its_seed() -> Outcome {
    let guests = &flake()?["guests"];
    let (seeded, guest, none) = (&guests["pc"], &guests["unseeded"], &guests["none"]);
    assert_eq!(guest["services"]["cloud-init"], none["services"]["cloud-init"]);
    for part in ["networking", "security", "systemd"] {
        assert_eq!(guest[part], none[part], "its own configuration's");
        assert_ne!(seeded[part], none[part], "{part}");
    }
    assert_eq!(guest["services"]["openssh"]["enable"], true);
    Ok(())
}

fn the_template_begins_a_guest() -> Outcome {
    let guests = &flake()?["guests"];
    let guest = &guests["template"];
    assert_eq!(guest, &guests["template-image"], "what it is switched to is what it started as");
    assert_eq!(guest["services"]["cloud-init"]["enable"], true);
    assert_eq!(guest["services"]["nginx"]["virtualHosts"]["default"]["locations"]["/"]["return"], "200 'hello\\n'");
    assert_eq!(guest["networking"]["firewall"]["allowedTCPPorts"], json!([80]));
    Ok(())
}

fn a_guest_has_the_last_word() -> Outcome {
    let guest = &flake()?["guests"]["own"];
    assert_eq!(guest["boot"]["loader"]["timeout"], 5);
    assert_eq!(guest["fileSystems"]["/"]["fsType"], "btrfs");
    assert_eq!(guest["networking"]["hostName"], "own");
    assert_eq!(guest["services"]["openssh"]["enable"], false);
    Ok(())
}

fn an_image_that_firmware_boots() -> Outcome {
    let flake = flake()?;
    let image = json!({
        "bootSize": "512M",
        "copyChannel": false,
        "diskSize": "auto",
        "domain": "example",
        "format": "raw",
        "label": "/dev/disk/by-label/nixos",
        "name": "virshle-guest",
        "partitionTableType": "efi",
    });
    assert_eq!(flake["image"], image);
    Ok(())
}
