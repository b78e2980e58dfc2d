//! What events add up to: conversations, messages and tool uses.
//!
//! Each type is a join-semilattice: [`merge`](Conversation::merge) is commutative, associative and
//! idempotent, so the events of a session give the same conversation in any order and however often
//! each is applied. A single event projects to small values of these very types
//! ([`Changes`]), and a store applies them by merging what it has with what came.
//!
//! The fields are of few kinds: the earliest or latest moment, the value of the earliest or latest
//! event ([`Stamped`]), and the best result (by rank, then by stamp).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::RequestId;

/// Orders the events that write to one field: by capture time, then by request id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// When the event was captured.
    pub at: Timestamp,
    /// Names the event.
    pub request_id: RequestId,
}

/// A value and the event that it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// JSON kept as its text, so that nothing about it changes: neither number formats nor key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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
    fn from(raw: &RawValue) -> Self {
        Self(raw.get().to_owned())
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
    /// [`conversation_id`](crate::id::conversation_id) of the workspace and the session.
    pub id: Uuid,
    /// The workspace.
    pub workspace: String,
    /// Claude Code's session id.
    pub session_id: String,
    /// When its earliest event was captured.
    pub started_at: Timestamp,
    /// When its latest event was captured.
    pub last_event_at: Timestamp,
    /// The first prompt, cut.
    pub title: Option<Stamped<String>>,
    /// The latest working directory.
    pub project_path: Option<Stamped<String>>,
    /// The latest model that an event named.
    pub model: Option<Stamped<String>>,
    /// Where the client keeps its transcript.
    pub transcript_path: Option<Stamped<String>>,
    /// The latest end, and its reason.
    pub ended: Option<Stamped<String>>,
    /// The latest sign of life that undoes an end: a start or a prompt.
    pub alive: Option<Stamp>,
}

impl Conversation {
    /// A conversation of which nothing is known but that the event of `stamp` belongs to it.
    #[must_use]
    pub fn new(workspace: &str, session_id: &str, stamp: &Stamp) -> Self {
        Self {
            id: crate::id::conversation_id(workspace, session_id),
            workspace: workspace.to_owned(),
            session_id: session_id.to_owned(),
            started_at: stamp.at,
            last_event_at: stamp.at,
            title: None,
            project_path: None,
            model: None,
            transcript_path: None,
            ended: None,
            alive: None,
        }
    }

    /// Joins what `other` knows of the same conversation into this.
    pub fn merge(&mut self, other: Self) {
        self.started_at = self.started_at.min(other.started_at);
        self.last_event_at = self.last_event_at.max(other.last_event_at);
        keep_first(&mut self.title, other.title);
        keep_last(&mut self.project_path, other.project_path);
        keep_last(&mut self.model, other.model);
        keep_last(&mut self.transcript_path, other.transcript_path);
        keep_last(&mut self.ended, other.ended);
        self.alive = self.alive.take().max(other.alive);
    }

    /// When it ended: the latest end, unless a later start or prompt exists.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        let end = self.ended.as_ref()?;
        let undone = self.alive.as_ref().is_some_and(|alive| *alive > end.stamp);
        (!undone).then_some(end.stamp.at)
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The client itself, such as an error of the API.
    System,
}

impl Role {
    /// The name in lower case, as it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::System => "system",
        }
    }
}

/// Which kind of event a message was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageOrigin {
    /// `UserPromptSubmit`.
    Prompt,
    /// The last words that `Stop` or `SubagentStop` carries; provisional, the transcript has them too.
    Stop,
    /// `StopFailure`.
    Failure,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// [`message_id`](crate::id::message_id).
    pub id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// Who speaks.
    pub role: Role,
    /// Which kind of event it was read from.
    pub origin: MessageOrigin,
    /// The words, and the earliest event that carries them.
    pub content: Stamped<String>,
    /// The subagent whose thread it belongs to; none is the main thread.
    pub agent_id: Option<String>,
    /// The prompt that it belongs to.
    pub prompt_id: Option<String>,
}

impl Message {
    /// Joins what `other` knows of the same message into this.
    pub fn merge(&mut self, other: Self) {
        if other.content.stamp < self.content.stamp {
            *self = other;
        }
    }
}

/// How far a tool use has come. Each later one outranks `Running`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolStatus {
    /// No result is known.
    Running,
    /// It was not permitted.
    Denied,
    /// It failed or was interrupted.
    Failed,
    /// It succeeded.
    Succeeded,
}

impl ToolStatus {
    /// The name in lower case, as it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Succeeded => "succeeded",
        }
    }
}

/// How much a tool result is worth; the highest rank wins, then the earliest stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultRank {
    /// From a `PostToolBatch`, which repeats results as plain text.
    Batch,
    /// From the tool's own event.
    Own,
}

/// The result of a tool use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolResult {
    /// How much it is worth against another result of the same tool use.
    pub rank: ResultRank,
    /// The event that carries it.
    pub stamp: Stamp,
    /// How the tool use ended.
    pub status: ToolStatus,
    /// What it gave back; the error's text where it failed.
    pub response: Option<Json>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<u64>,
}

/// One use of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolUse {
    /// [`tool_use_id`](crate::id::tool_use_id).
    pub id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// The assistant message that asked for it, where one is known.
    pub message_id: Option<Uuid>,
    /// Claude Code's tool use id.
    pub tool_use_id: Option<String>,
    /// The tool.
    pub tool_name: String,
    /// What it was called with, as the earliest event says.
    pub parameters: Option<Stamped<Json>>,
    /// The earliest event about it.
    pub first: Stamp,
    /// Its result, where one is known.
    pub result: Option<ToolResult>,
    /// The subagent whose thread it belongs to; none is the main thread.
    pub agent_id: Option<String>,
    /// The prompt that it belongs to.
    pub prompt_id: Option<String>,
}

impl ToolUse {
    /// Joins what `other` knows of the same tool use into this.
    pub fn merge(&mut self, other: Self) {
        if other.first < self.first {
            self.first = other.first;
            self.tool_name = other.tool_name;
        }
        keep_first(&mut self.parameters, other.parameters);
        self.message_id = self.message_id.max(other.message_id);
        self.tool_use_id = self.tool_use_id.take().max(other.tool_use_id);
        self.agent_id = self.agent_id.take().max(other.agent_id);
        self.prompt_id = self.prompt_id.take().max(other.prompt_id);
        self.result = match (self.result.take(), other.result) {
            (Some(a), Some(b)) => {
                let b_wins = (b.rank, &a.stamp) > (a.rank, &b.stamp);
                Some(if b_wins { b } else { a })
            }
            (a, b) => a.or(b),
        };
    }

    /// How far it has come.
    #[must_use]
    pub fn status(&self) -> ToolStatus {
        self.result.as_ref().map_or(ToolStatus::Running, |result| result.status)
    }
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
    /// The ids that the answer to the event names.
    pub answer: AnswerIds,
}

impl Changes {
    /// Joins `other` into this, so that each conversation, message and tool use stands here once. The
    /// answer stays this one's.
    pub fn absorb(&mut self, other: Self) {
        for conversation in other.conversations {
            match self.conversations.iter_mut().find(|mine| mine.id == conversation.id) {
                Some(mine) => mine.merge(conversation),
                None => self.conversations.push(conversation),
            }
        }
        for message in other.messages {
            match self.messages.iter_mut().find(|mine| mine.id == message.id) {
                Some(mine) => mine.merge(message),
                None => self.messages.push(message),
            }
        }
        for tool_use in other.tool_uses {
            self.absorb_tool_use(tool_use);
        }
    }

    /// Joins one tool use into these changes.
    pub fn absorb_tool_use(&mut self, tool_use: ToolUse) {
        match self.tool_uses.iter_mut().find(|mine| mine.id == tool_use.id) {
            Some(mine) => mine.merge(tool_use),
            None => self.tool_uses.push(tool_use),
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

fn keep_first<T>(mine: &mut Option<Stamped<T>>, other: Option<Stamped<T>>) {
    if let Some(other) = other
        && mine.as_ref().is_none_or(|mine| other.stamp < mine.stamp)
    {
        *mine = Some(other);
    }
}

fn keep_last<T>(mine: &mut Option<Stamped<T>>, other: Option<Stamped<T>>) {
    if let Some(other) = other
        && mine.as_ref().is_none_or(|mine| other.stamp > mine.stamp)
    {
        *mine = Some(other);
    }
}
