//! From Diesel's errors to the store's: which of them retrying helps.

use arrakis_core::base::error::BoxError;
use arrakis_core::record::store::StoreError;
use diesel::result::{DatabaseErrorKind, Error as DbError};

/// Why a transaction was rolled back.
#[derive(Debug)]
pub(crate) enum TxError {
    /// The database failed.
    Db(DbError),
    /// The call cannot be done on what is stored.
    Refused(StoreError),
    /// The database refuses the arrival at this place of the group, even without its changes.
    Culprit {
        /// Its place.
        index: usize,
        /// What the database said.
        error: DbError,
    },
}

impl From<DbError> for TxError {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl TxError {
    /// The error for the caller; `what` says what was tried.
    pub(crate) fn into_store(self, what: &str) -> StoreError {
        match self {
            Self::Db(error) | Self::Culprit { error, .. } => store_error(what, error),
            Self::Refused(error) => error,
        }
    }
}

/// What SQLite says when it is not this call's fault: the text of its result codes `BUSY`, `LOCKED`,
/// `FULL`, `IOERR`, `READONLY`, `CANTOPEN`, `PROTOCOL`, `NOMEM`, `CORRUPT` and `NOTADB`, which
/// Diesel passes on without the code. A database with the wrong tables is in no state to judge a row
/// either.
const UNAVAILABLE: [&str; 12] = [
    "database is locked",
    "database table is locked",
    "database or disk is full",
    "disk I/O error",
    "attempt to write a readonly database",
    "unable to open database file",
    "locking protocol",
    "out of memory",
    "database disk image is malformed",
    "file is not a database",
    "no such table",
    "no such column",
];

/// The store's error for a database error; `what` says what was tried.
pub(crate) fn store_error(what: &str, error: DbError) -> StoreError {
    let what = what.to_owned();
    if is_data(&error) {
        StoreError::Data { what, source: Box::new(error) }
    } else {
        StoreError::Unavailable { what, source: Box::new(error) }
    }
}

/// Whether the database failed because of what it was given, not because of its own state.
pub(crate) fn is_data(error: &DbError) -> bool {
    match error {
        DbError::DatabaseError(DatabaseErrorKind::Unknown, info) => {
            !UNAVAILABLE.iter().any(|text| info.message().starts_with(text))
        }
        DbError::DatabaseError(kind, _) => matches!(
            kind,
            DatabaseErrorKind::UniqueViolation
                | DatabaseErrorKind::ForeignKeyViolation
                | DatabaseErrorKind::NotNullViolation
                | DatabaseErrorKind::CheckViolation
        ),
        DbError::SerializationError(_) | DbError::DeserializationError(_) => true,
        _ => false,
    }
}

/// Whether somebody else holds the database: the connection itself is sound.
pub(crate) fn is_locked(error: &DbError) -> bool {
    matches!(error, DbError::DatabaseError(_, info) if info.message() == "database is locked")
}

/// The store's error where the database cannot be reached.
pub(crate) fn unavailable(what: impl Into<String>, source: impl Into<BoxError>) -> StoreError {
    StoreError::Unavailable { what: what.into(), source: source.into() }
}

/// A stored value that does not read as what it should be.
pub(crate) fn unreadable(column: &str, source: impl Into<BoxError>) -> DbError {
    DbError::DeserializationError(format!("cannot read column {column}: {}", source.into()).into())
}
