use serde::{Deserialize, Serialize};

use crate::error::{Error, OrFailed, Result};
use crate::template::UserData;
use crate::vm::Part;

/// What the files of one who creates a VM hold, on its way to the process that creates it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enclosed {
    users: UserData,
    parts: Vec<Piece>,
}

/// A raw file, each byte as the character of that number: JSON has no bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    name: String,
    content: String,
}

impl Enclosed {
    pub(super) fn new(mut users: UserData, parts: Vec<Part>) -> Self {
        // They are read already; their paths are nobody's business.
        users.cloud_init.clear();
        let piece = |part: Part| Piece { name: part.name, content: part.content.into_iter().map(char::from).collect() };
        Self { users, parts: parts.into_iter().map(piece).collect() }
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).or_failed(|| "cannot write the user data".to_owned())
    }

    /// Takes nothing on trust: who sent it may not have been `v`.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let wrong = |error: serde_json::Error| {
            // The cause could repeat what is secret.
            tracing::debug!(line = error.line(), column = error.column(), "enclosed user data");
            Error::usage("the user data did not arrive in a form that can be read")
        };
        let enclosed: Self = serde_json::from_slice(bytes).map_err(wrong)?;
        let is_name = |name: &str| name.len() <= 255 && !name.chars().any(|c| c.is_control() || c == '/');
        let bytes = |piece: &Piece| piece.content.chars().all(|c| u8::try_from(c).is_ok());
        if !enclosed.users.cloud_init.is_empty()
            || !enclosed.parts.iter().all(|piece| is_name(&piece.name) && bytes(piece))
        {
            return Err(Error::usage("the user data did not arrive in a form that can be used"));
        }
        enclosed.users.check()?;
        Ok(enclosed)
    }

    pub(super) fn open(self) -> (UserData, Vec<Part>) {
        let bytes = |content: String| content.chars().filter_map(|c| u8::try_from(c).ok()).collect();
        let part = |piece: Piece| Part { name: piece.name, content: bytes(piece.content) };
        (self.users, self.parts.into_iter().map(part).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives() {
        let part = Part { name: "é.yaml".to_owned(), content: (0..=255).collect() };
        let users = UserData::of_caller("anon", Vec::new());
        let bytes = Enclosed::new(users.clone(), vec![part.clone()]).to_bytes().unwrap();
        assert_eq!(Enclosed::from_bytes(&bytes).unwrap().open(), (users, vec![part]));
    }

    #[test]
    fn nothing_is_taken_on_trust() {
        let whole = |users: &str, parts: &str| format!("{{\"users\":{users},\"parts\":[{parts}]}}");
        let rows = [
            String::new(),
            "[]".to_owned(),
            whole("{}", "") + "x",
            whole(r#"{"cloud_init":["/etc/shadow"]}"#, ""),
            whole(r#"{"users":[{"name":"-oProxyCommand=x"}]}"#, ""),
            whole("{}", r#"{"name":"a\nb","content":"x"}"#),
            whole("{}", r#"{"name":"../b","content":"x"}"#),
            whole("{}", r#"{"name":"b","content":"\u0100"}"#),
            whole("{}", r#"{"name":"b","path":"/etc/shadow"}"#),
        ];
        assert!(Enclosed::from_bytes(whole("{}", "").as_bytes()).is_ok());
        for text in rows {
            assert!(Enclosed::from_bytes(text.as_bytes()).is_err(), "{text}");
        }
    }
}
