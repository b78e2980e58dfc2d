//! What a stored value says of itself and no column can: which event wrote a field, for example. It stands in the
//! column `metadata`, so that a row reads back as the value. Where a column cannot hold a text as it is, the store
//! puts it into one of the `…_text` fields, which outweigh the column.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::blocks::blocks_from_json;
use super::message::{BlockRows, MessageWrite, StoredMessage};
use super::usage::MessageParts;
use crate::base::clock::Timestamp;
use crate::base::id::RequestId;
use crate::session::conversation::{
    Conversation, Json, Message, MessageKey, MessageOrigin, Notice, ResultRank, Role, Seen, Stamp,
    Stamped, Standing, Title, TitleSource, ToolResult, ToolStatus, ToolUse,
};
use crate::session::usage::{ClientCost, Usage, Usd};

/// `conversations.metadata`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationMetadata<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<Cow<'a, Stamp>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title_source: Option<TitleSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title_prompt_index: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project_path: Option<Cow<'a, Stamp>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Cow<'a, Stamped<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    git_branch: Option<Cow<'a, Stamped<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Cow<'a, Stamped<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transcript_path: Option<Cow<'a, Stamped<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Cow<'a, Stamped<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alive: Option<Cow<'a, Stamp>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_cost: Option<Cow<'a, ClientCost>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    unreadable: Cow<'a, BTreeMap<String, String>>,
    /// The session id, where its column cannot hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id_text: Option<Cow<'a, str>>,
    /// The title, where its column cannot hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title_text: Option<Cow<'a, str>>,
    /// The project's path, where its column cannot hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_path_text: Option<Cow<'a, str>>,
}

/// The other columns of `conversations` that make the value.
#[derive(Debug)]
pub struct ConversationColumns {
    /// `id`.
    pub id: Uuid,
    /// `workspace`.
    pub workspace: String,
    /// `session_id`.
    pub session_id: String,
    /// `project_path`.
    pub project_path: Option<String>,
    /// `title`.
    pub title: Option<String>,
    /// `started_at`.
    pub started_at: Timestamp,
    /// `last_event_at`.
    pub last_event_at: Timestamp,
}

impl<'a> ConversationMetadata<'a> {
    /// The metadata of a value whose texts fit into their columns.
    #[must_use]
    pub fn of(value: &'a Conversation) -> Self {
        Self {
            title: value.title.as_ref().map(|title| Cow::Borrowed(&title.stamp)),
            title_source: value.title.as_ref().map(|title| title.source),
            title_prompt_index: value.title.as_ref().and_then(|title| title.prompt_index),
            project_path: stamp(&value.project_path),
            model: value.model.as_ref().map(Cow::Borrowed),
            git_branch: value.git_branch.as_ref().map(Cow::Borrowed),
            version: value.version.as_ref().map(Cow::Borrowed),
            transcript_path: value.transcript_path.as_ref().map(Cow::Borrowed),
            ended: value.ended.as_ref().map(Cow::Borrowed),
            alive: value.alive.as_ref().map(Cow::Borrowed),
            client_cost: value.client_cost.as_ref().map(Cow::Borrowed),
            host: value.host.as_deref().map(Cow::Borrowed),
            unreadable: Cow::Borrowed(&value.unreadable),
            session_id_text: None,
            title_text: None,
            project_path_text: None,
        }
    }

    /// The value that was written.
    #[must_use]
    pub fn into_value(self, columns: ConversationColumns) -> Conversation {
        let ConversationColumns { id, workspace, started_at, last_event_at, .. } = columns;
        let project_path = text(self.project_path_text).or(columns.project_path);
        Conversation {
            id,
            workspace,
            session_id: text(self.session_id_text).unwrap_or(columns.session_id),
            started_at,
            last_event_at,
            title: title(
                (self.title, self.title_source, self.title_prompt_index),
                text(self.title_text).or(columns.title),
            ),
            project_path: stamped(self.project_path, project_path),
            model: self.model.map(Cow::into_owned),
            git_branch: self.git_branch.map(Cow::into_owned),
            version: self.version.map(Cow::into_owned),
            transcript_path: self.transcript_path.map(Cow::into_owned),
            ended: self.ended.map(Cow::into_owned),
            alive: self.alive.map(Cow::into_owned),
            client_cost: self.client_cost.map(Cow::into_owned),
            host: text(self.host),
            unreadable: self.unreadable.into_owned(),
        }
    }
}

/// `message_rows.metadata`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageMetadata<'a> {
    request_id: Cow<'a, RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    api_id: Option<Cow<'a, str>>,
    origin: MessageOrigin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_cost: Option<Usd>,
    #[serde(flatten)]
    standing: Standing,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parents: Option<Cow<'a, BTreeSet<RequestId>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt_index: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notice: Option<Notice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    block_count: Option<u32>,
    /// The blocks that are rows of `message_blocks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    block_rows: Option<Cow<'a, BlockRows>>,
    /// The content, where its column cannot hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_text: Option<Cow<'a, str>>,
}

/// The other columns of `message_rows` that make the value.
#[derive(Debug)]
pub struct MessageColumns<'a> {
    /// `id`.
    pub id: Uuid,
    /// `conversation_id`.
    pub conversation_id: Uuid,
    /// `role`.
    pub role: Role,
    /// `content`.
    pub content: Option<String>,
    /// `timestamp`.
    pub timestamp: Timestamp,
    /// `blocks`, as JSON.
    pub blocks: Option<&'a str>,
    /// `model`.
    pub model: Option<String>,
}

impl<'a> MessageMetadata<'a> {
    /// The metadata of a message whose content fits into its column.
    #[must_use]
    pub fn of(write: &'a MessageWrite<'_>) -> Self {
        let value: &Message = &write.message;
        Self {
            request_id: Cow::Borrowed(&value.content.stamp.request_id),
            api_id: value.api_id.as_deref().map(Cow::Borrowed),
            origin: value.origin,
            usage: value.usage,
            agent_id: value.agent_id.as_deref().map(Cow::Borrowed),
            prompt_id: value.prompt_id.as_deref().map(Cow::Borrowed),
            sent_at: value.sent_at,
            client_cost: value.client_cost,
            standing: value.standing,
            parents: (!value.parents.is_empty()).then_some(Cow::Borrowed(&value.parents)),
            prompt_index: value.prompt_index,
            notice: value.notice,
            stop_reason: value.stop_reason.as_deref().map(Cow::Borrowed),
            block_count: value.block_count,
            block_rows: write.rows.as_ref().map(Cow::Borrowed),
            content_text: None,
        }
    }

    /// The message that was written, as its row holds it.
    ///
    /// # Errors
    ///
    /// The blocks are not those of the content.
    pub fn into_stored(
        self,
        columns: MessageColumns<'_>,
    ) -> Result<StoredMessage, serde_json::Error> {
        let MessageColumns { id, conversation_id, role, timestamp, blocks, model, .. } = columns;
        let value = text(self.content_text).or(columns.content).unwrap_or_default();
        let stamp = Stamp { at: timestamp, request_id: self.request_id.into_owned() };
        let value = Message {
            id,
            conversation_id,
            api_id: text(self.api_id),
            role,
            origin: self.origin,
            blocks: blocks_from_json(&value, blocks)?,
            content: Stamped { stamp, value },
            model,
            usage: self.usage,
            agent_id: text(self.agent_id),
            prompt_id: text(self.prompt_id),
            sent_at: self.sent_at,
            client_cost: self.client_cost,
            standing: self.standing,
            parents: self.parents.map(Cow::into_owned).unwrap_or_default(),
            prompt_index: self.prompt_index,
            notice: self.notice,
            stop_reason: text(self.stop_reason),
            block_count: self.block_count,
        };
        Ok(StoredMessage { value, rows: self.block_rows.map(Cow::into_owned) })
    }
}

impl MessageMetadata<'_> {
    /// What is counted of the message that has this metadata and these columns.
    #[must_use]
    pub fn parts<'c>(
        &'c self,
        (id, conversation_id): (Uuid, Uuid),
        at: Timestamp,
        model: Option<&'c str>,
    ) -> MessageParts<'c> {
        let (api_id, is_subagent) = (self.api_id.as_deref(), self.agent_id.is_some());
        let (is_copied, usage) = (self.standing.copied, self.usage);
        MessageParts { id, conversation_id, api_id, at, model, is_subagent, is_copied, usage }
    }
}

/// `tool_uses.metadata`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolUseMetadata<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, MessageKey>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_use_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caller: Option<Cow<'a, RequestId>>,
    first: Cow<'a, RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Cow<'a, Stamp>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<ResultMetadata<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_by_person: bool,
    /// Absent where only hooks have told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<Seen>,
    #[serde(flatten)]
    standing: Standing,
    /// The tool's name, where its column cannot hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_name_text: Option<Cow<'a, str>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultMetadata<'a> {
    rank: ResultRank,
    stamp: Cow<'a, Stamp>,
}

/// The other columns of `tool_uses` that make the value.
#[derive(Debug)]
pub struct ToolUseColumns {
    /// `id`.
    pub id: Uuid,
    /// `conversation_id`.
    pub conversation_id: Uuid,
    /// `message_id`.
    pub message_id: Option<Uuid>,
    /// `tool_name`.
    pub tool_name: String,
    /// `parameters`.
    pub parameters: Option<Json>,
    /// `response`.
    pub response: Option<Json>,
    /// `duration`, in milliseconds.
    pub duration: Option<i64>,
    /// `status`.
    pub status: ToolStatus,
    /// `timestamp`.
    pub timestamp: Timestamp,
}

impl<'a> ToolUseMetadata<'a> {
    /// The metadata of a value whose name fits into its column.
    #[must_use]
    pub fn of(value: &'a ToolUse) -> Self {
        let result = value.result.as_ref();
        Self {
            message: value.message_key.as_ref().map(Cow::Borrowed),
            tool_use_id: value.tool_use_id.as_deref().map(Cow::Borrowed),
            caller: value.caller.as_ref().map(Cow::Borrowed),
            first: Cow::Borrowed(&value.first.request_id),
            parameters: stamp(&value.parameters),
            result: result.map(|result| ResultMetadata {
                rank: result.rank,
                stamp: Cow::Borrowed(&result.stamp),
            }),
            agent_id: value.agent_id.as_deref().map(Cow::Borrowed),
            prompt_id: value.prompt_id.as_deref().map(Cow::Borrowed),
            is_by_person: value.is_by_person,
            seen: (value.seen != Seen::BY_HOOK).then_some(value.seen),
            standing: value.standing,
            tool_name_text: None,
        }
    }

    /// The value that was written.
    #[must_use]
    pub fn into_value(self, columns: ToolUseColumns) -> ToolUse {
        let ToolUseColumns { id, conversation_id, message_id, status, response, .. } = columns;
        let result = self.result.map(|result| ToolResult {
            rank: result.rank,
            stamp: result.stamp.into_owned(),
            status,
            response,
            duration_ms: columns.duration.and_then(|ms| u64::try_from(ms).ok()),
        });
        ToolUse {
            id,
            conversation_id,
            message_id,
            message_key: self.message.map(Cow::into_owned),
            tool_use_id: text(self.tool_use_id),
            caller: self.caller.map(Cow::into_owned),
            tool_name: text(self.tool_name_text).unwrap_or(columns.tool_name),
            parameters: stamped(self.parameters, columns.parameters),
            first: Stamp { at: columns.timestamp, request_id: self.first.into_owned() },
            result,
            agent_id: text(self.agent_id),
            prompt_id: text(self.prompt_id),
            is_by_person: self.is_by_person,
            seen: self.seen.unwrap_or(Seen::BY_HOOK),
            standing: self.standing,
        }
    }
}

fn is_empty(map: &BTreeMap<String, String>) -> bool {
    map.is_empty()
}

fn stamp<T>(value: &Option<Stamped<T>>) -> Option<Cow<'_, Stamp>> {
    value.as_ref().map(|value| Cow::Borrowed(&value.stamp))
}

fn stamped<T>(stamp: Option<Cow<'_, Stamp>>, value: Option<T>) -> Option<Stamped<T>> {
    Some(Stamped { stamp: stamp?.into_owned(), value: value? })
}

fn title(
    (stamp, source, prompt_index): (Option<Cow<'_, Stamp>>, Option<TitleSource>, Option<u32>),
    value: Option<String>,
) -> Option<Title> {
    let source = source.unwrap_or_default();
    Some(Title { source, stamp: stamp?.into_owned(), value: value?, prompt_index })
}

fn text(text: Option<Cow<'_, str>>) -> Option<String> {
    text.map(Cow::into_owned)
}
