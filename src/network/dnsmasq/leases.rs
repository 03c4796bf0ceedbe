//! Who was given an address, as dnsmasq notes it.
//!
//! ```text
//! 1795273819 02:00:00:00:00:07 10.44.0.9 web *            expiry, MAC, address, name, client id
//! duid 00:01:00:01:32:94:62:a2:0e:7c:1d:23:78:21          the server's own; IPv6 from here on
//! 1795273819 16777223 fd00::9 web 00:01:00:01:…           expiry, interface's number, address, name, client id
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::error::{Error, Result};
use crate::host::Timestamp;
use crate::spec::Mac;

/// An address that a guest was given when it asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub ip: IpAddr,
    /// Of IPv4; for IPv6 the guest gives another id.
    pub mac: Option<Mac>,
    /// Never one that the guest claims.
    pub name: Option<String>,
    /// `None`: never.
    pub expires: Option<Timestamp>,
    pub(super) client6: Option<Client6>,
}

/// Whose an IPv6 address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client6 {
    pub iaid: u32,
    pub duid: Vec<u8>,
}

/// What the file says: leases, and the server's own id if it has one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    pub leases: Vec<Lease>,
    pub server: Option<Vec<u8>>,
}

/// The addresses given out on the network whose folder is `dir`. None before its first start.
pub fn leases(dir: &Path) -> Result<Vec<Lease>> {
    Ok(noted(dir)?.leases)
}

pub(super) fn noted(dir: &Path) -> Result<Noted> {
    let path = dir.join(super::server::LEASES);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(parse(&String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Noted::default()),
        Err(error) => Err(Error::failed(format!("cannot read `{}`", path.display())).source(error)),
    }
}

/// A line of another form is skipped: a half one at the end while dnsmasq writes, or a later version's.
fn parse(text: &str) -> Noted {
    let mut noted = Noted::default();
    for line in text.lines() {
        if let Some(own) = line.strip_prefix("duid ") {
            noted.server = hex(own);
        } else if let Some(lease) = lease(line, noted.server.is_some()) {
            noted.leases.push(lease);
        }
    }
    noted
}

fn lease(line: &str, is_v6: bool) -> Option<Lease> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [expires, who, ip, name, client] = fields[..] else { return None };
    let expires = match expires.parse().ok()? {
        0 => None,
        seconds => Some(Timestamp::from_second(seconds).ok()?),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name != "*" && (name.is_empty() || !name.chars().all(plain)) {
        return None;
    }
    let name = (name != "*").then(|| name.to_owned());
    if is_v6 {
        let ip: Ipv6Addr = ip.parse().ok()?;
        // `T`: a temporary address.
        let iaid = who.strip_prefix('T').unwrap_or(who).parse().ok()?;
        let client6 = Some(Client6 { iaid, duid: hex(client)? });
        return Some(Lease { ip: ip.into(), mac: None, name, expires, client6 });
    }
    let ip: Ipv4Addr = ip.parse().ok()?;
    Some(Lease { ip: ip.into(), mac: Some(who.parse().ok()?), name, expires, client6: None })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let byte = |part: &str| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten();
    text.split(':').map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_and_nothing_else() {
        let noted = parse(
            "1795273819 02:00:00:00:00:07 10.44.0.9 vm7 *\n\
             0 02:00:00:00:00:08 10.44.0.252 * 01:02:00:00:00:00:08\n\
             1795273819 06-02:00:00:00:00:09 10.44.0.10 * *\n\
             1795273819 02:00:00:00:00:09 10.44.0.300 * *\n\
             1795273819 02:00:00:00:00:09 10.44.0.3 a\u{1b}[m *\n\
             1795273819 02:00:00:00:00:09 10.44.0.3 a b *\n\
             x 02:00:00:00:00:09 10.44.0.3 a *\n\
             99999999999999 02:00:00:00:00:09 10.44.0.3 a *\n\
             duid 00:01:00:01:32:94:62:a2:0e:7c:1d:23:78:21\n\
             1795273900 16777223 fd00:1::9 vm7 00:01:ff\n\
             1795273900 T5 fd00:1::a * 00:01:ff\n\
             1795273900 5 fd00:1::b * 0001ff\n\
             1795273900 16777",
        );
        let seen: Vec<_> = noted
            .leases
            .iter()
            .map(|lease| {
                let expires = lease.expires.map(Timestamp::as_second);
                (lease.ip.to_string(), lease.mac.map(|mac| mac.to_string()), lease.name.as_deref(), expires)
            })
            .collect();
        let row = |ip: &str, mac: Option<&str>, name, expires| (ip.to_owned(), mac.map(str::to_owned), name, expires);
        assert_eq!(
            seen,
            [
                row("10.44.0.9", Some("02:00:00:00:00:07"), Some("vm7"), Some(1_795_273_819)),
                row("10.44.0.252", Some("02:00:00:00:00:08"), None, None),
                row("fd00:1::9", None, Some("vm7"), Some(1_795_273_900)),
                row("fd00:1::a", None, None, Some(1_795_273_900)),
            ]
        );
        assert_eq!(noted.server.as_deref().map(<[u8]>::len), Some(14));
        assert_eq!(noted.leases[2].client6, Some(Client6 { iaid: 16_777_223, duid: vec![0, 1, 0xff] }));
    }

    #[test]
    fn no_file_is_no_lease() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(leases(dir.path()).unwrap(), []);
    }
}
