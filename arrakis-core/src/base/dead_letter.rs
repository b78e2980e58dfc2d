//! What is kept for people after delivery or processing was given up.

#[cfg(feature = "runtime")]
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::envelope::Header;
#[cfg(feature = "runtime")]
use crate::base::error::BoxError;
use crate::base::id::RequestId;

/// What is kept for people after delivery or processing was given up.
///
/// It stands alone because a queue and a store both have dead letters.
///
/// # Behavior
///
/// * [`list`](DeadLetters::list) is in the order of ids, and begins after the id it is given.
/// * [`redrive`](DeadLetters::redrive) makes an event due at once with all its rounds before it.
/// * [`discard`](DeadLetters::discard) is final, and only ever done by a person.
/// * Ids that are not there are passed over; the count returned tells.
#[cfg(feature = "runtime")]
#[async_trait]
pub trait DeadLetters: std::fmt::Debug + Send + Sync + 'static {
    /// Lists up to `limit` dead letters whose id comes after `after`.
    ///
    /// # Errors
    ///
    /// They could not be read.
    async fn list(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DeadLetterError>;

    /// One dead letter with its payload and history; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// It could not be read.
    async fn show(&self, id: &RequestId) -> Result<Option<DeadLetterDetail>, DeadLetterError>;

    /// Has these events tried again; returns how many there were.
    ///
    /// # Errors
    ///
    /// At least one could not be; the others are.
    async fn redrive(&self, ids: &[RequestId]) -> Result<u64, DeadLetterError>;

    /// Gives these events up; returns how many there were.
    ///
    /// # Errors
    ///
    /// At least one could not be; the others are.
    async fn discard(&self, ids: &[RequestId]) -> Result<u64, DeadLetterError>;
}

/// A dead letter, in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Names the event.
    pub request_id: RequestId,
    /// Its event type, where known.
    pub event_type: Option<String>,
    /// Its session, where known.
    pub session_id: Option<String>,
    /// The last failure, where one is recorded.
    pub failure: Option<Failure>,
}

/// A dead letter, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterDetail {
    /// What the list says.
    pub letter: DeadLetter,
    /// What the envelope said, where the event came in one.
    pub header: Option<Header>,
    /// The payload.
    pub payload: Bytes,
    /// Every round that it lost, in order.
    pub history: Vec<Failure>,
}

/// One entry of an event's history: a round that it failed, or why it was deferred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// Which round it was, from 1; for one that was not lost, how many had been.
    pub round: u32,
    /// A stable word such as `receiver_failed`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// The dead letters cannot be reached.
#[cfg(feature = "runtime")]
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct DeadLetterError {
    /// What was tried, and on what.
    pub action: String,
    /// What went wrong.
    pub source: BoxError,
}

#[cfg(feature = "runtime")]
const _: Option<&dyn DeadLetters> = None; // object safe
