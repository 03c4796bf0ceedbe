use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a VM, a template or a network: a DNS label, so that it can be a host name as it is.
///
/// Lower-case letters, digits and inner hyphens, 1 to 63 bytes. Digits alone are refused (they
/// would look like a number), and so is the form of a whole uuid.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name cannot be empty")]
    Empty,
    #[error("the name `{0}` has {1} characters, and 63 is the most")]
    TooLong(String, usize),
    #[error("the name `{}` holds `{}`; only a-z, 0-9 and `-` are allowed", .0.escape_debug(), .1.escape_debug())]
    Character(String, char),
    #[error("the name `{0}` begins or ends with `-`")]
    Hyphen(String),
    #[error("the name `{0}` is all digits, which would read as a VM's number")]
    OnlyDigits(String),
    #[error("the name `{0}` has the form of a uuid")]
    LooksLikeUuid(String),
}

impl Name {
    pub const MAX: usize = 63;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name with `-suffix` behind it, if that is still a name.
    pub fn with_suffix(&self, suffix: impl fmt::Display) -> Result<Self, NameError> {
        format!("{}-{suffix}", self.0).parse()
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let owned = || text.to_owned();
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(NameError::Character(owned(), bad));
        }
        if text.len() > Self::MAX {
            return Err(NameError::TooLong(owned(), text.len()));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::Hyphen(owned()));
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NameError::OnlyDigits(owned()));
        }
        if text.len() == 36 && uuid::Uuid::parse_str(text).is_ok() {
            return Err(NameError::LooksLikeUuid(owned()));
        }
        Ok(Self(owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl schemars::JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A DNS label: a-z, 0-9 and inner hyphens, at most 63, not only digits",
            "type": "string",
            "minLength": 1,
            "maxLength": Name::MAX,
            "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
            "not": { "pattern": "^[0-9]+$" }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = "a".repeat(64);
        let rows: [(&str, bool); 13] = [
            ("web", true),
            ("web-1", true),
            ("1web", true),
            ("", false),
            ("web/1", false),
            ("web\n", false),
            ("Web", false),
            ("-web", false),
            ("web-", false),
            ("42", false),
            ("../etc", false),
            (&long, false),
            ("6f1b0a1e-91a7-4d2c-9d52-0123456789ab", false),
        ];
        for (text, accepted) in rows {
            assert_eq!(text.parse::<Name>().is_ok(), accepted, "{text:?}");
        }
    }

    #[test]
    fn sixty_three_bytes_is_the_most() {
        assert!("a".repeat(63).parse::<Name>().is_ok());
        assert_eq!("a".repeat(64).parse::<Name>(), Err(NameError::TooLong("a".repeat(64), 64)));
    }
}
