//! Which VM a person means: by its name, its number, or the beginning of its uuid.
//!
//! `cafe` may be a name or a uuid's first four digits, so a word is first read in every way it
//! can be ([`Selector::parse`]), and the rows decide, in that order.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::error::{Error, Result, nearest};
use crate::spec::Name;

use super::fault::Fault;
use super::open::Store;
use super::record::Record;

/// One way to read the word a person typed for a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    Name(Name),
    Number(u32),
    /// The beginning of a uuid, or all of it, in its usual form: lower case, with hyphens.
    Uuid(String),
}

impl Selector {
    /// How many hex digits make the beginning of a uuid.
    const SHORTEST: usize = 4;
    /// How many of the matches of an ambiguous word are named.
    const SHOWN: usize = 10;

    /// Every way to read `text`, in the order to try; none when it can be no VM at all.
    pub fn parse(text: &str) -> Vec<Self> {
        let name = text.parse().ok().map(Selector::Name);
        // As it is printed: `007` is no number.
        let number = text.parse().ok().filter(|number: &u32| number.to_string() == text).map(Selector::Number);
        [name, number, uuid_prefix(text).map(Selector::Uuid)].into_iter().flatten().collect()
    }
}

/// The text as the beginning of a uuid's usual form, if it is one with or without hyphens.
fn uuid_prefix(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if !(Selector::SHORTEST..=32).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let filled = Uuid::parse_str(&format!("{digits:0<32}")).ok()?.to_string();
    let hyphens = [8, 12, 16, 20].iter().filter(|at| digits.len() > **at).count();
    let usual = &filled[..digits.len() + hyphens];
    (text == digits || text.trim_end_matches('-') == usual && filled.starts_with(&text)).then(|| usual.to_owned())
}

impl Store {
    /// The VM that `text` names. Several that it may mean are an error that lists them.
    pub fn find(&self, text: &str) -> Result<Record> {
        match self.read("find a VM", |connection| look_up(connection, text))? {
            Some(record) => Ok(record),
            None => Err(self.missing(&[text])),
        }
    }

    /// Each VM named, once, in the order given; or an error with every word that names none.
    pub fn find_many(&self, texts: &[String]) -> Result<Vec<Record>> {
        let mut found: Vec<Record> = Vec::new();
        let mut missing = Vec::new();
        for text in texts {
            match self.read("find a VM", |connection| look_up(connection, text))? {
                Some(record) if found.iter().any(|other| other.spec.uuid == record.spec.uuid) => {}
                Some(record) => found.push(record),
                None => missing.push(text.as_str()),
            }
        }
        if missing.is_empty() { Ok(found) } else { Err(self.missing(&missing)) }
    }

    /// For `--id 1`.
    pub fn find_number(&self, number: u32) -> Result<Record> {
        self.read("find a VM", |connection| by_number(connection, number))?.ok_or_else(|| {
            Error::not_found(format!("there is no VM with number {number}")).hint("`v vm ls` lists the VMs")
        })
    }

    fn missing(&self, texts: &[&str]) -> Error {
        let names = match self.read("list the names", names) {
            Ok(names) => names,
            Err(error) => return error,
        };
        let hint = texts
            .iter()
            .find_map(|text| nearest(text, names.iter().map(String::as_str)))
            .map_or_else(|| "`v vm ls` lists the VMs".to_owned(), |name| format!("did you mean `{name}`?"));
        let words: Vec<String> = texts.iter().map(|text| format!("`{}`", text.escape_debug())).collect();
        let message = match words.as_slice() {
            [word] => format!("there is no VM {word}"),
            words => format!("there are no VMs {}", words.join(", ")),
        };
        Error::not_found(message).hint(hint)
    }
}

fn look_up(connection: &Connection, text: &str) -> Result<Option<Record>, Fault> {
    for reading in Selector::parse(text) {
        let found = match reading {
            Selector::Name(name) => by_name(connection, &name)?,
            Selector::Number(number) => match by_number(connection, number)? {
                // A number that was given once stays its VM's: repeating `v vm delete 1234` must not
                // go on to another VM whose uuid begins with 1234.
                None if number <= last_number(connection)? => return Ok(None),
                found => found,
            },
            Selector::Uuid(prefix) => by_uuid(connection, text, &prefix)?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn by_name(connection: &Connection, name: &Name) -> Result<Option<Record>, Fault> {
    one(connection, &format!("SELECT {} FROM vm WHERE name = ?1", Record::COLUMNS), params![name.as_str()])
}

fn by_number(connection: &Connection, number: u32) -> Result<Option<Record>, Fault> {
    one(connection, &format!("SELECT {} FROM vm WHERE number = ?1", Record::COLUMNS), params![number])
}

fn by_uuid(connection: &Connection, text: &str, prefix: &str) -> Result<Option<Record>, Fault> {
    // A range, so that the index serves it: `g` follows every digit and the hyphen.
    let mut statement = connection
        .prepare_cached("SELECT uuid, name, number FROM vm WHERE uuid >= ?1 AND uuid < ?1 || 'g' ORDER BY number")?;
    let mut rows = statement.query([prefix])?;
    let mut matches: Vec<(String, String, u32)> = Vec::new();
    while let Some(row) = rows.next()? {
        matches.push((row.get(0)?, row.get(1)?, row.get(2)?));
    }
    match matches.as_slice() {
        [] => Ok(None),
        [(uuid, ..)] => one(connection, &format!("SELECT {} FROM vm WHERE uuid = ?1", Record::COLUMNS), params![uuid]),
        several => {
            let shown = several.iter().take(Selector::SHOWN);
            let mut list: Vec<String> =
                shown.map(|(uuid, name, number)| format!("`{uuid}` ({number}, `{name}`)")).collect();
            if several.len() > Selector::SHOWN {
                list.push(format!("and {} more", several.len() - Selector::SHOWN));
            }
            Err(Error::usage(format!("`{text}` may mean {} VMs: {}", several.len(), list.join(", ")))
                .hint("type more of the uuid, or the name or number")
                .into())
        }
    }
}

pub(super) fn one(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Option<Record>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    rows.next()?.map(Record::read).transpose()
}

fn last_number(connection: &Connection) -> rusqlite::Result<u32> {
    let number = connection.query_row("SELECT number FROM last_number", [], |row| row.get(0)).optional()?;
    Ok(number.unwrap_or(0))
}

fn names(connection: &Connection) -> Result<Vec<String>, Fault> {
    let mut statement = connection.prepare("SELECT name FROM vm ORDER BY number")?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::store::tests::fixture;

    #[test]
    fn how_a_word_may_be_read() {
        let name = |text: &str| Selector::Name(text.parse().unwrap());
        let uuid = |text: &str| Selector::Uuid(text.to_owned());
        let whole = "6f1b0a1e-91a7-4d2c-9d52-0123456789ab";
        let rows: [(&str, Vec<Selector>); 19] = [
            ("web", vec![name("web")]),
            ("cafe", vec![name("cafe"), uuid("cafe")]),
            ("caf", vec![name("caf")]),
            ("CAFE", vec![uuid("cafe")]),
            ("1", vec![Selector::Number(1)]),
            ("1234", vec![Selector::Number(1234), uuid("1234")]),
            ("0123", vec![uuid("0123")]),
            ("4294967296", vec![uuid("42949672-96")]),
            ("+1", vec![]),
            ("6f1b0a1e-91", vec![name("6f1b0a1e-91"), uuid("6f1b0a1e-91")]),
            ("6f1b0a1e91", vec![name("6f1b0a1e91"), uuid("6f1b0a1e-91")]),
            ("6f1b0a1e-", vec![uuid("6f1b0a1e")]),
            ("6f1b-0a1e", vec![name("6f1b-0a1e")]),
            ("6f1b0a1e--91", vec![name("6f1b0a1e--91")]),
            (whole, vec![uuid(whole)]),
            ("6f1b0a1e91a74d2c9d520123456789ab", vec![name("6f1b0a1e91a74d2c9d520123456789ab"), uuid(whole)]),
            ("6f1b0a1e91a74d2c9d520123456789ab0", vec![name("6f1b0a1e91a74d2c9d520123456789ab0")]),
            ("", vec![]),
            ("we b", vec![]),
        ];
        for (text, expected) in rows {
            assert_eq!(Selector::parse(text), expected, "{text:?}");
        }
    }

    /// A store whose uuids are chosen, so that words can clash.
    fn store() -> (tempfile::TempDir, Store) {
        let (dir, path) = fixture::place();
        let mut store = Store::open(&path).unwrap();
        for (name, uuid) in [
            ("web", "cafe0000-0000-4000-8000-000000000001"),
            ("cafe", "aaaa0000-0000-4000-8000-000000000002"),
            ("db", "bbbb0000-0000-4000-8000-000000000003"),
            ("cache", "bbbb1000-0000-4000-8000-000000000004"),
            ("five", "00030000-0000-4000-8000-000000000005"),
            ("six", "12345678-0000-4000-8000-000000000006"),
        ] {
            fixture::add(&mut store, name, uuid.parse().unwrap());
        }
        (dir, store)
    }

    #[test]
    fn a_name_wins_then_a_number_then_a_uuid() {
        let (_dir, store) = store();
        let rows = [
            ("web", "web", "a name"),
            ("cafe", "cafe", "a name that also begins a uuid"),
            ("cafe0", "web", "one more digit makes it the uuid"),
            ("CAFE", "web", "no name has capitals"),
            ("3", "db", "a number"),
            ("0003", "five", "not as a number is written, so a uuid"),
            ("1234", "six", "no such number was given"),
            ("bbbb1", "cache", "a unique beginning"),
            ("bbbb0000-0000-4000-8000-000000000003", "db", "the whole uuid"),
            ("bbbb000000004000800000000000 0003", "", "a space"),
        ];
        for (text, expected, why) in rows {
            let found = store.find(text).map(|record| record.spec.name.to_string()).unwrap_or_default();
            assert_eq!(found, expected, "{why}");
        }
        assert_eq!(store.find_number(4).unwrap().spec.name.as_str(), "cache");
    }

    #[test]
    fn what_is_not_found_is_an_error_with_the_nearest_name() {
        let (_dir, store) = store();
        let rows = [
            ("wbe", "there is no VM `wbe`", "did you mean `web`?"),
            ("zzzzzzzz", "there is no VM `zzzzzzzz`", "`v vm ls` lists the VMs"),
            ("99", "there is no VM `99`", "`v vm ls` lists the VMs"),
            ("", "there is no VM ``", "`v vm ls` lists the VMs"),
            ("'; DROP TABLE vm; --\n", "there is no VM `\\'; DROP TABLE vm; --\\n`", "`v vm ls` lists the VMs"),
        ];
        for (text, message, hint) in rows {
            let error = store.find(text).unwrap_err();
            assert_eq!((error.message(), error.hint_text()), (message, Some(hint)), "{text}");
            assert_eq!(error.kind(), Kind::NotFound, "{text}");
        }
        let error = store.find_number(99).unwrap_err();
        assert_eq!((error.message(), error.kind()), ("there is no VM with number 99", Kind::NotFound));
    }

    #[test]
    fn an_ambiguous_beginning_lists_its_matches() {
        let (_dir, store) = store();
        let error = store.find("bbbb").unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert_eq!(
            error.message(),
            "`bbbb` may mean 2 VMs: `bbbb0000-0000-4000-8000-000000000003` (3, `db`), \
             `bbbb1000-0000-4000-8000-000000000004` (4, `cache`)"
        );
        for number in 0..20 {
            fixture::add(
                &mut Store::open(store.path()).unwrap(),
                &format!("x{number}"),
                Uuid::from_u128(0xdddd << 112 | number),
            );
        }
        let error = store.find("dddd").unwrap_err();
        assert!(error.message().starts_with("`dddd` may mean 20 VMs: "), "{error}");
        assert!(error.message().ends_with(", and 10 more"), "{error}");
    }

    #[test]
    fn a_number_once_given_never_means_a_uuid() {
        let (_dir, path) = fixture::place();
        let mut store = Store::open(&path).unwrap();
        fixture::set_last_number(&path, 1233);
        let gone = fixture::add(&mut store, "gone", Uuid::new_v4());
        fixture::add(&mut store, "other", "12345678-0000-4000-8000-000000000001".parse().unwrap());
        assert_eq!(gone.number, 1234);
        store.remove(gone.uuid).unwrap();
        assert_eq!(store.find("1234").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(store.find("12345").unwrap().spec.name.as_str(), "other");
    }

    #[test]
    fn many_are_all_found_once_or_each_missing_one_is_named() {
        let (_dir, store) = store();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let found = store.find_many(&words(&["db", "1", "web", "aaaa"])).unwrap();
        let names: Vec<&str> = found.iter().map(|record| record.spec.name.as_str()).collect();
        assert_eq!(names, ["db", "web", "cafe"]);
        assert_eq!(store.find_many(&[]).unwrap(), []);

        let error = store.find_many(&words(&["nope", "web", "sx", "77"])).unwrap_err();
        assert_eq!(error.message(), "there are no VMs `nope`, `sx`, `77`");
        assert_eq!((error.kind(), error.hint_text()), (Kind::NotFound, Some("did you mean `six`?")));
        assert_eq!(store.find_many(&words(&["nope"])).unwrap_err().message(), "there is no VM `nope`");
    }
}
