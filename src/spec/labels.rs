use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};

/// What people note about a VM: `role = "db"`. Nothing of Virshle's own depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub struct Labels(
    #[schemars(
        length(max = Labels::MOST),
        extend("propertyNames" = { "pattern": "^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$" }),
        extend("additionalProperties" = { "type": "string", "maxLength": 255, "pattern": "^[^\\p{Cc}]*$" })
    )]
    BTreeMap<String, String>,
);

/// `role=db`, as the command line has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub key: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    #[error("`{0}` is no label's name: lower-case letters, digits, and `.`, `_`, `/`, `-` between them, at most 63")]
    Key(String),
    #[error("the label `{0}` has a value of more than 255 bytes, or with a line break or another control character")]
    Value(String),
    #[error("a label is written like `role=db`, not `{0}`")]
    Form(String),
    #[error("a VM can have 64 labels")]
    TooMany,
}

impl Labels {
    pub const MOST: usize = 64;

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Adds one, or gives it another value.
    pub fn set(&mut self, label: Label) -> Result<(), LabelError> {
        if self.0.len() >= Self::MOST && !self.0.contains_key(&label.key) {
            return Err(LabelError::TooMany);
        }
        self.0.insert(label.key, label.value);
        Ok(())
    }

    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }
}

impl Label {
    pub fn new(key: &str, value: &str) -> Result<Self, LabelError> {
        let ends = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let within = |b: u8| ends(b) || matches!(b, b'.' | b'_' | b'/' | b'-');
        let bytes = key.as_bytes();
        let fits = (1..=63).contains(&bytes.len())
            && bytes.iter().copied().all(within)
            && bytes.first().copied().is_some_and(ends)
            && bytes.last().copied().is_some_and(ends);
        if !fits {
            return Err(LabelError::Key(key.escape_debug().to_string()));
        }
        if value.len() > 255 || value.chars().any(char::is_control) {
            return Err(LabelError::Value(key.to_owned()));
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let (key, value) = text.split_once('=').ok_or_else(|| LabelError::Form(text.escape_debug().to_string()))?;
        Self::new(key, value)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut labels = Self::default();
        for (key, value) in BTreeMap::<String, String>::deserialize(deserializer)? {
            let set = Label::new(&key, &value).and_then(|label| labels.set(label));
            set.map_err(de::Error::custom)?;
        }
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_label() {
        let long = "a".repeat(64);
        let rows = [
            ("role=db", true),
            ("a=", true),
            ("example.org/team_1=a b=c", true),
            ("role", false),
            ("=db", false),
            ("Role=db", false),
            ("-role=db", false),
            ("role.=db", false),
            ("ro le=db", false),
            ("role=a\nb", false),
            (&format!("{long}=x"), false),
        ];
        for (text, right) in rows {
            let label = text.parse::<Label>();
            assert_eq!(label.is_ok(), right, "{text}: {label:?}");
            if let Ok(label) = label {
                assert_eq!(label.to_string(), text);
            }
        }
        assert!(Label::new("a", &"x".repeat(256)).is_err());
    }

    #[test]
    fn a_vm_has_so_many_at_most() {
        let mut labels = Labels::default();
        for number in 0..Labels::MOST {
            labels.set(Label::new(&format!("l{number}"), "").unwrap()).unwrap();
        }
        labels.set(Label::new("l0", "again").unwrap()).unwrap();
        assert_eq!(labels.set(Label::new("more", "").unwrap()), Err(LabelError::TooMany));
        assert_eq!(labels.get("l0"), Some("again"));
        labels.remove("l1");
        assert_eq!((labels.iter().count(), labels.get("l1")), (Labels::MOST - 1, None));
        assert!(serde_json::from_str::<Labels>(r#"{"A":"b"}"#).unwrap_err().to_string().contains("`A` is no label"));
    }
}
