//! The host's other rules that stop what ours let through. They are somebody else's: what they need
//! is said, not done.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::apply::missing;
use crate::error::{Error, OrFailed, Result};
use crate::host::{Program, ProgramError};
use crate::spec::NetworkSpec;

/// What is in the way of the network's guests, each with its remedy; empty when nothing is.
pub fn obstacles(network: &NetworkSpec) -> Result<Vec<String>> {
    if network.host.is_none() {
        return Ok(Vec::new());
    }
    let listed = match Program::new("nft").args(["-j", "list", "ruleset"]).run() {
        Ok(output) => output.stdout,
        Err(error @ ProgramError::Missing { .. }) => return Err(missing(error)),
        Err(error) => return Err(Error::failed("cannot read the host's firewall rules").source(error)),
    };
    let rules =
        Rules::parse(&listed).or_failed(|| "`nft -j list ruleset` gave an answer that cannot be read".into())?;
    Ok(rules.in_the_way(&network.device(), network.host.as_ref().is_some_and(|host| !host.isolated)))
}

#[derive(Debug, Deserialize)]
struct Listing {
    nftables: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    family: String,
    table: String,
    chain: String,
    #[serde(default)]
    expr: Vec<Value>,
}

#[derive(Debug, Default)]
struct Rules {
    chains: Vec<Chain>,
    rules: Vec<Rule>,
}

/// Who writes the rules of a chain, which says how to change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Docker,
    Ufw,
    Nixos,
    Unknown,
}

impl Rules {
    fn parse(listed: &[u8]) -> serde_json::Result<Self> {
        let listing: Listing = serde_json::from_slice(listed)?;
        let mut all = Self::default();
        for mut object in listing.nftables {
            if let Some(chain) = object.get_mut("chain") {
                all.chains.push(serde_json::from_value(chain.take())?);
            } else if let Some(rule) = object.get_mut("rule") {
                all.rules.push(serde_json::from_value(rule.take())?);
            }
        }
        Ok(all)
    }

    fn in_the_way(&self, device: &str, forwards: bool) -> Vec<String> {
        let mut found = Vec::new();
        for chain in &self.chains {
            let hook = match chain.hook.as_deref() {
                Some("input") => "input",
                Some("forward") if forwards => "forward",
                _ => continue,
            };
            let is_for_ip = matches!(chain.family.as_str(), "ip" | "ip6" | "inet");
            if !is_for_ip || chain.kind.as_deref() != Some("filter") {
                continue;
            }
            let below = self.below(chain);
            let owner = owner(chain, &below, hook);
            // The one of iptables on NixOS refuses in a rule at its end.
            let refuses = chain.policy.as_deref() == Some("drop") || below.contains("nixos-fw");
            if refuses && !self.knows(chain, &below, device) {
                found.push(sentence(chain, owner, hook, device));
            }
        }
        found
    }

    /// The names of the chains that the chain leads to, itself too.
    fn below<'a>(&'a self, chain: &'a Chain) -> BTreeSet<&'a str> {
        let mut names = BTreeSet::new();
        let mut next = vec![chain.name.as_str()];
        while let Some(name) = next.pop() {
            if names.insert(name) {
                for rule in self.of(chain).filter(|rule| rule.chain == name) {
                    rule.expr.iter().for_each(|expr| targets(expr, &mut next));
                }
            }
        }
        // A chain that is reached through a named map is not seen in a rule.
        let of_table = self.chains.iter().filter(|other| same_table(other, chain) && other.hook.is_none());
        names.extend(of_table.map(|other| other.name.as_str()).filter(|name| *name == "nixos-fw"));
        names
    }

    fn of<'a>(&'a self, chain: &'a Chain) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| rule.family == chain.family && rule.table == chain.table)
    }

    /// Whether a rule for the device leads on from there: then somebody has seen to it.
    fn knows(&self, chain: &Chain, below: &BTreeSet<&str>, device: &str) -> bool {
        self.of(chain).filter(|rule| below.contains(rule.chain.as_str())).any(|rule| {
            let named = rule.expr.iter().any(|expr| names(expr, device));
            let leads_on = ["accept", "jump", "goto", "vmap"]
                .iter()
                .any(|verdict| rule.expr.iter().any(|expr| expr.get(verdict).is_some()));
            named && leads_on
        })
    }
}

fn same_table(one: &Chain, two: &Chain) -> bool {
    one.family == two.family && one.table == two.table
}

/// The chains that an expression jumps to, also in an anonymous map.
fn targets<'a>(expr: &'a Value, found: &mut Vec<&'a str>) {
    match expr {
        Value::Object(fields) => {
            for (key, value) in fields {
                if matches!(key.as_str(), "jump" | "goto") {
                    found.extend(value.get("target").and_then(Value::as_str));
                } else {
                    targets(value, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| targets(value, found)),
        _ => {}
    }
}

/// Whether it compares an interface with that one: alone, in a set, or in a map.
fn names(expr: &Value, device: &str) -> bool {
    let Some(text) = expr.get("match").or_else(|| expr.get("vmap")) else { return false };
    let is_interface = |value: &Value| {
        let key = value.get("meta").and_then(|meta| meta.get("key")).and_then(Value::as_str);
        matches!(key, Some("iifname" | "oifname" | "iif" | "oif"))
    };
    let (side, values) = match (text.get("left"), text.get("right"), text.get("key"), text.get("data")) {
        (Some(left), Some(right), ..) => (left, right),
        (.., Some(key), Some(data)) => (key, data),
        _ => return false,
    };
    is_interface(side) && text.get("op").is_none_or(|op| op == "==" || op == "in") && holds(values, device)
}

fn holds(value: &Value, device: &str) -> bool {
    match value {
        Value::String(name) => match name.strip_suffix('*') {
            Some(start) => device.starts_with(start),
            None => name == device,
        },
        Value::Array(values) => values.iter().any(|value| holds(value, device)),
        Value::Object(fields) => fields.get("set").is_some_and(|set| holds(set, device)),
        _ => false,
    }
}

fn owner(chain: &Chain, below: &BTreeSet<&str>, hook: &str) -> Owner {
    if below.contains("DOCKER-USER") && hook == "forward" {
        Owner::Docker
    } else if below.iter().any(|name| name.starts_with("ufw-") || name.starts_with("ufw6-")) {
        Owner::Ufw
    } else if chain.table == "nixos-fw" || below.contains("nixos-fw") {
        Owner::Nixos
    } else {
        Owner::Unknown
    }
}

fn sentence(chain: &Chain, owner: Owner, hook: &str, device: &str) -> String {
    let Chain { family, table, name, .. } = chain;
    let what = match (hook, owner) {
        ("input", _) => "keeps guests from this host's DHCP and DNS",
        (_, Owner::Nixos) => "keeps guests from going out",
        _ => "keeps guests from going out, and others from their forwards",
    };
    let iptables = if family == "ip6" { "ip6tables" } else { "iptables" };
    let (who, remedy) = match (owner, hook) {
        (Owner::Docker, _) => (
            "Docker".to_owned(),
            format!(
                "`{iptables} -I DOCKER-USER -i {device} -j ACCEPT` and `{iptables} -I DOCKER-USER -o {device} -j ACCEPT`"
            ),
        ),
        (Owner::Ufw, "input") => ("ufw".to_owned(), format!("`ufw allow in on {device}`")),
        (Owner::Ufw, _) => {
            ("ufw".to_owned(), format!("`ufw route allow in on {device}` and `ufw route allow out on {device}`"))
        }
        (Owner::Nixos, "input") => (
            "the NixOS firewall".to_owned(),
            format!("set `networking.firewall.trustedInterfaces = [ \"{device}\" ];`"),
        ),
        (Owner::Nixos, _) => (
            "the NixOS firewall".to_owned(),
            format!("set `networking.firewall.extraForwardRules = ''iifname \"{device}\" accept'';`"),
        ),
        (Owner::Unknown, "input") => (
            format!("the chain `{family} {table} {name}`"),
            format!("`nft insert rule {family} {table} {name} iifname {device} accept`"),
        ),
        (Owner::Unknown, _) => (
            format!("the chain `{family} {table} {name}`"),
            format!(
                "`nft insert rule {family} {table} {name} iifname {device} accept` and \
                 `nft insert rule {family} {table} {name} oifname {device} accept`"
            ),
        ),
    };
    format!("{who} {what} on `{device}`: {remedy}")
}
