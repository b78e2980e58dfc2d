//! Rows of `conversations`, `messages` and `tool_uses`. What such a value says of itself but no
//! column can (which event wrote a field) is in `metadata`, so that a row reads back as the value.

use std::borrow::Cow;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::id::RequestId;
use arrakis_core::record::store::adapter::{blocks_from_json, blocks_to_json};
use arrakis_core::session::conversation::{
    Conversation, Json, Message, MessageKey, MessageOrigin, ResultRank, Seen, Stamp, Stamped,
    ToolResult, ToolUse,
};
use arrakis_core::session::usage::{ClientCost, Usage};
use diesel::prelude::*;
use diesel::result::QueryResult;
use serde::{Deserialize, Serialize};

use super::event::Now;
use super::{json, maybe_uuid, time, to_json, uuid, word};
use crate::error::unreadable;
use crate::schema::{conversations, messages, tool_uses};

/// A row of `conversations`.
#[derive(Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = conversations, treat_none_as_default_value = false)]
pub(crate) struct ConversationRow<'a> {
    pub(crate) id: String,
    workspace: Cow<'a, str>,
    session_id: Cow<'a, str>,
    project_path: Option<Cow<'a, str>>,
    title: Option<Cow<'a, str>>,
    description: Option<Cow<'a, str>>,
    started_at: String,
    ended_at: Option<String>,
    last_event_at: String,
    metadata: String,
    created_at: Cow<'a, str>,
    updated_at: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConversationMeta<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<Cow<'a, Stamp>>,
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
}

/// What a row keeps when its value is written again.
#[derive(Debug)]
pub(crate) struct Kept {
    description: Option<String>,
    created_at: String,
}

impl<'a> ConversationRow<'a> {
    /// The row of `value`, written at `now` in the place of the row that `kept` is from.
    pub(crate) fn new(
        value: &'a Conversation,
        kept: Option<Kept>,
        now: &'a Now,
    ) -> QueryResult<Self> {
        let (description, created_at) = match kept {
            Some(Kept { description, created_at }) => {
                (description.map(Cow::Owned), created_at.into())
            }
            None => (None, now.text.as_str().into()),
        };
        let meta = ConversationMeta {
            title: stamp(&value.title),
            project_path: stamp(&value.project_path),
            model: value.model.as_ref().map(Cow::Borrowed),
            git_branch: value.git_branch.as_ref().map(Cow::Borrowed),
            version: value.version.as_ref().map(Cow::Borrowed),
            transcript_path: value.transcript_path.as_ref().map(Cow::Borrowed),
            ended: value.ended.as_ref().map(Cow::Borrowed),
            alive: value.alive.as_ref().map(Cow::Borrowed),
            client_cost: value.client_cost.as_ref().map(Cow::Borrowed),
        };
        Ok(Self {
            id: value.id.to_string(),
            workspace: value.workspace.as_str().into(),
            session_id: value.session_id.as_str().into(),
            project_path: text(&value.project_path),
            title: text(&value.title),
            description,
            started_at: value.started_at.to_string(),
            ended_at: value.ended_at().map(|at| at.to_string()),
            last_event_at: value.last_event_at.to_string(),
            metadata: to_json(&meta)?,
            created_at,
            updated_at: now.text.as_str().into(),
        })
    }

    /// The value that was written, and what else the row holds.
    pub(crate) fn into_parts(mut self) -> QueryResult<(Conversation, Kept)> {
        let kept = Kept {
            description: self.description.take().map(Cow::into_owned),
            created_at: std::mem::take(&mut self.created_at).into_owned(),
        };
        Ok((self.into_value()?, kept))
    }

    /// The value that was written.
    pub(crate) fn into_value(self) -> QueryResult<Conversation> {
        let meta: ConversationMeta<'static> = json("metadata", &self.metadata)?;
        Ok(Conversation {
            id: uuid("id", &self.id)?,
            workspace: self.workspace.into_owned(),
            session_id: self.session_id.into_owned(),
            started_at: time("started_at", &self.started_at)?,
            last_event_at: time("last_event_at", &self.last_event_at)?,
            title: stamped(meta.title, self.title),
            project_path: stamped(meta.project_path, self.project_path),
            model: meta.model.map(Cow::into_owned),
            git_branch: meta.git_branch.map(Cow::into_owned),
            version: meta.version.map(Cow::into_owned),
            transcript_path: meta.transcript_path.map(Cow::into_owned),
            ended: meta.ended.map(Cow::into_owned),
            alive: meta.alive.map(Cow::into_owned),
            client_cost: meta.client_cost.map(Cow::into_owned),
        })
    }
}

/// A row of `messages`.
#[derive(Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = messages, treat_none_as_default_value = false)]
pub(crate) struct MessageRow<'a> {
    pub(crate) id: String,
    workspace: Cow<'a, str>,
    pub(crate) conversation_id: String,
    role: Cow<'a, str>,
    content: Cow<'a, str>,
    timestamp: String,
    metadata: String,
    blocks: Option<String>,
    model: Option<Cow<'a, str>>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cache_read_tokens: Option<i64>,
    cache_creation_tokens: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageMeta<'a> {
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
}

impl<'a> MessageRow<'a> {
    /// The row of `value` in `workspace`.
    pub(crate) fn new(value: &'a Message, workspace: &'a str) -> QueryResult<Self> {
        let meta = MessageMeta {
            request_id: Cow::Borrowed(&value.content.stamp.request_id),
            api_id: value.api_id.as_deref().map(Cow::Borrowed),
            origin: value.origin,
            usage: value.usage,
            agent_id: value.agent_id.as_deref().map(Cow::Borrowed),
            prompt_id: value.prompt_id.as_deref().map(Cow::Borrowed),
            sent_at: value.sent_at,
        };
        let tokens = |of: fn(Usage) -> u64| value.usage.map(of).map(count);
        Ok(Self {
            id: value.id.to_string(),
            workspace: workspace.into(),
            conversation_id: value.conversation_id.to_string(),
            role: value.role.as_str().into(),
            content: value.content.value.as_str().into(),
            timestamp: value.content.stamp.at.to_string(),
            metadata: to_json(&meta)?,
            blocks: blocks_to_json(&value.blocks)
                .map_err(|error| diesel::result::Error::SerializationError(error.into()))?,
            model: value.model.as_deref().map(Cow::Borrowed),
            input_tokens: tokens(|usage| usage.input_tokens),
            output_tokens: tokens(|usage| usage.output_tokens),
            cache_read_tokens: tokens(|usage| usage.cache_read_tokens),
            cache_creation_tokens: tokens(|usage| usage.cache_creation_tokens),
        })
    }

    /// The value that was written.
    pub(crate) fn into_value(self) -> QueryResult<Message> {
        let meta: MessageMeta<'static> = json("metadata", &self.metadata)?;
        let stamp = Stamp {
            at: time("timestamp", &self.timestamp)?,
            request_id: meta.request_id.into_owned(),
        };
        let blocks = blocks_from_json(&self.content, self.blocks.as_deref())
            .map_err(|error| unreadable("blocks", error))?;
        Ok(Message {
            id: uuid("id", &self.id)?,
            conversation_id: uuid("conversation_id", &self.conversation_id)?,
            api_id: meta.api_id.map(Cow::into_owned),
            role: word("role", &self.role)?,
            origin: meta.origin,
            content: Stamped { stamp, value: self.content.into_owned() },
            blocks,
            model: self.model.map(Cow::into_owned),
            usage: meta.usage,
            agent_id: meta.agent_id.map(Cow::into_owned),
            prompt_id: meta.prompt_id.map(Cow::into_owned),
            sent_at: meta.sent_at,
        })
    }
}

/// A row of `tool_uses`.
#[derive(Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = tool_uses, treat_none_as_default_value = false)]
pub(crate) struct ToolUseRow<'a> {
    pub(crate) id: String,
    workspace: Cow<'a, str>,
    message_id: Option<String>,
    pub(crate) conversation_id: String,
    tool_name: Cow<'a, str>,
    parameters: Option<Cow<'a, str>>,
    response: Option<Cow<'a, str>>,
    duration: Option<i64>,
    status: Cow<'a, str>,
    timestamp: String,
    metadata: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolUseMeta<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, MessageKey>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_use_id: Option<Cow<'a, str>>,
    first: Cow<'a, RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Cow<'a, Stamp>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<ResultMeta<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt_id: Option<Cow<'a, str>>,
    /// Absent where only hooks have told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<Seen>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultMeta<'a> {
    rank: ResultRank,
    stamp: Cow<'a, Stamp>,
}

impl<'a> ToolUseRow<'a> {
    /// The row of `value` in `workspace`.
    pub(crate) fn new(value: &'a ToolUse, workspace: &'a str) -> QueryResult<Self> {
        let result = value.result.as_ref();
        let meta = ToolUseMeta {
            message: value.message_key.as_ref().map(Cow::Borrowed),
            tool_use_id: value.tool_use_id.as_deref().map(Cow::Borrowed),
            first: Cow::Borrowed(&value.first.request_id),
            parameters: stamp(&value.parameters),
            result: result.map(|result| ResultMeta {
                rank: result.rank,
                stamp: Cow::Borrowed(&result.stamp),
            }),
            agent_id: value.agent_id.as_deref().map(Cow::Borrowed),
            prompt_id: value.prompt_id.as_deref().map(Cow::Borrowed),
            seen: (value.seen != Seen::BY_HOOK).then_some(value.seen),
        };
        let parameters = value.parameters.as_ref().map(|json| Cow::Borrowed(json.value.as_str()));
        let response = result.and_then(|result| result.response.as_ref());
        let duration = result.and_then(|result| result.duration_ms);
        Ok(Self {
            id: value.id.to_string(),
            workspace: workspace.into(),
            message_id: value.message_id.map(|id| id.to_string()),
            conversation_id: value.conversation_id.to_string(),
            tool_name: value.tool_name.as_str().into(),
            parameters,
            response: response.map(|json| json.as_str().into()),
            duration: duration.map(count),
            status: value.status().as_str().into(),
            timestamp: value.first.at.to_string(),
            metadata: to_json(&meta)?,
        })
    }

    /// The value that was written.
    pub(crate) fn into_value(self) -> QueryResult<ToolUse> {
        let meta: ToolUseMeta<'static> = json("metadata", &self.metadata)?;
        let first: Timestamp = time("timestamp", &self.timestamp)?;
        let result = match meta.result {
            None => None,
            Some(result) => Some(ToolResult {
                rank: result.rank,
                stamp: result.stamp.into_owned(),
                status: word("status", &self.status)?,
                response: raw_json("response", self.response)?,
                duration_ms: self.duration.and_then(|ms| u64::try_from(ms).ok()),
            }),
        };
        let parameters = match (meta.parameters, raw_json("parameters", self.parameters)?) {
            (Some(stamp), Some(value)) => Some(Stamped { stamp: stamp.into_owned(), value }),
            _ => None,
        };
        Ok(ToolUse {
            id: uuid("id", &self.id)?,
            conversation_id: uuid("conversation_id", &self.conversation_id)?,
            message_id: maybe_uuid("message_id", self.message_id.as_deref())?,
            message_key: meta.message.map(Cow::into_owned),
            tool_use_id: meta.tool_use_id.map(Cow::into_owned),
            tool_name: self.tool_name.into_owned(),
            parameters,
            first: Stamp { at: first, request_id: meta.first.into_owned() },
            result,
            agent_id: meta.agent_id.map(Cow::into_owned),
            prompt_id: meta.prompt_id.map(Cow::into_owned),
            seen: meta.seen.unwrap_or(Seen::BY_HOOK),
        })
    }
}

/// A count as a column holds it.
fn count(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

fn stamp<T>(value: &Option<Stamped<T>>) -> Option<Cow<'_, Stamp>> {
    value.as_ref().map(|value| Cow::Borrowed(&value.stamp))
}

fn text(value: &Option<Stamped<String>>) -> Option<Cow<'_, str>> {
    value.as_ref().map(|value| Cow::Borrowed(value.value.as_str()))
}

fn stamped(stamp: Option<Cow<'_, Stamp>>, text: Option<Cow<'_, str>>) -> Option<Stamped<String>> {
    Some(Stamped { stamp: stamp?.into_owned(), value: text?.into_owned() })
}

fn raw_json(column: &str, text: Option<Cow<'_, str>>) -> QueryResult<Option<Json>> {
    let parse = |text: Cow<'_, str>| Json::parse(text.into_owned());
    text.map(parse).transpose().map_err(|error| unreadable(column, error))
}
