//! [`SqliteStore`]: the traits, each method a call to the readers or to the writer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrakis_core::base::clock::{Clock, Timestamp};
use arrakis_core::base::dead_letter::{DeadLetter, DeadLetterDetail};
use arrakis_core::base::digest::Digest;
use arrakis_core::base::id::RequestId;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::key::ApiKey;
use arrakis_core::record::store::adapter::in_order;
use arrakis_core::record::store::{
    Admission, Archive, Arrival, ArrivalFilter, BrowserSession, BrowserSessions, Claim,
    ConversationCursor, ConversationDetail, ConversationFilter, ConversationPage, Cutoffs,
    EventDetail, EventFilter, EventKey, EventPage, EventReader, EventStore, EventSum, EventSums,
    FeedCursor, FeedPage, HeardSpool, KeyStore, Page, Prunable, PrunePosition, PruneStep, Pruned,
    Retention, Rollups, SearchCursor, SearchFilter, SearchPage, SpoolReports, StoreError,
    StoredDeadLetters, UsageSum, UsageSums, Verdict,
};
use arrakis_core::session::conversation::Changes;
use async_trait::async_trait;
use diesel::result::QueryResult;
use uuid::Uuid;

use crate::config::SqliteConfig;
use crate::dead_letter;
use crate::error::store_error;
use crate::feed::Position;
use crate::file::DatabaseFile;
use crate::index::{IndexFile, Indexer};
use crate::pool::{self, Readers, Searchers};
use crate::row::Prepared;
use crate::writer::Writer;
use crate::{
    archive, browser_sessions, documents, feed, keys, list, read, retention, rollups, search,
    spools, work,
};

/// Events, conversations and keys in one SQLite file, which several processes may have open.
///
/// One thread writes; everything that waits for it is committed together. Dropping the store waits
/// until what was accepted is committed.
#[derive(Debug)]
pub struct SqliteStore {
    file: DatabaseFile,
    readers: Readers,
    searchers: Searchers,
    writer: Writer,
    indexer: Indexer,
    clock: Arc<dyn Clock>,
}

impl SqliteStore {
    /// Opens the database at `path`, creating it (0600) and its folder (0700) where they are missing,
    /// and brings it to this version's schema. Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: the file cannot be created or opened, it is no database, it is on a
    /// network file system, or a later version of this program has written it.
    pub fn open(
        path: impl AsRef<Path>,
        clock: Arc<dyn Clock>,
        config: SqliteConfig,
    ) -> Result<Self, StoreError> {
        let file = DatabaseFile::prepare(path.as_ref())?;
        let mut conn = pool::open_writer(&file, &config)?;
        let indexer = Indexer::new(IndexFile::open(&file, &mut conn, &config)?);
        let readers = Readers::new(&file, &config, config.readers)?;
        let searchers = Searchers::new(&file, indexer.file().file(), &config)?;
        let writer = Writer::start(file.clone(), conn, Arc::clone(&clock), config)?;
        Ok(Self { file, readers, searchers, writer, indexer, clock })
    }

    /// Deletes some of the commits that no reader needs any more.
    async fn forget_commits(&self) -> Result<(), StoreError> {
        const WHAT: &str = "delete old commits";
        let now = self.clock.now();
        let last = self.indexer.file().read(WHAT, move |conn| feed::last_to_go(conn, now)).await?;
        let Some(last) = last else { return Ok(()) };
        self.writer.run(WHAT, move |conn, _| Ok(feed::delete_up_to(conn, last)?)).await
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

/// How many commits a step of a pass of pruning makes searchable, or forgets.
const INDEXED_PER_STEP: usize = 64;

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Readers first, so that the writer closes last and folds the log into the file.
        self.readers.close();
        self.searchers.close();
        self.indexer.file().close();
    }
}

#[async_trait]
impl EventStore for SqliteStore {
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
        let claim = move |conn: &mut _, _: &_| work::claim_due(conn, now, stalled, limit);
        self.writer.run("claim events", claim).await
    }

    async fn complete(
        &self,
        claim: Claim,
        verdict: Verdict,
        retry_at: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let complete =
            move |conn: &mut _, at: &_| work::complete(conn, &claim, &verdict, retry_at, at);
        self.writer.run("complete an event", complete).await
    }

    async fn transition(
        &self,
        event_id: Uuid,
        to: EventStatus,
        actor: &str,
        reason: &str,
    ) -> Result<(), StoreError> {
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        let transition =
            move |conn: &mut _, at: &_| work::transition(conn, event_id, to, &actor, &reason, at);
        self.writer.run("change an event's state", transition).await
    }

    async fn give_up(&self, event_id: Uuid, actor: &str, reason: &str) -> Result<(), StoreError> {
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        let discard =
            move |conn: &mut _, at: &_| work::discard(conn, event_id, &actor, &reason, at);
        self.writer.run("discard an event", discard).await
    }

    async fn index(&self, limit: usize) -> Result<usize, StoreError> {
        let commits = self.indexer.index(limit).await?;
        self.forget_commits().await?;
        Ok(commits)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // The transaction itself is the test: it needs the file, and the lock to write to it.
        self.writer.run("reach the database", |_, _| Ok(())).await
    }
}

#[async_trait]
impl EventReader for SqliteStore {
    async fn event(
        &self,
        workspace: &str,
        key: EventKey,
    ) -> Result<Option<EventDetail>, StoreError> {
        let workspace = workspace.to_owned();
        let read = move |conn: &mut _| read::event(conn, &workspace, &key);
        self.readers.read("read an event", read).await
    }

    async fn events(&self, filter: EventFilter, page: Page) -> Result<EventPage, StoreError> {
        if let Some(text) = filter.text.clone() {
            let find =
                move |conn: &mut _, stop: &_| search::find_events(conn, &text, &filter, page, stop);
            return self.searchers.search("search events", find).await;
        }
        let list = move |conn: &mut _| list::events(conn, &filter, page);
        self.readers.read("list events", list).await
    }

    async fn conversation(
        &self,
        workspace: &str,
        key: &str,
    ) -> Result<Option<ConversationDetail>, StoreError> {
        let (workspace, key) = (workspace.to_owned(), key.to_owned());
        let read = move |conn: &mut _| read::conversation(conn, &workspace, &key);
        self.readers.read("read a conversation", read).await
    }

    async fn conversations(
        &self,
        filter: ConversationFilter,
        page: Page<ConversationCursor>,
    ) -> Result<ConversationPage, StoreError> {
        let list = move |conn: &mut _| list::conversations(conn, &filter, page);
        self.readers.read("list conversations", list).await
    }

    async fn search(
        &self,
        filter: SearchFilter,
        after: Option<SearchCursor>,
        limit: usize,
    ) -> Result<SearchPage, StoreError> {
        let find = move |conn: &mut _, stop: &_| documents::find(conn, &filter, after, limit, stop);
        self.searchers.search("search conversations", find).await
    }

    async fn feed(&self, after: Option<FeedCursor>, limit: usize) -> Result<FeedPage, StoreError> {
        let Some(cursor) = after else {
            return self.readers.read("find the end of the feed", feed::end).await;
        };
        let start = Position::of(&cursor)?;
        let page = move |conn: &mut _| feed::page(conn, start, limit);
        let page = self.readers.read("read the feed", page).await?;
        page.ok_or_else(|| feed::foreign(&cursor, "it is beyond the last commit"))
    }

    async fn counts(&self) -> Result<BTreeMap<EventStatus, u64>, StoreError> {
        self.readers.read("count events", read::counts).await
    }
}

#[async_trait]
impl Archive for SqliteStore {
    async fn arrivals(
        &self,
        filter: ArrivalFilter,
        page: Page,
    ) -> Result<Vec<Arrival>, StoreError> {
        let read = move |conn: &mut _| archive::arrivals(conn, &filter, page);
        self.readers.read("read stored events", read).await
    }

    async fn values(
        &self,
        workspace: &str,
        session_id: &str,
    ) -> Result<Option<Changes>, StoreError> {
        let (workspace, session_id) = (workspace.to_owned(), session_id.to_owned());
        let read = move |conn: &mut _| archive::values(conn, &workspace, &session_id);
        self.readers.read("read a conversation", read).await
    }
}

#[async_trait]
impl Retention for SqliteStore {
    async fn prune(
        &self,
        cutoffs: &Cutoffs,
        from: PrunePosition,
        limit: usize,
    ) -> Result<PruneStep, StoreError> {
        let limit = limit.clamp(1, retention::STEP_ROWS);
        let cutoffs = Arc::new(cutoffs.clone());
        let known = Arc::clone(&cutoffs);
        match from {
            PrunePosition::Events(after) | PrunePosition::Part { after, .. } => {
                let find = move |conn: &mut _| retention::old_events(conn, &cutoffs, after, limit);
                let found = self.readers.read("find old events", find).await?;
                let next = Some(found.next);
                if found.ids.is_empty() {
                    return Ok(PruneStep { pruned: Pruned::default(), next });
                }
                let delete =
                    move |conn: &mut _, at: &_| retention::delete_events(conn, &found.ids, at);
                let pruned = self.writer.run("prune events", delete).await?;
                Ok(PruneStep { pruned, next })
            }
            PrunePosition::Conversations(after) => {
                let find =
                    move |conn: &mut _| retention::old_conversations(conn, &cutoffs, after, limit);
                let found = self.readers.read("find old conversations", find).await?;
                if found.ids.is_empty() {
                    return Ok(PruneStep { pruned: Pruned::default(), next: Some(found.next) });
                }
                let delete = move |conn: &mut _, at: &_| {
                    retention::delete_conversations(conn, &known, after, &found, limit, at)
                };
                self.writer.run("prune conversations", delete).await
            }
            PrunePosition::Ledger(after) => {
                let find = move |conn: &mut _| retention::old_ledger(conn, &cutoffs, after, limit);
                let found = self.readers.read("find old request ids", find).await?;
                let next = Some(found.next);
                if found.ids.is_empty() {
                    return Ok(PruneStep { pruned: Pruned::default(), next });
                }
                let delete = move |conn: &mut _, _: &_| retention::delete_ledger(conn, &found.ids);
                let pruned = self.writer.run("prune request ids", delete).await?;
                Ok(PruneStep { pruned, next })
            }
            PrunePosition::Space => {
                // What was pruned is to leave the index too, also where no server runs.
                let is_behind = self.index(INDEXED_PER_STEP).await? == INDEXED_PER_STEP;
                let give = move |conn: &mut _, _: &_| Ok(retention::give_space_back(conn)?);
                let more = self.writer.run("give space back", give).await?;
                let next = (more || is_behind).then_some(PrunePosition::Space);
                Ok(PruneStep { pruned: Pruned::default(), next })
            }
        }
    }

    async fn prunable(&self, cutoffs: &Cutoffs) -> Result<Vec<Prunable>, StoreError> {
        let cutoffs = cutoffs.clone();
        let count = move |conn: &mut _| retention::prunable(conn, &cutoffs);
        self.readers.read("count what is old", count).await
    }
}

#[async_trait]
impl Rollups for SqliteStore {
    async fn fold(&self, limit: usize) -> Result<usize, StoreError> {
        let mut commits = 0;
        while commits < limit {
            let left = limit - commits;
            let next = move |conn: &mut _| rollups::fold::next_step(conn, left);
            let Some(step) = self.readers.read("read what is to be added up", next).await? else {
                break;
            };
            let taken = step.commits();
            let write = move |conn: &mut _, _: &_| Ok(rollups::fold::write(conn, &step)?);
            if !self.writer.run("add up commits", write).await? {
                break; // another server is at it
            }
            commits += taken;
        }
        Ok(commits)
    }

    async fn forget_sums(&self, limit: usize) -> Result<usize, StoreError> {
        let forget = move |conn: &mut _, at: &_| Ok(rollups::fold::forget(conn, limit, at)?);
        self.writer.run("delete old sums", forget).await
    }

    async fn event_sums(&self, query: EventSums) -> Result<Vec<EventSum>, StoreError> {
        let read = move |conn: &mut _| rollups::sums::events(conn, &query);
        in_order(self.readers.read("read counts of events", read).await?, EventSum::group)
    }

    async fn usage_sums(&self, query: UsageSums) -> Result<Vec<UsageSum>, StoreError> {
        let read = move |conn: &mut _| rollups::sums::usage(conn, &query);
        in_order(self.readers.read("read sums of usage", read).await?, UsageSum::group)
    }
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn create_key(&self, key: ApiKey) -> Result<(), StoreError> {
        let create = move |conn: &mut _, _: &_| Ok(keys::create(conn, &key)?);
        self.writer.run("create a key", create).await
    }

    async fn key(&self, id: &str) -> Result<Option<ApiKey>, StoreError> {
        let id = id.to_owned();
        self.readers.read("read a key", move |conn| keys::find(conn, &id)).await
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        self.readers.read("list keys", keys::all).await
    }

    async fn revoke_key(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let id = id.to_owned();
        let revoke = move |conn: &mut _, _: &_| Ok(keys::revoke(conn, &id, now)?);
        self.writer.run("revoke a key", revoke).await
    }

    async fn note_key_uses(&self, uses: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        let note = move |conn: &mut _, _: &_| Ok(keys::note_uses(conn, &uses)?);
        self.writer.run("note when keys were used", note).await
    }
}

#[async_trait]
impl SpoolReports for SqliteStore {
    async fn report_spool(
        &self,
        workspace: &str,
        heard: HeardSpool,
        max: usize,
    ) -> Result<(), StoreError> {
        let workspace = workspace.to_owned();
        let report = move |conn: &mut _, _: &_| Ok(spools::report(conn, &workspace, &heard, max)?);
        self.writer.run("keep the report of a spool", report).await
    }

    async fn spools(&self, workspace: &str, limit: usize) -> Result<Vec<HeardSpool>, StoreError> {
        let workspace = workspace.to_owned();
        self.readers.read("list spools", move |conn| spools::list(conn, &workspace, limit)).await
    }

    async fn spool_history(
        &self,
        workspace: &str,
        spool: Uuid,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<HeardSpool>, StoreError> {
        let workspace = workspace.to_owned();
        let read = move |conn: &mut _| spools::history(conn, &workspace, spool, since, until);
        self.readers.read("read the history of a spool", read).await
    }

    async fn prune_spool_history(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let prune = move |conn: &mut _, _: &_| Ok(spools::prune(conn, before, limit)?);
        self.writer.run("prune the history of spools", prune).await
    }
}

#[async_trait]
impl BrowserSessions for SqliteStore {
    async fn open_browser_session(
        &self,
        session: BrowserSession,
        max: usize,
    ) -> Result<(), StoreError> {
        let open = move |conn: &mut _, _: &_| Ok(browser_sessions::open(conn, &session, max)?);
        self.writer.run("sign a browser in", open).await
    }

    async fn browser_session(&self, hash: &Digest) -> Result<Option<BrowserSession>, StoreError> {
        let hash = *hash;
        let find = move |conn: &mut _| browser_sessions::find(conn, &hash);
        self.readers.read("read a session of a browser", find).await
    }

    async fn browser_sessions(&self, workspace: &str) -> Result<Vec<BrowserSession>, StoreError> {
        let workspace = workspace.to_owned();
        let list = move |conn: &mut _| browser_sessions::list(conn, &workspace);
        self.readers.read("list the sessions of browsers", list).await
    }

    async fn note_browser_session(&self, hash: &Digest, at: Timestamp) -> Result<(), StoreError> {
        let hash = *hash;
        let note = move |conn: &mut _, _: &_| Ok(browser_sessions::note(conn, &hash, at)?);
        self.writer.run("note when a browser was used", note).await
    }

    async fn close_browser_session(&self, hash: &Digest) -> Result<bool, StoreError> {
        let hash = *hash;
        let close = move |conn: &mut _, _: &_| Ok(browser_sessions::close(conn, &hash)?);
        self.writer.run("sign a browser out", close).await
    }

    async fn forget_browser_sessions(
        &self,
        seen: Timestamp,
        created: Timestamp,
    ) -> Result<u64, StoreError> {
        let forget = move |conn: &mut _, _: &_| Ok(browser_sessions::forget(conn, seen, created)?);
        self.writer.run("forget old sessions of browsers", forget).await
    }
}

#[async_trait]
impl StoredDeadLetters for SqliteStore {
    async fn dead_letters(
        &self,
        workspace: &str,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let workspace = workspace.to_owned();
        let list = move |conn: &mut _| dead_letter::list(conn, &workspace, after.as_ref(), limit);
        self.readers.read("list dead letters", list).await
    }

    async fn dead_letter(
        &self,
        workspace: &str,
        id: &RequestId,
    ) -> Result<Option<DeadLetterDetail>, StoreError> {
        let (workspace, id) = (workspace.to_owned(), id.clone());
        let show = move |conn: &mut _| dead_letter::show(conn, &workspace, &id);
        self.readers.read("read a dead letter", show).await
    }

    async fn redrive(&self, workspace: &str, ids: &[RequestId]) -> Result<u64, StoreError> {
        let (workspace, ids) = (workspace.to_owned(), ids.to_vec());
        let redrive = move |conn: &mut _, at: &_| dead_letter::redrive(conn, &workspace, &ids, at);
        self.writer.run("redrive dead letters", redrive).await
    }

    async fn discard(&self, workspace: &str, ids: &[RequestId]) -> Result<u64, StoreError> {
        let (workspace, ids) = (workspace.to_owned(), ids.to_vec());
        let discard = move |conn: &mut _, at: &_| dead_letter::discard(conn, &workspace, &ids, at);
        self.writer.run("discard dead letters", discard).await
    }
}
