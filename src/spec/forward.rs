//! A port of the host that leads to one of a guest.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `[ADDRESS:]HOST-PORT:GUEST-PORT[/tcp|/udp]`: `8080:80`, `127.0.0.1:2222:22/tcp`, `5353:53/udp`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Forward {
    /// The host's address; `None`: every one of them.
    pub host: Option<Ipv4Addr>,
    pub host_port: u16,
    pub guest_port: u16,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    #[error("`{}` is no forward, which is written like `8080:80`, `127.0.0.1:2222:22/tcp` or `5353:53/udp`", .0.escape_debug())]
    Form(String),
    #[error("`{}` is no port, which is a number from 1 to 65535", .0.escape_debug())]
    Port(String),
    #[error("`{}` is no IPv4 address of the host", .0.escape_debug())]
    Address(String),
}

impl Forward {
    /// Whether both would listen at the same place.
    pub fn clashes(&self, other: &Self) -> bool {
        let same_host = match (self.host, other.host) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        };
        self.protocol == other.protocol && self.host_port == other.host_port && same_host
    }
}

impl FromStr for Forward {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let form = || ForwardError::Form(text.to_owned());
        let (ports, protocol) = match text.rsplit_once('/') {
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(form()),
            None => (text, Protocol::Tcp),
        };
        let mut parts = ports.rsplitn(3, ':');
        let guest_port = port(parts.next().ok_or_else(form)?)?;
        let host_port = port(parts.next().ok_or_else(form)?)?;
        let host = match parts.next() {
            None => None,
            Some(address) => {
                let address: Ipv4Addr = address.parse().map_err(|_| ForwardError::Address(address.to_owned()))?;
                (!address.is_unspecified()).then_some(address)
            }
        };
        Ok(Self { host, host_port, guest_port, protocol })
    }
}

fn port(text: &str) -> Result<u16, ForwardError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = digits.then(|| text.parse().ok()).flatten().filter(|port: &u16| *port > 0);
    port.ok_or_else(|| ForwardError::Port(text.to_owned()))
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = self.host {
            write!(f, "{host}:")?;
        }
        write!(f, "{}:{}/{}", self.host_port, self.guest_port, self.protocol)
    }
}

impl From<Forward> for String {
    fn from(forward: Forward) -> Self {
        forward.to_string()
    }
}

impl TryFrom<String> for Forward {
    type Error = ForwardError;

    fn try_from(text: String) -> Result<Self, ForwardError> {
        text.parse()
    }
}

impl schemars::JsonSchema for Forward {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Forward".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "`[ADDRESS:]HOST-PORT:GUEST-PORT[/tcp|/udp]`",
            "type": "string",
            "pattern": "^([0-9]{1,3}(\\.[0-9]{1,3}){3}:)?[0-9]{1,5}:[0-9]{1,5}(/(tcp|udp))?$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_read_and_written() {
        let rows = [
            ("8080:80", "8080:80/tcp"),
            ("127.0.0.1:2222:22/tcp", "127.0.0.1:2222:22/tcp"),
            ("5353:53/udp", "5353:53/udp"),
            ("0.0.0.0:80:80", "80:80/tcp"),
        ];
        for (text, written) in rows {
            assert_eq!(text.parse::<Forward>().unwrap().to_string(), written);
        }
        for text in [
            "",
            "80",
            "80:",
            ":80",
            "0:80",
            "80:0",
            "80:65536",
            "80:80/sctp",
            "a:80:80",
            "[::1]:80:80",
            "+1:80",
            "1:2:3:4",
        ] {
            assert!(text.parse::<Forward>().is_err(), "{text}");
        }
    }

    #[test]
    fn two_at_the_same_place_clash() {
        let rows = [
            ("80:1", "80:2", true),
            ("80:1", "127.0.0.1:80:2", true),
            ("127.0.0.2:80:1", "127.0.0.1:80:2", false),
            ("80:1", "80:1/udp", false),
            ("80:1", "81:1", false),
        ];
        for (one, two, clash) in rows {
            let (one, two): (Forward, Forward) = (one.parse().unwrap(), two.parse().unwrap());
            assert_eq!((one.clashes(&two), two.clashes(&one)), (clash, clash), "{one} {two}");
        }
    }
}
