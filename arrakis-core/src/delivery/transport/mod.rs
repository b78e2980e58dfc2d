//! Delivering events: [`Transport`], its adapter to tower, and an implementation without a network.

mod loopback;
mod service;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use loopback::{Attempt, Loopback};
pub use service::{ServiceTransport, TransportService};

use crate::base::digest::Digest;
use crate::base::envelope::Envelope;
use crate::base::error::{BoxError, Retryable};
use crate::base::id::RequestId;

/// Carries events to a receiver.
///
/// # Behavior
///
/// * One call is one attempt: an implementation does not retry.
/// * On success there is one [`Outcome`] per envelope, in the batch's order. A missing outcome is
///   taken as [`Outcome::TryAgain`].
/// * [`Outcome::Accepted`] and [`Outcome::Duplicate`] are claims that the receiver has stored the
///   event durably. An implementation makes them only of a reply that names the envelope's request
///   id and digest.
/// * A failure of the call as a whole says nothing about any single event, unless the batch held
///   only that one.
/// * Dropping the future gives the attempt up; the receiver may have stored the events all the same.
#[async_trait]
pub trait Transport: std::fmt::Debug + Send + Sync + 'static {
    /// Makes one attempt to deliver `batch`.
    ///
    /// # Errors
    ///
    /// The attempt failed as a whole.
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError>;
}

/// One or more envelopes for one destination. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Batch {
    envelopes: Vec<Arc<Envelope>>,
}

impl Batch {
    /// A batch of `envelopes`; `None` if there are none, or if they differ in their destination.
    #[must_use]
    pub fn new(envelopes: Vec<Arc<Envelope>>) -> Option<Self> {
        let first = envelopes.first()?;
        let same = envelopes.iter().all(|e| e.header.destination == first.header.destination);
        same.then_some(Self { envelopes })
    }

    /// A batch of one envelope.
    #[must_use]
    pub fn one(envelope: Arc<Envelope>) -> Self {
        Self { envelopes: vec![envelope] }
    }

    /// The envelopes; at least one.
    #[must_use]
    pub fn envelopes(&self) -> &[Arc<Envelope>] {
        &self.envelopes
    }

    /// How many envelopes; at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.envelopes.len()
    }

    /// The destination that all of them share.
    #[must_use]
    pub fn destination(&self) -> &str {
        &self.envelopes[0].header.destination
    }
}

/// What became of one envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Stored now.
    Accepted(Receipt),
    /// Had been stored before.
    Duplicate(Receipt),
    /// The receiver does not want this event.
    Refused(Reason),
    /// The receiver could not take it this time.
    TryAgain(Reason),
}

/// The receiver's word that an event is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The event.
    pub request_id: RequestId,
    /// The digest of the payload that was stored.
    pub digest: Digest,
    /// The receiver's own id of it.
    pub event_id: Uuid,
}

/// Why an event was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A stable word such as `id_conflict`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// An attempt failed as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No answer came: no route, no name, no handshake, connection lost.
    #[error("{destination} cannot be reached")]
    Unreachable {
        /// The URL.
        destination: String,
        /// What went wrong.
        source: BoxError,
    },
    /// No answer came in time.
    #[error("no answer within {} ms", .after.as_millis())]
    Timeout {
        /// The time allowed.
        after: Duration,
    },
    /// The receiver, or something before it, asks to be left alone for now.
    #[error("the receiver is not available{}", in_parentheses(.answer.as_deref()))]
    Unavailable {
        /// The answer as the receiver's protocol names it, such as `HTTP 503`.
        answer: Option<String>,
        /// How long to wait, if it said so.
        retry_after: Option<Duration>,
    },
    /// The receiver failed on this request.
    #[error("the receiver failed{}: {message}", in_parentheses(.answer.as_deref()))]
    Failed {
        /// The answer as the receiver's protocol names it.
        answer: Option<String>,
        /// What it said.
        message: String,
    },
    /// The receiver does not take this request, and does not say which event is to blame.
    #[error("the receiver refused the request{}: {message}", in_parentheses(.answer.as_deref()))]
    Refused {
        /// The answer as the receiver's protocol names it.
        answer: Option<String>,
        /// What it said.
        message: String,
    },
    /// What answered is not Arrakis, or does not know this client: a wrong URL, a proxy, a wrong or
    /// missing key.
    #[error("{problem}; {remedy}")]
    Misconfigured {
        /// What was found.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// Nothing was sent: the circuit breaker is open.
    #[error("nothing was sent: the circuit breaker is open, as the last attempt met: {last}")]
    BreakerOpen {
        /// How long nothing will be let through.
        retry_after: Duration,
        /// What went wrong last.
        last: String,
    },
}

/// Whose fault a failed attempt is; decides what happens to the events in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The receiver's or the network's: no event fails a round, all wait.
    Receiver,
    /// The configuration's: no event fails a round. Delivery is held until the configuration changes.
    Configuration,
    /// Perhaps an event's: the batch is halved to find it; alone in its request, an event fails a
    /// round, unless nothing shows that the receiver works.
    Event,
}

impl TransportError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Unavailable { .. }
            | Self::BreakerOpen { .. } => Fault::Receiver,
            Self::Failed { .. } | Self::Refused { .. } => Fault::Event,
            Self::Misconfigured { .. } => Fault::Configuration,
        }
    }

    /// Whether a smaller batch may fare better. A timeout belongs to the receiver, but a batch that
    /// takes too long may be too large.
    #[must_use]
    pub fn is_worth_halving(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Failed { .. } | Self::Refused { .. })
    }

    /// A stable word for logs and attempt histories.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Timeout { .. } => "timeout",
            Self::Unavailable { .. } => "unavailable",
            Self::Failed { .. } => "receiver_failed",
            Self::Refused { .. } => "refused",
            Self::Misconfigured { .. } => "misconfigured",
            Self::BreakerOpen { .. } => "breaker_open",
        }
    }
}

fn in_parentheses(answer: Option<&str>) -> String {
    answer.map_or_else(String::new, |answer| format!(" ({answer})"))
}

impl Retryable for TransportError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Unavailable { .. }
            | Self::Failed { .. } => true,
            Self::Refused { .. } | Self::Misconfigured { .. } | Self::BreakerOpen { .. } => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            Self::BreakerOpen { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}

const _: Option<&dyn Transport> = None; // object safe
