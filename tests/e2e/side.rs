use std::net::{Ipv4Addr, Ipv6Addr};

use super::Stage;

/// A guest, with the addresses that this host gave it.
pub struct Side<'a> {
    stage: &'a Stage,
    name: &'static str,
    pub ip: Ipv4Addr,
    pub ip6: Ipv6Addr,
    pub gateway: Ipv4Addr,
    pub gateway6: Ipv6Addr,
    pub mac: String,
}

impl<'a> Side<'a> {
    pub fn of(stage: &'a Stage, name: &'static str) -> Self {
        let nic = stage.world.info(name)["spec"]["nics"][0].clone();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_else(|| panic!("{nic}")).to_owned();
        let address = |key: &str| text(&nic["address"][key]).split('/').next().expect("an address").to_owned();
        let ip6 = |key: &str| address(key).parse().expect("IPv6");
        let ip = |key: &str| address(key).parse().expect("IPv4");
        let mac = text(&nic["mac"]);
        Self { stage, name, ip: ip("ip"), ip6: ip6("ip6"), gateway: ip("gateway"), gateway6: ip6("gateway6"), mac }
    }

    pub fn said(&self, command: &str) -> String {
        self.stage.ssh(self.name, command).ok().stdout.trim().to_owned()
    }

    /// Does each of these in the guest, in one login; each prints one line.
    pub fn all_said<const N: usize>(&self, commands: [String; N]) -> [String; N] {
        let script = commands.iter().map(|command| format!("echo \"$({command})\"")).collect::<Vec<_>>().join("\n");
        let said = self.said(&script);
        let lines: Vec<String> = said.lines().map(str::to_owned).collect();
        lines.try_into().unwrap_or_else(|_| panic!("one line for each of {commands:#?}:\n{said}"))
    }
}
