//! Rows of `conversations`, `message_rows` and `tool_uses`. What such a value says of itself but no
//! column can (which event wrote a field, text with U+0000) is in `metadata`, so that a row reads back
//! as the value.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::adapter::{
    ConversationColumns, ConversationMetadata, MessageColumns, MessageMetadata, MessageWrite,
    StoredMessage, ToolUseColumns, ToolUseMetadata, blocks_to_json,
};
use arrakis_core::session::conversation::{Conversation, Json, Message, Stamped, ToolUse};
use arrakis_core::session::usage::Usage;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Jsonb, Nullable, Text, Timestamptz};
use uuid::Uuid;

use super::value::{At, JsonText, hidden, shown};
use super::{json, word};
use crate::error::unreadable;
use crate::schema::{conversations, message_rows, tool_uses};
use crate::statement::Statement;

/// A row of `conversations`.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = conversations)]
pub(crate) struct ConversationRow {
    pub(crate) id: Uuid,
    workspace: String,
    session_id: String,
    project_path: Option<String>,
    title: Option<String>,
    started_at: At,
    last_event_at: At,
    metadata: JsonText<'static>,
}

impl ConversationRow {
    /// The value that was written.
    pub(crate) fn into_value(self) -> QueryResult<Conversation> {
        let meta: ConversationMetadata<'static> = json("metadata", self.metadata)?;
        Ok(meta.into_value(ConversationColumns {
            id: self.id,
            workspace: self.workspace,
            session_id: self.session_id,
            project_path: self.project_path,
            title: self.title,
            started_at: self.started_at.0,
            last_event_at: self.last_event_at.0,
        }))
    }
}

fn conversation_meta(value: &Conversation) -> QueryResult<JsonText<'static>> {
    let text = |field: &'_ Option<Stamped<String>>| {
        field.as_ref().and_then(|field| hidden(&field.value)).map(|text| text.into_owned().into())
    };
    let mut meta = ConversationMetadata::of(value);
    meta.session_id_text = hidden(&value.session_id);
    let title = value.title.as_ref().and_then(|title| hidden(&title.value));
    meta.title_text = title.map(|text| text.into_owned().into());
    meta.project_path_text = text(&value.project_path);
    JsonText::of(&meta)
}

/// Adds conversations; the ids of those that were not there are returned.
pub(crate) fn insert_conversations<'a>(
    values: &[&'a Conversation],
    now: Timestamp,
) -> QueryResult<Statement<'a, diesel::sql_types::Uuid>> {
    const SQL: &str = "INSERT INTO conversations (id, workspace, session_id, project_path, title, \
        started_at, ended_at, last_event_at, metadata, created_at, updated_at) \
        SELECT v.*, n.now, n.now FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?) AS v, (SELECT ? AS now) AS n \
        ORDER BY 1 ON CONFLICT DO NOTHING RETURNING id";
    Ok(conversation_columns(Statement::new(SQL), values)?.bind::<Timestamptz>(At(now)))
}

/// Writes conversations that are there.
pub(crate) fn update_conversations<'a>(
    values: &[&'a Conversation],
    now: Timestamp,
) -> QueryResult<Statement<'a>> {
    const SQL: &str = "UPDATE conversations AS c SET project_path = v.project_path, \
        title = v.title, started_at = v.started_at, ended_at = v.ended_at, \
        last_event_at = v.last_event_at, metadata = v.metadata, updated_at = n.now \
        FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?) AS v (id, workspace, session_id, project_path, \
        title, started_at, ended_at, last_event_at, metadata), (SELECT ? AS now) AS n \
        WHERE c.id = v.id";
    Ok(conversation_columns(Statement::new(SQL), values)?.bind::<Timestamptz>(At(now)))
}

fn conversation_columns<'a, ST>(
    statement: Statement<'a, ST>,
    values: &[&'a Conversation],
) -> QueryResult<Statement<'a, ST>> {
    let all = || values.iter().copied();
    let meta = all().map(conversation_meta).collect::<QueryResult<Vec<_>>>()?;
    let text = |field: fn(&Conversation) -> &Option<Stamped<String>>| {
        all().map(|one| field(one).as_ref().map(|text| shown(&text.value))).collect::<Vec<_>>()
    };
    Ok(statement
        .bind::<Array<diesel::sql_types::Uuid>>(all().map(|one| one.id).collect::<Vec<_>>())
        .bind::<Array<Text>>(all().map(|one| shown(&one.workspace)).collect::<Vec<_>>())
        .bind::<Array<Text>>(all().map(|one| shown(&one.session_id)).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>>(text(|one| &one.project_path))
        .bind::<Array<Nullable<Text>>>(
            all()
                .map(|one| one.title.as_ref().map(|title| shown(&title.value)))
                .collect::<Vec<_>>(),
        )
        .bind::<Array<Timestamptz>>(all().map(|one| At(one.started_at)).collect::<Vec<_>>())
        .bind::<Array<Nullable<Timestamptz>>>(
            all().map(|one| one.ended_at().map(At)).collect::<Vec<_>>(),
        )
        .bind::<Array<Timestamptz>>(all().map(|one| At(one.last_event_at)).collect::<Vec<_>>())
        .bind::<Array<Jsonb>>(meta))
}

/// A row of `message_rows`.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = message_rows)]
pub(crate) struct MessageRow {
    pub(crate) id: Uuid,
    pub(crate) workspace: String,
    pub(crate) conversation_id: Uuid,
    role: String,
    content: Option<String>,
    timestamp: At,
    metadata: JsonText<'static>,
    blocks: Option<JsonText<'static>>,
    model: Option<String>,
}

impl MessageRow {
    /// Whether the message's words and blocks are rows of `message_blocks`.
    pub(crate) fn has_block_rows(&self) -> bool {
        self.content.is_none()
    }

    /// The message that was written, as its row holds it.
    pub(crate) fn into_stored(self) -> QueryResult<StoredMessage> {
        let meta: MessageMetadata<'static> = json("metadata", self.metadata)?;
        let blocks = self.blocks.map(JsonText::unwrapped);
        let columns = MessageColumns {
            id: self.id,
            conversation_id: self.conversation_id,
            role: word("role", &self.role)?,
            content: self.content,
            timestamp: self.timestamp.0,
            blocks: blocks.as_deref(),
            model: self.model,
        };
        meta.into_stored(columns).map_err(|error| unreadable("blocks", error))
    }
}

/// Adds messages, each in its workspace; the ids of those that were not there are returned.
pub(crate) fn insert_messages<'a>(
    values: &[(&'a str, &'a MessageWrite<'_>)],
) -> QueryResult<Statement<'a, diesel::sql_types::Uuid>> {
    const SQL: &str = "INSERT INTO message_rows (id, workspace, conversation_id, role, content, \
        timestamp, metadata, blocks, model, input_tokens, output_tokens, cache_read_tokens, \
        cache_creation_tokens) SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
        ORDER BY 1 ON CONFLICT DO NOTHING RETURNING id";
    message_columns(Statement::new(SQL), values)
}

/// Writes messages that are there.
pub(crate) fn update_messages<'a>(
    values: &[(&'a str, &'a MessageWrite<'_>)],
) -> QueryResult<Statement<'a>> {
    const SQL: &str = "UPDATE message_rows AS m SET role = v.role, content = v.content, \
        timestamp = v.timestamp, metadata = v.metadata, blocks = v.blocks, model = v.model, \
        input_tokens = v.input_tokens, output_tokens = v.output_tokens, \
        cache_read_tokens = v.cache_read_tokens, cache_creation_tokens = v.cache_creation_tokens \
        FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) AS v (id, workspace, conversation_id, \
        role, content, timestamp, metadata, blocks, model, input_tokens, output_tokens, \
        cache_read_tokens, cache_creation_tokens) WHERE m.id = v.id";
    message_columns(Statement::new(SQL), values)
}

fn message_columns<'a, ST>(
    statement: Statement<'a, ST>,
    values: &[(&'a str, &'a MessageWrite<'_>)],
) -> QueryResult<Statement<'a, ST>> {
    let all = || values.iter().map(|(_, write)| &*write.message);
    let meta = |(_, write): &(&str, &MessageWrite<'_>)| {
        let mut meta = MessageMetadata::of(write);
        meta.content_text = hidden(&write.message.content.value);
        JsonText::of(&meta)
    };
    let meta = values.iter().map(meta).collect::<QueryResult<Vec<_>>>()?;
    let content = |(_, write): &(&str, &'a MessageWrite<'_>)| {
        write.rows.is_none().then(|| shown(&write.message.content.value))
    };
    let content = values.iter().map(content).collect::<Vec<_>>();
    let time = |one: &Message| At(one.content.stamp.at);
    let blocks = |one: &Message| match blocks_to_json(&one.blocks) {
        Ok(json) => Ok(json.map(JsonText::wrapping)),
        Err(error) => Err(diesel::result::Error::SerializationError(error.into())),
    };
    let blocks = all().map(blocks).collect::<QueryResult<Vec<_>>>()?;
    let tokens = |of: fn(Usage) -> u64| {
        let one = |one: &Message| one.usage.map(of).map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        all().map(one).collect::<Vec<_>>()
    };
    Ok(statement
        .bind::<Array<diesel::sql_types::Uuid>>(all().map(|one| one.id).collect::<Vec<_>>())
        .bind::<Array<Text>>(values.iter().map(|(name, _)| shown(name)).collect::<Vec<_>>())
        .bind::<Array<diesel::sql_types::Uuid>>(
            all().map(|one| one.conversation_id).collect::<Vec<_>>(),
        )
        .bind::<Array<Text>>(all().map(|one| one.role.as_str()).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>>(content)
        .bind::<Array<Timestamptz>>(all().map(time).collect::<Vec<_>>())
        .bind::<Array<Jsonb>>(meta)
        .bind::<Array<Nullable<Jsonb>>>(blocks)
        .bind::<Array<Nullable<Text>>>(all().map(|one| one.model.as_deref()).collect::<Vec<_>>())
        .bind::<Array<Nullable<BigInt>>>(tokens(|usage| usage.input_tokens))
        .bind::<Array<Nullable<BigInt>>>(tokens(|usage| usage.output_tokens))
        .bind::<Array<Nullable<BigInt>>>(tokens(|usage| usage.cache_read_tokens))
        .bind::<Array<Nullable<BigInt>>>(tokens(|usage| usage.cache_creation_tokens)))
}

/// A row of `tool_uses`.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = tool_uses)]
pub(crate) struct ToolUseRow {
    pub(crate) id: Uuid,
    message_id: Option<Uuid>,
    pub(crate) conversation_id: Uuid,
    tool_name: String,
    parameters: Option<JsonText<'static>>,
    response: Option<JsonText<'static>>,
    duration: Option<i64>,
    status: String,
    timestamp: At,
    metadata: JsonText<'static>,
}

impl ToolUseRow {
    /// The value that was written.
    pub(crate) fn into_value(self) -> QueryResult<ToolUse> {
        let meta: ToolUseMetadata<'static> = json("metadata", self.metadata)?;
        Ok(meta.into_value(ToolUseColumns {
            id: self.id,
            conversation_id: self.conversation_id,
            message_id: self.message_id,
            tool_name: self.tool_name,
            parameters: raw_json("parameters", self.parameters)?,
            response: raw_json("response", self.response)?,
            duration: self.duration,
            status: word("status", &self.status)?,
            timestamp: self.timestamp.0,
        }))
    }
}

/// Adds tool uses, each in its workspace; the ids of those that were not there are returned.
pub(crate) fn insert_tool_uses<'a>(
    values: &[(&'a str, &'a ToolUse)],
) -> QueryResult<Statement<'a, diesel::sql_types::Uuid>> {
    const SQL: &str = "INSERT INTO tool_uses (id, workspace, message_id, conversation_id, \
        tool_name, parameters, response, duration, status, timestamp, metadata) \
        SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ORDER BY 1 \
        ON CONFLICT DO NOTHING RETURNING id";
    tool_use_columns(Statement::new(SQL), values)
}

/// Writes tool uses that are there.
pub(crate) fn update_tool_uses<'a>(
    values: &[(&'a str, &'a ToolUse)],
) -> QueryResult<Statement<'a>> {
    const SQL: &str = "UPDATE tool_uses AS t SET message_id = v.message_id, \
        tool_name = v.tool_name, parameters = v.parameters, response = v.response, \
        duration = v.duration, status = v.status, timestamp = v.timestamp, metadata = v.metadata \
        FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) AS v (id, workspace, message_id, \
        conversation_id, tool_name, parameters, response, duration, status, timestamp, metadata) \
        WHERE t.id = v.id";
    tool_use_columns(Statement::new(SQL), values)
}

fn tool_use_columns<'a, ST>(
    statement: Statement<'a, ST>,
    values: &[(&'a str, &'a ToolUse)],
) -> QueryResult<Statement<'a, ST>> {
    let all = || values.iter().map(|(_, value)| *value);
    let meta = all().map(tool_use_meta).collect::<QueryResult<Vec<_>>>()?;
    let parameters = |one: &'a ToolUse| one.parameters.as_ref().map(|json| wrapped(&json.value));
    let response = |one: &'a ToolUse| one.result.as_ref()?.response.as_ref().map(wrapped);
    let duration = |one: &ToolUse| {
        one.result.as_ref()?.duration_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX))
    };
    Ok(statement
        .bind::<Array<diesel::sql_types::Uuid>>(all().map(|one| one.id).collect::<Vec<_>>())
        .bind::<Array<Text>>(values.iter().map(|(name, _)| shown(name)).collect::<Vec<_>>())
        .bind::<Array<Nullable<diesel::sql_types::Uuid>>>(
            all().map(|one| one.message_id).collect::<Vec<_>>(),
        )
        .bind::<Array<diesel::sql_types::Uuid>>(
            all().map(|one| one.conversation_id).collect::<Vec<_>>(),
        )
        .bind::<Array<Text>>(all().map(|one| shown(&one.tool_name)).collect::<Vec<_>>())
        .bind::<Array<Nullable<Jsonb>>>(all().map(parameters).collect::<Vec<_>>())
        .bind::<Array<Nullable<Jsonb>>>(all().map(response).collect::<Vec<_>>())
        .bind::<Array<Nullable<BigInt>>>(all().map(duration).collect::<Vec<_>>())
        .bind::<Array<Text>>(all().map(|one| one.status().as_str()).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>>(all().map(|one| At(one.first.at)).collect::<Vec<_>>())
        .bind::<Array<Jsonb>>(meta))
}

fn tool_use_meta(value: &ToolUse) -> QueryResult<JsonText<'static>> {
    let mut meta = ToolUseMetadata::of(value);
    meta.tool_name_text = hidden(&value.tool_name);
    JsonText::of(&meta)
}

fn wrapped(json: &Json) -> JsonText<'_> {
    JsonText::wrapping(json.as_str())
}

fn raw_json(column: &str, text: Option<JsonText<'static>>) -> QueryResult<Option<Json>> {
    let parse = |text: JsonText<'static>| Json::parse(text.unwrapped().into_owned());
    text.map(parse).transpose().map_err(|error| unreadable(column, error))
}
