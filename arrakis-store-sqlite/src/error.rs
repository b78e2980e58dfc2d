//! From Diesel's errors to the store's.

use arrakis_core::store::StoreError;
use diesel::result::{DatabaseErrorKind, Error};

/// What a statement met with.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The store's own word.
    Store(StoreError),
    /// The database's.
    Diesel(Error),
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self::Diesel(error)
    }
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl WriteError {
    pub(crate) fn into_store(self, what: &str) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Diesel(error) => store_error(what, error),
        }
    }

    /// What happened, for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Store(error) => error.to_string(),
            Self::Diesel(error) => error.to_string(),
        }
    }

    /// Whether the data is to blame, not the state of the database.
    pub(crate) fn is_about_data(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::Data { .. }),
            Self::Diesel(error) => is_about_data(error),
        }
    }
}

/// SQLite's messages for what the content of a row can cause. Everything else (locked, full, read
/// only, an I/O error, a missing file) is a state of the database that may pass.
fn is_about_data(error: &Error) -> bool {
    match error {
        Error::DatabaseError(kind, info) => {
            matches!(
                kind,
                DatabaseErrorKind::UniqueViolation
                    | DatabaseErrorKind::NotNullViolation
                    | DatabaseErrorKind::CheckViolation
                    | DatabaseErrorKind::ForeignKeyViolation
            ) || info.message().contains("too big")
                || info.message().contains("illegal change of state")
        }
        Error::SerializationError(_)
        | Error::DeserializationError(_)
        | Error::InvalidCString(_)
        | Error::QueryBuilderError(_) => true,
        _ => false,
    }
}

/// A database's error as the store's.
pub(crate) fn store_error(what: &str, error: Error) -> StoreError {
    let what = what.to_owned();
    if is_about_data(&error) {
        StoreError::Data { what, source: error.into() }
    } else {
        StoreError::Unavailable { what, source: error.into() }
    }
}

/// What is stored cannot be read back as what was stored.
pub(crate) fn damaged(
    what: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Data { what: format!("read {what}, which is damaged"), source: error.into() }
}
