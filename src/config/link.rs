//! How a NIC is plugged in, in its two spellings: `type = "vhost"`, or the table
//! `[template.vm.net.type.vhost]`, which leaves room for a link's own settings.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkEntry {
    /// vhost-user into Open vSwitch.
    Vhost,
    /// A tap on a bridge.
    Tap,
    /// The hypervisor's own address translation.
    User,
}

impl LinkEntry {
    const ALL: [LinkEntry; 3] = [LinkEntry::Vhost, LinkEntry::Tap, LinkEntry::User];
    const WORDS: &'static [&'static str] = &["vhost", "tap", "user"];

    pub fn as_str(self) -> &'static str {
        match self {
            LinkEntry::Vhost => "vhost",
            LinkEntry::Tap => "tap",
            LinkEntry::User => "user",
        }
    }

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|link| link.as_str() == word)
    }
}

/// A link's own settings: there are none yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

/// The table's one key.
struct Key(LinkEntry);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`vhost`, `tap` or `user`")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Key, E> {
                LinkEntry::of(word).map(Key).ok_or_else(|| E::unknown_field(word, LinkEntry::WORDS))
            }
        }
        deserializer.deserialize_identifier(Visitor)
    }
}

impl<'de> Deserialize<'de> for LinkEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = LinkEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`vhost`, `tap` or `user`, as a text or as a table of that name")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<LinkEntry, E> {
                LinkEntry::of(word).ok_or_else(|| E::unknown_variant(word, LinkEntry::WORDS))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<LinkEntry, A::Error> {
                let Some((Key(link), Settings {})) = map.next_entry()? else {
                    return Err(de::Error::custom("is empty; write `vhost`, `tap` or `user`"));
                };
                match map.next_entry::<Key, Settings>()? {
                    None => Ok(link),
                    Some((Key(other), _)) => Err(de::Error::custom(format!(
                        "holds both `{}` and `{}`; a NIC is plugged in one way",
                        link.as_str(),
                        other.as_str()
                    ))),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for LinkEntry {
    fn schema_name() -> Cow<'static, str> {
        "LinkEntry".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let empty =
            |what: &str| serde_json::json!({ "description": what, "type": "object", "additionalProperties": false });
        json_schema!({
            "description": "How a NIC is plugged in: `vhost` (vhost-user into Open vSwitch), `tap` (a tap on a bridge) \
                or `user` (the hypervisor's own address translation)",
            "oneOf": [
                { "type": "string", "enum": Self::WORDS },
                {
                    "type": "object",
                    "properties": {
                        "vhost": empty("vhost-user into Open vSwitch"),
                        "tap": empty("A tap on a bridge"),
                        "user": empty("The hypervisor's own address translation")
                    },
                    "additionalProperties": false,
                    "minProperties": 1,
                    "maxProperties": 1
                }
            ]
        })
    }
}
