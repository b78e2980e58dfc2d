//! [`PgStore`]: the traits, each method a transaction of the pool's connections or a call to the writer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrakis_core::base::clock::{Clock, Timestamp};
use arrakis_core::base::dead_letter::{DeadLetter, DeadLetterDetail};
use arrakis_core::base::digest::Digest;
use arrakis_core::base::error::error_chain;
use arrakis_core::base::id::RequestId;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::key::ApiKey;
use arrakis_core::record::store::adapter::in_order;
use arrakis_core::record::store::{
    Admission, Archive, Arrival, ArrivalFilter, BrowserSession, BrowserSessions, Claim,
    ConversationCursor, ConversationDetail, ConversationFilter, ConversationPage, Cutoffs,
    EventDetail, EventFilter, EventKey, EventPage, EventReader, EventStore, EventSum, EventSums,
    FeedCursor, FeedPage, HeardSpool, KeyStore, Page, Prunable, PrunePosition, PruneStep,
    Retention, Rollups, SearchCursor, SearchFilter, SearchPage, SpoolReports, StoreError,
    StoredDeadLetters, UsageSum, UsageSums, Verdict,
};
use arrakis_core::session::conversation::Changes;
use async_trait::async_trait;
use diesel::result::QueryResult;
use futures_util::FutureExt;
use uuid::Uuid;

use crate::config::PgConfig;
use crate::connect::Connector;
use crate::dead_letter;
use crate::error::{store_error, unavailable};
use crate::feed;
use crate::pool::Connections;
use crate::row::Prepared;
use crate::writer::Writer;
use crate::{
    archive, browser_sessions, documents, index, keys, list, migrate, months, read, retention,
    rollups, spools, work,
};

/// Events, conversations and keys in a Postgres database, which many servers may share.
///
/// Dropping the store lets it finish what it accepted, as long as its runtime lives.
#[derive(Debug)]
pub struct PgStore {
    clock: Arc<dyn Clock>,
    pool: Connections,
    searches: Connections,
    search_timeout: Duration,
    writer: Writer,
    /// The workspace that last had its turn to be indexed.
    indexed_last: Mutex<String>,
}

impl PgStore {
    /// A store in the database of `url`, whose schema must be this version's; see [`migrate`](crate::migrate()).
    ///
    /// The URL is that of libpq: `postgres://user:password@host:port/database`, with `sslmode` and the
    /// like after a question mark.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: the URL cannot be read, the database cannot be reached, or its
    /// schema is not this version's.
    pub async fn open(
        url: &str,
        clock: Arc<dyn Clock>,
        config: PgConfig,
    ) -> Result<Self, StoreError> {
        let connector = Connector::new(url, &config)?;
        let pending = migrate::pending(&connector).await?;
        if !pending.is_empty() {
            let missing = format!(
                "the database lacks the migrations {}: run `arrakis migrate`",
                pending.join(", ")
            );
            return Err(unavailable("open the database", missing));
        }
        let pool = Connections::new(&connector, &config)?;
        let searches = Connections::for_searches(url, &config)?;
        let writer = Writer::start(&connector, &clock, &config);
        let search_timeout = config.search_timeout;
        let indexed_last = Mutex::default();
        let store = Self { clock, pool, searches, search_timeout, writer, indexed_last };
        store.make_months().await;
        Ok(store)
    }

    /// Makes the months ahead into which audit rows go. Where that cannot be now, rows are stored all the same.
    async fn make_months(&self) {
        let now = self.clock.now();
        let made = self
            .pool
            .write("make months of audit rows", move |conn| months::make_ahead(conn, now).boxed());
        match made.await {
            Ok(false) => {}
            Ok(true) => tracing::debug!("made months of audit rows"),
            Err(error) => tracing::warn!(
                error = error_chain(&error),
                "cannot make months of audit rows now; the next pass of the job that prunes tries again"
            ),
        }
    }

    /// The workspaces that have something to be indexed, in the order of their turns.
    async fn turns(&self) -> Result<VecDeque<String>, StoreError> {
        let last = self.last_indexed().clone();
        self.pool
            .read("read what is to be searched", move |conn| {
                let last = last.clone();
                async move { Ok(index::turns(conn, &last).await?) }.boxed()
            })
            .await
    }

    fn last_indexed(&self) -> MutexGuard<'_, String> {
        self.indexed_last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl EventStore for PgStore {
    async fn record(&self, batch: Vec<(Arrival, Verdict)>) -> Result<Vec<Admission>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let rows = batch
            .into_iter()
            .map(|(arrival, verdict)| Prepared::new(arrival, verdict))
            .collect::<QueryResult<Vec<_>>>()
            .map_err(|error| store_error("record events", error))?;
        self.writer.record(rows).await
    }

    async fn claim_due(
        &self,
        now: Timestamp,
        stalled: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claim>, StoreError> {
        self.pool
            .write("claim events", move |conn| work::claim_due(conn, now, stalled, limit).boxed())
            .await
    }

    async fn complete(
        &self,
        claim: Claim,
        verdict: Verdict,
        retry_at: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let call = Arc::new((claim, verdict));
        self.pool
            .write("complete an event", move |conn| {
                let call = Arc::clone(&call);
                async move { work::complete(conn, &call.0, &call.1, retry_at, now).await }.boxed()
            })
            .await
    }

    async fn transition(
        &self,
        event_id: Uuid,
        to: EventStatus,
        actor: &str,
        reason: &str,
    ) -> Result<(), StoreError> {
        let (call, now) = (Arc::new((actor.to_owned(), reason.to_owned())), self.clock.now());
        self.pool
            .write("change an event's state", move |conn| {
                let call = Arc::clone(&call);
                async move { work::transition(conn, event_id, to, &call.0, &call.1, now).await }
                    .boxed()
            })
            .await
    }

    async fn give_up(&self, event_id: Uuid, actor: &str, reason: &str) -> Result<(), StoreError> {
        let (call, now) = (Arc::new((actor.to_owned(), reason.to_owned())), self.clock.now());
        self.pool
            .write("discard an event", move |conn| {
                let call = Arc::clone(&call);
                async move { work::discard(conn, event_id, &call.0, &call.1, now).await }.boxed()
            })
            .await
    }

    async fn index(&self, limit: usize) -> Result<usize, StoreError> {
        const WRITE: &str = "make text searchable";
        let now = self.clock.now();
        let (mut commits, mut turns) = (0, VecDeque::new());
        while commits < limit {
            let left = limit - commits;
            if turns.is_empty() {
                turns = self.turns().await?;
            }
            let taken = match turns.pop_front() {
                Some(workspace) => {
                    self.last_indexed().clone_from(&workspace);
                    let step = self.pool.write(WRITE, move |conn| {
                        let workspace = workspace.clone();
                        async move { index::step(conn, &workspace, left, now).await }.boxed()
                    });
                    step.await?
                }
                None => {
                    let step =
                        self.pool.write(WRITE, move |conn| index::backlog_step(conn).boxed());
                    match step.await? {
                        Some(false) => break,
                        taken => taken.map(usize::from),
                    }
                }
            };
            let Some(taken) = taken else { break }; // another server is at it
            commits += taken;
        }
        Ok(commits)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // A database that only reads, or has no room, is not ready.
        let now = self.clock.now();
        self.pool
            .write("write to the database", move |conn| {
                async move { Ok(feed::probe(conn, now).await?) }.boxed()
            })
            .await
    }
}

#[async_trait]
impl EventReader for PgStore {
    async fn event(
        &self,
        workspace: &str,
        key: EventKey,
    ) -> Result<Option<EventDetail>, StoreError> {
        let asked = Arc::new((workspace.to_owned(), key));
        self.pool
            .read("read an event", move |conn| {
                let asked = Arc::clone(&asked);
                async move { Ok(read::event(conn, &asked.0, &asked.1).await?) }.boxed()
            })
            .await
    }

    async fn events(&self, filter: EventFilter, page: Page) -> Result<EventPage, StoreError> {
        let (connections, what) = match filter.text {
            Some(_) => (&self.searches, "search events"),
            None => (&self.pool, "list events"),
        };
        connections
            .read(what, move |conn| {
                let filter = filter.clone();
                async move { Ok(list::events(conn, &filter, page).await?) }.boxed()
            })
            .await
    }

    async fn conversation(
        &self,
        workspace: &str,
        key: &str,
    ) -> Result<Option<ConversationDetail>, StoreError> {
        let (workspace, key) = (workspace.to_owned(), key.to_owned());
        self.pool
            .read("read a conversation", move |conn| {
                let (workspace, key) = (workspace.clone(), key.clone());
                async move { Ok(read::conversation(conn, &workspace, &key).await?) }.boxed()
            })
            .await
    }

    async fn conversations(
        &self,
        filter: ConversationFilter,
        page: Page<ConversationCursor>,
    ) -> Result<ConversationPage, StoreError> {
        self.pool
            .read("list conversations", move |conn| {
                let filter = filter.clone();
                async move { Ok(list::conversations(conn, &filter, page).await?) }.boxed()
            })
            .await
    }

    async fn search(
        &self,
        filter: SearchFilter,
        after: Option<SearchCursor>,
        limit: usize,
    ) -> Result<SearchPage, StoreError> {
        // What is left is for the texts that are being read.
        let time = self.search_timeout / 2;
        self.searches
            .read("search conversations", move |conn| {
                let filter = filter.clone();
                async move { documents::find(conn, &filter, after, limit, time).await }.boxed()
            })
            .await
    }

    async fn feed(&self, after: Option<FeedCursor>, limit: usize) -> Result<FeedPage, StoreError> {
        self.pool
            .read("read the feed", move |conn| {
                let after = after.clone();
                async move { feed::page(conn, after.as_ref(), limit).await }.boxed()
            })
            .await
    }

    async fn counts(&self) -> Result<BTreeMap<EventStatus, u64>, StoreError> {
        self.pool
            .read("count events", move |conn| async move { Ok(read::counts(conn).await?) }.boxed())
            .await
    }
}

#[async_trait]
impl Archive for PgStore {
    async fn arrivals(
        &self,
        filter: ArrivalFilter,
        page: Page,
    ) -> Result<Vec<Arrival>, StoreError> {
        self.pool
            .read("read stored events", move |conn| {
                let filter = filter.clone();
                async move { Ok(archive::arrivals(conn, &filter, page).await?) }.boxed()
            })
            .await
    }

    async fn values(
        &self,
        workspace: &str,
        session_id: &str,
    ) -> Result<Option<Changes>, StoreError> {
        let (workspace, session_id) = (workspace.to_owned(), session_id.to_owned());
        self.pool
            .read("read a conversation", move |conn| {
                let (workspace, session_id) = (workspace.clone(), session_id.clone());
                async move { Ok(archive::values(conn, &workspace, &session_id).await?) }.boxed()
            })
            .await
    }
}

#[async_trait]
impl Retention for PgStore {
    async fn prune(
        &self,
        cutoffs: &Cutoffs,
        from: PrunePosition,
        limit: usize,
    ) -> Result<PruneStep, StoreError> {
        let (cutoffs, now) = (Arc::new(cutoffs.clone()), self.clock.now());
        if from == PrunePosition::START {
            self.make_months().await;
        }
        self.pool
            .write("prune what is old", move |conn| {
                let cutoffs = Arc::clone(&cutoffs);
                async move { retention::prune(conn, &cutoffs, from, limit, now).await }.boxed()
            })
            .await
    }

    async fn prunable(&self, cutoffs: &Cutoffs) -> Result<Vec<Prunable>, StoreError> {
        let cutoffs = Arc::new(cutoffs.clone());
        self.pool
            .read("count what is old", move |conn| {
                let cutoffs = Arc::clone(&cutoffs);
                async move { retention::prunable(conn, &cutoffs).await }.boxed()
            })
            .await
    }
}

#[async_trait]
impl Rollups for PgStore {
    async fn fold(&self, limit: usize) -> Result<usize, StoreError> {
        let mut taken = 0;
        while taken < limit {
            let left = limit - taken;
            let step = self
                .pool
                .write("add up commits", move |conn| rollups::fold::step(conn, left).boxed());
            match step.await? {
                None => break,
                Some(commits) => taken += commits,
            }
        }
        Ok(taken)
    }

    async fn forget_sums(&self, limit: usize) -> Result<usize, StoreError> {
        let now = self.clock.now();
        self.pool
            .write("delete old sums", move |conn| {
                async move { Ok(rollups::fold::forget(conn, limit, now).await?) }.boxed()
            })
            .await
    }

    async fn event_sums(&self, query: EventSums) -> Result<Vec<EventSum>, StoreError> {
        let query = Arc::new(query);
        let sums = self.pool.read("read counts of events", move |conn| {
            let query = Arc::clone(&query);
            async move { Ok(rollups::sums::events(conn, &query).await?) }.boxed()
        });
        in_order(sums.await?, EventSum::group)
    }

    async fn usage_sums(&self, query: UsageSums) -> Result<Vec<UsageSum>, StoreError> {
        let query = Arc::new(query);
        let sums = self.pool.read("read sums of usage", move |conn| {
            let query = Arc::clone(&query);
            async move { Ok(rollups::sums::usage(conn, &query).await?) }.boxed()
        });
        in_order(sums.await?, UsageSum::group)
    }
}

#[async_trait]
impl KeyStore for PgStore {
    async fn create_key(&self, key: ApiKey) -> Result<(), StoreError> {
        self.pool
            .write("create a key", move |conn| {
                let key = key.clone();
                async move { Ok(keys::create(conn, &key).await?) }.boxed()
            })
            .await
    }

    async fn key(&self, id: &str) -> Result<Option<ApiKey>, StoreError> {
        let id = id.to_owned();
        self.pool
            .read("read a key", move |conn| {
                let id = id.clone();
                async move { Ok(keys::find(conn, &id).await?) }.boxed()
            })
            .await
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        self.pool
            .read("list keys", move |conn| async move { Ok(keys::all(conn).await?) }.boxed())
            .await
    }

    async fn revoke_key(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.pool
            .write("revoke a key", move |conn| {
                let id = id.clone();
                async move { Ok(keys::revoke(conn, &id, now).await?) }.boxed()
            })
            .await
    }

    async fn note_key_uses(&self, uses: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        let uses = Arc::new(uses);
        self.pool
            .write("note when keys were used", move |conn| {
                let uses = Arc::clone(&uses);
                async move { Ok(keys::note_uses(conn, &uses).await?) }.boxed()
            })
            .await
    }
}

#[async_trait]
impl SpoolReports for PgStore {
    async fn report_spool(
        &self,
        workspace: &str,
        heard: HeardSpool,
        max: usize,
    ) -> Result<(), StoreError> {
        let call = Arc::new((workspace.to_owned(), heard));
        self.pool
            .write("keep the report of a spool", move |conn| {
                let call = Arc::clone(&call);
                async move { Ok(spools::report(conn, &call.0, &call.1, max).await?) }.boxed()
            })
            .await
    }

    async fn spools(&self, workspace: &str, limit: usize) -> Result<Vec<HeardSpool>, StoreError> {
        let workspace = workspace.to_owned();
        self.pool
            .read("list spools", move |conn| {
                let workspace = workspace.clone();
                async move { Ok(spools::list(conn, &workspace, limit).await?) }.boxed()
            })
            .await
    }

    async fn spool_history(
        &self,
        workspace: &str,
        spool: Uuid,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<HeardSpool>, StoreError> {
        let workspace = workspace.to_owned();
        self.pool
            .read("read the history of a spool", move |conn| {
                let workspace = workspace.clone();
                async move { Ok(spools::history(conn, &workspace, spool, since, until).await?) }
                    .boxed()
            })
            .await
    }

    async fn prune_spool_history(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64, StoreError> {
        self.pool
            .write("prune the history of spools", move |conn| {
                async move { Ok(spools::prune(conn, before, limit).await?) }.boxed()
            })
            .await
    }
}

#[async_trait]
impl BrowserSessions for PgStore {
    async fn open_browser_session(
        &self,
        session: BrowserSession,
        max: usize,
    ) -> Result<(), StoreError> {
        let session = Arc::new(session);
        self.pool
            .write("sign a browser in", move |conn| {
                let session = Arc::clone(&session);
                async move { Ok(browser_sessions::open(conn, &session, max).await?) }.boxed()
            })
            .await
    }

    async fn browser_session(&self, hash: &Digest) -> Result<Option<BrowserSession>, StoreError> {
        let hash = *hash;
        self.pool
            .read("read a session of a browser", move |conn| {
                async move { Ok(browser_sessions::find(conn, &hash).await?) }.boxed()
            })
            .await
    }

    async fn browser_sessions(&self, workspace: &str) -> Result<Vec<BrowserSession>, StoreError> {
        let workspace = workspace.to_owned();
        self.pool
            .read("list the sessions of browsers", move |conn| {
                let workspace = workspace.clone();
                async move { Ok(browser_sessions::list(conn, &workspace).await?) }.boxed()
            })
            .await
    }

    async fn note_browser_session(&self, hash: &Digest, at: Timestamp) -> Result<(), StoreError> {
        let hash = *hash;
        self.pool
            .write("note when a browser was used", move |conn| {
                async move { Ok(browser_sessions::note(conn, &hash, at).await?) }.boxed()
            })
            .await
    }

    async fn close_browser_session(&self, hash: &Digest) -> Result<bool, StoreError> {
        let hash = *hash;
        self.pool
            .write("sign a browser out", move |conn| {
                async move { Ok(browser_sessions::close(conn, &hash).await?) }.boxed()
            })
            .await
    }

    async fn forget_browser_sessions(
        &self,
        seen: Timestamp,
        created: Timestamp,
    ) -> Result<u64, StoreError> {
        self.pool
            .write("forget old sessions of browsers", move |conn| {
                async move { Ok(browser_sessions::forget(conn, seen, created).await?) }.boxed()
            })
            .await
    }
}

#[async_trait]
impl StoredDeadLetters for PgStore {
    async fn dead_letters(
        &self,
        workspace: &str,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let asked = Arc::new((workspace.to_owned(), after));
        self.pool
            .read("list dead letters", move |conn| {
                let asked = Arc::clone(&asked);
                async move {
                    let (workspace, after) = &*asked;
                    Ok(dead_letter::list(conn, workspace, after.as_ref(), limit).await?)
                }
                .boxed()
            })
            .await
    }

    async fn dead_letter(
        &self,
        workspace: &str,
        id: &RequestId,
    ) -> Result<Option<DeadLetterDetail>, StoreError> {
        let asked = Arc::new((workspace.to_owned(), id.clone()));
        self.pool
            .read("read a dead letter", move |conn| {
                let asked = Arc::clone(&asked);
                async move { Ok(dead_letter::show(conn, &asked.0, &asked.1).await?) }.boxed()
            })
            .await
    }

    async fn redrive(&self, workspace: &str, ids: &[RequestId]) -> Result<u64, StoreError> {
        let (asked, now) = (Arc::new((workspace.to_owned(), ids.to_vec())), self.clock.now());
        self.pool
            .write("redrive dead letters", move |conn| {
                let asked = Arc::clone(&asked);
                async move { dead_letter::redrive(conn, &asked.0, &asked.1, now).await }.boxed()
            })
            .await
    }

    async fn discard(&self, workspace: &str, ids: &[RequestId]) -> Result<u64, StoreError> {
        let (asked, now) = (Arc::new((workspace.to_owned(), ids.to_vec())), self.clock.now());
        self.pool
            .write("discard dead letters", move |conn| {
                let asked = Arc::clone(&asked);
                async move { dead_letter::discard(conn, &asked.0, &asked.1, now).await }.boxed()
            })
            .await
    }
}
