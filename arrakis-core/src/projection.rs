//! From one event to what it changes.
//!
//! Pure: no clock, no randomness, no database. What an event changes depends on nothing but itself,
//! and its changes merge with those of other events in any order.

use crate::conversation::Changes;
use crate::store::Arrival;

/// Why an event cannot be projected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// The event is not what it should be, and never will be.
    #[error("{message}")]
    Invalid {
        /// A stable word.
        code: &'static str,
        /// A sentence for people.
        message: String,
    },
    /// The event could not be understood by this version.
    #[error("{message}")]
    Failed {
        /// A stable word.
        code: &'static str,
        /// A sentence for people.
        message: String,
    },
}

/// What the event of `arrival` changes.
///
/// # Errors
///
/// The event is invalid, or cannot be understood.
pub fn project(_arrival: &Arrival) -> Result<Changes, ProjectionError> {
    Ok(Changes::default())
}
