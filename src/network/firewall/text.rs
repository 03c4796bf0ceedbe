//! How a table is written down. What comes from outside stands in it as a typed value (an address,
//! a number) or as a checked name of an interface, never as free text.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Write as _};

/// A table that is being written.
#[derive(Debug)]
pub(super) struct Table {
    family: &'static str,
    body: String,
}

/// Where the kernel calls a chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook(pub &'static str);

impl Table {
    pub(super) fn new(family: &'static str) -> Self {
        Self { family, body: String::new() }
    }

    /// `kind`: its type and flags. Elements stand in it once, in their order.
    pub(super) fn set<T: Display>(&mut self, name: &str, kind: &str, elements: impl IntoIterator<Item = T>) {
        self.collection("set", name, kind, elements);
    }

    pub(super) fn map<K: Display, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        elements: impl IntoIterator<Item = (K, V)>,
    ) {
        self.collection("map", name, kind, elements.into_iter().map(|(key, value)| format!("{key} : {value}")));
    }

    fn collection<T: Display>(&mut self, what: &str, name: &str, kind: &str, elements: impl IntoIterator<Item = T>) {
        let elements: BTreeSet<String> = elements.into_iter().map(|element| element.to_string()).collect();
        self.line(format_args!("\t{what} {name} {{"));
        self.line(format_args!("\t\t{kind}"));
        if !elements.is_empty() {
            self.line(format_args!("\t\telements = {{"));
            for element in elements {
                self.line(format_args!("\t\t\t{element},"));
            }
            self.line(format_args!("\t\t}}"));
        }
        self.line(format_args!("\t}}"));
    }

    /// A limit that maps refer to by its name.
    pub(super) fn limit(&mut self, name: &str, limit: impl Display) {
        self.line(format_args!("\tlimit {name} {{"));
        self.line(format_args!("\t\t{limit}"));
        self.line(format_args!("\t}}"));
    }

    pub(super) fn chain<T: Display>(&mut self, name: &str, hook: Option<Hook>, rules: impl IntoIterator<Item = T>) {
        self.line(format_args!("\tchain {name} {{"));
        if let Some(Hook(hook)) = hook {
            self.line(format_args!("\t\t{hook}; policy accept;"));
        }
        for rule in rules {
            self.line(format_args!("\t\t{rule}"));
        }
        self.line(format_args!("\t}}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.body, "{line}");
    }

    pub(super) fn finish(self, name: &str) -> String {
        format!("table {} {name} {{\n{}}}\n", self.family, self.body)
    }
}

/// Removes a table, whether or not it is there.
pub(super) fn removal(family: &str, name: &str) -> String {
    format!("add table {family} {name}\ndelete table {family} {name}\n")
}

/// Whether it can be written in a rule as the name of an interface, and means that one only: a `*`
/// at its end would mean many.
pub(super) fn is_plain(device: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=15).contains(&device.len()) && device.bytes().all(plain)
}

/// The name of an interface, as rules have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Device<'a>(pub &'a str);

impl Display for Device<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// `"v1n0" . 10.44.0.5`: parts of one element, or of one key.
macro_rules! joined {
    ($first:expr $(, $more:expr)* $(,)?) => {{
        let mut text = $first.to_string();
        $( text.push_str(" . "); text.push_str(&$more.to_string()); )*
        text
    }};
}
pub(super) use joined;
