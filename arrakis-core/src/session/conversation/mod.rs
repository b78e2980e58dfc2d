//! What events add up to: conversations, messages and tool uses.
//!
//! Each type is a join-semilattice: [`merge`](Conversation::merge) is commutative, associative and
//! idempotent, so the events of a session give the same conversation in any order and however often
//! each is applied. A single event projects to small values of these very types
//! ([`Changes`]), and a store applies them by merging what it has with what came.
//!
//! The fields are of few kinds: the earliest or latest moment, the value of the earliest or latest
//! event ([`Stamped`]), the greatest value, the best result (by rank, then by stamp), and keyed sets.

#[cfg(feature = "runtime")]
mod attached;
#[cfg(feature = "runtime")]
mod branches;
mod limit;
mod message;
#[cfg(feature = "runtime")]
mod prompts;
#[cfg(feature = "runtime")]
mod reading;
#[cfg(feature = "runtime")]
mod reconcile;
mod subagent;
mod title;
mod tool_use;

#[cfg(feature = "runtime")]
pub(crate) use branches::Links;
#[cfg(feature = "runtime")]
pub use branches::Replaced;
#[cfg(feature = "runtime")]
pub(crate) use limit::name;
pub use message::{
    Block, BlockKey, Blocks, Message, MessageKey, MessageOrigin, Notice, Role, Standing,
};
#[cfg(feature = "runtime")]
pub use reading::{MessageCounts, ModelUsage, UsageReport, visible};
#[cfg(feature = "runtime")]
pub(crate) use reading::{all_subagents, said_by, strip_whitespace};
#[cfg(feature = "runtime")]
pub use reconcile::{Gap, KnownToolUse, Reconciliation, TwoSides};
#[cfg(feature = "runtime")]
pub(crate) use subagent::SIDECHAIN;
pub use subagent::Subagent;
pub use title::{Title, TitleSource};
#[cfg(feature = "runtime")]
pub(crate) use tool_use::joined;
pub use tool_use::{ResultRank, Seen, ToolResult, ToolStatus, ToolUse, UNKNOWN_TOOL};

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::id::RequestId;
use crate::base::json::{Canonical, whole_characters};
use crate::base::limits::{ABANDONED_AFTER, UNREADABLE_KEPT_MAX};
use crate::session::usage::ClientCost;

/// Orders what writes to one field: events by capture time, then by request id; lines of a transcript by
/// their own time and id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// When the event was captured, or the line written.
    pub at: Timestamp,
    /// Names the event, or the line.
    pub request_id: RequestId,
}

/// A value and the event that it comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamped<T> {
    /// The event.
    pub stamp: Stamp,
    /// What it said.
    pub value: T,
}

impl<T> Stamped<T> {
    /// `value`, as said by the event of `stamp`.
    #[must_use]
    pub fn new(stamp: &Stamp, value: T) -> Self {
        Self { stamp: stamp.clone(), value }
    }
}

/// JSON kept as its text, so that nothing about it changes: neither number formats nor key order. Two are
/// equal where they mean the same, because a store may space JSON anew and order its keys.
#[derive(Debug, Clone)]
pub struct Json(String);

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Json {}

impl PartialOrd for Json {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Json {
    fn cmp(&self, other: &Self) -> Ordering {
        /// The canonical form; the text as it stands where it is more than can be parsed.
        fn canonical(json: &Json) -> Cow<'_, str> {
            let value = serde_json::from_str(&json.0);
            value.map_or(Cow::Borrowed(&json.0), |value| Canonical(&value).to_string().into())
        }
        match self.0.cmp(&other.0) {
            Ordering::Equal => Ordering::Equal,
            _ => canonical(self).cmp(&canonical(other)),
        }
    }
}

impl Json {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Any value, written as JSON.
    ///
    /// # Errors
    ///
    /// The value cannot be written as JSON.
    pub fn of<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(Self)
    }

    /// Text that is known to be JSON, such as a column that only this code writes.
    ///
    /// # Errors
    ///
    /// The text is not JSON.
    pub fn parse(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Into::into)
    }
}

impl From<Box<RawValue>> for Json {
    fn from(raw: Box<RawValue>) -> Self {
        Self(Box::<str>::from(raw).into_string())
    }
}

impl From<&RawValue> for Json {
    /// The JSON as it stands, but for halves of characters, which no database takes.
    fn from(raw: &RawValue) -> Self {
        Self(whole_characters(raw.get()).into_owned())
    }
}

impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Into::into)
    }
}

/// One session of Claude Code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conversation {
    /// [`conversation_id`](crate::base::id::conversation_id) of the workspace and the session.
    pub id: Uuid,
    /// The workspace.
    pub workspace: String,
    /// Claude Code's session id.
    pub session_id: String,
    /// When its earliest event was captured, or the earliest line of its transcript written. While nothing is known of
    /// it but what was copied into it, this is the last moment of all; [`began_at`](Self::began_at) is not.
    pub started_at: Timestamp,
    /// When its latest event was captured, or the latest line of its transcript written.
    pub last_event_at: Timestamp,
    /// What it is called, cut.
    pub title: Option<Title>,
    /// The latest working directory.
    pub project_path: Option<Stamped<String>>,
    /// The latest model that an event or a line of the main thread named.
    pub model: Option<Stamped<String>>,
    /// The latest branch of the project.
    pub git_branch: Option<Stamped<String>>,
    /// The latest version of the client.
    pub version: Option<Stamped<String>>,
    /// Where the client keeps its transcript.
    pub transcript_path: Option<Stamped<String>>,
    /// The latest end, and its reason.
    pub ended: Option<Stamped<String>>,
    /// The latest sign of life that undoes an end: a start or a prompt.
    pub alive: Option<Stamp>,
    /// What the client itself says that the session has cost.
    pub client_cost: Option<ClientCost>,
    /// The host that captured its events; of several, the last by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What of its transcripts could not be read: the reason by the digest of the bytes, the first
    /// [`UNREADABLE_KEPT_MAX`] of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unreadable: BTreeMap<String, String>,
}

impl Conversation {
    /// A conversation of which nothing is known but that the event of `stamp` belongs to it.
    #[must_use]
    pub fn new(workspace: &str, session_id: &str, stamp: &Stamp) -> Self {
        Self {
            id: crate::base::id::conversation_id(workspace, session_id),
            workspace: workspace.to_owned(),
            session_id: session_id.to_owned(),
            started_at: stamp.at,
            last_event_at: stamp.at,
            title: None,
            project_path: None,
            model: None,
            git_branch: None,
            version: None,
            transcript_path: None,
            ended: None,
            alive: None,
            client_cost: None,
            host: None,
            unreadable: BTreeMap::new(),
        }
    }

    /// Joins what `other` knows of the same conversation into this.
    pub fn merge(&mut self, other: Self) {
        self.started_at = self.started_at.min(other.started_at);
        self.last_event_at = self.last_event_at.max(other.last_event_at);
        Title::merge(&mut self.title, other.title);
        keep_last(&mut self.project_path, other.project_path);
        keep_last(&mut self.model, other.model);
        keep_last(&mut self.git_branch, other.git_branch);
        keep_last(&mut self.version, other.version);
        keep_last(&mut self.transcript_path, other.transcript_path);
        keep_last(&mut self.ended, other.ended);
        self.alive = self.alive.take().max(other.alive);
        self.client_cost = self.client_cost.take().max(other.client_cost);
        self.host = self.host.take().max(other.host);
        for (digest, reason) in other.unreadable {
            let mine = self.unreadable.entry(digest).or_default();
            *mine = std::mem::take(mine).max(reason);
            if self.unreadable.len() > UNREADABLE_KEPT_MAX {
                self.unreadable.pop_last();
            }
        }
    }

    /// How long it lasted, to its latest event, in milliseconds.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        let lasted = self.last_event_at.since(self.began_at());
        u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX)
    }

    /// How it stands now.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> ConversationState {
        match self.ended_at() {
            Some(at) => ConversationState::Ended(at),
            None if now.since(self.last_event_at) > ABANDONED_AFTER => {
                ConversationState::Abandoned(self.last_event_at)
            }
            None => ConversationState::Open,
        }
    }

    /// When it began, as far as that is known.
    #[must_use]
    pub fn began_at(&self) -> Timestamp {
        self.started_at.min(self.last_event_at)
    }

    /// When it ended: the latest end, unless a later start or prompt exists.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        let end = self.ended.as_ref()?;
        let undone = self.alive.as_ref().is_some_and(|alive| *alive > end.stamp);
        (!undone).then_some(end.stamp.at)
    }
}

/// How a conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationState {
    /// It may go on.
    Open,
    /// It ended then.
    Ended(Timestamp),
    /// Nothing came since then, and nothing tells that it ended: the client was killed, or what was imported has
    /// no hooks.
    Abandoned(Timestamp),
}

/// What one event adds, or several merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// At most one value per conversation.
    pub conversations: Vec<Conversation>,
    /// At most one value per message.
    pub messages: Vec<Message>,
    /// At most one value per tool use.
    pub tool_uses: Vec<ToolUse>,
    /// At most one value per subagent.
    pub subagents: Vec<Subagent>,
    /// The ids that the answer to the event names.
    pub answer: AnswerIds,
}

impl Changes {
    /// Joins `other` into this, so that each conversation, message, tool use and subagent stands here
    /// once. The answer stays this one's.
    pub fn absorb(&mut self, other: Self) {
        join(&mut self.conversations, other.conversations, |one| one.id, Conversation::merge);
        join(&mut self.messages, other.messages, |one| one.id, Message::merge);
        join(&mut self.tool_uses, other.tool_uses, |one| one.id, ToolUse::merge);
        join(&mut self.subagents, other.subagents, |one| one.id, Subagent::merge);
    }
}

fn join<T>(mine: &mut Vec<T>, other: Vec<T>, id: fn(&T) -> Uuid, merge: fn(&mut T, T)) {
    let mut places: BTreeMap<Uuid, usize> = mine.iter().map(id).zip(0..).collect();
    for value in other {
        match places.entry(id(&value)) {
            Entry::Occupied(place) => merge(&mut mine[*place.get()], value),
            Entry::Vacant(place) => {
                place.insert(mine.len());
                mine.push(value);
            }
        }
    }
}

/// What an event is about: the ids that its audit row and the answer to its sender carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerIds {
    /// The conversation.
    pub conversation_id: Option<Uuid>,
    /// The message, where the event is one.
    pub message_id: Option<Uuid>,
    /// The tool use, where the event is about one.
    pub tool_use_id: Option<Uuid>,
}

/// Keeps the earliest. Of two that one stamp says, the lesser, so that it does not matter which came first.
fn keep_first<T: Ord>(mine: &mut Option<Stamped<T>>, other: Option<Stamped<T>>) {
    if let Some(other) = other
        && mine.as_ref().is_none_or(|mine| other < *mine)
    {
        *mine = Some(other);
    }
}

/// Keeps the latest.
fn keep_last<T: Ord>(mine: &mut Option<Stamped<T>>, other: Option<Stamped<T>>) {
    if let Some(other) = other
        && mine.as_ref().is_none_or(|mine| other > *mine)
    {
        *mine = Some(other);
    }
}
