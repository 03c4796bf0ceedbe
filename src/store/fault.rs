//! From sqlite's words to a person's: one place that knows what an error code means here and what
//! to do about it.

use std::path::Path;

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

use crate::error::Error;

/// What stops a piece of work on the database: sqlite, or a reason of ours.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(rusqlite::Error),
    Reason(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Sql(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Reason(error)
    }
}

impl From<rusqlite_migration::Error> for Fault {
    fn from(error: rusqlite_migration::Error) -> Self {
        match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => Fault::Sql(err),
            error => Fault::Reason(Error::failed("cannot bring the schema up to date").source(error)),
        }
    }
}

impl Fault {
    /// `doing` completes "cannot … in `file`", for what has no better name.
    pub(super) fn explain(self, path: &Path, doing: &str) -> Error {
        let error = match self {
            Fault::Reason(error) => return error,
            Fault::Sql(error) => error,
        };
        let file = path.display();
        let restore = || format!("nothing was changed; restore `{file}` from a backup, or move it aside to begin anew");
        let (message, hint) = match error.sqlite_error_code() {
            _ if no_room_for_index(&error) => {
                (format!("no space left to open the database `{file}`"), "free some space and try again".to_owned())
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => return locked(path).source(cause(&error)),
            Some(ErrorCode::NotADatabase) => (format!("`{file}` is not a database"), restore()),
            Some(ErrorCode::DatabaseCorrupt) => (
                format!("the database `{file}` is damaged"),
                format!("keep a copy of `{file}`; `v doctor` says what is damaged; then restore it from a backup"),
            ),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => (
                format!("the database `{file}` cannot be written"),
                "run as a user who may write there, or name another folder with `--root DIR`".to_owned(),
            ),
            Some(ErrorCode::CannotOpen) => (
                format!("cannot open the database `{file}`"),
                format!("check that you may read and write `{file}` and its folder"),
            ),
            Some(ErrorCode::DiskFull) => {
                (format!("no space left to {doing} in `{file}`"), "free some space and try again".to_owned())
            }
            Some(ErrorCode::SystemIoFailure) => (
                format!("reading or writing `{file}` failed"),
                "look for errors of the disk or file system in `dmesg`".to_owned(),
            ),
            _ => return Error::failed(format!("cannot {doing} in `{file}`")).source(cause(&error)),
        };
        Error::failed(message).hint(hint).source(cause(&error))
    }
}

/// Whether the file that a log's readers and writers share could not be made large enough.
pub(super) fn no_room_for_index(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(code, _) if code.extended_code == SQLITE_IOERR_SHMSIZE)
}

/// sqlite's own words once; rusqlite would say them twice, as error and as its source.
fn cause(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(code, Some(words)) => format!("{words} (sqlite error {})", code.extended_code),
        error => error.to_string(),
    }
}

pub(super) fn locked(path: &Path) -> Error {
    let file = path.display();
    Error::failed(format!("`{file}` is locked by another process"))
        .hint(format!("let the other command finish and try again; `fuser -v {file}` names it"))
}
