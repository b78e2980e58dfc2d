//! Reading: events, conversations, searches and the feed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    ConversationCursor, ConversationFilter, ConversationPage, EventFilter, EventPage, FeedCursor,
    FeedPage, Page, SearchCursor, SearchFilter, SearchPage, StoreError,
};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::id::RequestId;
use crate::record::arrival::{Arrival, EventMetadata};
use crate::record::audit::EventStatus;
use crate::session::conversation::{
    AnswerIds, Conversation, Links, Message, Reconciliation, Replaced, Subagent, ToolUse, TwoSides,
    UsageReport, all_subagents, joined, visible,
};

/// Reads what is stored.
///
/// # Behavior
///
/// * What [`EventStore::record`](super::EventStore::record) returned is visible at once.
/// * Lists are newest first and continue without gap from the cursor of the page before.
/// * Lists can be filtered, by each field of their filter and by several.
/// * A page looks at a bounded number of rows, and says where to go on although it may be empty.
/// * A list of conversations goes on from its cursor when the conversation that was there has moved.
/// * Of a conversation in a list a bounded number of messages and tool uses is counted.
/// * Who asks for one workspace learns nothing of another, not even that an id is used there.
/// * Of each conversation, what only hooks or only transcripts have told of is counted.
/// * A search finds the messages and tool uses that hold all of its words, newest first, with what is around
///   the first match.
/// * A search finds words in every script, however they are written: with and without spaces, in any case and normal form,
///   with and without accents.
/// * A search finds phrases and beginnings of words.
/// * A search can be filtered, with and without words.
/// * A page of a search is small, however large what it finds is: it ends by its bytes as well as by its count
///   ([`SearchPageBuilder`](super::SearchPageBuilder)).
/// * A search goes on from its cursor, and finds nothing twice, whatever is stored meanwhile.
/// * What is found is shown as it is now; what changed is found by what it is now.
/// * What an event and the transcript say both is found once.
/// * Prompts are shown, counted and found once, however many events and lines tell of them, and not at all where
///   they were withdrawn.
/// * A search finds the same in every store.
/// * The feed shows each commit at least once, whichever server made it and however long it took.
#[async_trait]
pub trait EventReader: std::fmt::Debug + Send + Sync + 'static {
    /// One audit row of a workspace with its bodies, by its own id or by request id (the admitted one).
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn event(
        &self,
        workspace: &str,
        key: EventKey,
    ) -> Result<Option<EventDetail>, StoreError>;

    /// Audit rows, newest first: a page, and where to go on. With a text to search for, too many searches or one that takes
    /// too long are errors as in [`search`](EventReader::search).
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn events(&self, filter: EventFilter, page: Page) -> Result<EventPage, StoreError>;

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

    /// Conversations, those of the latest events first: a page, and where to go on. One that goes on meanwhile moves to
    /// the front of the list.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn conversations(
        &self,
        filter: ConversationFilter,
        page: Page<ConversationCursor>,
    ) -> Result<ConversationPage, StoreError>;

    /// The messages and tool uses that `filter` asks for, newest first: up to `limit` of them, and where to
    /// go on. What shares a millisecond comes in an order that the store keeps. What was stored lately may not be found yet ([`EventStore::index`](super::EventStore::index)).
    ///
    /// # Errors
    ///
    /// The store could not be read, [too many searches](StoreError::SearchesBusy) run at the moment, or this
    /// one takes [too long](StoreError::SearchTimeout).
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

/// Names an audit row of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKey {
    /// By the row's own id.
    Id(Uuid),
    /// By request id: the first arrival's row.
    Request(RequestId),
}

/// An audit row, in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventSummary {
    /// The row's own id.
    pub id: Uuid,
    /// The workspace of the key that sent it.
    pub workspace: String,
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
    /// When a person gave it up for good.
    pub discarded_at: Option<Timestamp>,
    /// What else is known of it.
    pub metadata: EventMetadata,
}

impl EventSummary {
    /// When the event was captured; when it was received, where that is not known.
    #[must_use]
    pub fn captured_at(&self) -> Timestamp {
        self.metadata.captured_at().unwrap_or(self.received_at)
    }
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

impl EventDetail {
    /// The arrival that the row was, as far as it tells what is to become of it; none for a duplicate, which has no body.
    #[must_use]
    pub fn into_arrival(self) -> Option<Arrival> {
        let Self { summary, body, headers, ip_address, .. } = self;
        let body = body?;
        Some(Arrival {
            event_id: summary.id,
            request_id: summary.request_id,
            digest: Digest::of(&body),
            in_ledger: true,
            workspace: summary.workspace,
            event_type: summary.event_type,
            session_id: summary.session_id,
            received_at: summary.received_at,
            body,
            headers,
            ip_address,
            metadata: summary.metadata,
        })
    }
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
    /// How many messages it has ([`MessageCounts::shown`](crate::session::conversation::MessageCounts::shown)).
    pub messages: u64,
    /// How many tool uses it has.
    pub tool_uses: u64,
    /// Whether there may be more of either: [`COUNTED_MAX`](crate::base::limits::COUNTED_MAX) messages and as many tool
    /// uses are counted at most.
    pub counts_capped: bool,
    /// What came from hooks and what from transcripts, of those that were counted.
    #[serde(flatten)]
    pub sides: TwoSides,
}

impl ConversationSummary {
    /// Whether nothing is known of it but that it was there: the client makes a session for its picker, and throws it away.
    /// Nothing was said or done in it, no start of it came, and no line of a transcript.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        let Conversation { title, model, version, git_branch, ended, alive, client_cost, .. } =
            &self.conversation;
        let is_known = title.is_some() || model.is_some() || version.is_some();
        let has_run = git_branch.is_some() || ended.is_some() || alive.is_some();
        let has_lines = client_cost.is_some() || !self.conversation.unreadable.is_empty();
        self.messages == 0 && self.tool_uses == 0 && !is_known && !has_run && !has_lines
    }
}

/// A conversation, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationDetail {
    /// The conversation.
    #[serde(flatten)]
    pub conversation: Conversation,
    /// Its messages, oldest first, without those that another one says already
    /// ([`visible`]).
    pub messages: Vec<Message>,
    /// Its tool uses, oldest first.
    pub tool_uses: Vec<ToolUse>,
    /// Its subagents, earliest first.
    pub subagents: Vec<Subagent>,
    /// The parts of the main thread that a later prompt has replaced, earliest first.
    pub replaced: Vec<Replaced>,
    /// What it took, and what that costs.
    pub usage: UsageReport,
    /// Its audit rows, oldest first, duplicates left out: the timeline.
    pub events: Vec<EventSummary>,
}

impl ConversationDetail {
    /// What a reader sees of what is stored of a conversation, in whatever order that came. `events` are
    /// in order.
    #[must_use]
    pub fn new(
        conversation: Conversation,
        mut messages: Vec<Message>,
        tool_uses: Vec<ToolUse>,
        subagents: Vec<Subagent>,
        events: Vec<EventSummary>,
    ) -> Self {
        let links = Links::take(&mut messages);
        let messages = visible(messages);
        let tool_uses = joined(tool_uses);
        let subagents = all_subagents(subagents, &messages, &tool_uses);
        let usage = UsageReport::of(&messages);
        let replaced = Replaced::of(&messages, &tool_uses, &links);
        Self { conversation, messages, tool_uses, subagents, replaced, usage, events }
    }

    /// What hooks and transcript have told of it, held against each other.
    #[must_use]
    pub fn reconciliation(&self) -> Reconciliation {
        let events = self.events.iter().map(|event| event.event_type.as_str());
        Reconciliation::of(&self.conversation, &self.messages, &self.tool_uses, events)
    }
}

const _: Option<&dyn EventReader> = None; // object safe
