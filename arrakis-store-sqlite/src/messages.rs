//! Messages and their blocks: the small ones stand in their rows, the blocks of others in `message_blocks`.

use std::collections::HashMap;

use arrakis_core::base::limits::SEARCHED_TEXT_MAX_BYTES;
use arrakis_core::record::store::adapter::{
    BlockKind, MessageWrite, NeededBlocks, StoredBlock, StoredMessage,
};
use arrakis_core::session::conversation::{BlockKey, Message};
use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;

use crate::row::{BlockRow, MessageRow, block_key, block_place, readable};
use crate::schema::{message_blocks, message_rows};

/// A message's conversation id and its own.
type Place<'a> = (&'a str, &'a str);

/// The messages of a conversation, whole and in no order.
pub(crate) fn of_conversation(
    conn: &mut SqliteConnection,
    conversation_id: &str,
) -> QueryResult<Vec<Message>> {
    let rows: Vec<MessageRow<'_>> = message_rows::table
        .filter(message_rows::conversation_id.eq(conversation_id))
        .select(MessageRow::as_select())
        .load(conn)?;
    let stored = rows.into_iter().map(MessageRow::into_stored).collect::<QueryResult<Vec<_>>>()?;
    let mut blocks: HashMap<String, Vec<StoredBlock>> = HashMap::new();
    if stored.iter().any(|one| one.rows.is_some()) {
        let rows: Vec<BlockRow<'_>> = message_blocks::table
            .filter(message_blocks::conversation_id.eq(conversation_id))
            .select(BlockRow::as_select())
            .load(conn)?;
        for row in rows {
            let message = row.message_id.clone().into_owned();
            blocks.entry(message).or_default().push(row.into_stored()?);
        }
    }
    let whole = |one: StoredMessage| {
        let blocks = blocks.remove(&one.value.id.to_string());
        one.whole(blocks.unwrap_or_default())
    };
    Ok(stored.into_iter().filter_map(whole).collect())
}

/// A message with what is searched of it, and its workspace. Nothing where it is not there or cannot be read.
pub(crate) fn searched(
    conn: &mut SqliteConnection,
    place: Place<'_>,
) -> QueryResult<Option<(String, Message)>> {
    let found = message_rows::table
        .find(place)
        .select((message_rows::workspace, MessageRow::as_select()))
        .get_result::<(String, MessageRow<'static>)>(conn)
        .optional()?;
    let Some((workspace, row)) = found else { return Ok(None) };
    let Some(stored) = readable("messages", place.1, row.into_stored()) else { return Ok(None) };
    let rows = if stored.rows.is_some() { searched_blocks(conn, place)? } else { Vec::new() };
    let blocks: QueryResult<_> = rows.into_iter().map(BlockRow::into_stored).collect();
    let message = readable("messages", place.1, blocks).and_then(|blocks| stored.whole(blocks));
    Ok(message.map(|message| (workspace, message)))
}

/// The first texts of a message and its first thinking, as far as they are searched, and the last text, which may be
/// what an event says too.
fn searched_blocks(
    conn: &mut SqliteConnection,
    place: Place<'_>,
) -> QueryResult<Vec<BlockRow<'static>>> {
    use message_blocks::{at, block_index, line, n};
    let mut rows = Vec::new();
    for kind in [BlockKind::Words, BlockKind::Text, BlockKind::Thinking] {
        let mut left = SEARCHED_TEXT_MAX_BYTES;
        let in_order = of_kind(place, kind).order((at, block_index, line, n));
        let in_order = in_order.select(BlockRow::as_select());
        for row in in_order.load_iter::<BlockRow<'static>, DefaultLoadingMode>(conn)? {
            let row = row?;
            left = left.saturating_sub(row.value.as_ref().map_or(0, |value| value.len()));
            rows.push(row);
            if left == 0 {
                break;
            }
        }
    }
    let last = of_kind(place, BlockKind::Text)
        .order((at.desc(), block_index.desc(), line.desc(), n.desc()))
        .select(BlockRow::as_select());
    rows.extend(last.first(conn).optional()?);
    Ok(rows)
}

/// The blocks of a message that are of one kind.
fn of_kind<'a>(place: Place<'a>, kind: BlockKind) -> message_blocks::BoxedQuery<'a, Sqlite> {
    message_blocks::table
        .filter(message_blocks::conversation_id.eq(place.0))
        .filter(message_blocks::message_id.eq(place.1))
        .filter(message_blocks::kind.eq(kind.as_str()))
        .into_boxed()
}

/// The row of a message, if it is there.
pub(crate) fn load(
    conn: &mut SqliteConnection,
    place: Place<'_>,
) -> QueryResult<Option<StoredMessage>> {
    message_rows::table
        .find(place)
        .select(MessageRow::as_select())
        .get_result(conn)
        .optional()?
        .map(MessageRow::into_stored)
        .transpose()
}

/// The blocks that are needed to merge something into a message: those with the keys, and the last keys.
pub(crate) fn load_needed(
    conn: &mut SqliteConnection,
    place: Place<'_>,
    needed: &NeededBlocks,
) -> QueryResult<(Vec<StoredBlock>, Vec<BlockKey>)> {
    let mut found = Vec::new();
    for key in &needed.keys {
        let row = message_blocks::table.find(place_of(place, key)).select(BlockRow::as_select());
        let row = row.get_result::<BlockRow<'static>>(conn).optional()?;
        found.extend(row.map(BlockRow::into_stored).transpose()?);
    }
    let mut last = Vec::new();
    if needed.last > 0 {
        use message_blocks::{at, block_index, line, n};
        let rows = message_blocks::table
            .filter(message_blocks::conversation_id.eq(place.0))
            .filter(message_blocks::message_id.eq(place.1))
            .order((at.desc(), block_index.desc(), line.desc(), n.desc()))
            .select((at, block_index, line, n))
            .limit(i64::try_from(needed.last).unwrap_or(i64::MAX))
            .load::<(String, i64, String, i64)>(conn)?;
        last = rows.iter().map(block_key).collect::<QueryResult<_>>()?;
    }
    Ok((found, last))
}

/// Writes what a message has become.
pub(crate) fn write(
    conn: &mut SqliteConnection,
    workspace: &str,
    write: &MessageWrite<'_>,
) -> QueryResult<()> {
    let row = MessageRow::new(write, workspace)?;
    diesel::replace_into(message_rows::table).values(&row).execute(conn)?;
    let place: Place<'_> = (&row.conversation_id, &row.id);
    for key in &write.delete {
        diesel::delete(message_blocks::table.find(place_of(place, key))).execute(conn)?;
    }
    for block in &write.put {
        let row = BlockRow::new(place, block);
        diesel::replace_into(message_blocks::table).values(&row).execute(conn)?;
    }
    Ok(())
}

/// The key of a row of `message_blocks`.
fn place_of<'a>(
    place: Place<'a>,
    key: &'a BlockKey,
) -> (&'a str, &'a str, String, i64, &'a str, i64) {
    let (at, block_index, line, n) = block_place(key);
    (place.0, place.1, at, block_index, line, n)
}
