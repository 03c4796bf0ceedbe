//! The schema's history: one file per step, forward only, all pending steps in one transaction.
//!
//! A file that was released never changes; a change of a JSON column's form needs a step too, so
//! that an older program meets a newer version number and not a form it cannot read.

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use crate::error::{Error, Result};

const STEPS: &[M<'_>] = &[
    M::up(include_str!("migrations/0001_vm.sql")),
    M::up(include_str!("migrations/0002_history.sql")),
    M::up(include_str!("migrations/0003_network.sql")),
    M::up(include_str!("migrations/0004_declared.sql")),
];

/// The schema this program reads and writes.
pub(super) const LATEST: i32 = STEPS.len() as i32;

/// What the first step writes into the file's header; zero in a database nobody has marked.
const APPLICATION_ID: i32 = 0x5669_7273;

/// Where a database that is ours stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    Current,
    Older,
    Newer(i32),
    Foreign,
}

pub(super) fn schema(connection: &Connection) -> rusqlite::Result<Schema> {
    let read = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    if read("application_id")? != APPLICATION_ID {
        return Ok(Schema::Foreign);
    }
    Ok(match read("user_version")? {
        version if version > LATEST => Schema::Newer(version),
        version if version < 0 => Schema::Foreign,
        version if version < LATEST => Schema::Older,
        _ => Schema::Current,
    })
}

pub(super) fn upgrade(connection: &mut Connection) -> Result<(), rusqlite_migration::Error> {
    Migrations::from_slice(STEPS).to_latest(connection)
}

pub(super) fn refuse_newer(path: &std::path::Path, version: i32) -> Error {
    let file = path.display();
    Error::failed(format!("the database `{file}` has schema version {version}, and this `v` knows up to {LATEST}"))
        .hint("a newer `v` has used this database: upgrade `v`")
}

pub(super) fn refuse_foreign(path: &std::path::Path) -> Error {
    let file = path.display();
    Error::failed(format!("`{file}` is a database of another program, or of a Virshle before 0.1"))
        .hint(format!("nothing was changed; move `{file}` aside to begin anew"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::tests::fixture;

    #[test]
    fn the_steps_are_well_formed() {
        Migrations::from_slice(STEPS).validate().unwrap();
    }

    /// The whole schema, so that a change of a released step shows.
    #[test]
    fn the_schema_is_the_golden_one() {
        let (_dir, path) = fixture::place();
        Store::open(&path).unwrap();
        let connection = Connection::open(&path).unwrap();
        let mut statement =
            connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid").unwrap();
        let schema: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        insta::assert_snapshot!("schema", schema.join(";\n\n"));
    }

    /// A file as an earlier schema wrote it, byte by byte in SQL: every later program reads it.
    fn opened(steps: &[&str], rows: &str) -> (tempfile::TempDir, Store) {
        let (dir, path) = fixture::place();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let connection = Connection::open(&path).unwrap();
        for sql in steps.iter().chain([&rows]) {
            connection.execute_batch(sql).unwrap();
        }
        drop(connection);
        let store = Store::open(&path).unwrap();
        store.check().unwrap();
        (dir, store)
    }

    #[test]
    fn a_database_of_schema_1_is_read() {
        let rows = include_str!("migrations/0001_golden_rows.sql");
        let (_dir, store) = opened(&[include_str!("migrations/0001_vm.sql")], rows);
        insta::assert_debug_snapshot!("rows_of_schema_1", store.list().unwrap());
    }

    #[test]
    fn a_database_of_schema_2_is_read_and_goes_on() {
        let steps = [include_str!("migrations/0001_vm.sql"), include_str!("migrations/0002_history.sql")];
        let (_dir, mut store) = opened(&steps, include_str!("migrations/0002_golden_rows.sql"));
        insta::assert_debug_snapshot!("rows_of_schema_2", (store.list().unwrap(), store.history(None, 9).unwrap()));
        let drafts = [fixture::draft(Some("db"), &[fixture::subnet("main", "10.44.0.0/24")])];
        let spec = fixture::reserve(&mut store, &drafts).unwrap().remove(0);
        assert_eq!((spec.number, spec.address()), (10, Some("10.44.0.3".parse().unwrap())));
        assert_eq!(store.newest_event().unwrap(), 5);
        // Written back, it is of the present version.
        let web = store.find("web").unwrap();
        store
            .update(web.spec.uuid, |record| {
                record.spec.vcpu = 2;
                Ok(())
            })
            .unwrap();
        let version: u32 = store
            .read("look", |connection| {
                Ok(connection.query_row(
                    "SELECT json_extract(spec, '$.version') FROM vm WHERE number = 3",
                    [],
                    |row| row.get(0),
                )?)
            })
            .unwrap();
        assert_eq!(version, crate::spec::SPEC_VERSION);
    }
}
