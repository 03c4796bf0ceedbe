//! What a guest is told at its first boot, as cloud-init's NoCloud source reads it: three documents
//! made of data, serialised once. They are JSON, which cloud-init's YAML reader takes as it is and
//! in which no character of a name, a key or a comment can mean anything else. The fourth is the
//! same for every guest.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::mime::{self, Body, CLOUD_CONFIG};
use super::seed::Seed;
use crate::error::Result;
use crate::spec::{Name, Nic};
use crate::template::User;

/// The first line of a cloud-config.
pub(super) const HEAD: &str = "#cloud-config\n";

pub(super) fn meta_data(seed: &Seed) -> String {
    document(&json!({ "instance-id": seed.instance, "local-hostname": seed.hostname }))
}

/// One cloud-config, or an archive of it and the raw parts.
///
/// In an archive ours stands in two pieces around theirs. Before: who the machine and its users
/// are, which stays and is added to. After: what we would choose, where they have not chosen. A
/// part that cannot carry the merge header (an archive, an include) follows cloud-init's default
/// instead: its keys replace those before it.
pub(super) fn user_data(seed: &Seed) -> Result<String> {
    let (ours, defaults) = (identity(seed), defaults(seed));
    if seed.parts.is_empty() {
        let mut all = ours;
        all.extend(defaults);
        let text = cloud_config(all);
        // cloud-init takes a text with these words near its beginning for a MIME message.
        if !text.to_ascii_lowercase().contains("mime-version:") {
            return Ok(text);
        }
        let name = "virshle.cfg".to_owned();
        return Ok(mime::multipart(&[Body { name, kind: CLOUD_CONFIG, content: text.as_bytes() }]));
    }
    let (ours, defaults) = (cloud_config(ours), cloud_config(defaults));
    let own = |name: &str| (name.to_owned(), CLOUD_CONFIG);
    let mut bodies = Vec::with_capacity(seed.parts.len() + 2);
    let (name, kind) = own("virshle.cfg");
    bodies.push(Body { name, kind, content: ours.as_bytes() });
    for part in &seed.parts {
        bodies.push(Body { name: part.name.clone(), kind: mime::content_type(part)?, content: &part.content });
    }
    let (name, kind) = own("virshle-defaults.cfg");
    bodies.push(Body { name, kind, content: defaults.as_bytes() });
    Ok(mime::multipart(&bodies))
}

/// The meta-data with another host name; `None` when it is not as [`meta_data`] makes it.
pub(super) fn rename_meta_data(text: &str, hostname: &Name) -> Option<String> {
    set(text, "local-hostname", hostname)
}

/// The user-data with another host name; `None` when it is not as [`user_data`] makes it. What
/// else stands in it, and what others supplied, stays to the byte.
pub(super) fn rename_user_data(text: &str, hostname: &Name) -> Option<String> {
    let rename = |text: &str| Some(format!("{HEAD}{}", set(text.strip_prefix(HEAD)?, "hostname", hostname)?));
    if text.starts_with(HEAD) { rename(text) } else { mime::edit_first(text, rename) }
}

fn set(document_text: &str, key: &str, hostname: &Name) -> Option<String> {
    let mut value: Value = serde_json::from_str(document_text).ok()?;
    *value.get_mut(key)? = json!(hostname);
    Some(document(&value))
}

/// Version 2, each NIC found by its MAC: what the guest calls it is the guest's business.
pub(super) fn network_config(nics: &[Nic]) -> String {
    let ethernets: Map<String, Value> = nics.iter().map(|nic| (format!("nic{}", nic.index), ethernet(nic))).collect();
    document(&json!({ "version": 2, "ethernets": ethernets }))
}

fn ethernet(nic: &Nic) -> Value {
    let mut entry = Map::new();
    entry.insert("match".into(), json!({ "macaddress": nic.mac }));
    if let Some(mtu) = nic.mtu {
        entry.insert("mtu".into(), mtu.into());
    }
    let Some(address) = &nic.address else {
        entry.insert("dhcp4".into(), true.into());
        return entry.into();
    };
    entry.insert("dhcp4".into(), false.into());
    let mut addresses = vec![IpNet::V4(address.ip)];
    addresses.extend(address.ip6.map(IpNet::V6));
    entry.insert("addresses".into(), json!(addresses));
    if address.ip6.is_some() {
        // All of it is here. Renderers that do not know the word for a static address (networkd
        // before 24.1) take the router's advertisement too, which says the same.
        entry.insert("accept-ra".into(), false.into());
    }
    // Not `default`: cloud-init's own renderers before 23.1 do not know the word, and `gateway4` is
    // deprecated. They make `::/64` of `::/0` too, and their guests have IPv6's default route from
    // the advertisement. One that can write a single route only takes the first one's family: IPv4.
    let route = |to: &str, via: IpAddr| json!({ "to": to, "via": via });
    let mut routes = Vec::new();
    routes.extend(address.gateway.map(|gateway| route("0.0.0.0/0", gateway.into())));
    routes.extend(address.gateway6.filter(|_| address.ip6.is_some()).map(|gateway| route("::/0", gateway.into())));
    if !routes.is_empty() {
        entry.insert("routes".into(), routes.into());
    }
    let mut nameservers = Map::new();
    if !address.dns.is_empty() {
        nameservers.insert("addresses".into(), json!(address.dns));
    }
    if let Some(domain) = &address.domain {
        nameservers.insert("search".into(), json!([domain]));
    }
    if !nameservers.is_empty() {
        entry.insert("nameservers".into(), nameservers.into());
    }
    entry.into()
}

/// Without users there is no `users` key: the image's own default user is made as ever, without a
/// key or password of ours.
fn identity(seed: &Seed) -> Map<String, Value> {
    let mut config = Map::new();
    config.insert("hostname".into(), json!(seed.hostname));
    config.insert("preserve_hostname".into(), false.into());
    if !seed.users.users.is_empty() {
        config.insert("users".into(), seed.users.users.iter().map(user).collect());
    }
    config
}

fn user(user: &User) -> Value {
    let mut entry = Map::new();
    entry.insert("name".into(), json!(user.name));
    if !user.ssh.authorized_keys.is_empty() {
        entry.insert("ssh_authorized_keys".into(), json!(user.ssh.authorized_keys));
    }
    if user.sudo {
        entry.insert("sudo".into(), "ALL=(ALL) NOPASSWD:ALL".into());
    }
    // Without a shell the guest's own default is taken: not every guest has a bash in /bin.
    if let Some(shell) = &user.shell {
        entry.insert("shell".into(), json!(shell));
    }
    entry.insert("lock_passwd".into(), user.password_hash.is_none().into());
    if let Some(hash) = &user.password_hash {
        entry.insert("passwd".into(), json!(hash));
    }
    entry.into()
}

fn defaults(seed: &Seed) -> Map<String, Value> {
    let users = &seed.users.users;
    let only_password = |user: &User| user.password_hash.is_some() && user.ssh.authorized_keys.is_empty();
    let mut config = Map::new();
    // Passwords are for the console; over ssh only when somebody has nothing else.
    config.insert("ssh_pwauth".into(), users.iter().any(only_password).into());
    config.insert("disable_root".into(), (!users.iter().any(|user| user.name == "root")).into());
    // The guest's own name resolves in it, and the rest of its /etc/hosts stays as it is.
    config.insert("manage_etc_hosts".into(), "localhost".into());
    config
}

fn cloud_config(config: Map<String, Value>) -> String {
    format!("{HEAD}{}", document(&config.into()))
}

/// JSON that is YAML too: characters that YAML does not allow, or takes for a line's end, are
/// written by their number.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    for c in format!("{value:#}").chars() {
        match c {
            '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {

    use super::super::mime::Part;
    use super::super::mime::tests::read_back;
    use super::super::seed::tests::{nic, seed, user as named};
    use super::*;

    fn json_of(text: &str) -> Value {
        serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap_or(text)).unwrap()
    }

    #[test]
    fn every_character_reads_back_in_json_and_in_yaml() {
        let rows = [
            "plain",
            "it's \"quoted\": yes # no comment",
            "$(rm -rf /) `id` ${HOME} {{ v1.x }} {% raw %}",
            "line\nbreak\r\n\ttab\0nul",
            "\u{7f}\u{85}\u{a0}\u{2028}\u{2029}\u{feff}\u{ffff}",
            "żółć 漢字 😀",
            "- [x]: {y}, &a *b !c |d >e %f @g",
            "mime-version: 1.0",
            &"A".repeat(300),
            &"B".repeat(8 << 10),
        ];
        for text in rows {
            let mut seed = seed();
            seed.users.users = vec![named(text)];
            seed.users.users[0].ssh.authorized_keys = vec![text.to_owned(); 2];
            let document = user_data(&seed).unwrap();
            let document = match document.strip_prefix("Content-Type: ") {
                Some(_) => String::from_utf8(read_back(&document)[0].1.clone()).unwrap(),
                None => document,
            };
            let yaml: Value = serde_yaml_ng::from_str(&document).unwrap();
            assert_eq!(yaml, json_of(&document), "{text:?}");
            assert_eq!(yaml["users"][0]["name"], text, "{text:?}");
            assert_eq!(yaml["users"][0]["ssh_authorized_keys"], json!([text, text]), "{text:?}");
        }
    }

    #[test]
    fn users() {
        let mut seed = seed();
        assert_eq!(json_of(&user_data(&seed).unwrap()).get("users"), None, "no users: the key is left out");

        seed.users.users = vec![named("ann"), named("bob")];
        seed.users.users[0].sudo = true;
        seed.users.users[0].ssh.authorized_keys = vec!["ssh-ed25519 AAAA ann".into()];
        seed.users.users[0].shell = Some("/bin/zsh".into());
        seed.users.users[1].password_hash = Some("$6$salt$hash".into());
        let config = json_of(&user_data(&seed).unwrap());
        assert_eq!(
            config["users"],
            json!([
                {
                    "name": "ann",
                    "ssh_authorized_keys": ["ssh-ed25519 AAAA ann"],
                    "sudo": "ALL=(ALL) NOPASSWD:ALL",
                    "shell": "/bin/zsh",
                    "lock_passwd": true,
                },
                { "name": "bob", "lock_passwd": false, "passwd": "$6$salt$hash" },
            ])
        );
        assert_eq!(config["ssh_pwauth"], true, "bob has only a password");
        assert_eq!(config["disable_root"], true);

        seed.users.users[1].ssh.authorized_keys = vec!["ssh-ed25519 BBBB bob".into()];
        assert_eq!(json_of(&user_data(&seed).unwrap())["ssh_pwauth"], false, "bob has a key now");
        seed.users.users[0].name = "root".into();
        assert_eq!(json_of(&user_data(&seed).unwrap())["disable_root"], false, "root was asked for");
    }

    #[test]
    fn raw_parts_stand_between_who_it_is_and_our_defaults() {
        let mut seed = seed();
        let raw = "#cloud-config\nssh_pwauth: true\nusers:\n- name: carol\n".to_owned();
        let script = "#!/bin/sh\necho 'x' \"y\" > /tmp/é\n".to_owned();
        seed.parts = vec![
            Part { name: "more.yaml".into(), content: raw.clone().into() },
            Part { name: "run.sh".into(), content: script.clone().into() },
        ];
        let bodies = read_back(&user_data(&seed).unwrap());
        assert_eq!(bodies.len(), 4);
        assert!(json_of(std::str::from_utf8(&bodies[0].1).unwrap()).get("ssh_pwauth").is_none());
        assert_eq!((&bodies[1].1, &bodies[2].1), (&raw.into_bytes(), &script.into_bytes()));
        assert_eq!(json_of(std::str::from_utf8(&bodies[3].1).unwrap())["ssh_pwauth"], false);
        for (index, merges) in [true, true, false, true].into_iter().enumerate() {
            assert_eq!(bodies[index].0.contains("Merge-Type: list(append)"), merges, "{}", bodies[index].0);
        }
        assert!(bodies[2].0.contains("text/x-shellscript"), "{}", bodies[2].0);

        seed.parts.push(Part { name: "odd.txt".into(), content: b"hello".into() });
        assert!(user_data(&seed).unwrap_err().message().contains("`odd.txt`"));
    }

    #[test]
    fn networks() {
        let config = json_of(&network_config(&[
            nic(0, Some(("10.44.0.5/24", Some("10.44.0.1"), &["10.44.0.1", "fd00::1"]))),
            nic(1, None),
            nic(2, Some(("10.45.0.5/16", None, &[]))),
        ]));
        let mac = |index: usize| config["ethernets"][format!("nic{index}")]["match"]["macaddress"].clone();
        assert_eq!(
            config,
            json!({
                "version": 2,
                "ethernets": {
                    "nic0": {
                        "match": { "macaddress": mac(0) },
                        "dhcp4": false,
                        "addresses": ["10.44.0.5/24"],
                        "routes": [{ "to": "0.0.0.0/0", "via": "10.44.0.1" }],
                        "nameservers": { "addresses": ["10.44.0.1", "fd00::1"] },
                    },
                    "nic1": { "match": { "macaddress": mac(1) }, "dhcp4": true },
                    "nic2": { "match": { "macaddress": mac(2) }, "dhcp4": false, "addresses": ["10.45.0.5/16"] },
                },
            })
        );
        let mac = mac(1);
        assert_eq!(mac.as_str().unwrap(), nic(1, None).mac.to_string());
        assert_eq!(mac.as_str().unwrap(), mac.as_str().unwrap().to_lowercase());
    }
    #[test]
    fn a_kept_network() {
        let dns: &[&str] = &["10.44.0.1", "fd00:1:2::1"];
        let mut nics = [nic(0, Some(("10.44.0.5/24", Some("10.44.0.1"), dns))), nic(1, None), nic(2, None)];
        let address = nics[0].address.as_mut().unwrap();
        address.ip6 = Some("fd00:1:2::5/64".parse().unwrap());
        address.gateway6 = Some("fd00:1:2::1".parse().unwrap());
        address.domain = Some("vm".to_owned());
        nics[0].mtu = Some(1400);
        nics[1].mtu = Some(9000);
        // It reaches its neighbours, and nothing else.
        nics[2].address = nics[0].address.clone();
        let alone = nics[2].address.as_mut().unwrap();
        (alone.gateway, alone.gateway6, alone.dns) = (None, None, Vec::new());
        let config = json_of(&network_config(&nics));
        let mac = |index: usize| nics[index].mac.to_string();
        assert_eq!(
            config["ethernets"],
            json!({
                "nic0": {
                    "match": { "macaddress": mac(0) },
                    "mtu": 1400,
                    "dhcp4": false,
                    "addresses": ["10.44.0.5/24", "fd00:1:2::5/64"],
                    "accept-ra": false,
                    "routes": [
                        { "to": "0.0.0.0/0", "via": "10.44.0.1" },
                        { "to": "::/0", "via": "fd00:1:2::1" },
                    ],
                    "nameservers": { "addresses": ["10.44.0.1", "fd00:1:2::1"], "search": ["vm"] },
                },
                "nic1": { "match": { "macaddress": mac(1) }, "mtu": 9000, "dhcp4": true },
                "nic2": {
                    "match": { "macaddress": mac(2) },
                    "dhcp4": false,
                    "addresses": ["10.44.0.5/24", "fd00:1:2::5/64"],
                    "accept-ra": false,
                    "nameservers": { "search": ["vm"] },
                },
            })
        );
    }
}
