//! `subnet6`: `false`, or a /64.

use std::fmt;

use ipnet::Ipv6Net;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subnet6 {
    /// No IPv6.
    Off,
    Net(Ipv6Net),
}

impl<'de> Deserialize<'de> for Subnet6 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Subnet6;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an IPv6 subnet, which is written like `fd12:3456:789a:1::/64`, or `false`")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Subnet6, E> {
                if on {
                    return Err(E::custom("`true` is what it is without the key; write a subnet, or `false`"));
                }
                Ok(Subnet6::Off)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Subnet6, E> {
                text.parse().map(Subnet6::Net).map_err(|_| {
                    E::custom(format!(
                        "`{}` is not an IPv6 subnet, which is written like `fd12:3456:789a:1::/64`",
                        text.escape_debug()
                    ))
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for Subnet6 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Subnet6::Off => serializer.serialize_bool(false),
            Subnet6::Net(net) => net.serialize(serializer),
        }
    }
}

impl JsonSchema for Subnet6 {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Subnet6".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "const": false },
                { "type": "string", "pattern": "^[0-9a-fA-F:.]+/64$" }
            ]
        })
    }
}
