//! This test binary as a process that works on the firewall: one that can be killed, with a `PATH`
//! of its own.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A child speaks to its test.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Output};

use virshle::network::firewall::{self, Port};
use virshle::spec::{Guard, NetworkSpec};

use super::lab::{TABLE, network, port};

const WORK: &str = "VIRSHLE_TEST_FIREWALL";

/// What it does, in the namespace of the caller, with `first` before everything else on its `PATH`.
pub fn command(work: &str, first: Option<&Path>) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.env(WORK, work).process_group(0);
    if let Some(first) = first {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(first.to_owned()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(dirs).expect("a path"));
    }
    command
}

/// Its words, or its failure's.
pub fn run(work: &str, first: Option<&Path>) -> Result<String, String> {
    let Output { status, stdout, stderr } = command(work, first).output().expect("it runs");
    match status.success() {
        true => Ok(String::from_utf8_lossy(&stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&stderr).trim().to_owned()),
    }
}

/// For `main`: `None` when this process is the suite.
pub fn as_a_child() -> Option<ExitCode> {
    let work = std::env::var(WORK).ok()?;
    let network = network("main", 44);
    let done = match work.split_once(' ').unwrap_or((&work, "")) {
        ("apply", which) => {
            let (networks, ports) = state(which);
            firewall::apply(TABLE, &networks, &ports).map(|()| String::new())
        }
        ("admit", _) => firewall::admit(&network).map(|zone| format!("{zone:?}")),
        ("dismiss", zone) => firewall::dismiss(&network, zone).map(|()| String::new()),
        ("obstacles", _) => firewall::obstacles(&network).map(|found| found.join("\n")),
        _ => return Some(ExitCode::from(99)),
    };
    Some(match done {
        Ok(words) => {
            println!("{words}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}\n{}", error.chain().join("\n"), error.hint_text().unwrap_or_default());
            ExitCode::from(error.kind().exit_code())
        }
    })
}

/// Two states of a host that have as much in common as they differ in.
fn state(which: &str) -> (Vec<NetworkSpec>, Vec<Port>) {
    let guard = Guard { rate: Some("10Mbit".parse().expect("a rate")), ..Guard::default() };
    let (one, two) = (network("main", 44), network("lab", 45));
    let ports = |network: &NetworkSpec, numbers: std::ops::Range<u8>| -> Vec<Port> {
        numbers.map(|number| port(network, number, Some(guard.clone()))).collect()
    };
    match which {
        "old" => (vec![one.clone()], ports(&one, 2..200)),
        _ => (vec![one.clone(), two.clone()], [ports(&one, 50..250), ports(&two, 2..50)].concat()),
    }
}
