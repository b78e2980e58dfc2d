//! Rows of `conversations`, `messages` and `tool_uses`. What such a value says of itself but no
//! column can (which event wrote a field, text with U+0000) is in `metadata`, so that a row reads back
//! as the value.

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
use diesel::sql_types::{Array, BigInt, Jsonb, Nullable, Text, Timestamptz};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::value::{At, JsonText, hidden, shown};
use super::{json, word};
use crate::error::unreadable;
use crate::schema::{conversations, messages, tool_uses};
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_id_text: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title_text: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project_path_text: Option<Cow<'a, str>>,
}

impl ConversationRow {
    /// The value that was written.
    pub(crate) fn into_value(self) -> QueryResult<Conversation> {
        let meta: ConversationMeta<'static> = json("metadata", self.metadata)?;
        Ok(Conversation {
            id: self.id,
            workspace: self.workspace,
            session_id: meta.session_id_text.map_or(self.session_id, Cow::into_owned),
            started_at: self.started_at.0,
            last_event_at: self.last_event_at.0,
            title: stamped(meta.title, meta.title_text, self.title),
            project_path: stamped(meta.project_path, meta.project_path_text, self.project_path),
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

fn conversation_meta(value: &Conversation) -> QueryResult<JsonText<'static>> {
    let text = |field: &'_ Option<Stamped<String>>| {
        field.as_ref().and_then(|field| hidden(&field.value)).map(|text| text.into_owned().into())
    };
    JsonText::of(&ConversationMeta {
        title: stamp(&value.title),
        project_path: stamp(&value.project_path),
        model: value.model.as_ref().map(Cow::Borrowed),
        git_branch: value.git_branch.as_ref().map(Cow::Borrowed),
        version: value.version.as_ref().map(Cow::Borrowed),
        transcript_path: value.transcript_path.as_ref().map(Cow::Borrowed),
        ended: value.ended.as_ref().map(Cow::Borrowed),
        alive: value.alive.as_ref().map(Cow::Borrowed),
        client_cost: value.client_cost.as_ref().map(Cow::Borrowed),
        session_id_text: hidden(&value.session_id),
        title_text: text(&value.title),
        project_path_text: text(&value.project_path),
    })
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
        .bind::<Array<Nullable<Text>>>(text(|one| &one.title))
        .bind::<Array<Timestamptz>>(all().map(|one| At(one.started_at)).collect::<Vec<_>>())
        .bind::<Array<Nullable<Timestamptz>>>(
            all().map(|one| one.ended_at().map(At)).collect::<Vec<_>>(),
        )
        .bind::<Array<Timestamptz>>(all().map(|one| At(one.last_event_at)).collect::<Vec<_>>())
        .bind::<Array<Jsonb>>(meta))
}

/// A row of `messages`.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = messages)]
pub(crate) struct MessageRow {
    pub(crate) id: Uuid,
    pub(crate) conversation_id: Uuid,
    role: String,
    content: String,
    timestamp: At,
    metadata: JsonText<'static>,
    blocks: Option<JsonText<'static>>,
    model: Option<String>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_text: Option<Cow<'a, str>>,
}

impl MessageRow {
    /// The value that was written.
    pub(crate) fn into_value(self) -> QueryResult<Message> {
        let meta: MessageMeta<'static> = json("metadata", self.metadata)?;
        let stamp = Stamp { at: self.timestamp.0, request_id: meta.request_id.into_owned() };
        let value = meta.content_text.map_or(self.content, Cow::into_owned);
        let blocks = self.blocks.map(JsonText::unwrapped);
        let blocks = blocks_from_json(&value, blocks.as_deref())
            .map_err(|error| unreadable("blocks", error))?;
        Ok(Message {
            id: self.id,
            conversation_id: self.conversation_id,
            api_id: meta.api_id.map(Cow::into_owned),
            role: word("role", &self.role)?,
            origin: meta.origin,
            content: Stamped { stamp, value },
            blocks,
            model: self.model,
            usage: meta.usage,
            agent_id: meta.agent_id.map(Cow::into_owned),
            prompt_id: meta.prompt_id.map(Cow::into_owned),
            sent_at: meta.sent_at,
        })
    }
}

/// Adds messages, each in its workspace; the ids of those that were not there are returned.
pub(crate) fn insert_messages<'a>(
    values: &[(&'a str, &'a Message)],
) -> QueryResult<Statement<'a, diesel::sql_types::Uuid>> {
    const SQL: &str = "INSERT INTO messages (id, workspace, conversation_id, role, content, \
        timestamp, metadata, blocks, model, input_tokens, output_tokens, cache_read_tokens, \
        cache_creation_tokens) SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
        ORDER BY 1 ON CONFLICT DO NOTHING RETURNING id";
    message_columns(Statement::new(SQL), values)
}

/// Writes messages that are there.
pub(crate) fn update_messages<'a>(values: &[(&'a str, &'a Message)]) -> QueryResult<Statement<'a>> {
    const SQL: &str = "UPDATE messages AS m SET role = v.role, content = v.content, \
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
    values: &[(&'a str, &'a Message)],
) -> QueryResult<Statement<'a, ST>> {
    let all = || values.iter().map(|(_, value)| *value);
    let meta = |value: &Message| {
        JsonText::of(&MessageMeta {
            request_id: Cow::Borrowed(&value.content.stamp.request_id),
            api_id: value.api_id.as_deref().map(Cow::Borrowed),
            origin: value.origin,
            usage: value.usage,
            agent_id: value.agent_id.as_deref().map(Cow::Borrowed),
            prompt_id: value.prompt_id.as_deref().map(Cow::Borrowed),
            sent_at: value.sent_at,
            content_text: hidden(&value.content.value),
        })
    };
    let meta = all().map(meta).collect::<QueryResult<Vec<_>>>()?;
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
        .bind::<Array<Text>>(all().map(|one| shown(&one.content.value)).collect::<Vec<_>>())
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_name_text: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultMeta<'a> {
    rank: ResultRank,
    stamp: Cow<'a, Stamp>,
}

impl ToolUseRow {
    /// The value that was written.
    pub(crate) fn into_value(self) -> QueryResult<ToolUse> {
        let meta: ToolUseMeta<'static> = json("metadata", self.metadata)?;
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
            id: self.id,
            conversation_id: self.conversation_id,
            message_id: self.message_id,
            message_key: meta.message.map(Cow::into_owned),
            tool_use_id: meta.tool_use_id.map(Cow::into_owned),
            tool_name: meta.tool_name_text.map_or(self.tool_name, Cow::into_owned),
            parameters,
            first: Stamp { at: self.timestamp.0, request_id: meta.first.into_owned() },
            result,
            agent_id: meta.agent_id.map(Cow::into_owned),
            prompt_id: meta.prompt_id.map(Cow::into_owned),
            seen: meta.seen.unwrap_or(Seen::BY_HOOK),
        })
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
    let result = value.result.as_ref();
    JsonText::of(&ToolUseMeta {
        message: value.message_key.as_ref().map(Cow::Borrowed),
        tool_use_id: value.tool_use_id.as_deref().map(Cow::Borrowed),
        first: Cow::Borrowed(&value.first.request_id),
        parameters: stamp(&value.parameters),
        result: result
            .map(|result| ResultMeta { rank: result.rank, stamp: Cow::Borrowed(&result.stamp) }),
        agent_id: value.agent_id.as_deref().map(Cow::Borrowed),
        prompt_id: value.prompt_id.as_deref().map(Cow::Borrowed),
        seen: (value.seen != Seen::BY_HOOK).then_some(value.seen),
        tool_name_text: hidden(&value.tool_name),
    })
}

fn stamp<T>(value: &Option<Stamped<T>>) -> Option<Cow<'_, Stamp>> {
    value.as_ref().map(|value| Cow::Borrowed(&value.stamp))
}

fn stamped(
    stamp: Option<Cow<'_, Stamp>>,
    hidden: Option<Cow<'_, str>>,
    column: Option<String>,
) -> Option<Stamped<String>> {
    let value = hidden.map(Cow::into_owned).or(column)?;
    Some(Stamped { stamp: stamp?.into_owned(), value })
}

fn wrapped(json: &Json) -> JsonText<'_> {
    JsonText::wrapping(json.as_str())
}

fn raw_json(column: &str, text: Option<JsonText<'static>>) -> QueryResult<Option<Json>> {
    let parse = |text: JsonText<'static>| Json::parse(text.unwrapped().into_owned());
    text.map(parse).transpose().map_err(|error| unreadable(column, error))
}
