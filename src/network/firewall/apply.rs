//! One transaction of `nft`: the kernel takes all of it or nothing, whoever is killed on the way.

use std::time::Duration;

use super::text::{is_plain, removal};
use super::{Port, ruleset};
use crate::error::{Error, Result};
use crate::host::{Program, ProgramError};
use crate::spec::NetworkSpec;

/// A thousand VMs take a second.
const DEADLINE: Duration = Duration::from_secs(30);

/// Makes both tables what they should be; without a network and a port they are removed. The caller
/// holds the lock of all networks.
pub fn apply(table: &str, networks: &[NetworkSpec], ports: &[Port]) -> Result<()> {
    let devices = networks.iter().map(NetworkSpec::device).chain(ports.iter().map(|port| port.port.clone()));
    for device in devices {
        if !is_plain(&device) {
            return Err(Error::refused(format!("no firewall rule can name the interface `{}`", device.escape_debug()))
                .hint("its name must be 1 to 15 letters, digits, `_`, `.` or `-`"));
        }
    }
    let nothing = networks.is_empty() && ports.is_empty();
    let text = match nothing {
        true => ["inet", "bridge"].map(|family| removal(family, table)).concat(),
        false => ruleset(table, networks, ports),
    };
    match Program::new("nft").args(["-f", "-"]).input(text.as_str()).deadline(DEADLINE).run() {
        Ok(_) => Ok(()),
        // Nor can it have been there when the tables were made.
        Err(ProgramError::Missing { .. }) if nothing => Ok(()),
        Err(error) => Err(explain(&text, error)),
    }
}

/// Whether the host has our table. A kernel that cannot say has none.
pub fn is_there(table: &str) -> Result<bool> {
    match Program::new("nft").args(["list", "tables", "inet"]).deadline(DEADLINE).run() {
        Ok(output) => {
            let line = format!("table inet {table}");
            Ok(output.text().lines().any(|found| found == line))
        }
        Err(error @ ProgramError::Missing { .. }) => Err(missing(error)),
        Err(error) => Err(explain("", error)),
    }
}

pub(super) fn missing(error: ProgramError) -> Error {
    Error::failed(error.to_string()).hint(
        "install nftables (package `nftables`, on NixOS `environment.systemPackages = [ pkgs.nftables ]`), or use a \
         network of type `user`",
    )
}

fn explain(text: &str, error: ProgramError) -> Error {
    let ProgramError::Failed { stderr, .. } = &error else {
        return match error {
            ProgramError::Missing { .. } => missing(error),
            error => Error::failed("cannot write the firewall table").source(error),
        };
    };
    if stderr.contains("Operation not permitted") {
        return Error::failed("cannot write the firewall table")
            .source(error)
            .hint("run as root, or use a network of type `user`");
    }
    let complaint = complaint(stderr);
    let line = complaint.line.and_then(|line| text.lines().nth(line.checked_sub(1)?)).map(str::trim);
    let message = match line {
        Some(line) => format!("`nft` refuses the line `{line}`: {}", complaint.words),
        None => format!("`nft` refuses the firewall table: {}", complaint.words),
    };
    let hint = if complaint.words.contains("not supported") || complaint.words.contains("No such file") {
        "the running kernel lacks a part of nftables: see that its modules are those of the running kernel \
         (`modprobe nf_tables`), or reboot into the installed one"
    } else {
        "`nft list ruleset` shows what is loaded"
    };
    Error::failed("cannot write the firewall table").source(message).hint(hint)
}

struct Complaint<'a> {
    line: Option<usize>,
    words: &'a str,
}

/// `/dev/stdin:12:3-8: Error: syntax error, unexpected foo`
fn complaint(stderr: &str) -> Complaint<'_> {
    let whole = || Complaint { line: None, words: stderr.lines().next().unwrap_or_default().trim() };
    let found = stderr.lines().find_map(|line| line.split_once(": Error: "));
    let Some((place, words)) = found else { return whole() };
    let line = place.split(':').nth(1).and_then(|number| number.parse().ok());
    Complaint { line, words: words.trim() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_nft_refuses_is_shown() {
        let text = "add table inet x\ntable inet x {\n\tchain arp {\n\t}\n}\n";
        let failed = |stderr: &str| {
            explain(
                text,
                ProgramError::Failed {
                    program: "nft".into(),
                    status: "exit code 1".into(),
                    code: Some(1),
                    stderr: stderr.into(),
                },
            )
        };
        let error = failed(
            "/dev/stdin:3:8-10: Error: syntax error, unexpected arp, expecting string\n\tchain arp {\n\t      ^^^\n",
        );
        assert_eq!(
            error.chain()[1],
            "`nft` refuses the line `chain arp {`: syntax error, unexpected arp, expecting string"
        );
        let error = failed("/dev/stdin:1:1-17: Error: Could not process rule: Operation not supported\n");
        assert!(error.chain()[1].contains("`add table inet x`"), "{error:?}");
        assert!(error.hint_text().unwrap().contains("kernel"), "{error:?}");
        let error = failed("internal:0:0-0: Error: Could not process rule: Operation not permitted\n");
        assert!(error.hint_text().unwrap().contains("root"), "{error:?}");
        assert!(failed("").chain()[1].contains("nft"));
    }
}
