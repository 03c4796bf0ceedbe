//! Opening the file, and everything that can be wrong with it.
//!
//! ```text
//! no file ──► was there ever one? ──no──► made whole under another name, then renamed ──► open
//!                    └─yes──► refused
//! a file ──► ours, and not newer? ──yes──► upgraded if it is older ──► open
//!                    └─no──► refused, not one byte of it changed
//! ```
//!
//! A database is renamed into place with its schema in it, so fifty first commands at once see
//! either none or a whole one. Making and upgrading hold a lock file beside it.
//!
//! sqlite's locks are the process's, and closing *any* descriptor of the file drops them: nothing
//! here opens the database's file but sqlite.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use uuid::Uuid;

use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Lock, LockError};
use crate::spec::Actor;

use super::fault::{Fault, locked, no_room_for_index};
use super::migrations::{self, Schema};

/// How long one process waits for another's transaction. One takes milliseconds, so fifty
/// processes at once are far from it.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Below one page sqlite takes a file for a database that is yet to be.
const SMALLEST: u64 = 512;

/// A connection to the database.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    /// Who is noted as the cause of what is changed through it; without one, the caller.
    actor: Option<Actor>,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    /// For a look on a full disk, where the log's shared index cannot be made: the index is in
    /// memory, and nobody else can have the file open.
    ReadAlone,
    Write,
}

impl Store {
    /// Opens the database, for reading and writing. Where there never was one it is made, the
    /// folder with mode 0700 and the file with 0600.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_within(path, PATIENCE)
    }

    /// Opens the database for reading: makes nothing, and does not wait for a writer. `None` when
    /// there never was one. A schema that is older than this program is upgraded first.
    pub fn open_read_only(path: &Path) -> Result<Option<Self>> {
        if !is_there(path)? {
            match refuse_if_lost(path) {
                Ok(()) => return Ok(None),
                // What was beside it may be of one that was made since we looked: its log comes
                // after the file itself.
                Err(_) if is_there(path)? => {}
                Err(lost) => return Err(lost),
            }
        }
        let (store, schema) = Self::connect_to_read(path)?;
        if schema == Schema::Current {
            return Ok(Some(store));
        }
        drop(store);
        Self::open(path).map(Some)
    }

    /// The files of a database that a killed process was making at `path`. The next one who makes
    /// it removes them too.
    pub fn leftovers(path: &Path) -> Result<Vec<PathBuf>> {
        let lock = beside(path, ".lock");
        if Lock::is_held(&lock).or_failed(|| format!("cannot look at the lock `{}`", lock.display()))? {
            return Ok(Vec::new());
        }
        Ok(half_made(path).into_iter().filter(|file| file.symlink_metadata().is_ok()).collect())
    }

    /// Removes them, if nobody is making the database by now.
    pub fn remove_leftovers(path: &Path) -> Result<()> {
        let _lock = take_lock(path, PATIENCE)?;
        remove_half_made(path).or_failed(|| format!("cannot remove what is half made of `{}`", path.display()))
    }

    pub(super) fn open_within(path: &Path, patience: Duration) -> Result<Self> {
        if !is_there(path)? {
            make(path, patience)?;
        }
        let (mut store, schema) = Self::connect(path, Access::Write, patience)?;
        if schema == Schema::Older {
            let _lock = take_lock(path, patience)?;
            migrations::upgrade(&mut store.connection)
                .map_err(|error| Fault::from(error).explain(path, "upgrade the schema"))?;
        }
        Ok(store)
    }

    fn connect_to_read(path: &Path) -> Result<(Self, Schema)> {
        let explain = |fault: Fault| fault.explain(path, "read the schema");
        let (access, looked) = match Self::connect_and_look(path, Access::Read, PATIENCE) {
            Err(Fault::Sql(error)) if no_room_for_index(&error) => {
                (Access::ReadAlone, Self::connect_and_look(path, Access::ReadAlone, PATIENCE))
            }
            looked => (Access::Read, looked),
        };
        let (connection, schema) = looked.map_err(explain)?;
        Ok((Self { connection, path: path.to_owned(), actor: None, access }, schema))
    }

    /// Whether others wait as long as this one is open.
    pub(super) fn is_alone(&self) -> bool {
        self.access == Access::ReadAlone
    }

    fn connect(path: &Path, access: Access, patience: Duration) -> Result<(Self, Schema)> {
        let (connection, schema) =
            Self::connect_and_look(path, access, patience).map_err(|fault| fault.explain(path, "read the schema"))?;
        Ok((Self { connection, path: path.to_owned(), actor: None, access }, schema))
    }

    fn connect_and_look(path: &Path, access: Access, patience: Duration) -> Result<(Connection, Schema), Fault> {
        let flags = match access {
            Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
            // Only a file that may be written can be had alone.
            Access::ReadAlone | Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let mut connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(patience)?;
        // What is refused below must stay as it is: without this, closing the connection would
        // move an earlier command's log into the file.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        if access == Access::ReadAlone {
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            connection.pragma_update(None, "query_only", true)?;
        }
        let schema = migrations::schema(&connection)?;
        match schema {
            Schema::Foreign => return Err(migrations::refuse_foreign(path).into()),
            Schema::Newer(version) => return Err(migrations::refuse_newer(path, version).into()),
            Schema::Current | Schema::Older => {}
        }
        if access == Access::Write {
            // Asked to write, sqlite opens a file it may only read without a word.
            if connection.is_readonly("main")? {
                return Err(may_not_write(path).into());
            }
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        }
        prepare(&mut connection)?;
        Ok((connection, schema))
    }

    /// The same, noting `actor` as the cause of changes instead of the user this process runs as.
    #[must_use]
    pub fn acting_as(self, actor: Actor) -> Self {
        Self { actor: Some(actor), ..self }
    }

    pub(super) fn actor(&self) -> Actor {
        self.actor.clone().unwrap_or_else(host::caller)
    }

    /// Whether a newer program has changed the schema since: this one can then do nothing more here.
    pub fn is_newer(path: &Path) -> bool {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let look = || {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(PATIENCE)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            migrations::schema(&connection)
        };
        matches!(look(), Ok(Schema::Newer(_)))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the whole file and every record in it. Slow; for `v doctor`.
    pub fn check(&self) -> Result<()> {
        let findings = self.read("check the database", |connection| {
            let mut findings = Vec::new();
            let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                findings.push(row.get::<_, String>(0)?);
            }
            findings.retain(|finding| finding != "ok");
            let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
                findings.push(format!("a row of `{table}` names a row of `{parent}` that is not there"));
            }
            Ok(findings)
        })?;
        if findings.is_empty() {
            self.list()?;
            self.networks()?;
            self.prefixes()?;
            return self.settings().map(drop);
        }
        let file = self.path.display();
        Err(Error::failed(format!("the database `{file}` is damaged"))
            .hint(format!("keep a copy of `{file}`, then restore it from a backup"))
            .source(Error::failed(findings.join("; "))))
    }

    /// Runs `work`, whose reads see one moment when it is a single statement.
    pub(super) fn read<T>(&self, doing: &str, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T> {
        work(&self.connection).map_err(|fault| fault.explain(&self.path, doing))
    }

    /// Runs `work` in one `IMMEDIATE` transaction: it holds the write lock from its first read on,
    /// and an `Err` writes nothing.
    pub(super) fn write<T>(
        &mut self,
        doing: &str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T> {
        let connection = &mut self.connection;
        let run = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        run().map_err(|fault: Fault| fault.explain(&self.path, doing))
    }
}

/// Settings of the connection, not of the file.
///
/// `synchronous = FULL` for every transaction: what a command has reported must survive a power
/// cut, and no state can be told in advance to be worth less. (With `NORMAL` a finished create could
/// come back as half done, and be undone.)
fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
    connection.pragma_update(None, "synchronous", "FULL")
}

/// Whether there is a file to open. An empty or tiny one is refused: a database is renamed into
/// place whole, so this one has lost its content, and sqlite would start afresh in it.
fn is_there(path: &Path) -> Result<bool> {
    let file = path.display();
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            Err(Error::failed(format!("`{file}` is a folder, and the database should be there"))
                .hint("move the folder aside, or name another place with `--root DIR`"))
        }
        Ok(found) if !found.is_file() => Err(Error::failed(format!("`{file}` is not a regular file"))),
        Ok(found) if found.len() < SMALLEST => {
            Err(Error::failed(format!("`{file}` is not a database (its size is {} B)", found.len()))
                .hint(format!("restore it from a backup; if there were no VMs yet, remove `{file}`")))
        }
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => {
                Err(Error::failed(format!("`{file}` is a link to a file that is not there"))
                    .hint("mount or restore what it points to"))
            }
            // Another command has just made it.
            Ok(_) => is_there(path),
            Err(_) => Ok(false),
        },
        Err(error) => Err(Error::failed(format!("cannot look at the database `{file}`"))
            .hint("check that you may read its folder, or name another with `--root DIR`")
            .source(error)),
    }
}

/// A database that is missing while something of it is left was lost, not never made. A new one
/// would give old numbers again, and take an old log for its own.
fn refuse_if_lost(path: &Path) -> Result<()> {
    let file = path.display();
    let log = beside(path, "-wal");
    let vms = path.with_file_name("vm");
    let is_vm = |name: std::ffi::OsString| name.to_str().is_some_and(|name| Uuid::parse_str(name).is_ok());
    let remains = if fs::symlink_metadata(&log).is_ok_and(|found| found.len() > 0) {
        log
    } else if fs::read_dir(&vms)
        .is_ok_and(|mut found| found.any(|entry| entry.is_ok_and(|entry| is_vm(entry.file_name()))))
    {
        vms
    } else {
        return Ok(());
    };
    let remains = remains.display();
    Err(Error::failed(format!("the database `{file}` is missing, and `{remains}` shows that there was one"))
        .hint(format!("restore `{file}` from a backup; to begin anew, move `{remains}` aside")))
}

fn make(path: &Path, patience: Duration) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Error::failed(format!("cannot make the folder `{}`", folder.display()))
            .hint("run as a user who may, or name another folder with `--root DIR`")
            .source(error)
    })?;
    let _lock = take_lock(path, patience)?;
    if is_there(path)? {
        return Ok(());
    }
    refuse_if_lost(path)?;

    let new = beside(path, ".new");
    let cannot = || format!("cannot make the database `{}`", path.display());
    remove_half_made(path).or_failed(cannot)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).or_failed(cannot)?;
    write_schema(&new).map_err(|fault| fault.explain(&new, "write the schema").context(cannot()))?;
    fs::rename(&new, path).or_failed(cannot)?;
    File::open(folder).and_then(|folder| folder.sync_all()).or_failed(cannot)
}

/// The files of a database that is being made, or whose maker was killed.
fn half_made(path: &Path) -> [PathBuf; 4] {
    ["", "-journal", "-wal", "-shm"].map(|suffix| beside(&beside(path, ".new"), suffix))
}

/// Left by one who was killed here. The caller's lock says that nobody is at it now.
fn remove_half_made(path: &Path) -> io::Result<()> {
    for file in half_made(path) {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// With the rollback journal, so that all is in the one file and synced; the log mode, which the
/// file's header remembers, comes last.
fn write_schema(file: &Path) -> Result<(), Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(file, flags)?;
    prepare(&mut connection)?;
    migrations::upgrade(&mut connection)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Error::failed("the file system does not support sqlite's write-ahead log")
            .hint("keep the state on a local file system")
            .into());
    }
    connection.close().map_err(|(_, error)| error.into())
}

fn take_lock(path: &Path, patience: Duration) -> Result<Lock> {
    let file = beside(path, ".lock");
    let deadline = Instant::now() + patience;
    loop {
        match Lock::try_take(&file) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held) if Instant::now() < deadline => host::pause(Duration::from_millis(5)),
            Err(LockError::Held) => return Err(locked(path)),
            Err(LockError::Io(error)) => return Err(may_not_write(path).source(error)),
        }
    }
}

fn may_not_write(path: &Path) -> Error {
    Error::failed(format!("the database `{}` cannot be written", path.display()))
        .hint("run as a user who may write there, or name another folder with `--root DIR`")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
