//! What goes into a store and what comes out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::id::RequestId;
use crate::record::arrival::{Arrival, EventMetadata};
use crate::record::audit::EventStatus;
use crate::session::conversation::{
    AnswerIds, Changes, Conversation, Message, Reconciliation, Subagent, ToolUse, TwoSides,
    UsageReport, all_subagents, visible,
};

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
    /// Text whose words ([`query_words`](crate::session::search::query_words)) the payload holds, all of them;
    /// text without a word finds nothing.
    pub text: Option<String>,
}

/// A position among the commits of a store: everything before it was seen. Only the store that gave it
/// can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FeedCursor(pub String);

/// A part of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedPage {
    /// Audit rows that were stored or changed their state, as they are now.
    pub events: Vec<EventSummary>,
    /// Where to go on.
    pub cursor: FeedCursor,
    /// Whether there was more than was asked for.
    pub more: bool,
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
    /// What came from hooks and what from transcripts.
    #[serde(flatten)]
    pub sides: TwoSides,
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
        messages: Vec<Message>,
        mut tool_uses: Vec<ToolUse>,
        subagents: Vec<Subagent>,
        events: Vec<EventSummary>,
    ) -> Self {
        let messages = visible(messages);
        tool_uses.sort_by(|a, b| (&a.first, a.id).cmp(&(&b.first, b.id)));
        let subagents = all_subagents(subagents, &messages, &tool_uses);
        let usage = UsageReport::of(&messages);
        Self { conversation, messages, tool_uses, subagents, usage, events }
    }

    /// What hooks and transcript have told of it, held against each other.
    #[must_use]
    pub fn reconciliation(&self) -> Reconciliation {
        let events = self.events.iter().map(|event| event.event_type.as_str());
        Reconciliation::of(&self.conversation, &self.messages, &self.tool_uses, events)
    }
}
