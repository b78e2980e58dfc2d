//! From Diesel's errors to the store's: which of them retrying helps.
//!
//! Diesel does not pass on Postgres' error codes, and messages come in the server's language. So only
//! what Diesel itself names is taken at its word; whether another failure is the fault of what was
//! written is found out by trying (see `write`).

use arrakis_core::base::error::BoxError;
use arrakis_core::record::store::StoreError;
use diesel::result::{DatabaseErrorKind, Error as DbError};

/// Why a transaction was rolled back.
#[derive(Debug)]
pub(crate) enum TxError {
    /// The database failed.
    Db(DbError),
    /// Another transaction got in the way: the same again may succeed.
    Raced,
    /// The call cannot be done on what is stored.
    Refused(StoreError),
    /// The database refuses what it was given, even without what is not needed of it.
    Culprit {
        /// The place of the arrival in its group.
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
    /// Whether another transaction got in the way.
    pub(crate) fn is_raced(&self) -> bool {
        match self {
            Self::Raced => true,
            Self::Db(error) => is_raced(error),
            _ => false,
        }
    }

    /// The error for the caller; `what` says what was tried.
    pub(crate) fn into_store(self, what: &str) -> StoreError {
        match self {
            Self::Db(error) => store_error(what, error),
            Self::Raced => unavailable(what, "other transactions kept getting in the way"),
            Self::Refused(error) => error,
            Self::Culprit { error, .. } => {
                StoreError::Data { what: what.to_owned(), source: Box::new(error) }
            }
        }
    }
}

/// The store's error for a database error; `what` says what was tried.
pub(crate) fn store_error(what: &str, error: DbError) -> StoreError {
    let what = what.to_owned();
    if is_data(&error) {
        StoreError::Data { what, source: Box::new(error) }
    } else {
        StoreError::Unavailable { what, source: Box::new(error) }
    }
}

/// Whether the database certainly failed because of what it was given.
pub(crate) fn is_data(error: &DbError) -> bool {
    match error {
        DbError::DatabaseError(kind, _) => matches!(
            kind,
            DatabaseErrorKind::UniqueViolation
                | DatabaseErrorKind::ForeignKeyViolation
                | DatabaseErrorKind::NotNullViolation
                | DatabaseErrorKind::CheckViolation
                | DatabaseErrorKind::RestrictViolation
                | DatabaseErrorKind::ExclusionViolation
        ),
        DbError::SerializationError(_) | DbError::DeserializationError(_) => true,
        _ => false,
    }
}

/// Whether the database certainly failed because of another transaction. A deadlock has no kind of its
/// own in Diesel, and is found in a server that speaks English; in another it is unclear.
fn is_raced(error: &DbError) -> bool {
    match error {
        DbError::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => true,
        DbError::DatabaseError(DatabaseErrorKind::Unknown, told) => {
            told.message() == "deadlock detected"
        }
        _ => false,
    }
}

/// Whether the session may only read.
pub(crate) fn is_read_only(error: &DbError) -> bool {
    matches!(error, DbError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _))
}

/// Whether the connection is gone.
pub(crate) fn is_lost(error: &DbError) -> bool {
    !matches!(error, DbError::DatabaseError(kind, _) if !matches!(
        kind,
        DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection
    ))
}

/// Whether the database answered, but Diesel does not say what the matter is: it may be the data, a
/// deadlock, a timeout, a full disk.
pub(crate) fn is_unclear(error: &DbError) -> bool {
    matches!(error, DbError::DatabaseError(DatabaseErrorKind::Unknown, _)) && !is_raced(error)
}

/// The store's error where the database cannot be reached.
pub(crate) fn unavailable(what: impl Into<String>, source: impl Into<BoxError>) -> StoreError {
    StoreError::Unavailable { what: what.into(), source: source.into() }
}

/// A stored value that does not read as what it should be.
pub(crate) fn unreadable(column: &str, source: impl Into<BoxError>) -> DbError {
    DbError::DeserializationError(format!("cannot read column {column}: {}", source.into()).into())
}
