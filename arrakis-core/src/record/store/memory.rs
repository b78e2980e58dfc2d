//! A store in memory: for embedding where nothing must survive the process, and the yardstick of the
//! conformance suites.

mod archive;
mod retention;
mod rollups;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::adapter::{LedgerEntry, Outcome};
use super::{
    Admission, Arrival, Claim, ConversationCursor, ConversationDetail, ConversationFilter,
    ConversationPage, ConversationSummary, EventDetail, EventFilter, EventKey, EventMetadata,
    EventPage, EventReader, EventStore, EventSummary, FIRST_RETRY_DELAY, FeedCursor, FeedPage,
    KeyStore, Page, SearchCursor, SearchFilter, SearchHit, SearchPage, SearchPageBuilder,
    StoreError, Transition, Verdict,
};
use crate::base::clock::{Clock, Timestamp};
use crate::base::id::RequestId;
use crate::base::limits::COUNTED_MAX;
use crate::record::audit::EventStatus;
use crate::record::key::ApiKey;
use crate::session::conversation::{
    AnswerIds, Changes, Conversation, Message, MessageCounts, MessageOrigin, Seen, Subagent,
    ToolUse, TwoSides,
};
use crate::session::search::{SearchDocument, SearchQuery, payload_words};

/// Keeps events in memory.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Audit rows by their id, which sorts by time of receipt.
    rows: BTreeMap<Uuid, Row>,
    /// By workspace and request id.
    ledger: HashMap<(String, RequestId), LedgerEntry>,
    conversations: HashMap<Uuid, Conversation>,
    messages: HashMap<Uuid, Message>,
    tool_uses: HashMap<Uuid, ToolUse>,
    subagents: HashMap<Uuid, Subagent>,
    keys: BTreeMap<String, ApiKey>,
    claims: u64,
    /// Row ids in the order in which the rows were stored or changed their state.
    feed: Vec<Uuid>,
    sums: rollups::Sums,
}

#[derive(Debug, Clone)]
struct Row {
    arrival: Arrival,
    status: EventStatus,
    processing_time_ms: u64,
    answer: AnswerIds,
    error: Option<(String, String)>,
    retry_count: u32,
    retry_after: Option<Timestamp>,
    claim: Option<(String, Timestamp)>,
    discarded_at: Option<Timestamp>,
    transitions: Vec<Transition>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn record(&mut self, arrival: Arrival, verdict: Verdict, now: Timestamp) -> Admission {
        let known = self.ledger.get(&ledger_key(&arrival)).copied();
        let Some(first) = known else { return self.admit(arrival, verdict, now) };
        // The row may have been pruned; then its state is the one that the ledger remembers.
        let status = self.rows.get(&first.event_id).map_or(first.status, |row| row.status);
        let (admission, outcome) = LedgerEntry { status, ..first }.repeated(&arrival);
        let mut arrival = arrival;
        if let Some(first) = outcome.duplicate_of {
            arrival.body = bytes::Bytes::new();
            arrival.metadata = EventMetadata::duplicate_of(first);
        }
        let error = outcome.error.map(|(code, text)| (code.into_owned(), text.into_owned()));
        self.insert(arrival, outcome.status, outcome.answer, error, now);
        admission
    }

    fn admit(&mut self, arrival: Arrival, verdict: Verdict, now: Timestamp) -> Admission {
        let first = LedgerEntry::of(&arrival, &Outcome::of(&verdict));
        let error = match verdict {
            Verdict::Apply(changes) => {
                self.apply(&arrival.workspace, changes);
                None
            }
            Verdict::Invalid { code, message } | Verdict::Failed { code, message } => {
                Some((code, message))
            }
        };
        if arrival.in_ledger {
            self.ledger.insert(ledger_key(&arrival), first);
        }
        let admission = first.admitted(&arrival);
        self.insert(arrival, first.status, first.answer, error, now);
        admission
    }

    fn insert(
        &mut self,
        arrival: Arrival,
        status: EventStatus,
        answer: AnswerIds,
        error: Option<(String, String)>,
        now: Timestamp,
    ) {
        let waits = status == EventStatus::Error;
        let row = Row {
            processing_time_ms: millis(now.since(arrival.received_at)),
            arrival,
            status,
            answer,
            error,
            retry_count: 0,
            retry_after: waits.then(|| now.plus(FIRST_RETRY_DELAY)),
            claim: None,
            discarded_at: None,
            transitions: Vec::new(),
        };
        self.feed.push(row.arrival.event_id);
        self.sums.stored(&row);
        self.rows.insert(row.arrival.event_id, row);
    }

    fn apply(&mut self, workspace: &str, changes: Changes) -> AnswerIds {
        self.sums.wrote(workspace, changes.messages.iter().map(|one| one.id).collect());
        merge_all(&mut self.conversations, changes.conversations, |c| c.id, Conversation::merge);
        merge_all(&mut self.messages, changes.messages, |m| m.id, Message::merge);
        merge_all(&mut self.tool_uses, changes.tool_uses, |t| t.id, ToolUse::merge);
        merge_all(&mut self.subagents, changes.subagents, |s| s.id, Subagent::merge);
        changes.answer
    }

    /// A row that nobody has discarded.
    fn undiscarded(&mut self, event_id: Uuid) -> Result<&mut Row, StoreError> {
        let row = self.rows.get_mut(&event_id).filter(|row| row.discarded_at.is_none());
        row.ok_or_else(|| StoreError::NotFound(format!("event {event_id}")))
    }

    fn documents(&self) -> impl Iterator<Item = SearchDocument<'_>> {
        let model = |id| self.messages.get(&id)?.model.as_deref();
        let tool_uses = self.tool_uses.values().map(move |tool_use| SearchDocument::ToolUse {
            tool_use,
            model: tool_use.message_id.and_then(model),
        });
        self.messages.values().map(SearchDocument::Message).chain(tool_uses)
    }

    fn summary_of(&self, conversation: &Conversation) -> ConversationSummary {
        let id = conversation.id;
        let messages = self.messages.values().filter(|m| m.conversation_id == id);
        let messages: Vec<_> = messages.take(COUNTED_MAX).map(|m| m.origin).collect();
        let tool_uses = self.tool_uses.values().filter(|t| t.conversation_id == id);
        let tool_uses: Vec<_> = tool_uses.take(COUNTED_MAX).map(|t| t.seen).collect();
        let count = |counts: fn(MessageOrigin) -> bool| {
            messages.iter().filter(|origin| counts(**origin)).count() as u64
        };
        let used =
            |counts: fn(&Seen) -> bool| tool_uses.iter().filter(|seen| counts(seen)).count() as u64;
        let counts = MessageCounts {
            lines: count(MessageOrigin::is_line),
            hooks: count(|origin| origin.is_provisional() && origin != MessageOrigin::Enqueued),
            waiting: count(|origin| origin == MessageOrigin::Enqueued),
        };
        ConversationSummary {
            conversation: conversation.clone(),
            messages: counts.shown(),
            tool_uses: used(|_| true),
            counts_capped: messages.len().max(tool_uses.len()) == COUNTED_MAX,
            sides: TwoSides {
                transcript_messages: counts.lines,
                tool_uses_without_hook: used(|seen| !seen.hook),
                tool_uses_without_transcript: used(|seen| !seen.transcript),
            },
        }
    }
}

impl Row {
    fn move_to(&mut self, to: EventStatus, at: Timestamp, actor: &str, reason: &str) {
        debug_assert!(self.status.may_become(to), "{} to {to}", self.status);
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        self.transitions.push(Transition { from: self.status, to, at, actor, reason });
        self.status = to;
    }

    fn is_due(&self, now: Timestamp, stalled: Timestamp) -> bool {
        match self.status {
            EventStatus::Pending => true,
            EventStatus::Error | EventStatus::PendingRetry => {
                self.retry_after.is_none_or(|due| due <= now)
            }
            EventStatus::Processing => self.claim.as_ref().is_some_and(|(_, at)| *at < stalled),
            _ => false,
        }
    }

    fn summary(&self) -> EventSummary {
        let (code, message) = self.error.clone().unzip();
        EventSummary {
            id: self.arrival.event_id,
            workspace: self.arrival.workspace.clone(),
            request_id: self.arrival.request_id.clone(),
            event_type: self.arrival.event_type.clone(),
            session_id: self.arrival.session_id.clone(),
            received_at: self.arrival.received_at,
            status: self.status,
            processing_time_ms: Some(self.processing_time_ms),
            answer: self.answer,
            error_code: code,
            error_message: message,
            retry_count: self.retry_count,
            retry_after: self.retry_after,
            discarded_at: self.discarded_at,
            metadata: self.arrival.metadata.clone(),
        }
    }

    fn matches(&self, filter: &EventFilter) -> bool {
        filter.admits(&self.summary())
            && filter.text.as_ref().is_none_or(|text| {
                self.status != EventStatus::Duplicate
                    && holds(&payload_words(&self.arrival.body), text)
            })
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn record(&self, batch: Vec<(Arrival, Verdict)>) -> Result<Vec<Admission>, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        Ok(batch.into_iter().map(|(a, verdict)| state.record(a, verdict, now)).collect())
    }

    async fn claim_due(
        &self,
        now: Timestamp,
        stalled: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claim>, StoreError> {
        let mut state = self.state();
        let State { rows, sums, claims, .. } = &mut *state;
        let mut taken = Vec::new();
        for row in rows.values_mut().filter(|r| r.is_due(now, stalled)).take(limit) {
            let before = row.counted();
            match row.status {
                EventStatus::Processing => {
                    row.move_to(EventStatus::Pending, now, "rescue", "its worker has stalled");
                }
                EventStatus::Error => {
                    row.move_to(EventStatus::PendingRetry, now, "retry", "it is due");
                }
                _ => {}
            }
            row.move_to(EventStatus::Processing, now, "worker", "claimed");
            sums.changed(before, row);
            *claims += 1;
            row.claim = Some((claims.to_string(), now));
            taken.push(Claim {
                arrival: row.arrival.clone(),
                retry_count: row.retry_count,
                token: claims.to_string(),
            });
        }
        state.feed.extend(taken.iter().map(|claim| claim.arrival.event_id));
        Ok(taken)
    }

    async fn complete(
        &self,
        claim: Claim,
        verdict: Verdict,
        retry_at: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        let id = claim.arrival.event_id;
        let held =
            |row: &&mut Row| row.claim.as_ref().is_some_and(|(token, _)| *token == claim.token);
        if state.rows.get_mut(&id).filter(held).is_none() {
            return Ok(false);
        }
        let status = verdict.status();
        let (answer, error) = match verdict {
            Verdict::Apply(changes) => (state.apply(&claim.arrival.workspace, changes), None),
            Verdict::Invalid { code, message } | Verdict::Failed { code, message } => {
                (AnswerIds::default(), Some((code, message)))
            }
        };
        let State { rows, sums, .. } = &mut *state;
        let Some(row) = rows.get_mut(&id) else { return Ok(false) };
        let before = row.counted();
        row.claim = None;
        row.answer = answer;
        row.retry_count += 1;
        row.retry_after = None;
        let reason = error.as_ref().map_or("applied", |(code, _)| code.as_str()).to_owned();
        row.error = error;
        row.move_to(status, now, "worker", &reason);
        if status == EventStatus::Error {
            row.retry_after = retry_at;
            let next = retry_at.map_or(EventStatus::Failed, |_| EventStatus::PendingRetry);
            row.move_to(
                next,
                now,
                "worker",
                if retry_at.is_some() { "retry" } else { "out of retries" },
            );
        }
        sums.changed(before, row);
        let (key, status, answer) = (ledger_key(&row.arrival), row.status, row.answer);
        state.feed.push(id);
        if let Some(entry) = state.ledger.get_mut(&key).filter(|e| e.event_id == id) {
            (entry.status, entry.answer) = (status, answer);
        }
        Ok(true)
    }

    async fn transition(
        &self,
        event_id: Uuid,
        to: EventStatus,
        actor: &str,
        reason: &str,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        let row = state.undiscarded(event_id)?;
        if !row.status.may_become(to) {
            return Err(StoreError::IllegalTransition { from: row.status, to });
        }
        let before = row.counted();
        row.move_to(to, now, actor, reason);
        row.claim = None;
        row.retry_after = None;
        let after = row.clone();
        state.sums.changed(before, &after);
        state.feed.push(event_id);
        Ok(())
    }

    async fn give_up(&self, event_id: Uuid, actor: &str, reason: &str) -> Result<(), StoreError> {
        let at = self.clock.now();
        let mut state = self.state();
        let row = state.undiscarded(event_id)?;
        let (from, to) = (row.status, EventStatus::Failed);
        if from != to {
            return Err(StoreError::IllegalTransition { from, to });
        }
        row.discarded_at = Some(at);
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        row.transitions.push(Transition { from, to, at, actor, reason });
        state.feed.push(event_id);
        Ok(())
    }

    async fn index(&self, _limit: usize) -> Result<usize, StoreError> {
        Ok(0) // a search reads the texts themselves
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl EventReader for MemoryStore {
    async fn event(
        &self,
        workspace: &str,
        key: EventKey,
    ) -> Result<Option<EventDetail>, StoreError> {
        let state = self.state();
        let mut mine = state.rows.values().filter(|row| row.arrival.workspace == workspace);
        let row = match key {
            EventKey::Id(id) => mine.find(|row| row.arrival.event_id == id),
            EventKey::Request(request) => {
                match state.ledger.get(&(workspace.to_owned(), request.clone())) {
                    Some(first) => state.rows.get(&first.event_id),
                    None => mine.find(|row| row.arrival.request_id == request),
                }
            }
        };
        Ok(row.map(|row| EventDetail {
            summary: row.summary(),
            body: (row.status != EventStatus::Duplicate).then(|| row.arrival.body.clone()),
            headers: row.arrival.headers.clone(),
            ip_address: row.arrival.ip_address,
            transitions: row.transitions.clone(),
        }))
    }

    async fn events(&self, filter: EventFilter, page: Page) -> Result<EventPage, StoreError> {
        let state = self.state();
        let first = filter.first_id().unwrap_or_default();
        let behind = |id: &Uuid| page.after.is_none_or(|after| *id < after);
        let rows = state.rows.range(first..).rev();
        let mut rows = rows.filter(|(id, _)| behind(id)).peekable();
        let mut found = EventPage::default();
        for _ in 0..page.looks {
            let Some((id, row)) = rows.next() else { break };
            if row.matches(&filter) {
                found.events.push(row.summary());
            }
            found.next = rows.peek().map(|_| *id);
            if found.events.len() == page.limit {
                break;
            }
        }
        Ok(found)
    }

    async fn conversation(
        &self,
        workspace: &str,
        key: &str,
    ) -> Result<Option<ConversationDetail>, StoreError> {
        let state = self.state();
        let found = state
            .conversations
            .values()
            .find(|c| c.workspace == workspace && (c.session_id == key || c.id.to_string() == key));
        let Some(conversation) = found.cloned() else { return Ok(None) };
        let id = conversation.id;
        let mine = |conversation_id: &Uuid| *conversation_id == id;
        let messages = state.messages.values().filter(|m| mine(&m.conversation_id)).cloned();
        let tool_uses = state.tool_uses.values().filter(|t| mine(&t.conversation_id)).cloned();
        let subagents = state.subagents.values().filter(|s| mine(&s.conversation_id)).cloned();
        let events = state.rows.values().filter(|row| {
            row.answer.conversation_id == Some(id) && row.status != EventStatus::Duplicate
        });
        let events = events.map(Row::summary).collect();
        Ok(Some(ConversationDetail::new(
            conversation,
            messages.collect(),
            tool_uses.collect(),
            subagents.collect(),
            events,
        )))
    }

    async fn conversations(
        &self,
        filter: ConversationFilter,
        page: Page<ConversationCursor>,
    ) -> Result<ConversationPage, StoreError> {
        let state = self.state();
        let all = state.conversations.values().filter(|c| c.workspace == filter.workspace);
        let mut all: Vec<_> = all.map(|c| (ConversationCursor::of(c), c)).collect();
        all.retain(|(place, _)| page.after.is_none_or(|after| *place < after));
        all.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        let mut all = all.into_iter().peekable();
        let mut found = ConversationPage::default();
        for _ in 0..page.looks {
            let Some((place, conversation)) = all.next() else { break };
            if filter.admits(conversation) {
                found.conversations.push(state.summary_of(conversation));
            }
            found.next = all.peek().map(|_| place);
            if found.conversations.len() == page.limit {
                break;
            }
        }
        Ok(found)
    }

    async fn search(
        &self,
        filter: SearchFilter,
        after: Option<SearchCursor>,
        limit: usize,
    ) -> Result<SearchPage, StoreError> {
        let state = self.state();
        let said: HashSet<String> = state
            .messages
            .values()
            .flat_map(|message| SearchDocument::Message(message).dedup_terms())
            .collect();
        let mut hits: Vec<SearchHit> = state
            .documents()
            .filter(|document| !document.hidden_by().is_some_and(|text| said.contains(&text)))
            .filter_map(|document| {
                filter.hit(document, state.conversations.get(&document.conversation_id())?)
            })
            .filter(|hit| after.is_none_or(|after| hit.cursor() < after))
            .collect();
        hits.sort_by_key(|hit| std::cmp::Reverse(hit.cursor()));
        let mut page = SearchPageBuilder::new(limit);
        for hit in hits {
            let cursor = hit.cursor();
            if !page.push(hit, cursor) {
                break;
            }
        }
        Ok(page.finish())
    }

    async fn feed(&self, after: Option<FeedCursor>, limit: usize) -> Result<FeedPage, StoreError> {
        let state = self.state();
        let end = state.feed.len();
        let start = match &after {
            None => end,
            Some(FeedCursor(text)) => text.parse().map_err(|error| StoreError::Data {
                what: format!("continue the feed from {text:?}"),
                source: Box::new(error),
            })?,
        };
        let next = start.saturating_add(limit).clamp(start.min(end), end);
        let ids = state.feed.get(start..next).unwrap_or_default();
        Ok(FeedPage {
            events: ids.iter().filter_map(|id| state.rows.get(id)).map(Row::summary).collect(),
            cursor: FeedCursor(next.to_string()),
            more: next < end,
        })
    }

    async fn counts(&self) -> Result<BTreeMap<EventStatus, u64>, StoreError> {
        let mut counts = BTreeMap::new();
        for row in self.state().rows.values() {
            *counts.entry(row.status).or_default() += 1;
        }
        Ok(counts)
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn create_key(&self, key: ApiKey) -> Result<(), StoreError> {
        self.state().keys.insert(key.id.clone(), key);
        Ok(())
    }

    async fn key(&self, id: &str) -> Result<Option<ApiKey>, StoreError> {
        Ok(self.state().keys.get(id).cloned())
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let mut keys: Vec<_> = self.state().keys.values().cloned().collect();
        keys.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(keys)
    }

    async fn revoke_key(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let mut state = self.state();
        let Some(key) = state.keys.get_mut(id) else { return Ok(false) };
        key.revoked_at.get_or_insert(now);
        Ok(true)
    }

    async fn note_key_uses(&self, uses: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        let mut state = self.state();
        for (id, at) in uses {
            if let Some(key) = state.keys.get_mut(&id) {
                key.last_used_at = key.last_used_at.max(Some(at));
            }
        }
        Ok(())
    }
}

/// Whether a payload with these words is found by a search for a text.
fn holds(words: &BTreeSet<String>, text: &str) -> bool {
    let query = text.parse::<SearchQuery>();
    query.is_ok_and(|query| query.terms().iter().all(|term| term.is_in(words)))
}

fn ledger_key(arrival: &Arrival) -> (String, RequestId) {
    (arrival.workspace.clone(), arrival.request_id.clone())
}

fn merge_all<T>(
    all: &mut HashMap<Uuid, T>,
    changes: Vec<T>,
    id: impl Fn(&T) -> Uuid,
    merge: impl Fn(&mut T, T),
) {
    for change in changes {
        match all.entry(id(&change)) {
            std::collections::hash_map::Entry::Occupied(mut mine) => merge(mine.get_mut(), change),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(change);
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
