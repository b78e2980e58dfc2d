//! Rows, and what they mean: each type knows how its value is written to columns and read back.

mod block;
mod conversation;
mod event;
mod subagent;

use std::str::FromStr;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::digest::Digest;
use diesel::result::QueryResult;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer};
use uuid::Uuid;

pub(crate) use block::{BlockRow, block_key, block_place};
pub(crate) use conversation::{ConversationRow, Kept, MessageRow, ToolUseRow};
pub(crate) use event::{ArrivalRow, DetailRow, Now, Prepared, SummaryRow, TransitionRow, body_of};
pub(crate) use subagent::SubagentRow;

use crate::error::unreadable;

/// What was read of a row; one that cannot be read is passed over, so that it hides no other.
pub(crate) fn readable<T>(table: &str, id: &str, read: QueryResult<T>) -> Option<T> {
    let warn =
        |error: &_| tracing::warn!(table, id, %error, "a row cannot be read: it is not found");
    read.inspect_err(warn).ok()
}

/// Reads a moment.
pub(crate) fn time(column: &str, text: &str) -> QueryResult<Timestamp> {
    parse(column, text)
}

/// Reads a moment that may be absent.
pub(crate) fn maybe_time(column: &str, text: Option<&str>) -> QueryResult<Option<Timestamp>> {
    text.map(|text| time(column, text)).transpose()
}

/// Reads an id.
pub(crate) fn uuid(column: &str, text: &str) -> QueryResult<Uuid> {
    parse(column, text)
}

/// Reads an id that may be absent.
pub(crate) fn maybe_uuid(column: &str, text: Option<&str>) -> QueryResult<Option<Uuid>> {
    text.map(|text| uuid(column, text)).transpose()
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
pub(crate) fn json<T: DeserializeOwned>(column: &str, text: &str) -> QueryResult<T> {
    serde_json::from_str(text).map_err(|error| unreadable(column, error))
}

/// Reads one of an enumeration's words.
fn word<T: DeserializeOwned>(column: &str, text: &str) -> QueryResult<T> {
    let text: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    T::deserialize(text).map_err(|error| unreadable(column, error))
}

/// Writes JSON.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> QueryResult<String> {
    serde_json::to_string(value)
        .map_err(|error| diesel::result::Error::SerializationError(error.into()))
}
