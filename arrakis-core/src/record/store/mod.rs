//! Storing events exactly once: [`EventStore`], [`EventReader`] and [`KeyStore`].

pub mod adapter;
mod archive;
mod memory;
mod search;
mod spools;
mod types;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

pub use archive::{Archive, ArrivalFilter, page_length};
pub use memory::MemoryStore;
pub use search::{HitKind, InvalidSearchCursor, SearchCursor, SearchFilter, SearchHit, SearchPage};
pub use spools::{HeardSpool, MemorySpoolReports, SpoolReports};
pub use types::{
    Admission, AdmissionKind, Claim, ConversationDetail, ConversationSummary, EventDetail,
    EventFilter, EventKey, EventSummary, FeedCursor, FeedPage, Page, Transition, Verdict,
};

pub use crate::record::arrival::{Arrival, Capture, EventMetadata};

use crate::base::clock::Timestamp;
use crate::base::dead_letter::DeadLetterError;
use crate::base::error::{BoxError, Retryable};
use crate::record::audit::EventStatus;
use crate::record::key::ApiKey;

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
/// * Changes are merged ([`Conversation::merge`](crate::session::conversation::Conversation::merge) and its like),
///   so events may be recorded in any order, in any batches, and each any number of times: a session is the
///   same in any order.
/// * A message grows by its blocks and its usage counts once; hooks and transcript tell of the same messages
///   and tools; subagents are kept with what started them.
/// * A body that is not JSON is kept byte for byte. One that is reads back as the same JSON; a store may
///   change what JSON does not mean: spacing, and the order of keys.
/// * [`claim_due`](EventStore::claim_due) gives a row to one worker; [`complete`](EventStore::complete)
///   of a claim that was lost meanwhile changes nothing and says so.
/// * What was recorded is found by its text after the next [`index`](EventStore::index).
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

/// Reads what is stored.
///
/// # Behavior
///
/// * What [`EventStore::record`] returned is visible at once.
/// * Lists are newest first and continue from a cursor: the id of the last item seen.
/// * Of each conversation, what only hooks or only transcripts have told of is counted.
/// * A search finds the messages and tool uses that hold all of its words, newest first, with what is around
///   the first match.
/// * A search can be filtered, with and without words.
/// * A search goes on from its cursor, and finds nothing twice, whatever is stored meanwhile.
/// * What is found is shown as it is now; what changed is found by what it is now.
/// * What an event and the transcript say both is found once.
/// * Prompts are shown, counted and found once, however many events and lines tell of them, and not at all where
///   they were withdrawn.
/// * A search finds the same in every store.
/// * The feed shows each commit at least once, whichever server made it and however long it took.
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

    /// The messages and tool uses that `filter` asks for, newest first: up to `limit` of them, and where to
    /// go on. What was stored lately may not be found yet ([`EventStore::index`]).
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn search(
        &self,
        filter: SearchFilter,
        after: Option<SearchCursor>,
        limit: usize,
    ) -> Result<SearchPage, StoreError>;

    /// What was committed since `after`, about `limit` rows of it, in the order of commits as far as the
    /// store knows it; without `after`, nothing and the present position.
    ///
    /// # Errors
    ///
    /// The store could not be read, or did not give this cursor.
    async fn feed(&self, after: Option<FeedCursor>, limit: usize) -> Result<FeedPage, StoreError>;

    /// How many audit rows are in each state.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn counts(&self) -> Result<BTreeMap<EventStatus, u64>, StoreError>;
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

impl From<StoreError> for DeadLetterError {
    fn from(error: StoreError) -> Self {
        Self { action: "reach the dead letters".to_owned(), source: Box::new(error) }
    }
}

impl Retryable for StoreError {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

const _: Option<(&dyn EventStore, &dyn EventReader, &dyn KeyStore)> = None; // object safe
