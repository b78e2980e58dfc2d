//! Storing events exactly once: [`EventStore`], [`EventReader`] and [`KeyStore`].

mod memory;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use memory::MemoryStore;

use crate::audit::EventStatus;
use crate::clock::Timestamp;
use crate::conversation::{AnswerIds, Changes, Conversation, Message, ToolUse};
use crate::digest::Digest;
use crate::error::{BoxError, Retryable};
use crate::id::RequestId;
use crate::key::ApiKey;

/// The workspace of everything that names no other.
pub const DEFAULT_WORKSPACE: &str = "main";

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
/// * The first arrival of a request id is admitted: its audit row, its ledger entry and its changes are
///   stored together.
/// * A repeat with the same digest changes nothing of the first; it leaves a `DUPLICATE` audit row
///   without a body that names the first, and gets the first's answer with its current status.
/// * A repeat with another digest changes nothing of the first; it leaves an `INVALID` audit row with
///   its body, and is told of the conflict.
/// * Repeats inside one batch are treated as repeats across batches.
/// * An arrival with [`Arrival::in_ledger`] unset is stored, and its request id stays free.
/// * Changes are merged ([`Conversation::merge`] and its like), so events may be recorded in any order.
/// * A body that is not JSON is kept byte for byte.
/// * [`claim_due`](EventStore::claim_due) gives a row to one worker; [`complete`](EventStore::complete)
///   of a claim that was lost meanwhile changes nothing and says so.
/// * Only the changes of state of [`EventStatus::may_become`] happen, and each leaves a row in the trail.
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

    /// Brings a row into another state on somebody's behalf.
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

    /// Deletes up to `limit` settled audit rows (`SUCCESS`, `DUPLICATE`, `INVALID`, `FAILED`) received
    /// before `before`; returns how many. The ledger stays.
    ///
    /// # Errors
    ///
    /// Nothing is deleted.
    async fn prune(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError>;

    /// Whether a write would succeed now; for readiness.
    ///
    /// # Errors
    ///
    /// It would not, and why.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// Reads what is stored.
///
/// # Behavior
///
/// * What [`EventStore::record`] returned is visible at once.
/// * Lists are newest first and continue from a cursor: the id of the last item seen.
#[async_trait]
pub trait EventReader: std::fmt::Debug + Send + Sync + 'static {
    /// One audit row with its bodies, by its own id or by request id (the admitted one).
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn event(&self, key: EventKey) -> Result<Option<EventDetail>, StoreError>;

    /// Audit rows, newest first.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn events(
        &self,
        filter: EventFilter,
        page: Page,
    ) -> Result<Vec<EventSummary>, StoreError>;

    /// One conversation, whole, by its session id or its own id's text.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn conversation(
        &self,
        workspace: &str,
        key: &str,
    ) -> Result<Option<ConversationDetail>, StoreError>;

    /// Conversations, newest first.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn conversations(
        &self,
        workspace: &str,
        page: Page,
    ) -> Result<Vec<ConversationSummary>, StoreError>;

    /// How many audit rows are in each state.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn counts(&self) -> Result<BTreeMap<EventStatus, u64>, StoreError>;
}

/// One request as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The id of its audit row, `UUIDv7`.
    pub event_id: Uuid,
    /// Names the event.
    pub request_id: RequestId,
    /// The digest that a repeat must have.
    pub digest: Digest,
    /// Whether it takes the request id; unset for what its sender must mend and send again.
    pub in_ledger: bool,
    /// The workspace of the key that sent it.
    pub workspace: String,
    /// The event type, cut; `unknown` where it could not be read.
    pub event_type: String,
    /// The session id, where it could be read.
    pub session_id: Option<String>,
    /// When the request was received.
    pub received_at: Timestamp,
    /// The hook payload (for the original's form: the body).
    pub body: Bytes,
    /// The request's headers, selected, secrets replaced.
    pub headers: BTreeMap<String, String>,
    /// The client's address.
    pub ip_address: Option<IpAddr>,
    /// What else the envelope says.
    pub metadata: serde_json::Map<String, serde_json::Value>,
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
    /// The digest of the first arrival.
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

/// Names an audit row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKey {
    /// By the row's own id.
    Id(Uuid),
    /// By request id: the first arrival's row.
    Request(RequestId),
}

/// Which audit rows to list. Every given field must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// The workspace.
    pub workspace: Option<String>,
    /// The state.
    pub status: Option<EventStatus>,
    /// The event type.
    pub event_type: Option<String>,
    /// The session.
    pub session_id: Option<String>,
    /// The request id, duplicates included.
    pub request_id: Option<RequestId>,
}

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Begin after the item of this id; none begins at the newest.
    pub after: Option<Uuid>,
    /// How many items at most.
    pub limit: usize,
}

impl Page {
    /// The first `limit` items.
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit }
    }
}

/// An audit row, in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventSummary {
    /// The row's own id.
    pub id: Uuid,
    /// Names the event.
    pub request_id: RequestId,
    /// The event type.
    pub event_type: String,
    /// The session.
    pub session_id: Option<String>,
    /// When the request was received.
    pub received_at: Timestamp,
    /// The state.
    pub status: EventStatus,
    /// From receipt to the statement that stored it, in milliseconds.
    pub processing_time_ms: Option<u64>,
    /// What it is about.
    #[serde(flatten)]
    pub answer: AnswerIds,
    /// Why it is not `SUCCESS`.
    pub error_code: Option<String>,
    /// The same for people.
    pub error_message: Option<String>,
    /// How often it was tried again.
    pub retry_count: u32,
    /// When it is tried again.
    pub retry_after: Option<Timestamp>,
    /// What else the envelope says; for a duplicate, the first row's id as `duplicateOf`.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// An audit row, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventDetail {
    /// What the list says.
    pub summary: EventSummary,
    /// The body as it came; none for a duplicate.
    pub body: Option<Bytes>,
    /// The request's headers, selected, secrets replaced.
    pub headers: BTreeMap<String, String>,
    /// The client's address.
    pub ip_address: Option<IpAddr>,
    /// Every change of state, oldest first.
    pub transitions: Vec<Transition>,
}

/// A change of an audit row's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// From which state.
    pub from: EventStatus,
    /// To which state.
    pub to: EventStatus,
    /// When.
    pub at: Timestamp,
    /// Who: a job's name, or a person's.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A conversation, in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationSummary {
    /// The conversation.
    #[serde(flatten)]
    pub conversation: Conversation,
    /// How many messages it has.
    pub messages: u64,
    /// How many tool uses it has.
    pub tool_uses: u64,
}

/// A conversation, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationDetail {
    /// The conversation.
    #[serde(flatten)]
    pub conversation: Conversation,
    /// Its messages, oldest first.
    pub messages: Vec<Message>,
    /// Its tool uses, oldest first.
    pub tool_uses: Vec<ToolUse>,
    /// Its audit rows, oldest first, duplicates left out: the timeline.
    pub events: Vec<EventSummary>,
}

/// Keeps API keys, as hashes.
///
/// # Behavior
///
/// * A key that was created is found by its id until it is revoked, and afterwards too, marked so.
/// * Revoking twice is as good as once.
#[async_trait]
pub trait KeyStore: std::fmt::Debug + Send + Sync + 'static {
    /// Keeps a new key.
    ///
    /// # Errors
    ///
    /// It is not kept.
    async fn create_key(&self, key: ApiKey) -> Result<(), StoreError>;

    /// The key of this id.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn key(&self, id: &str) -> Result<Option<ApiKey>, StoreError>;

    /// Every key, oldest first.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError>;

    /// Makes a key useless from `now` on; returns whether there is one of this id.
    ///
    /// # Errors
    ///
    /// It is as it was.
    async fn revoke_key(&self, id: &str, now: Timestamp) -> Result<bool, StoreError>;
}

/// A store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database is away, locked, full or shutting down: the same call may succeed later.
    #[error("the store is not available: {what}")]
    Unavailable {
        /// What was tried.
        what: String,
        /// What went wrong.
        source: BoxError,
    },
    /// The database refused what it was given.
    #[error("the store refused: {what}")]
    Data {
        /// What was tried.
        what: String,
        /// What went wrong.
        source: BoxError,
    },
    /// There is no such row.
    #[error("there is no {0}")]
    NotFound(String),
    /// The change of state is not one that may happen.
    #[error("an event in state {from} cannot become {to}")]
    IllegalTransition {
        /// The row's state.
        from: EventStatus,
        /// The state asked for.
        to: EventStatus,
    },
}

impl Retryable for StoreError {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

const _: Option<(&dyn EventStore, &dyn EventReader, &dyn KeyStore)> = None; // object safe
