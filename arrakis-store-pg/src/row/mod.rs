//! Rows, and what they mean: each type knows how its value is written to columns and read back.

mod block;
mod conversation;
mod event;
mod subagent;
mod value;

use std::str::FromStr;

use arrakis_core::base::digest::Digest;
use diesel::result::QueryResult;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer};
use uuid::Uuid;

pub(crate) use block::{
    BlockColumns, BlockPlace, BlockRow, block_key, delete_blocks, find_blocks, put_blocks,
};
pub(crate) use conversation::{
    ConversationRow, MessageRow, ToolUseRow, insert_conversations, insert_messages,
    insert_tool_uses, update_conversations, update_messages, update_tool_uses,
};
pub(crate) use event::{
    ArrivalRow, DetailRow, Prepared, SummaryRow, TransitionRow, body_of, insert_events,
};
pub(crate) use subagent::{SubagentRow, insert_subagents, update_subagents};
pub(crate) use value::{At, JsonText, State, shown};

use crate::error::unreadable;

/// What was read of a row; one that cannot be read is passed over, so that it hides no other.
pub(crate) fn readable<T>(table: &str, id: Uuid, read: QueryResult<T>) -> Option<T> {
    let warn =
        |error: &_| tracing::warn!(table, %id, %error, "a row cannot be read: it is not found");
    read.inspect_err(warn).ok()
}

/// Reads a digest.
pub(crate) fn digest(column: &str, bytes: &[u8]) -> QueryResult<Digest> {
    let bytes = bytes.try_into().map_err(|_| unreadable(column, "a digest has 32 bytes"))?;
    Ok(Digest::from_bytes(bytes))
}

/// Reads what has a text form.
pub(crate) fn parse<T>(column: &str, text: &str) -> QueryResult<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.parse().map_err(|error: T::Err| unreadable(column, error))
}

/// Reads JSON.
pub(crate) fn json<T: DeserializeOwned>(column: &str, text: JsonText<'static>) -> QueryResult<T> {
    serde_json::from_str(&text.unwrapped()).map_err(|error| unreadable(column, error))
}

/// Reads one of an enumeration's words.
fn word<T: DeserializeOwned>(column: &str, text: &str) -> QueryResult<T> {
    let text: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    T::deserialize(text).map_err(|error| unreadable(column, error))
}
