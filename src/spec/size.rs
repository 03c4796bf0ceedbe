use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes. Written as a bare number of GiB (`2`), or with a unit: `"512MiB"`, `"50G"`.
///
/// `K`, `M`, `G`, `T` are powers of 1024, with or without `iB` or `B`; case does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(u64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    #[error("`{0}` is not a size; write a number of GiB like `2`, or a unit like `512MiB` or `50G`")]
    Form(String),
    #[error("the size `{0}` is larger than a disk or memory can be")]
    TooLarge(String),
    #[error("a size must be more than nothing, not `{0}`")]
    Zero(String),
}

impl Size {
    pub const KIB: u64 = 1 << 10;
    pub const MIB: u64 = 1 << 20;
    pub const GIB: u64 = 1 << 30;

    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn mib(mib: u64) -> Self {
        Self(mib * Self::MIB)
    }

    pub const fn gib(gib: u64) -> Self {
        Self(gib * Self::GIB)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    fn from_gib(gib: f64, text: &str) -> Result<Self, SizeError> {
        let bytes = gib * Self::GIB as f64;
        if !bytes.is_finite() || bytes < 0.0 {
            return Err(SizeError::Form(text.to_owned()));
        }
        Self::checked(bytes, text)
    }

    fn checked(bytes: f64, text: &str) -> Result<Self, SizeError> {
        if bytes >= i64::MAX as f64 {
            Err(SizeError::TooLarge(text.to_owned()))
        } else if bytes < 1.0 {
            Err(SizeError::Zero(text.to_owned()))
        } else {
            Ok(Self(bytes.round() as u64))
        }
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let form = || SizeError::Form(text.to_owned());
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let number: f64 = number.parse().map_err(|_| form())?;
        let factor = match unit.trim().to_ascii_lowercase().as_str() {
            "b" => 1,
            "k" | "kb" | "kib" => Self::KIB,
            "m" | "mb" | "mib" => Self::MIB,
            "" | "g" | "gb" | "gib" => Self::GIB,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return Err(form()),
        };
        Self::checked(number * factor as f64, text)
    }
}

impl fmt::Display for Size {
    /// The shortest exact form: `2GiB`, `1536MiB`, `1000B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.0 {
            bytes if bytes % (1 << 40) == 0 && bytes > 0 => (bytes >> 40, "TiB"),
            bytes if bytes % Self::GIB == 0 => (bytes / Self::GIB, "GiB"),
            bytes if bytes % Self::MIB == 0 => (bytes / Self::MIB, "MiB"),
            bytes if bytes % Self::KIB == 0 => (bytes / Self::KIB, "KiB"),
            bytes => (bytes, "B"),
        };
        f.pad(&format!("{number}{unit}"))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size: a number of GiB like `2`, or a text like \"512MiB\"")
            }

            fn visit_i64<E: de::Error>(self, gib: i64) -> Result<Size, E> {
                Size::from_gib(gib as f64, &gib.to_string()).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, gib: u64) -> Result<Size, E> {
                Size::from_gib(gib as f64, &gib.to_string()).map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, gib: f64) -> Result<Size, E> {
                Size::from_gib(gib, &gib.to_string()).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl schemars::JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A number of GiB like 2, or a number with a unit like \"512MiB\" or \"50G\" (G = GiB)",
            "anyOf": [
                { "type": "number", "exclusiveMinimum": 0 },
                { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? *([bB]|[kKmMgGtT]([iI]?[bB])?)?$" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        let rows = [
            ("2", 2 * Size::GIB),
            ("512MiB", 512 * Size::MIB),
            ("50G", 50 * Size::GIB),
            ("0.5g", Size::GIB / 2),
            ("1.5 GiB", 3 * Size::GIB / 2),
            ("4096B", 4096),
            ("1T", 1 << 40),
        ];
        for (text, bytes) in rows {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses() {
        for text in ["", "G", "-1", "1.2.3G", "12 parsecs", "0", "0B", "99999999T", "nan", "1e3G"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for bytes in [1, 1000, 1024, 1536 * Size::MIB, 2 * Size::GIB, 1 << 40, 3 << 40] {
            let size = Size(bytes);
            assert_eq!(size.to_string().parse(), Ok(size), "{size}");
        }
    }
}
