//! Rows, and how they become the domain's types and back.
//!
//! What a conversation, a message or a tool use knows beyond its columns (which event said what) is in
//! `metadata`, so that a value that is read is the value that was written.

use std::borrow::Cow;
use std::collections::BTreeMap;

use arrakis_core::clock::Timestamp;
use arrakis_core::conversation::{
    AnswerIds, Conversation, Json, Message, MessageOrigin, ResultRank, Role, Stamp, Stamped,
    ToolResult, ToolStatus, ToolUse,
};
use arrakis_core::store::{EventSummary, StoreError};
use diesel::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::damaged;
use crate::schema::{
    api_keys, conversations, event_transitions, messages, request_ids, tool_uses, webhook_events,
};

/// A new audit row.
#[derive(Insertable)]
#[diesel(table_name = webhook_events, treat_none_as_default_value = false)]
pub(crate) struct NewEvent<'a> {
    pub(crate) id: String,
    pub(crate) workspace: &'a str,
    pub(crate) request_id: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) session_id: Option<&'a str>,
    pub(crate) received_at: String,
    pub(crate) request_body: Option<Cow<'a, str>>,
    pub(crate) raw_body: Option<&'a [u8]>,
    pub(crate) request_headers: String,
    pub(crate) ip_address: Option<String>,
    pub(crate) status: &'static str,
    pub(crate) processed_at: Option<String>,
    pub(crate) processing_time: Option<i64>,
    pub(crate) conversation_id: Option<String>,
    pub(crate) message_id: Option<String>,
    pub(crate) tool_use_id: Option<String>,
    pub(crate) error_code: Option<&'a str>,
    pub(crate) error_message: Option<&'a str>,
    pub(crate) retry_after: Option<String>,
    pub(crate) metadata: String,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
}

/// An audit row without its bodies.
#[derive(Queryable, Selectable)]
#[diesel(table_name = webhook_events)]
pub(crate) struct EventRow {
    pub(crate) id: String,
    pub(crate) request_id: String,
    pub(crate) event_type: String,
    pub(crate) session_id: Option<String>,
    pub(crate) received_at: String,
    pub(crate) status: String,
    pub(crate) processing_time: Option<i64>,
    pub(crate) conversation_id: Option<String>,
    pub(crate) message_id: Option<String>,
    pub(crate) tool_use_id: Option<String>,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) retry_count: i32,
    pub(crate) retry_after: Option<String>,
    pub(crate) metadata: String,
}

impl EventRow {
    pub(crate) fn into_summary(self) -> Result<EventSummary, StoreError> {
        let event = format!("event {}", self.id);
        let read = || -> Result<EventSummary, arrakis_core::error::BoxError> {
            Ok(EventSummary {
                id: self.id.parse()?,
                request_id: self.request_id.parse()?,
                event_type: self.event_type,
                session_id: self.session_id,
                received_at: self.received_at.parse()?,
                status: self.status.parse()?,
                processing_time_ms: self.processing_time.and_then(|ms| ms.try_into().ok()),
                answer: AnswerIds {
                    conversation_id: uuid(self.conversation_id)?,
                    message_id: uuid(self.message_id)?,
                    tool_use_id: uuid(self.tool_use_id)?,
                },
                error_code: self.error_code,
                error_message: self.error_message,
                retry_count: self.retry_count.try_into()?,
                retry_after: self.retry_after.map(|at| at.parse()).transpose()?,
                metadata: serde_json::from_str(&self.metadata)?,
            })
        };
        read().map_err(|error| damaged(&event, error))
    }
}

/// The bodies of an audit row.
#[derive(Queryable, Selectable)]
#[diesel(table_name = webhook_events)]
pub(crate) struct BodyRow {
    pub(crate) workspace: String,
    pub(crate) request_body: Option<String>,
    pub(crate) raw_body: Option<Vec<u8>>,
    pub(crate) request_headers: String,
    pub(crate) ip_address: Option<String>,
}

impl BodyRow {
    /// The body as it came; `None` for a duplicate.
    pub(crate) fn body(&mut self) -> Option<Vec<u8>> {
        self.raw_body.take().or_else(|| self.request_body.take().map(String::into_bytes))
    }

    pub(crate) fn headers(&self) -> Result<BTreeMap<String, String>, StoreError> {
        json("the headers of an event", &self.request_headers)
    }
}

/// The column `request_body`: the payload itself where it is JSON text; else a description of it, and
/// the bytes go to `raw_body`.
pub(crate) fn request_body(body: &[u8]) -> (Cow<'_, str>, Option<&[u8]>) {
    let text = std::str::from_utf8(body).ok().filter(|text| {
        !text.contains('\0') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    });
    match text {
        Some(text) => (text.into(), None),
        None => {
            let description = serde_json::json!({ "notJson": true, "bytes": body.len() });
            (description.to_string().into(), Some(body))
        }
    }
}

/// An entry of the ledger.
#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = request_ids)]
pub(crate) struct LedgerRow {
    pub(crate) request_id: String,
    pub(crate) digest: String,
    pub(crate) event_id: String,
    pub(crate) answer: String,
    pub(crate) created_at: String,
}

/// The column `answer` of the ledger.
#[derive(Serialize, Deserialize)]
pub(crate) struct LedgerAnswer {
    pub(crate) status: arrakis_core::audit::EventStatus,
    #[serde(flatten)]
    pub(crate) ids: AnswerIds,
}

/// A change of state.
#[derive(Insertable)]
#[diesel(table_name = event_transitions)]
pub(crate) struct NewTransition<'a> {
    pub(crate) event_id: String,
    pub(crate) from_status: &'static str,
    pub(crate) to_status: &'static str,
    pub(crate) actor: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) created_at: String,
}

/// A conversation.
#[derive(Insertable, Queryable, Selectable, AsChangeset)]
#[diesel(table_name = conversations, treat_none_as_null = true)]
pub(crate) struct ConversationRow {
    pub(crate) id: String,
    pub(crate) workspace: String,
    pub(crate) session_id: String,
    pub(crate) project_path: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) started_at: String,
    pub(crate) ended_at: Option<String>,
    pub(crate) last_event_at: String,
    pub(crate) metadata: String,
    pub(crate) updated_at: String,
}

impl ConversationRow {
    pub(crate) fn new(conversation: &Conversation, now: Timestamp) -> Result<Self, StoreError> {
        let value = |field: &Option<Stamped<String>>| field.as_ref().map(|f| f.value.clone());
        Ok(Self {
            id: conversation.id.to_string(),
            workspace: conversation.workspace.clone(),
            session_id: conversation.session_id.clone(),
            project_path: value(&conversation.project_path),
            title: value(&conversation.title),
            started_at: conversation.started_at.to_string(),
            ended_at: conversation.ended_at().map(|at| at.to_string()),
            last_event_at: conversation.last_event_at.to_string(),
            metadata: to_json("a conversation", conversation)?,
            updated_at: now.to_string(),
        })
    }

    pub(crate) fn into_conversation(self) -> Result<Conversation, StoreError> {
        json(&format!("conversation {}", self.id), &self.metadata)
    }
}

/// A message.
#[derive(Insertable, Queryable, Selectable, AsChangeset)]
#[diesel(table_name = messages, treat_none_as_null = true)]
pub(crate) struct MessageRow {
    pub(crate) id: String,
    pub(crate) conversation_id: String,
    pub(crate) role: String,
    pub(crate) content: String,
    pub(crate) timestamp: String,
    pub(crate) metadata: String,
}

/// The column `metadata` of a message.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageMetadata {
    role: Role,
    origin: MessageOrigin,
    stamp: Stamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt_id: Option<String>,
}

impl MessageRow {
    pub(crate) fn new(message: &Message) -> Result<Self, StoreError> {
        let metadata = MessageMetadata {
            role: message.role,
            origin: message.origin,
            stamp: message.content.stamp.clone(),
            agent_id: message.agent_id.clone(),
            prompt_id: message.prompt_id.clone(),
        };
        Ok(Self {
            id: message.id.to_string(),
            conversation_id: message.conversation_id.to_string(),
            role: message.role.as_str().to_owned(),
            content: message.content.value.clone(),
            timestamp: message.content.stamp.at.to_string(),
            metadata: to_json("a message", &metadata)?,
        })
    }

    pub(crate) fn into_message(self) -> Result<Message, StoreError> {
        let what = format!("message {}", self.id);
        let metadata: MessageMetadata = json(&what, &self.metadata)?;
        Ok(Message {
            id: self.id.parse().map_err(|error: uuid::Error| damaged(&what, error))?,
            conversation_id: parse_id(&what, &self.conversation_id)?,
            role: metadata.role,
            origin: metadata.origin,
            content: Stamped { stamp: metadata.stamp, value: self.content },
            agent_id: metadata.agent_id,
            prompt_id: metadata.prompt_id,
        })
    }
}

/// A tool use.
#[derive(Insertable, Queryable, Selectable, AsChangeset)]
#[diesel(table_name = tool_uses, treat_none_as_null = true)]
pub(crate) struct ToolUseRow {
    pub(crate) id: String,
    pub(crate) message_id: Option<String>,
    pub(crate) conversation_id: String,
    pub(crate) tool_name: String,
    pub(crate) parameters: Option<String>,
    pub(crate) response: Option<String>,
    pub(crate) duration: Option<i64>,
    pub(crate) status: String,
    pub(crate) timestamp: String,
    pub(crate) metadata: String,
}

/// The column `metadata` of a tool use.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolUseMetadata {
    first: Stamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_use_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Stamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<(ResultRank, Stamp, ToolStatus)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt_id: Option<String>,
}

impl ToolUseRow {
    pub(crate) fn new(tool_use: &ToolUse) -> Result<Self, StoreError> {
        let result = tool_use.result.as_ref();
        let metadata = ToolUseMetadata {
            first: tool_use.first.clone(),
            tool_use_id: tool_use.tool_use_id.clone(),
            parameters: tool_use.parameters.as_ref().map(|json| json.stamp.clone()),
            result: result.map(|result| (result.rank, result.stamp.clone(), result.status)),
            agent_id: tool_use.agent_id.clone(),
            prompt_id: tool_use.prompt_id.clone(),
        };
        let response = result.and_then(|result| result.response.as_ref());
        let duration = result.and_then(|result| result.duration_ms);
        Ok(Self {
            id: tool_use.id.to_string(),
            message_id: tool_use.message_id.map(|id| id.to_string()),
            conversation_id: tool_use.conversation_id.to_string(),
            tool_name: tool_use.tool_name.clone(),
            parameters: tool_use.parameters.as_ref().map(|json| json.value.as_str().to_owned()),
            response: response.map(|json| json.as_str().to_owned()),
            duration: duration.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            status: tool_use.status().as_str().to_owned(),
            timestamp: tool_use.first.at.to_string(),
            metadata: to_json("a tool use", &metadata)?,
        })
    }

    pub(crate) fn into_tool_use(self) -> Result<ToolUse, StoreError> {
        let what = format!("tool use {}", self.id);
        let metadata: ToolUseMetadata = json(&what, &self.metadata)?;
        let parse = |text: Option<String>| {
            text.map(Json::parse).transpose().map_err(|error| damaged(&what, error))
        };
        let response = parse(self.response)?;
        let parameters = parse(self.parameters)?;
        let message_id = self.message_id.map(|id| parse_id(&what, &id)).transpose()?;
        Ok(ToolUse {
            id: parse_id(&what, &self.id)?,
            conversation_id: parse_id(&what, &self.conversation_id)?,
            message_id,
            tool_use_id: metadata.tool_use_id,
            tool_name: self.tool_name,
            parameters: metadata
                .parameters
                .zip(parameters)
                .map(|(stamp, value)| Stamped { stamp, value }),
            first: metadata.first,
            result: metadata.result.map(|(rank, stamp, status)| ToolResult {
                rank,
                stamp,
                status,
                response,
                duration_ms: self.duration.and_then(|ms| ms.try_into().ok()),
            }),
            agent_id: metadata.agent_id,
            prompt_id: metadata.prompt_id,
        })
    }
}

/// A key, without its secret.
#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = api_keys)]
pub(crate) struct KeyRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) scope: String,
    pub(crate) workspace: String,
    pub(crate) hash: String,
    pub(crate) created_at: String,
    pub(crate) revoked_at: Option<String>,
}

/// Writes a value as the JSON of a column.
pub(crate) fn to_json(what: &str, value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Data { what: format!("write {what}"), source: error.into() })
}

/// Reads a value from the JSON of a column.
pub(crate) fn json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| damaged(what, error))
}

pub(crate) fn parse_id(what: &str, text: &str) -> Result<Uuid, StoreError> {
    text.parse().map_err(|error: uuid::Error| damaged(what, error))
}

fn uuid(text: Option<String>) -> Result<Option<Uuid>, uuid::Error> {
    text.map(|text| text.parse()).transpose()
}
