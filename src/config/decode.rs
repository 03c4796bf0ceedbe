//! Reads a parsed TOML document into a type by serde, keeping what is wrong as data: which key,
//! where, what was known or expected. (The `toml` crate's own deserializer keeps a sentence.)
//!
//! Keys are read in the order of the text, so that the first fault in the file is the one told.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::ops::Range;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer, Unexpected, Visitor};
use toml::Spanned;
use toml::de::{DeInteger, DeValue};

/// What is wrong, and where: the dotted path of the value (of the table, for an unknown or a
/// missing key) and the bytes to point at.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) problem: Problem,
    pub(super) path: String,
    pub(super) span: Option<Range<usize>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    MissingKey(&'static str),
    UnknownWord {
        word: String,
        known: &'static [&'static str],
    },
    /// `brackets` when a table was written where a list of tables belongs (`true`), or the reverse.
    WrongType {
        expected: String,
        found: String,
        brackets: Option<bool>,
    },
    Value(String),
}

impl Fault {
    fn new(problem: Problem) -> Self {
        Self { problem, path: String::new(), span: None }
    }

    /// Gives a fault that serde made its place; one that has a place keeps it.
    fn at(mut self, path: &str, span: &Range<usize>) -> Self {
        if self.span.is_none() {
            path.clone_into(&mut self.path);
            self.span = Some(span.clone());
        }
        self
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in `{}`", self.problem, self.path)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Problem::Value(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
            Unexpected::Float(_) => "a fraction",
            Unexpected::Str(_) | Unexpected::Char(_) => "a text",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "this",
        };
        Self::new(Problem::WrongType { expected: expected.to_string(), found: found.to_owned(), brackets: None })
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownWord { word: word.to_owned(), known })
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownKey { key: key.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Problem::MissingKey(key))
    }
}

pub(super) fn decode<T: DeserializeOwned>(document: &Spanned<DeValue<'_>>) -> Result<T, Fault> {
    read(PhantomData::<T>, document, "")
}

/// Reads one value; whatever is wrong in it and has no place of its own is wrong here.
fn read<'de, S: DeserializeSeed<'de>>(seed: S, value: &Spanned<DeValue<'_>>, path: &str) -> Result<S::Value, Fault> {
    seed.deserialize(Node { value, path }).map_err(|fault| fault.at(path, &value.span()))
}

/// The path of `key` in the table at `path`; a key that is not bare is quoted.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let dot = if path.is_empty() { "" } else { "." };
    if bare { format!("{path}{dot}{key}") } else { format!("{path}{dot}\"{}\"", key.escape_debug()) }
}

pub(super) fn item(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// A value and where it stands.
struct Node<'a> {
    value: &'a Spanned<DeValue<'a>>,
    path: &'a str,
}

impl Node<'_> {
    fn wrong_type(&self, expected: impl Into<String>, brackets: Option<bool>) -> Fault {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        Fault::new(Problem::WrongType { expected: expected.into(), found: found.to_owned(), brackets })
    }
}

fn integer(integer: &DeInteger<'_>) -> Result<i64, Fault> {
    let number = i64::from_str_radix(integer.as_str(), integer.radix());
    number.map_err(|_| Fault::custom("the number is too large"))
}

impl<'de> de::Deserializer<'de> for Node<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Integer(number) => visitor.visit_i64(integer(number)?),
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(Fault::custom("the number cannot be read")),
            },
            DeValue::Boolean(value) => visitor.visit_bool(*value),
            DeValue::Datetime(_) => Err(self.wrong_type("a text, a number or a table", None)),
            DeValue::Array(list) => visitor.visit_seq(Items { items: list.iter().enumerate(), path: self.path }),
            DeValue::Table(table) => {
                let mut entries: Vec<_> = table.iter().collect();
                entries.sort_by_key(|(key, _)| key.span().start);
                visitor.visit_map(Entries { entries: entries.into_iter(), next: None, path: self.path })
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value.get_ref() {
            DeValue::Boolean(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong_type("true or false", None)),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let DeValue::Integer(number) = self.value.get_ref() else {
            return Err(self.wrong_type("a whole number", None));
        };
        let number = integer(number)?;
        let fits = u32::try_from(number)
            .map_err(|_| Fault::custom(format!("`{number}` is not a whole number from 0 to {}", u32::MAX)));
        visitor.visit_u32(fits?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value.get_ref() {
            DeValue::String(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong_type("a text", None)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value.get_ref() {
            DeValue::Array(_) => self.deserialize_any(visitor),
            DeValue::Table(_) => Err(self.wrong_type("a list", Some(true))),
            _ => Err(self.wrong_type("a list", None)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value.get_ref() {
            DeValue::Table(_) => self.deserialize_any(visitor),
            DeValue::Array(list) if list.iter().all(|item| item.get_ref().is_table()) => {
                Err(self.wrong_type("a table", Some(false)))
            }
            _ => Err(self.wrong_type("a table", None)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let DeValue::String(word) = self.value.get_ref() else {
            return Err(self.wrong_type(super::or_one_of(words), None));
        };
        let word: StrDeserializer<'_, Fault> = word.as_ref().into_deserializer();
        visitor.visit_enum(word)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        tuple tuple_struct identifier ignored_any
    }
}

type Entry<'a> = (&'a Spanned<toml::de::DeString<'a>>, &'a Spanned<DeValue<'a>>);

struct Entries<'a, 'p> {
    entries: std::vec::IntoIter<Entry<'a>>,
    next: Option<Entry<'a>>,
    path: &'p str,
}

impl<'de> de::MapAccess<'de> for Entries<'_, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.next = self.entries.next();
        let Some((key, _)) = self.next else { return Ok(None) };
        let word: StrDeserializer<'_, Fault> = key.get_ref().as_ref().into_deserializer();
        seed.deserialize(word).map(Some).map_err(|fault| fault.at(self.path, &key.span()))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, value) = self.next.take().ok_or_else(|| Fault::custom("a value was read before its key"))?;
        read(seed, value, &join(self.path, key.get_ref()))
    }
}

struct Items<'a, 'p> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Spanned<DeValue<'a>>>>,
    path: &'p str,
}

impl<'de> de::SeqAccess<'de> for Items<'_, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, value)) = self.items.next() else { return Ok(None) };
        read(seed, value, &item(self.path, index)).map(Some)
    }
}
