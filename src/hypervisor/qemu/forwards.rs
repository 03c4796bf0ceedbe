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

/// Makes `wanted` the ports of this netdev; where that fails, they are what they were.
pub(super) async fn set(qmp: &mut Qmp, netdev: &str, wanted: &[Forward]) -> Result<(), Failure> {
    let before = list(qmp, netdev).await?;
    let done = change(qmp, netdev, &before, wanted).await;
    if done.is_err() {
        let there = list(qmp, netdev).await?;
        if let Err(error) = change(qmp, netdev, &there, &before).await {
            tracing::warn!(error = &error as &dyn std::error::Error, netdev, "forwarded ports not put back");
        }
    }
    done
}

/// Those that are not wanted go first: another may take their place. One that is there stays as it
/// is, with its connections.
async fn change(qmp: &mut Qmp, netdev: &str, there: &[Forward], wanted: &[Forward]) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What QEMU 7.2 wrote of two NICs, one of which had a connection.
    const CAPTURED: &str = "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[SYN_SENT]      15       127.0.0.1 22221       10.0.2.15    22     0     0\r\n  TCP[HOST_FORWARD]   9       127.0.0.1 22221       10.0.2.15    22     0     0\r\n  UDP[HOST_FORWARD]   8               * 25353       10.0.2.15    53     0     0\r\nHub -1 (net1):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]  11               * 28080       10.0.2.15    80     0     0\r\n";

    #[test]
    fn each_netdev_has_its_own() {
        let rows = [("net0", vec!["127.0.0.1:22221:22", "25353:53/udp"]), ("net1", vec!["28080:80"]), ("net", vec![])];
        for (netdev, expected) in rows {
            let expected: Vec<Forward> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(parse(CAPTURED, netdev), expected, "{netdev}");
        }
        assert_eq!(parse("", "net0"), []);
    }
}
