//! Keeping events until they are delivered: [`Queue`] and [`DeadLetters`].

mod memory;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use memory::MemoryQueue;

use crate::clock::Timestamp;
use crate::envelope::{Envelope, Header};
use crate::error::{BoxError, Retryable};
use crate::id::RequestId;
use crate::limits::PENDING_MAX_AGE;

/// Keeps events until they are settled, at least once.
///
/// # Behavior
///
/// * An event is durable when [`push`](Queue::push) returns.
/// * Pushing a request id that is already there changes nothing.
/// * [`lease`](Queue::lease) gives an event to one owner at a time; a lease ends by
///   [`settle`](Queue::settle) or by its owner's death, never by a clock.
/// * An event that is not due is not leased, except by [`Lane::One`]. A due time further ahead than
///   [`DUE_HORIZON`](crate::limits::DUE_HORIZON) is due now.
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
    /// The failure of an event that waited for too long, having lost `round` rounds.
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
    /// How many rounds of delivery it has lost.
    pub rounds_burnt: u32,
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
    /// It lost a round: give it back, due at this time.
    RetryAt {
        /// When to try again.
        due: Timestamp,
        /// Why.
        failure: Failure,
    },
    /// It lost no round, but others had better go first: give it back, due at this time. Another owner may
    /// have it sooner.
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

/// One entry of an event's history: a round that it lost, or why it was put off.
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

impl Retryable for QueueError {
    fn is_retryable(&self) -> bool {
        !matches!(self, Self::NotLeased(_))
    }
}

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
    ) -> Result<Vec<DeadLetter>, QueueError>;

    /// One dead letter with its payload and history; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// It could not be read.
    async fn show(&self, id: &RequestId) -> Result<Option<DeadLetterDetail>, QueueError>;

    /// Has these events tried again; returns how many there were.
    ///
    /// # Errors
    ///
    /// At least one could not be; the others are.
    async fn redrive(&self, ids: &[RequestId]) -> Result<u64, QueueError>;

    /// Gives these events up; returns how many there were.
    ///
    /// # Errors
    ///
    /// At least one could not be; the others are.
    async fn discard(&self, ids: &[RequestId]) -> Result<u64, QueueError>;
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
    pub payload: bytes::Bytes,
    /// Every round that it lost, in order.
    pub history: Vec<Failure>,
}

const _: Option<(&dyn Queue, &dyn DeadLetters)> = None; // object safe
