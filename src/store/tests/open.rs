//! Opening: what is made, what is refused, and that what is refused stays as it was.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::fixture::{self, draft, place, tamper};
use crate::error::{Error, Kind};
use crate::store::Store;

/// Every file of a folder with its bytes, but for what holds none: sqlite's shared-memory index,
/// and a log with nothing in it, which a connection that only looked may leave.
fn bytes(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .filter(|(name, bytes)| !(name.ends_with("-shm") || name.ends_with("-wal") && bytes.is_empty()))
        .collect();
    files.sort();
    files
}

fn all_text(error: &Error) -> String {
    format!("{}\n{}", error.chain().join("\n"), error.hint_text().unwrap_or_default())
}

#[test]
fn the_folder_and_the_file_are_made_for_their_owner_only() {
    let (_dir, path) = place();
    Store::open(&path).unwrap();
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let names: Vec<String> = bytes(path.parent().unwrap()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["virshle.sqlite", "virshle.sqlite.lock"]);
}

#[test]
fn reading_makes_nothing_and_sees_what_is_written() {
    let (dir, path) = place();
    assert!(Store::open_read_only(&path).unwrap().is_none());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "not even the folder");

    let mut store = Store::open(&path).unwrap();
    fixture::reserve(&mut store, &[draft(Some("web"), &[])]).unwrap();
    let mut reader = Store::open_read_only(&path).unwrap().unwrap();
    assert_eq!(reader.find("web").unwrap().spec.number, 1);
    let error = reader.remove(reader.find("web").unwrap().spec.uuid).unwrap_err();
    assert_eq!(error.message(), format!("the database `{}` cannot be written", path.display()));
    drop(store);
    assert_eq!(Store::open_read_only(&path).unwrap().unwrap().list().unwrap().len(), 1, "nobody else has it open");
}

#[test]
fn a_reader_does_not_wait_for_a_writer_who_is_busy() {
    let (_dir, path) = place();
    let mut store = Store::open(&path).unwrap();
    fixture::reserve(&mut store, &[draft(Some("web"), &[])]).unwrap();
    let mut other = Connection::open(&path).unwrap();
    let busy = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    busy.execute("DELETE FROM vm", []).unwrap();
    let started = Instant::now();
    let listed = Store::open_read_only(&path).unwrap().unwrap().list().unwrap();
    assert_eq!(listed.len(), 1, "the state before the writer's transaction");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn a_locked_database_is_named_after_the_wait() {
    let (_dir, path) = place();
    drop(Store::open(&path).unwrap());
    let mut other = Connection::open(&path).unwrap();
    let _busy = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let mut store = Store::open_within(&path, Duration::from_millis(50)).unwrap();
    let error = fixture::reserve(&mut store, &[draft(Some("web"), &[])]).unwrap_err();
    assert_eq!(error.message(), format!("`{}` is locked by another process", path.display()));
    assert_eq!(error.chain()[1..], ["database is locked (sqlite error 5)"]);
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.hint_text().unwrap().contains("fuser -v"), "{error:?}");
    assert!(store.list().unwrap().is_empty());
}

/// What happens to a good database, and the words that must come.
type Damage = (&'static str, fn(&Path), &'static [&'static str]);

#[test]
fn what_cannot_be_used_is_reported_and_left_as_it_is() {
    let rows: [Damage; 10] = [
        (
            "newer",
            |path| tamper(path, "PRAGMA user_version = 7"),
            &["schema version 7", "knows up to 4", "upgrade `v`"],
        ),
        (
            "newer, with a log its last user left",
            |path| {
                let connection = Connection::open(path).unwrap();
                connection.execute_batch("PRAGMA user_version = 7").unwrap();
                // Never closed, as after `kill -9`: the new version is in the log alone.
                let copies = ["", "-wal"].map(|suffix| fs::read(format!("{}{suffix}", path.display())).unwrap());
                drop(connection);
                for (suffix, copy) in ["", "-wal"].iter().zip(copies) {
                    fs::write(format!("{}{suffix}", path.display()), copy).unwrap();
                }
            },
            &["schema version 7", "upgrade `v`"],
        ),
        ("foreign", |path| tamper(path, "PRAGMA application_id = 1"), &["of another program", "aside"]),
        ("negative version", |path| tamper(path, "PRAGMA user_version = -1"), &["of another program"]),
        ("no database", |path| fs::write(path, "# my notes\n".repeat(500)).unwrap(), &["is not a database", "backup"]),
        ("short", |path| fs::write(path, "x").unwrap(), &["is not a database (its size is 1 B)", "backup"]),
        ("empty", |path| fs::write(path, "").unwrap(), &["is not a database (its size is 0 B)", "backup"]),
        (
            "a folder",
            |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
            &["is a folder", "--root DIR"],
        ),
        (
            "a dangling link",
            |path| {
                fs::remove_file(path).unwrap();
                symlink("/no/such/place", path).unwrap();
            },
            &["is a link to a file that is not there"],
        ),
        (
            "cut short",
            |path| {
                let whole = fs::read(path).unwrap();
                fs::write(path, &whole[..whole.len() / 2]).unwrap();
            },
            &["is damaged", "backup"],
        ),
    ];
    for (what, damage, words) in rows {
        let (_dir, path) = place();
        let mut store = Store::open(&path).unwrap();
        fixture::reserve(&mut store, &[draft(Some("web"), &[])]).unwrap();
        drop(store);
        damage(&path);
        let before = bytes(path.parent().unwrap());
        for (way, error) in [
            ("write", Store::open(&path).and_then(|store| store.check()).unwrap_err()),
            ("read", Store::open_read_only(&path).and_then(|store| store.unwrap().check()).unwrap_err()),
        ] {
            let text = all_text(&error);
            assert!(text.contains(path.to_str().unwrap()), "{what}, {way}: {text}");
            assert!(words.iter().all(|word| text.contains(word)), "{what}, {way}: {text}");
            assert_eq!(error.kind(), Kind::Failed, "{what}, {way}");
            assert!(error.hint_text().is_some(), "{what}, {way}: {text}");
        }
        assert!(bytes(path.parent().unwrap()) == before, "{what}: a byte has changed");
    }
}

#[test]
fn a_database_that_was_lost_is_not_made_anew() {
    type Rest = (&'static str, fn(&Path));
    let rows: [Rest; 2] = [
        ("-wal", |path| fs::write(format!("{}-wal", path.display()), "log").unwrap()),
        ("vm", |path| {
            fs::create_dir_all(path.with_file_name("vm").join("6f1b0a1e-91a7-4d2c-9d52-0123456789ab")).unwrap();
        }),
    ];
    for (what, leave) in rows {
        let (_dir, path) = place();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        leave(&path);
        for error in [Store::open(&path).unwrap_err(), Store::open_read_only(&path).unwrap_err()] {
            let text = all_text(&error);
            assert!(text.contains("is missing") && text.contains(what) && text.contains("backup"), "{text}");
        }
        assert!(!path.exists(), "{what}");
    }
    let (_dir, path) = place();
    fs::create_dir_all(path.with_file_name("vm")).unwrap();
    Store::open(&path).expect("an empty folder for VMs shows nothing");
}

#[test]
fn damage_inside_is_found_by_the_check_and_met_with_words() {
    let (_dir, path) = place();
    let mut store = Store::open(&path).unwrap();
    let drafts: Vec<_> = (0..50).map(|_| draft(None, &[fixture::subnet("main", "10.0.0.0/24")])).collect();
    fixture::reserve(&mut store, &drafts).unwrap();
    store.check().unwrap();
    drop(store);
    let mut whole = fs::read(&path).unwrap();
    let middle = whole.len() / 2;
    whole[middle..middle + 4096].fill(0xa5);
    fs::write(&path, &whole).unwrap();

    let store = Store::open(&path).unwrap();
    let error = store.check().unwrap_err();
    assert_eq!(error.message(), format!("the database `{}` is damaged", path.display()));
    assert!(error.hint_text().unwrap().contains("backup"), "{error:?}");
    drop(store);
    assert!(fs::read(&path).unwrap() == whole, "a byte has changed");
}

#[test]
fn the_check_finds_addresses_of_nobody_and_rows_that_cannot_be_read() {
    let rows = [
        (
            "PRAGMA foreign_keys = OFF; INSERT INTO address VALUES ('main', '10.0.0.9', 'nobody', 0)",
            "a row of `address` names a row of `vm` that is not there",
        ),
        ("UPDATE vm SET state = 'flying'", "the `state` recorded of VM"),
        ("UPDATE vm SET spec = json_set(spec, '$.version', 9)", "has version 9"),
        ("UPDATE network SET state = 'flying'", "the `state` recorded of network `main`"),
        ("UPDATE network SET spec = '{}'", "the `spec` recorded of network `main`"),
        ("UPDATE network SET server = '[]'", "the `server` recorded of network `main`"),
        ("UPDATE prefix6 SET net = 'fd00::/640'", "the `prefix6` recorded of network `main`"),
    ];
    for (sql, words) in rows {
        let (_dir, mut store) = fixture::store();
        fixture::reserve(&mut store, &[draft(Some("web"), &[])]).unwrap();
        store.begin_network(&fixture::network("main")).unwrap();
        store.prefix6(&fixture::name("main")).unwrap();
        store.check().unwrap();
        tamper(store.path(), sql);
        let text = all_text(&store.check().unwrap_err());
        assert!(text.contains(words), "{sql}: {text}");
    }
}

#[test]
fn a_new_file_left_by_one_who_was_killed_is_no_obstacle() {
    let (_dir, path) = place();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(format!("{}.new", path.display()), "half a data").unwrap();
    fs::write(format!("{}.new-journal", path.display()), "base").unwrap();
    Store::open(&path).unwrap().check().unwrap();
    assert_eq!(bytes(path.parent().unwrap()).len(), 2);
}

/// A database that an earlier command left with its log, as `kill -9` does, opens with all of it.
#[test]
fn a_log_left_by_one_who_was_killed_is_taken_in() {
    let (_dir, path) = place();
    let mut store = Store::open(&path).unwrap();
    fixture::reserve(&mut store, &[draft(Some("web"), &[])]).unwrap();
    let copy = path.with_file_name("copy.sqlite");
    for suffix in ["", "-wal"] {
        fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", copy.display())).unwrap();
    }
    assert_eq!(Store::open_read_only(&copy).unwrap().unwrap().list().unwrap().len(), 1);
    assert_eq!(Store::open(&copy).unwrap().list().unwrap().len(), 1);
}

#[test]
fn without_permission_the_error_names_the_file_and_nothing_changes() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may write everywhere");
        return;
    }
    let rows: [(&str, u32, u32, &str); 3] = [
        ("a folder that may not be written", 0o500, 0o600, "cannot be written"),
        ("a file that may not be written", 0o700, 0o400, "cannot be written"),
        ("a file that may not be read", 0o700, 0o000, "cannot open"),
    ];
    for (what, folder_mode, file_mode, words) in rows {
        let (_dir, path) = place();
        let folder = path.parent().unwrap();
        drop(Store::open(&path).unwrap());
        let before = bytes(folder);
        fs::set_permissions(&path, fs::Permissions::from_mode(file_mode)).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(folder_mode)).unwrap();
        let result = Store::open(&path).and_then(|mut store| fixture::reserve(&mut store, &[draft(None, &[])]));
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let text = all_text(&result.unwrap_err());
        assert!(text.contains(path.to_str().unwrap()) && text.contains(words), "{what}: {text}");
        assert!(bytes(folder) == before, "{what}");
    }

    let (dir, path) = place();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let error = Store::open(&path).unwrap_err();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(error.message().starts_with("cannot make the folder"), "{error}");
    assert!(error.hint_text().unwrap().contains("--root DIR"));
}
