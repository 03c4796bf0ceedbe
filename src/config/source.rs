//! One file's text, and where each of its keys stands, so that whatever is found wrong with a
//! value, while it is read or long after, is told with file, line and column.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::decode::{Fault, Problem, decode, item, join};
use crate::error::{Error, Result, nearest};

/// Whether errors may show the line they are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excerpts {
    Shown,
    /// For files with secrets in them.
    Hidden,
}

#[derive(Debug)]
pub(crate) struct Source {
    file: PathBuf,
    text: String,
    excerpts: Excerpts,
    /// The bytes of each value, by its dotted path; a table's are its header's.
    places: HashMap<String, Range<usize>>,
}

impl Source {
    /// Reads `text`, which `file` holds, as a `T`.
    pub(crate) fn read<T: DeserializeOwned>(file: &Path, text: String, excerpts: Excerpts) -> Result<(T, Self)> {
        let mut source = Self { file: file.to_owned(), text: String::new(), excerpts, places: HashMap::new() };
        let parsed = DeTable::parse(&text);
        let document = match parsed {
            Ok(document) => Spanned::new(document.span(), DeValue::Table(document.into_inner())),
            Err(error) => {
                let (message, span) = (error.message().to_owned(), error.span().unwrap_or(0..0));
                source.text = text;
                return Err(source.error(&span, format!("not TOML: {message}")));
            }
        };
        index(&document, String::new(), &mut source.places);
        let decoded = decode(&document);
        drop(document);
        source.text = text;
        match decoded {
            Ok(value) => Ok((value, source)),
            Err(fault) => Err(source.fault(fault)),
        }
    }

    /// Whether the file itself says something at this dotted path.
    pub(super) fn says(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// An error about the value at a dotted path; `what` completes the sentence "`path` …".
    pub(crate) fn wrong(&self, path: &str, what: impl fmt::Display) -> Error {
        self.error(&self.place(path), format!("`{path}` {what}"))
    }

    pub(crate) fn line_of(&self, path: &str) -> usize {
        self.position(self.place(path).start).0
    }

    /// The bytes of the value, or of the nearest table around it that is written.
    fn place(&self, path: &str) -> Range<usize> {
        let mut path = path;
        loop {
            if let Some(span) = self.places.get(path) {
                return span.clone();
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return 0..0,
            }
        }
    }

    fn fault(&self, fault: Fault) -> Error {
        let Fault { problem, path, span } = fault;
        let span = span.unwrap_or(0..0);
        let whole = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
        match problem {
            Problem::UnknownKey { key, known } => {
                let place = if path.is_empty() { "at the top level".to_owned() } else { format!("in `{path}`") };
                let error = self.error(&span, format!("unknown key `{}` {place}", key.escape_debug()));
                match known {
                    [] => error.hint(format!("{whole} takes no keys")),
                    _ => error.hint(did_you_mean(&key, known.iter().copied()).unwrap_or_else(|| {
                        format!("the keys it knows: {}", or_one_of(known).replace(" or ", " and "))
                    })),
                }
            }
            Problem::MissingKey(key) => {
                self.error(&span, format!("{whole} lacks `{key}`")).hint(format!("add `{key} = …` to it"))
            }
            Problem::UnknownWord { word, known } => {
                let what = format!("{whole} must be {}, not `{}`", or_one_of(known), word.escape_debug());
                let error = self.error(&span, what);
                match did_you_mean(&word, known.iter().copied()) {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            }
            Problem::WrongType { expected, found, brackets } => {
                let error = self.error(&span, format!("{whole} must be {expected}, not {found}"));
                match brackets {
                    Some(true) => error.hint(format!("write `[[{path}]]`, with two brackets on each side")),
                    Some(false) => error.hint(format!("write `[{path}]`, with one bracket on each side")),
                    None => error,
                }
            }
            Problem::Value(what) => self.error(&span, format!("{whole}: {what}")),
        }
    }

    fn error(&self, span: &Range<usize>, what: impl fmt::Display) -> Error {
        let (line, column) = self.position(span.start);
        let error = Error::usage(format!("`{}` line {line}, column {column}: {what}", self.file.display()));
        match (self.excerpts, self.excerpt(span, line, column)) {
            (Excerpts::Shown, Some(excerpt)) => error.source(excerpt),
            _ => error,
        }
    }

    /// Line and column of a byte, both from 1, the column in characters.
    fn position(&self, byte: usize) -> (usize, usize) {
        position(&self.text, byte)
    }

    fn excerpt(&self, span: &Range<usize>, line: usize, column: usize) -> Option<Excerpt> {
        let text = self.text.lines().nth(line - 1)?;
        let on_this_line = text.chars().count() + 1 - column.min(text.chars().count());
        let marked = self.text.get(span.clone()).map_or(1, |marked| marked.chars().count());
        Some(Excerpt {
            place: format!("{}:{line}:{column}", self.file.display()),
            line,
            text: text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect(),
            before: text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect(),
            marked: marked.clamp(1, on_this_line.max(1)),
        })
        .filter(|excerpt| excerpt.text.chars().count() <= Excerpt::WIDEST)
    }
}

pub(super) fn position(text: &str, byte: usize) -> (usize, usize) {
    let mut end = byte.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The offending line with a mark below it.
#[derive(Debug)]
struct Excerpt {
    place: String,
    line: usize,
    text: String,
    before: String,
    marked: usize,
}

impl Excerpt {
    /// A longer line would be wrapped, and the mark would point at nothing.
    const WIDEST: usize = 160;
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, line, text, before, marked } = self;
        let margin = " ".repeat(line.to_string().len());
        write!(f, "--> {place}\n{margin} |\n{line} | {text}\n{margin} | {before}{}", "^".repeat(*marked))
    }
}

impl std::error::Error for Excerpt {}

fn index(value: &Spanned<DeValue<'_>>, path: String, places: &mut HashMap<String, Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                index(value, join(&path, key.get_ref()), places);
            }
        }
        DeValue::Array(items) => {
            for (number, value) in items.iter().enumerate() {
                index(value, item(&path, number), places);
            }
        }
        _ => {}
    }
    places.insert(path, value.span());
}

/// "did you mean `x`?", if a known word is near.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|near| format!("did you mean `{near}`?"))
}

/// "`a`, `b` or `c`".
pub(crate) fn or_one_of<T: fmt::Display>(words: &[T]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::of_text;
    use crate::error::Kind;

    const VM: &str = "[[template.vm]]\nname = 'xs'\nvcpu = 1\nvram = 2\ndisk = [{ name = 'os', path = 'a' }]\n";

    /// Text, the message after the file's name, the hint.
    type Row<'a> = (String, &'a str, Option<&'a str>);

    fn run(rows: Vec<Row<'_>>) {
        for (text, message, hint) in rows {
            let error = of_text(&text).expect_err(&text);
            assert_eq!(error.kind(), Kind::Usage, "{text}");
            assert_eq!(error.message(), format!("`/etc/virshle/config.toml` {message}"), "{text}");
            assert_eq!(error.hint_text(), hint, "{text}");
        }
    }

    #[test]
    fn unknown_and_missing_keys_at_each_level() {
        let vm = |rest: &str| format!("{VM}{rest}");
        run(vec![
            (
                "[[netwrok]]".into(),
                "line 1, column 3: unknown key `netwrok` at the top level",
                Some("did you mean `network`?"),
            ),
            (
                "zzzzzzzz = 1".into(),
                "line 1, column 1: unknown key `zzzzzzzz` at the top level",
                Some("the keys it knows: `node`, `network`, `image`, `template` and `vm`"),
            ),
            (
                "[node]\nacel = 'kvm'".into(),
                "line 2, column 1: unknown key `acel` in `node`",
                Some("did you mean `accel`?"),
            ),
            (
                "[node]\novs_db = 'a'".into(),
                "line 2, column 1: unknown key `ovs_db` in `node`",
                Some("did you mean `ovs-db`?"),
            ),
            (
                "[node.qemu]\nvar = 'kvm'".into(),
                "line 2, column 1: unknown key `var` in `node.qemu`",
                Some("did you mean `vars`?"),
            ),
            (
                "[node.cloud-hypervisor]\nvars = 'kvm'".into(),
                "line 2, column 1: unknown key `vars` in `node.cloud-hypervisor`",
                Some("the keys it knows: `program` and `firmware`"),
            ),
            (
                "[[network]]\nname = 'main'\n  brigde = 'x'".into(),
                "line 3, column 3: unknown key `brigde` in `network[0]`",
                Some("did you mean `bridge`?"),
            ),
            (
                "[[image]]\nname = 'a'\npath = 'a'\n[[image]]\npaht = 'x'".into(),
                "line 5, column 1: unknown key `paht` in `image[1]`",
                Some("did you mean `path`?"),
            ),
            ("[[template.vn]]".into(), "line 1, column 12: unknown key `vn` in `template`", Some("did you mean `vm`?")),
            (vm("cpu = 1"), "line 6, column 1: unknown key `cpu` in `template.vm[0]`", Some("did you mean `vcpu`?")),
            (
                format!("{VM}{}\n[[template.vm.disk]]\nszie = 1", VM.replace("disk", "# disk").replace("xs", "s")),
                "line 13, column 1: unknown key `szie` in `template.vm[1].disk[0]`",
                Some("did you mean `size`?"),
            ),
            (
                vm("[[template.vm.net]]\nnmae = 'main'"),
                "line 7, column 1: unknown key `nmae` in `template.vm[0].net[0]`",
                Some("did you mean `name`?"),
            ),
            (
                vm("[[template.vm.net]]\nname = 'main'\n[template.vm.net.type.vhots]"),
                "line 8, column 23: unknown key `vhots` in `template.vm[0].net[0].type`",
                Some("did you mean `vhost`?"),
            ),
            (
                vm("[[template.vm.net]]\nname = 'main'\n[template.vm.net.type.tap]\nfd = 3"),
                "line 9, column 1: unknown key `fd` in `template.vm[0].net[0].type.tap`",
                Some("`template.vm[0].net[0].type.tap` takes no keys"),
            ),
            (
                "node.\"a\\u001b[31m.b\" = 1".into(),
                "line 1, column 6: unknown key `a\\u{1b}[31m.b` in `node`",
                Some(
                    "the keys it knows: `hypervisor`, `accel`, `ovs-db`, `user`, `hosts-file`, `cloud-hypervisor` and `qemu`",
                ),
            ),
            (
                "\n[[network]]\nbridge = 'a'".into(),
                "line 2, column 1: `network[0]` lacks `name`",
                Some("add `name = …` to it"),
            ),
            (
                VM.replace("vram", "# vram"),
                "line 1, column 1: `template.vm[0]` lacks `vram`",
                Some("add `vram = …` to it"),
            ),
        ]);
    }

    #[test]
    fn wrong_types_and_values() {
        let vm = |from: &str, to: &str| VM.replace(from, to);
        let net = |link: &str| format!("{VM}net = [{{ name = 'main', type = {link} }}]");
        run(vec![
            (
                vm("vcpu = 1", "vcpu = '1'"),
                "line 3, column 8: `template.vm[0].vcpu` must be a whole number, not a text",
                None,
            ),
            (
                vm("vcpu = 1", "vcpu = 1.5"),
                "line 3, column 8: `template.vm[0].vcpu` must be a whole number, not a fraction",
                None,
            ),
            (
                vm("vcpu = 1", "vcpu = -1"),
                "line 3, column 8: `template.vm[0].vcpu`: `-1` is not a whole number from 0 to 4294967295",
                None,
            ),
            (
                vm("vcpu = 1", "vcpu = 0xffff_ffff_ffff_ffff_ffff"),
                "line 3, column 8: `template.vm[0].vcpu`: the number is too large",
                None,
            ),
            (
                vm("'os'", "5"),
                "line 5, column 18: `template.vm[0].disk[0].name` must be a text, not a whole number",
                None,
            ),
            (
                vm("'a'", "'a', readonly = 'yes'"),
                "line 5, column 47: `template.vm[0].disk[0].readonly` must be true or false, not a text",
                None,
            ),
            (
                vm("'a'", "2020-01-01"),
                "line 5, column 31: `template.vm[0].disk[0].path` must be a text, not a date",
                None,
            ),
            (
                vm("vram = 2", "vram = true"),
                "line 4, column 8: `template.vm[0].vram` must be a size: a number of GiB like `2`, or a text like \"512MiB\", not true or false",
                None,
            ),
            (
                vm("vram = 2", "vram = '2 parsecs'"),
                "line 4, column 8: `template.vm[0].vram`: `2 parsecs` is not a size; write a number of GiB like `2`, or a unit like `512MiB` or `50G`",
                None,
            ),
            (
                vm("vram = 2", "vram = -2"),
                "line 4, column 8: `template.vm[0].vram`: `-2` is not a size; write a number of GiB like `2`, or a unit like `512MiB` or `50G`",
                None,
            ),
            (
                vm("vram = 2", "vram = 0"),
                "line 4, column 8: `template.vm[0].vram`: a size must be more than nothing, not `0`",
                None,
            ),
            (
                vm("'a'", "'a', size = '99999999T'"),
                "line 5, column 43: `template.vm[0].disk[0].size`: the size `99999999T` is larger than a disk or memory can be",
                None,
            ),
            (
                "[template.vm]\nname = 'xs'".into(),
                "line 1, column 1: `template.vm` must be a list, not a table",
                Some("write `[[template.vm]]`, with two brackets on each side"),
            ),
            (
                "[[node]]".into(),
                "line 1, column 1: `node` must be a table, not a list",
                Some("write `[node]`, with one bracket on each side"),
            ),
            ("network = 'main'".into(), "line 1, column 11: `network` must be a list, not a text", None),
            ("network = ['main']".into(), "line 1, column 12: `network[0]` must be a table, not a text", None),
            (
                "node.hypervisor = 'quemu'".into(),
                "line 1, column 19: `node.hypervisor` must be `auto`, `cloud-hypervisor` or `qemu`, not `quemu`",
                Some("did you mean `qemu`?"),
            ),
            (
                "node.hypervisor = { qemu = {} }".into(),
                "line 1, column 19: `node.hypervisor` must be `auto`, `cloud-hypervisor` or `qemu`, not a table",
                None,
            ),
            (
                "node.accel = 1".into(),
                "line 1, column 14: `node.accel` must be `auto`, `kvm` or `tcg`, not a whole number",
                None,
            ),
            (
                "network = [{ name = 'a', type = 'vlan' }]".into(),
                "line 1, column 33: `network[0].type` must be `ovs`, `bridge` or `user`, not `vlan`",
                None,
            ),
            (
                "network = [{ name = 'a', subnet = '10.0.0.0' }]".into(),
                "line 1, column 35: `network[0].subnet`: `10.0.0.0` is not an IPv4 subnet, which is written like `10.44.0.0/24`",
                None,
            ),
            (
                "network = [{ name = 'a', gateway = '10.0.0.256' }]".into(),
                "line 1, column 36: `network[0].gateway`: `10.0.0.256` is not an IPv4 address, which is written like `10.44.0.1`",
                None,
            ),
            (
                "network = [{ name = 'a', dns = ['10.0.0.1', 'ns'] }]".into(),
                "line 1, column 45: `network[0].dns[1]`: `ns` is not an IP address, which is written like `10.44.0.1`",
                None,
            ),
            (
                net("'vhots'"),
                "line 6, column 32: `template.vm[0].net[0].type` must be `vhost`, `tap` or `user`, not `vhots`",
                Some("did you mean `vhost`?"),
            ),
            (
                net("{}"),
                "line 6, column 32: `template.vm[0].net[0].type`: is empty; write `vhost`, `tap` or `user`",
                None,
            ),
            (
                net("{ vhost = {}, tap = {} }"),
                "line 6, column 32: `template.vm[0].net[0].type`: holds both `vhost` and `tap`; a NIC is plugged in one way",
                None,
            ),
            (
                net("{ vhost = true }"),
                "line 6, column 42: `template.vm[0].net[0].type.vhost` must be a table, not true or false",
                None,
            ),
            (
                net("1"),
                "line 6, column 32: `template.vm[0].net[0].type` must be `vhost`, `tap` or `user`, as a text or as a table of that name, not a whole number",
                None,
            ),
        ]);
    }

    #[test]
    fn bad_names() {
        let long = "a".repeat(64);
        let rows = [
            ("'a/b'", "the name `a/b` holds `/`; only a-z, 0-9 and `-` are allowed"),
            ("\"a\\nb\"", "the name `a\\nb` holds `\\n`; only a-z, 0-9 and `-` are allowed"),
            (&format!("'{long}'"), &format!("the name `{long}` has 64 characters, and 63 is the most")),
            ("'Web'", "the name `Web` holds `W`; only a-z, 0-9 and `-` are allowed"),
            ("'42'", "the name `42` is all digits, which would read as a VM's number"),
            ("''", "a name cannot be empty"),
        ];
        for (name, message) in rows {
            let places = [
                ("network[0].name", format!("network = [{{ name = {name} }}]")),
                ("image[0].name", format!("image = [{{ name = {name}, path = 'a' }}]")),
                ("template.vm[0].name", VM.replace("'xs'", name)),
                ("template.vm[0].disk[0].name", VM.replace("'os'", name)),
                ("template.vm[0].disk[0].image", VM.replace("path = 'a'", &format!("image = {name}"))),
                ("template.vm[0].net[0].name", format!("{VM}net = [{{ name = {name} }}]")),
            ];
            for (path, text) in places {
                let error = of_text(&text).expect_err(&text);
                assert!(error.message().ends_with(&format!(": `{path}`: {message}")), "{text}: {error}");
            }
        }
    }

    #[test]
    fn what_is_not_toml() {
        let rows = [
            ("[node", "line 1, column 6: not TOML: "),
            ("[node]\nhypervisor = qemu", "line 2, column 14: not TOML: "),
            ("[node]\naccel = 'kvm'\naccel = 'tcg'", "line 3, column 1: not TOML: duplicate key"),
            ("[node]\naccel = 'k\0'", "line 2, column "),
            ("a = 'ä' x", "line 1, column 9: not TOML: "),
        ];
        for (text, message) in rows {
            let error = of_text(text).expect_err(text);
            assert_eq!(error.kind(), Kind::Usage, "{text}");
            assert!(error.message().starts_with(&format!("`/etc/virshle/config.toml` {message}")), "{text}: {error}");
        }
        let deep = format!("a = {}", "[".repeat(100_000));
        assert_eq!(of_text(&deep).expect_err("too deep").kind(), Kind::Usage);
    }

    #[test]
    fn the_first_fault_of_the_file_is_told() {
        let text = "[[template.vm]]\nzzz = 1\n[node]\naaa = 1";
        assert!(of_text(text).unwrap_err().message().contains("line 2, column 1: unknown key `zzz`"));
    }

    #[test]
    fn the_line_is_shown_with_a_mark() {
        let error = of_text("[node]\n\taccel = \"kvn\" # \u{9b}31m").unwrap_err();
        let excerpt =
            "--> /etc/virshle/config.toml:2:10\n  |\n2 | \taccel = \"kvn\" # \u{fffd}31m\n  | \t        ^^^^^";
        assert_eq!(error.chain()[1], excerpt);
        let wide = format!("node.accel = '{}'", "k".repeat(200));
        assert_eq!(of_text(&wide).unwrap_err().chain().len(), 1, "a line that would be wrapped");
    }

    #[test]
    fn both_spellings_of_a_link() {
        use crate::config::LinkEntry::{Tap, User, Vhost};
        for (word, link) in [("vhost", Vhost), ("tap", Tap), ("user", User)] {
            for net in [
                format!("[[template.vm.net]]\nname = 'main'\ntype = '{word}'"),
                format!("[[template.vm.net]]\nname = 'main'\n[template.vm.net.type.{word}]"),
                format!("[[template.vm.net]]\nname = 'main'\ntype.{word} = {{}}"),
            ] {
                let config = of_text(&format!("{VM}{net}")).unwrap();
                assert_eq!(config.templates[0].nets[0].link, Some(link), "{net}");
            }
        }
    }

    #[test]
    fn words_in_a_row() {
        let rows: [(&[&str], &str); 4] =
            [(&[], ""), (&["a"], "`a`"), (&["a", "b"], "`a` or `b`"), (&["a", "b", "c"], "`a`, `b` or `c`")];
        for (words, sentence) in rows {
            assert_eq!(or_one_of(words), sentence, "{words:?}");
        }
    }
}
