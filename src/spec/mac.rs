use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A MAC address. [`Mac::of`] derives it from the VM's uuid and the NIC's index, so that it stays
/// the same for the VM's life and two NICs never share one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// Locally administered, unicast. The first five bytes come from the uuid's random ones, the
    /// last is a uuid byte plus the index: up to 256 NICs of one VM differ.
    pub fn of(vm: Uuid, index: u8) -> Self {
        let id = vm.as_bytes();
        // Bytes 6 and 8 of a version 4 uuid hold its version and variant: they are not random.
        let mut bytes = [id[0], id[1], id[2], id[3], id[4], id[5].wrapping_add(index)];
        bytes[0] = (bytes[0] & 0b1111_1100) | 0b10;
        Self(bytes)
    }

    /// Whether one device can have it: it is neither a group's nor all zeros.
    pub fn is_of_a_device(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// The IPv6 address that a device of this MAC gives itself on its link (EUI-64).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0.map(u16::from);
        Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 0b10) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address; it is written like `02:00:00:00:00:01`")]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = || MacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl schemars::JsonSchema for Mac {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Mac".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A MAC address of one device, like `02:00:00:00:00:01`",
            "type": "string",
            "pattern": "^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_macs_are_local_unicast_distinct_and_read_back() {
        let vm = Uuid::new_v4();
        let macs: std::collections::HashSet<Mac> = (0..=255).map(|index| Mac::of(vm, index)).collect();
        assert_eq!(macs.len(), 256);
        for mac in macs {
            assert_eq!(mac.0[0] & 0b11, 0b10, "{mac}");
            assert_eq!(mac.to_string().parse(), Ok(mac));
        }
    }

    #[test]
    fn what_one_device_can_have() {
        let rows = [
            ("02:00:00:00:00:01", true),
            ("00:00:00:00:00:00", false),
            ("01:00:5e:00:00:01", false),
            ("ff:ff:ff:ff:ff:ff", false),
        ];
        for (text, right) in rows {
            assert_eq!(text.parse::<Mac>().unwrap().is_of_a_device(), right, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_mac() {
        for text in ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "02:00:00:00:00:0g", "2:0:0:0:0:1"] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
