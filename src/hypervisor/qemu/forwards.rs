//! The ports of this host that lead to a `user` NIC, changed while the guest runs.
//!
//! QMP has no command for them, so they go through the human monitor: what it answers is text, and
//! nothing where all went well. Every part of a command is a number, an address or a word of ours.

use std::net::Ipv4Addr;

use serde_json::json;

use super::machine::CALL;
use super::qmp::{Qmp, QmpError};
use crate::spec::{Forward, Protocol};

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error("QEMU said of `{command}`: {answer}")]
    Refused { command: String, answer: String },
    #[error("`{0}` does not lead to the guest")]
    Missing(Forward),
}

/// Makes `wanted` the ports of this netdev: those that are not wanted go first, and a port that is
/// there stays as it is, with its connections.
pub(super) async fn set(qmp: &mut Qmp, netdev: &str, wanted: &[Forward]) -> Result<(), Failure> {
    let there = list(qmp, netdev).await?;
    for forward in there.iter().filter(|forward| !wanted.contains(forward)) {
        let Forward { host_port, protocol, .. } = forward;
        let command = format!("hostfwd_remove {netdev} {protocol}:{}:{host_port}", host(forward));
        let answer = monitor(qmp, &command).await?;
        if !answer.ends_with("removed") {
            return Err(Failure::Refused { command, answer });
        }
    }
    for forward in wanted.iter().filter(|forward| !there.contains(forward)) {
        let Forward { host_port, guest_port, protocol, .. } = forward;
        let command = format!("hostfwd_add {netdev} {protocol}:{}:{host_port}-:{guest_port}", host(forward));
        let answer = monitor(qmp, &command).await?;
        if !answer.is_empty() {
            return Err(Failure::Refused { command, answer });
        }
    }
    let there = list(qmp, netdev).await?;
    match wanted.iter().find(|forward| !there.contains(forward)) {
        None => Ok(()),
        Some(missing) => Err(Failure::Missing(missing.clone())),
    }
}

fn host(forward: &Forward) -> String {
    forward.host.map(|host| host.to_string()).unwrap_or_default()
}

async fn list(qmp: &mut Qmp, netdev: &str) -> Result<Vec<Forward>, QmpError> {
    Ok(parse(&monitor(qmp, "info usernet").await?, netdev))
}

async fn monitor(qmp: &mut Qmp, command: &str) -> Result<String, QmpError> {
    let arguments = json!({ "command-line": command });
    let answer = qmp.execute("human-monitor-command", Some(arguments), CALL).await?;
    Ok(answer.as_str().unwrap_or_default().trim().to_owned())
}

/// The forwards of one netdev: `TCP[HOST_FORWARD] FD ADDRESS PORT ADDRESS PORT …` in its paragraph.
fn parse(text: &str, netdev: &str) -> Vec<Forward> {
    let heading = format!("({netdev}):");
    let mut lines = text.lines().skip_while(|line| !line.trim_end().ends_with(&heading)).skip(1);
    let own = lines.by_ref().take_while(|line| !line.trim_end().ends_with("):"));
    own.filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [kind, _, address, port, _, guest_port, ..] = words[..] else { return None };
        let protocol = match kind.strip_suffix("[HOST_FORWARD]")? {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => return None,
        };
        let host = match address {
            "*" => None,
            address => Some(address.parse::<Ipv4Addr>().ok()?),
        };
        Some(Forward { host, host_port: port.parse().ok()?, guest_port: guest_port.parse().ok()?, protocol })
    })
    .collect()
}
