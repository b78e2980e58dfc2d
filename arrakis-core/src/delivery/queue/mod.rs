//! Keeping events until they are delivered: [`Queue`].

mod memory;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use memory::MemoryQueue;

use crate::base::clock::Timestamp;
use crate::base::dead_letter::{DeadLetterError, Failure};
use crate::base::envelope::Envelope;
use crate::base::error::{BoxError, Retryable};
use crate::base::id::RequestId;
use crate::base::limits::PENDING_MAX_AGE;

/// Keeps events until they are settled, at least once.
///
/// # Behavior
///
/// * An event is durable when [`push`](Queue::push) returns.
/// * Pushing a request id that is already there changes nothing.
/// * [`lease`](Queue::lease) gives an event to one owner at a time; a lease ends by
///   [`settle`](Queue::settle) or by its owner's death, never by a clock.
/// * An event that is not due is not leased, except by [`Lane::One`]. A due time further ahead than
///   [`DUE_HORIZON`](crate::base::limits::DUE_HORIZON) is due now.
/// * An event for a destination of [`LeaseRequest::closed`] is not leased, and counts for no due time.
/// * A lease request with room for nothing still gives one event, so that a large one gets through.
/// * [`Disposition::Delivered`] and [`Disposition::Duplicate`] remove the event;
///   [`Disposition::Released`] gives it back as it was; [`Disposition::RetryAt`] gives it back with one
///   more round burnt and the failure in its history, [`Disposition::Deferred`] with none;
///   [`Disposition::DeadLetter`] keeps it among the dead letters with its whole history.
/// * What cannot be read is set aside and counted in [`Depth::quarantined`]; it delays nothing else.
/// * [`reap`](Queue::reap) gives the events of dead owners back, and of no living one.
/// * Whether the queue [is idle](Queue::is_idle) is told without counting.
/// * An event that has waited through [`PENDING_MAX_AGE`] of
///   [`age`](Queue::age) is a dead letter, its last failure [`EXPIRED`]. Its time begins with the first
///   call that finds it. After a delivery to its destination the next call gives it back.
/// * [`wait`](Queue::wait) returns after a push; it may return without one, and may be dropped.
#[async_trait]
pub trait Queue: std::fmt::Debug + Send + Sync + 'static {
    /// Adds an event.
    ///
    /// # Errors
    ///
    /// The event is not durable.
    async fn push(&self, envelope: Envelope) -> Result<(), QueueError>;

    /// Takes events that are due.
    ///
    /// # Errors
    ///
    /// The queue could not be read; nothing is leased.
    async fn lease(&self, request: LeaseRequest) -> Result<Leased, QueueError>;

    /// Ends leases, each in its own way.
    ///
    /// # Errors
    ///
    /// At least one could not be settled; that event will be delivered again. The others are
    /// settled.
    async fn settle(&self, settlements: Vec<(Lease, Disposition)>) -> Result<(), QueueError>;

    /// Gives the events of dead owners back; returns how many.
    ///
    /// # Errors
    ///
    /// The queue could not be read.
    async fn reap(&self) -> Result<u64, QueueError>;

    /// Counts what is there.
    ///
    /// # Errors
    ///
    /// The queue could not be read.
    async fn depth(&self) -> Result<Depth, QueueError>;

    /// Whether nothing waits and nothing is leased that could come back here.
    ///
    /// # Errors
    ///
    /// The queue could not be read.
    async fn is_idle(&self) -> Result<bool, QueueError> {
        Ok(self.depth().await?.is_idle())
    }

    /// Tells the events that wait that so much time has passed in which they could have been
    /// delivered. Time comes as an argument, so that no clock that is set makes events old. A long
    /// queue may be looked through over several calls.
    ///
    /// # Errors
    ///
    /// The queue could not be read or written.
    async fn age(&self, by: Duration) -> Result<Aged, QueueError>;

    /// Waits until there may be something new.
    async fn wait(&self) -> Wake;
}

/// What a call of [`Queue::age`] has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Aged {
    /// Events that have become dead letters.
    pub expired: u64,
    /// Expired events that wait again.
    pub revived: u64,
}

/// The code of the failure that an event has which waited for too long.
pub const EXPIRED: &str = "expired";

impl Failure {
    /// The failure of an event that waited for too long, having failed `round` rounds.
    #[must_use]
    pub fn expired(at: Timestamp, round: u32) -> Self {
        let days = PENDING_MAX_AGE.as_secs() / (24 * 3600);
        Self {
            at,
            round,
            code: EXPIRED.to_owned(),
            message: format!(
                "its receiver was away for {days} days; it is tried again when the receiver is back"
            ),
        }
    }
}

/// Why [`Queue::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Something may have been pushed.
    Pushed,
    /// Somebody asks that waiting events be tried now: the receiver is back, or the configuration
    /// has changed.
    Poked,
}

/// Which events a lease is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lane {
    /// Only events that were pushed since the queue was opened, or so shortly before that it may have
    /// been opened for them, and were never leased.
    Fresh,
    /// Any due event.
    Any,
    /// One event, due or not.
    One(RequestId),
}

/// How much to lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Which events.
    pub lane: Lane,
    /// How many at most.
    pub events: usize,
    /// How many payload bytes at most; the first event may be larger.
    pub bytes: usize,
    /// Destinations whose events stay where they are: their receivers are away. A queue that can tell
    /// an event's destination from its name passes over a long backlog without reading it.
    pub closed: Vec<String>,
}

/// What a lease request gave.
#[derive(Debug, Default)]
pub struct Leased {
    /// The events.
    pub leases: Vec<Lease>,
    /// When nothing was leased: the earliest due time among the events that wait for one.
    pub next_due: Option<Timestamp>,
}

/// An event that belongs to its holder until it is settled.
#[derive(Debug)]
pub struct Lease {
    /// The event.
    pub envelope: Arc<Envelope>,
    /// How many rounds of delivery it has failed.
    pub failed_rounds: u32,
    /// What the queue needs to find it again; opaque to everybody else.
    pub token: String,
}

/// How a lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// The receiver has stored it: forget it.
    Delivered,
    /// The receiver had it before: forget it. A queue that counts tells the two apart.
    Duplicate,
    /// It failed a round: give it back, due at this time.
    RetryAt {
        /// When to try again.
        due: Timestamp,
        /// Why.
        failure: Failure,
    },
    /// It failed no round, but others go first: give it back, due at this time. Another owner may have it
    /// sooner.
    Deferred {
        /// When to try again.
        due: Timestamp,
        /// Why.
        failure: Failure,
    },
    /// Nothing was learned about it: give it back as it was.
    Released,
    /// It is out of rounds: keep it for people.
    DeadLetter {
        /// The last reason.
        failure: Failure,
    },
}

/// How much is where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Depth {
    /// Events that wait, due or not.
    pub pending: u64,
    /// Events that are leased.
    pub processing: u64,
    /// Dead letters.
    pub failed: u64,
    /// Entries that could not be read.
    pub quarantined: u64,
}

impl Depth {
    /// Whether nothing waits and nothing is leased.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending == 0 && self.processing == 0
    }
}

/// A queue could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The queue holds as much as it may.
    #[error("the queue is full ({0})")]
    Full(String),
    /// The medium failed.
    #[error("cannot {action}")]
    Medium {
        /// What was tried, and on what.
        action: String,
        /// What went wrong.
        source: BoxError,
    },
    /// The lease is not this holder's (any more).
    #[error("the lease of event {0} is not held here")]
    NotLeased(RequestId),
}

impl From<QueueError> for DeadLetterError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Medium { action, source } => Self { action, source },
            other => Self { action: "reach the dead letters".to_owned(), source: Box::new(other) },
        }
    }
}

impl Retryable for QueueError {
    fn is_retryable(&self) -> bool {
        !matches!(self, Self::NotLeased(_))
    }
}

const _: Option<&dyn Queue> = None; // object safe
