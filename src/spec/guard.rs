//! What a NIC's port lets through, in the words of the config.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What the port of a NIC on a network that Virshle keeps lets through.
///
/// Always: ARP and neighbour discovery of its own addresses, and DHCP and DNS with this host.
/// `deny` comes first. A direction with an `allow` of its own lets nothing else through, but the
/// answers to what went the other way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Whether the guest may use MACs and addresses that are not its own, and be a router or DHCP server.
    #[serde(default)]
    pub spoof: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Rule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Rule>,
    /// In each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// `[in|out] any|icmp|tcp[/PORTS]|udp[/PORTS] [from|to NET]`: `tcp/22`, `in tcp/80,8000-8099 from
/// 10.0.0.0/8`, `out udp/53 to 9.9.9.9`. Without a direction it is `in`: to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    pub direction: Direction,
    pub protocol: RuleProtocol,
    /// Of the destination; empty: every one.
    pub ports: Vec<PortRange>,
    /// The other end: whom it comes from, or goes to.
    pub peer: Option<IpNet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To the guest.
    In,
    /// From the guest.
    Out,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleProtocol {
    Any,
    Icmp,
    Tcp,
    Udp,
}

/// Both ends are in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("`{}` is no rule, which is written like `tcp/22`, `in udp/5000-5010 from 10.0.0.0/8` or `out any to 192.0.2.7`", .0.escape_debug())]
    Form(String),
    #[error("`{}` is no protocol; there are `tcp`, `udp`, `icmp` and `any`", .0.escape_debug())]
    Protocol(String),
    #[error("`{}` is no port or range of ports, which is written like `22` or `5000-5010`", .0.escape_debug())]
    Ports(String),
    #[error("`{0}` has no ports")]
    NoPorts(&'static str),
    #[error("`{}` is no address and no subnet", .0.escape_debug())]
    Peer(String),
    #[error("`{0}` goes with `{1}`: write `in … from NET` (`in` may be left out) or `out … to NET`")]
    Word(&'static str, &'static str),
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let form = || RuleError::Form(text.to_owned());
        let mut words = text.split_ascii_whitespace().peekable();
        let direction = match words.peek() {
            Some(&"in") => words.next().map(|_| Direction::In),
            Some(&"out") => words.next().map(|_| Direction::Out),
            _ => None,
        }
        .unwrap_or(Direction::In);
        let what = words.next().ok_or_else(form)?;
        let (protocol, ports) = match what.split_once('/') {
            Some((protocol, ports)) => (protocol, Some(ports)),
            None => (what, None),
        };
        let protocol = match protocol {
            "any" => RuleProtocol::Any,
            "icmp" => RuleProtocol::Icmp,
            "tcp" => RuleProtocol::Tcp,
            "udp" => RuleProtocol::Udp,
            other => return Err(RuleError::Protocol(other.to_owned())),
        };
        let ports = match (protocol, ports) {
            (_, None) => Vec::new(),
            (RuleProtocol::Any, Some(_)) => return Err(RuleError::NoPorts("any")),
            (RuleProtocol::Icmp, Some(_)) => return Err(RuleError::NoPorts("icmp")),
            (_, Some(ports)) => ports.split(',').map(str::parse).collect::<Result<_, _>>()?,
        };
        let peer = match (words.next(), direction) {
            (None, _) => None,
            (Some("from"), Direction::In) | (Some("to"), Direction::Out) => {
                let peer = words.next().ok_or_else(form)?;
                Some(self::peer(peer).ok_or_else(|| RuleError::Peer(peer.to_owned()))?)
            }
            (Some("from"), Direction::Out) => return Err(RuleError::Word("out", "to")),
            (Some("to"), Direction::In) => return Err(RuleError::Word("in", "from")),
            (Some(_), _) => return Err(form()),
        };
        if words.next().is_some() {
            return Err(form());
        }
        Ok(Self { direction, protocol, ports, peer })
    }
}

fn peer(text: &str) -> Option<IpNet> {
    let net: IpNet = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    (net == net.trunc()).then_some(net)
}

impl FromStr for PortRange {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let wrong = || RuleError::Ports(text.to_owned());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        // `parse` would take a sign.
        let port = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().filter(|port: &u16| *port > 0).ok_or_else(wrong)
        };
        let range = Self { first: port(first)?, last: port(last)? };
        if range.first > range.last { Err(wrong()) } else { Ok(range) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Display for RuleProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RuleProtocol::Any => "any",
            RuleProtocol::Icmp => "icmp",
            RuleProtocol::Tcp => "tcp",
            RuleProtocol::Udp => "udp",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (direction, word) = match self.direction {
            Direction::In => ("in", "from"),
            Direction::Out => ("out", "to"),
        };
        write!(f, "{direction} {}", self.protocol)?;
        for (index, range) in self.ports.iter().enumerate() {
            write!(f, "{}{range}", if index == 0 { '/' } else { ',' })?;
        }
        match &self.peer {
            Some(peer) => write!(f, " {word} {peer}"),
            None => Ok(()),
        }
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

/// How many bits a second: `100Mbit`, `1.5Gbit`, `64kbit`; k, M and G are powers of 1000, as ever
/// with lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(u64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    #[error("`{}` is no rate, which is written like `100Mbit`, `1.5Gbit` or `64kbit`", .0.escape_debug())]
    Form(String),
    #[error("`{0}` is less than 64kbit, with which nothing works")]
    TooLow(String),
    #[error("`{0}` is more than 1000Gbit")]
    TooHigh(String),
}

impl Rate {
    const LOWEST: u64 = 64_000;
    const HIGHEST: u64 = 1_000_000_000_000;

    pub fn bits_per_second(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let wrong = || RateError::Form(text.to_owned());
        let units = [("kbit", 1_000u64), ("Mbit", 1_000_000), ("Gbit", 1_000_000_000)];
        let (number, unit) =
            units.iter().find_map(|(word, unit)| Some((text.strip_suffix(word)?, *unit))).ok_or_else(wrong)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 3 || number.ends_with('.') {
            return Err(wrong());
        }
        let too_high = || RateError::TooHigh(text.to_owned());
        let whole: u64 = whole.parse().map_err(|_| too_high())?;
        let thousandths: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
        let bits = whole.checked_mul(unit).and_then(|bits| bits.checked_add(thousandths * unit / 1000));
        match bits {
            Some(bits) if bits < Self::LOWEST => Err(RateError::TooLow(text.to_owned())),
            Some(bits) if bits <= Self::HIGHEST => Ok(Self(bits)),
            _ => Err(too_high()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, word) = match self.0 {
            bits if bits >= 1_000_000_000 => (1_000_000_000, "Gbit"),
            bits if bits >= 1_000_000 => (1_000_000, "Mbit"),
            _ => (1_000, "kbit"),
        };
        let (whole, part) = (self.0 / unit, self.0 % unit * 1000 / unit);
        if part == 0 {
            return write!(f, "{whole}{word}");
        }
        write!(f, "{whole}.{}{word}", format!("{part:03}").trim_end_matches('0'))
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl schemars::JsonSchema for Rule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rule".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "`[in|out] any|icmp|tcp[/PORTS]|udp[/PORTS] [from|to NET]`",
            "type": "string",
            "pattern": "^ *((in|out) +)?(any|icmp|(tcp|udp)(/[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?)( +(from|to) +[0-9a-fA-F:./]+)? *$"
        })
    }
}

impl schemars::JsonSchema for Rate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Bits a second, like `100Mbit`",
            "type": "string",
            "pattern": "^[0-9]+(\\.[0-9]{1,3})?[kMG]bit$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_written() {
        let rows = [
            ("tcp/22", "in tcp/22"),
            ("in tcp/80,8000-8099 from 10.0.0.0/8", "in tcp/80,8000-8099 from 10.0.0.0/8"),
            ("out udp/53 to 9.9.9.9", "out udp/53 to 9.9.9.9/32"),
            ("  any  ", "in any"),
            ("out any to fd00::/8", "out any to fd00::/8"),
            ("icmp from 192.0.2.7", "in icmp from 192.0.2.7/32"),
        ];
        for (text, written) in rows {
            let rule: Rule = text.parse().unwrap();
            assert_eq!(rule.to_string(), written);
            assert_eq!(written.parse::<Rule>().unwrap(), rule);
        }
    }

    #[test]
    fn what_is_no_rule() {
        let rows = [
            ("", "is no rule"),
            ("in", "is no rule"),
            ("sctp/1", "`sctp` is no protocol"),
            ("tcp/", "`` is no port"),
            ("tcp/0", "`0` is no port"),
            ("tcp/+5", "`+5` is no port"),
            ("tcp/65536", "`65536` is no port"),
            ("tcp/9-8", "`9-8` is no port"),
            ("icmp/8", "`icmp` has no ports"),
            ("any/8", "`any` has no ports"),
            ("tcp/22 from", "is no rule"),
            ("tcp/22 from home", "`home` is no address"),
            ("tcp/22 from 10.0.0.1/8", "`10.0.0.1/8` is no address"),
            ("tcp/22 to 10.0.0.0/8", "`in` goes with `from`"),
            ("out tcp/22 from 10.0.0.0/8", "`out` goes with `to`"),
            ("tcp/22 from 10.0.0.0/8 now", "is no rule"),
            ("tcp/22\"; drop", "`22\\\";` is no port"),
        ];
        for (text, message) in rows {
            let error = text.parse::<Rule>().expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn rates_are_read_and_written() {
        let rows = [
            ("100Mbit", 100_000_000, "100Mbit"),
            ("1.5Gbit", 1_500_000_000, "1.5Gbit"),
            ("64kbit", 64_000, "64kbit"),
            ("1000kbit", 1_000_000, "1Mbit"),
        ];
        for (text, bits, written) in rows {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.bits_per_second(), rate.to_string().as_str()), (bits, written));
        }
        for text in ["", "100", "Mbit", "1.Mbit", ".5Mbit", "1.2345Mbit", "-1Mbit", "1 Mbit", "100MB", "100mbit"] {
            assert!(matches!(text.parse::<Rate>(), Err(RateError::Form(_))), "{text}");
        }
        assert!(matches!("63kbit".parse::<Rate>(), Err(RateError::TooLow(_))));
        for text in ["1001Gbit", "99999999999999999999Gbit"] {
            assert!(matches!(text.parse::<Rate>(), Err(RateError::TooHigh(_))), "{text}");
        }
    }
}
