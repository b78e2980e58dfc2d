//! Writing: recording arrivals, and what jobs and people do to stored events.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{EventReader, StoreError};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::record::arrival::Arrival;
use crate::record::audit::EventStatus;
use crate::session::conversation::{AnswerIds, Changes};

/// How long after an unexpected failure a row is due for another try.
pub const FIRST_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The code and message of a row whose request id belongs to another payload.
pub const ID_CONFLICT: (&str, &str) =
    ("id_conflict", "this request id was used before, with another payload");

/// Stores events exactly once, with an audit row for every arrival.
///
/// # Behavior
///
/// * [`record`](EventStore::record) is one transaction: all of the batch is stored, or nothing. What it
///   returns is durable.
/// * The first arrival of a request id in a workspace is admitted: its audit row, its ledger entry and its
///   changes are stored together.
/// * Workspaces do not know of each other: the same request id is an event of its own in each, with its own
///   answer.
/// * A repeat with the same digest changes nothing of the first; it leaves a `DUPLICATE` audit row
///   without a body that names the first, and gets the first's answer with its current status.
/// * A repeat with another digest changes nothing of the first; it leaves an `INVALID` audit row with
///   its body, and is told of the conflict.
/// * A digest that a sender only names finds repeats and hides nothing: an arrival whose own bytes have it is a
///   conflict, not a repeat.
/// * Repeats inside one batch are treated as repeats across batches.
/// * An arrival with [`Arrival::in_ledger`] unset is stored, and its request id stays free.
/// * Changes are merged ([`Conversation::merge`](crate::session::conversation::Conversation::merge) and its like),
///   so events may be recorded in any order, in any batches, and each any number of times: a session is the
///   same in any order.
/// * A message of many and large blocks is the same in any order, and of its blocks the first
///   [`MESSAGE_MAX_BLOCKS`](crate::base::limits::MESSAGE_MAX_BLOCKS) are kept. A hook that says the same as a large
///   message is shown and found once, in whichever order they come.
/// * A message grows by its blocks and its usage counts once; hooks and transcript tell of the same messages
///   and tools; subagents are kept with what started them.
/// * A body that is not JSON is kept byte for byte. One that is reads back as the same JSON; a store may
///   change what JSON does not mean: spacing, and the order of keys.
/// * [`claim_due`](EventStore::claim_due) gives a row to one worker; [`complete`](EventStore::complete)
///   of a claim that was lost meanwhile changes nothing and says so.
/// * What was recorded is found by its text after the next [`index`](EventStore::index).
/// * Only the changes of state of [`EventStatus::may_become`] happen, and each leaves a row in the trail.
/// * A discarded row stays as it is, and what was discarded cannot be discarded or tried again; its trail says who
///   did it.
#[async_trait]
pub trait EventStore: EventReader {
    /// Stores what arrived, each with its verdict; returns one admission per arrival, in order.
    ///
    /// # Errors
    ///
    /// Nothing of the batch is stored.
    async fn record(&self, batch: Vec<(Arrival, Verdict)>) -> Result<Vec<Admission>, StoreError>;

    /// Takes up to `limit` rows that are due for another try: `PENDING` ones, `PENDING_RETRY` and
    /// `ERROR` ones whose time has come by `now`, and `PROCESSING` ones claimed before `stalled`.
    ///
    /// # Errors
    ///
    /// Nothing is claimed.
    async fn claim_due(
        &self,
        now: Timestamp,
        stalled: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claim>, StoreError>;

    /// Ends a claim: applies the verdict and sets the row's state in one transaction. After
    /// [`Verdict::Failed`] the row waits until `retry_at`, or is `FAILED` where there is none. Returns
    /// whether the claim still held.
    ///
    /// # Errors
    ///
    /// The claim is as it was.
    async fn complete(
        &self,
        claim: Claim,
        verdict: Verdict,
        retry_at: Option<Timestamp>,
    ) -> Result<bool, StoreError>;

    /// Changes the state of a row because `actor` asked for it.
    ///
    /// # Errors
    ///
    /// There is no such row, or the change is not one that may happen.
    async fn transition(
        &self,
        event_id: Uuid,
        to: EventStatus,
        actor: &str,
        reason: &str,
    ) -> Result<(), StoreError>;

    /// Gives a row in `FAILED` up for good because `actor` asked for it.
    ///
    /// # Errors
    ///
    /// There is no such row, it is discarded already, or it is in another state.
    async fn give_up(&self, event_id: Uuid, actor: &str, reason: &str) -> Result<(), StoreError>;

    /// Makes the text of up to `limit` commits searchable: the payloads, messages and tool uses that they
    /// wrote. Returns how many it took; less than `limit` means that nothing is left. What an earlier version
    /// has stored and not made searchable is taken in parts that count as a commit each. Of several servers
    /// on one database one works at a time, the others find nothing to do.
    ///
    /// # Errors
    ///
    /// The next call goes on where this one came to.
    async fn index(&self, limit: usize) -> Result<usize, StoreError>;

    /// Whether a write would succeed now; for readiness.
    ///
    /// # Errors
    ///
    /// It would not, and why.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// What is to become of an arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Apply these changes: `SUCCESS`.
    Apply(Changes),
    /// It fails validation: `INVALID`.
    Invalid {
        /// A stable word.
        code: String,
        /// A sentence for people.
        message: String,
    },
    /// It could not be projected: `ERROR`, to be tried again.
    Failed {
        /// A stable word.
        code: String,
        /// A sentence for people.
        message: String,
    },
}

impl Verdict {
    /// The state of a row that is recorded with this verdict.
    #[must_use]
    pub fn status(&self) -> EventStatus {
        match self {
            Self::Apply(_) => EventStatus::Success,
            Self::Invalid { .. } => EventStatus::Invalid,
            Self::Failed { .. } => EventStatus::Error,
        }
    }
}

/// How an arrival was received into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmissionKind {
    /// It is the first of its request id.
    New,
    /// Its request id and digest were there before.
    Duplicate,
    /// Its request id was there before, with another digest.
    Conflict,
}

/// The store's answer to an arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// How it was received.
    pub kind: AdmissionKind,
    /// The audit row of the request id's first arrival.
    pub event_id: Uuid,
    /// The digest by which the sender knows the event ([`Arrival::named_digest`]); of a conflict, the first arrival's.
    pub digest: Digest,
    /// The first arrival's current state.
    pub status: EventStatus,
    /// What the first arrival was about.
    pub answer: AnswerIds,
}

/// A row that a worker has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What had arrived.
    pub arrival: Arrival,
    /// How often it was tried before.
    pub retry_count: u32,
    /// Proves that the claim is this worker's.
    pub token: String,
}

const _: Option<&dyn EventStore> = None; // object safe
