//! Rows of `conversations`, `message_rows` and `tool_uses`. What such a value says of itself but no
//! column can (which event wrote a field) is in `metadata`, so that a row reads back as the value.

use std::borrow::Cow;

use arrakis_core::record::store::adapter::{
    ConversationColumns, ConversationMetadata, MessageColumns, MessageMetadata, MessageWrite,
    StoredMessage, ToolUseColumns, ToolUseMetadata, blocks_to_json,
};
use arrakis_core::session::conversation::{Conversation, Json, Stamped, ToolUse};
use arrakis_core::session::usage::Usage;
use diesel::prelude::*;
use diesel::result::QueryResult;

use super::event::Now;
use super::{json, maybe_uuid, time, to_json, uuid, word};
use crate::error::unreadable;
use crate::schema::{conversations, message_rows, tool_uses};

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
        Ok(Self {
            id: value.id.to_string(),
            workspace: value.workspace.as_str().into(),
            session_id: value.session_id.as_str().into(),
            project_path: text(&value.project_path),
            title: value.title.as_ref().map(|title| title.value.as_str().into()),
            description,
            started_at: value.started_at.to_string(),
            ended_at: value.ended_at().map(|at| at.to_string()),
            last_event_at: value.last_event_at.to_string(),
            metadata: to_json(&ConversationMetadata::of(value))?,
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
        let meta: ConversationMetadata<'static> = json("metadata", &self.metadata)?;
        Ok(meta.into_value(ConversationColumns {
            id: uuid("id", &self.id)?,
            workspace: self.workspace.into_owned(),
            session_id: self.session_id.into_owned(),
            project_path: self.project_path.map(Cow::into_owned),
            title: self.title.map(Cow::into_owned),
            started_at: time("started_at", &self.started_at)?,
            last_event_at: time("last_event_at", &self.last_event_at)?,
        }))
    }
}

/// A row of `message_rows`.
#[derive(Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = message_rows, treat_none_as_default_value = false)]
pub(crate) struct MessageRow<'a> {
    pub(crate) id: String,
    workspace: Cow<'a, str>,
    pub(crate) conversation_id: String,
    role: Cow<'a, str>,
    content: Option<Cow<'a, str>>,
    timestamp: String,
    metadata: String,
    blocks: Option<String>,
    model: Option<Cow<'a, str>>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cache_read_tokens: Option<i64>,
    cache_creation_tokens: Option<i64>,
}

impl<'a> MessageRow<'a> {
    /// The row of a message in `workspace`.
    pub(crate) fn new(write: &'a MessageWrite<'_>, workspace: &'a str) -> QueryResult<Self> {
        let value = &write.message;
        let tokens = |of: fn(Usage) -> u64| value.usage.map(of).map(count);
        Ok(Self {
            id: value.id.to_string(),
            workspace: workspace.into(),
            conversation_id: value.conversation_id.to_string(),
            role: value.role.as_str().into(),
            content: write.rows.is_none().then(|| value.content.value.as_str().into()),
            timestamp: value.content.stamp.at.to_string(),
            metadata: to_json(&MessageMetadata::of(write))?,
            blocks: blocks_to_json(&value.blocks)
                .map_err(|error| diesel::result::Error::SerializationError(error.into()))?,
            model: value.model.as_deref().map(Cow::Borrowed),
            input_tokens: tokens(|usage| usage.input_tokens),
            output_tokens: tokens(|usage| usage.output_tokens),
            cache_read_tokens: tokens(|usage| usage.cache_read_tokens),
            cache_creation_tokens: tokens(|usage| usage.cache_creation_tokens),
        })
    }

    /// The message that was written, as its row holds it.
    pub(crate) fn into_stored(self) -> QueryResult<StoredMessage> {
        let meta: MessageMetadata<'static> = json("metadata", &self.metadata)?;
        let columns = MessageColumns {
            id: uuid("id", &self.id)?,
            conversation_id: uuid("conversation_id", &self.conversation_id)?,
            role: word("role", &self.role)?,
            content: self.content.map(Cow::into_owned),
            timestamp: time("timestamp", &self.timestamp)?,
            blocks: self.blocks.as_deref(),
            model: self.model.map(Cow::into_owned),
        };
        meta.into_stored(columns).map_err(|error| unreadable("blocks", error))
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

impl<'a> ToolUseRow<'a> {
    /// The row of `value` in `workspace`.
    pub(crate) fn new(value: &'a ToolUse, workspace: &'a str) -> QueryResult<Self> {
        let result = value.result.as_ref();
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
            metadata: to_json(&ToolUseMetadata::of(value))?,
        })
    }

    /// The value that was written.
    pub(crate) fn into_value(self) -> QueryResult<ToolUse> {
        let meta: ToolUseMetadata<'static> = json("metadata", &self.metadata)?;
        Ok(meta.into_value(ToolUseColumns {
            id: uuid("id", &self.id)?,
            conversation_id: uuid("conversation_id", &self.conversation_id)?,
            message_id: maybe_uuid("message_id", self.message_id.as_deref())?,
            tool_name: self.tool_name.into_owned(),
            parameters: raw_json("parameters", self.parameters)?,
            response: raw_json("response", self.response)?,
            duration: self.duration,
            status: word("status", &self.status)?,
            timestamp: time("timestamp", &self.timestamp)?,
        }))
    }
}

/// A count as a column holds it.
fn count(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

fn text(value: &Option<Stamped<String>>) -> Option<Cow<'_, str>> {
    value.as_ref().map(|value| Cow::Borrowed(value.value.as_str()))
}

fn raw_json(column: &str, text: Option<Cow<'_, str>>) -> QueryResult<Option<Json>> {
    let parse = |text: Cow<'_, str>| Json::parse(text.into_owned());
    text.map(parse).transpose().map_err(|error| unreadable(column, error))
}
