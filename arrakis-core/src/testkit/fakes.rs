//! Fakes that the suites and the tests of this workspace share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp};
use crate::record::audit::EventStatus;
use crate::record::store::{
    Admission, Arrival, Claim, ConversationCursor, ConversationDetail, ConversationFilter,
    ConversationPage, EventDetail, EventFilter, EventKey, EventPage, EventReader, EventStore,
    FeedCursor, FeedPage, Page, SearchCursor, SearchFilter, SearchPage, StoreError, Verdict,
};

/// A wall clock that follows tokio's: in a test with paused time it stands still while there is work,
/// and jumps to the next timer when there is none.
#[derive(Debug)]
pub struct TokioClock {
    origin: Instant,
    start: Timestamp,
}

impl TokioClock {
    /// A clock that shows `start` now.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self { origin: Instant::now(), start }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start.plus(self.origin.elapsed())
    }
}

/// How a [`FaultyStore`] behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// As the store inside does.
    None,
    /// Every call fails at once, as with a database that is away.
    Unavailable,
    /// No call ever returns, as with a database that hangs.
    Hanging,
    /// Every call finds as many searches as there may be.
    SearchesBusy,
    /// Every call takes longer than a search may.
    SearchTimeout,
}

/// A store with another one inside, and faults at will.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn EventStore>,
    fault: Mutex<Fault>,
    met: AtomicUsize,
}

impl FaultyStore {
    /// A store without a fault.
    #[must_use]
    pub fn new(inner: Arc<dyn EventStore>) -> Self {
        Self { inner, fault: Mutex::new(Fault::None), met: AtomicUsize::new(0) }
    }

    /// From now on it behaves so.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    /// How many calls met a fault so far.
    #[must_use]
    pub fn met(&self) -> usize {
        self.met.load(Ordering::Relaxed)
    }

    /// The store inside, unless there is a fault.
    async fn inner(&self) -> Result<&dyn EventStore, StoreError> {
        let fault = *self.fault.lock();
        if fault != Fault::None {
            self.met.fetch_add(1, Ordering::Relaxed);
        }
        match fault {
            Fault::None => Ok(&*self.inner),
            Fault::Unavailable => Err(StoreError::Unavailable {
                what: "reach the database".to_owned(),
                source: "it is away".into(),
            }),
            Fault::Hanging => std::future::pending().await,
            Fault::SearchesBusy => Err(StoreError::SearchesBusy { running: 2 }),
            Fault::SearchTimeout => {
                Err(StoreError::SearchTimeout { limit: crate::base::limits::SEARCH_TIMEOUT })
            }
        }
    }
}

#[async_trait]
impl EventStore for FaultyStore {
    async fn record(&self, batch: Vec<(Arrival, Verdict)>) -> Result<Vec<Admission>, StoreError> {
        self.inner().await?.record(batch).await
    }

    async fn claim_due(
        &self,
        now: Timestamp,
        stalled: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claim>, StoreError> {
        self.inner().await?.claim_due(now, stalled, limit).await
    }

    async fn complete(
        &self,
        claim: Claim,
        verdict: Verdict,
        retry_at: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        self.inner().await?.complete(claim, verdict, retry_at).await
    }

    async fn transition(
        &self,
        event_id: Uuid,
        to: EventStatus,
        actor: &str,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.inner().await?.transition(event_id, to, actor, reason).await
    }

    async fn give_up(&self, event_id: Uuid, actor: &str, reason: &str) -> Result<(), StoreError> {
        self.inner().await?.give_up(event_id, actor, reason).await
    }

    async fn index(&self, limit: usize) -> Result<usize, StoreError> {
        self.inner().await?.index(limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner().await?.ping().await
    }
}

#[async_trait]
impl EventReader for FaultyStore {
    async fn event(
        &self,
        workspace: &str,
        key: EventKey,
    ) -> Result<Option<EventDetail>, StoreError> {
        self.inner().await?.event(workspace, key).await
    }

    async fn events(&self, filter: EventFilter, page: Page) -> Result<EventPage, StoreError> {
        self.inner().await?.events(filter, page).await
    }

    async fn conversation(
        &self,
        workspace: &str,
        key: &str,
    ) -> Result<Option<ConversationDetail>, StoreError> {
        self.inner().await?.conversation(workspace, key).await
    }

    async fn conversations(
        &self,
        filter: ConversationFilter,
        page: Page<ConversationCursor>,
    ) -> Result<ConversationPage, StoreError> {
        self.inner().await?.conversations(filter, page).await
    }

    async fn search(
        &self,
        filter: SearchFilter,
        after: Option<SearchCursor>,
        limit: usize,
    ) -> Result<SearchPage, StoreError> {
        self.inner().await?.search(filter, after, limit).await
    }

    async fn feed(&self, after: Option<FeedCursor>, limit: usize) -> Result<FeedPage, StoreError> {
        self.inner().await?.feed(after, limit).await
    }

    async fn counts(&self) -> Result<BTreeMap<EventStatus, u64>, StoreError> {
        self.inner().await?.counts().await
    }
}
