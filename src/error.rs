//! What went wrong, for a person: one message, its causes, and the next thing to type.
//!
//! A part whose callers must tell failures apart has its own enum and converts it here;
//! everything else builds an [`Error`] where it happens. The message holds its own fields only
//! (values in backticks, lower case, no full stop); the cause goes into `source`, so that the
//! chain is printed once, by `cli`.

use std::error::Error as StdError;
use std::fmt;

/// The exit code a failure ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 1: tried and failed.
    Failed,
    /// 2: bad usage or bad configuration; nothing was tried.
    Usage,
    /// 3: no such VM, template or network.
    NotFound,
    /// 4: refused in the present state.
    Refused,
}

impl Kind {
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotFound => 3,
            Kind::Refused => 4,
        }
    }
}

#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// The next command to type, or the thing to change.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, ending with another exit code.
    #[must_use]
    pub fn with_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The messages from the outermost to the root cause, without repeats.
    pub fn chain(&self) -> Vec<String> {
        let mut chain = vec![self.message.clone()];
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            if chain.last() != Some(&text) {
                chain.push(text);
            }
            next = cause.source();
        }
        chain
    }

    /// This error as the cause of a wider one; kind and hint are kept.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        let (kind, hint) = (self.kind, self.hint.clone());
        Self { kind, message: message.into(), hint, source: Some(Box::new(Self { hint: None, ..self })) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// `result.or_failed(|| "cannot read `x`")?`: any error becomes the cause of a plain failure.
pub trait OrFailed<T> {
    fn or_failed(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: StdError + Send + Sync + 'static> OrFailed<T> for std::result::Result<T, E> {
    fn or_failed(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::failed(message()).source(source))
    }
}

/// The known word nearest to a misspelt one, if any is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_kind_and_hint_and_prints_each_cause_once() {
        let error = Error::not_found("no template `sx`").hint("did you mean `xs`?").context("cannot create a VM");
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.hint_text(), Some("did you mean `xs`?"));
        assert_eq!(error.chain(), ["cannot create a VM", "no template `sx`"]);
    }

    #[test]
    fn nearest_word() {
        let rows = [("sx", Some("xs")), ("brigde", Some("bridge")), ("zzzzz", None), ("VCPU", Some("vcpu"))];
        for (word, expected) in rows {
            assert_eq!(nearest(word, ["xs", "bridge", "vcpu"]), expected, "{word}");
        }
    }
}
