//! Messages and their blocks: the small ones stand in their rows, the blocks of others in `message_blocks`.

use std::collections::HashMap;

use arrakis_core::base::limits::SEARCHED_TEXT_MAX_BYTES;
use arrakis_core::record::store::adapter::{
    MessageWrite, NeededBlocks, StoredBlock, StoredMessage,
};
use arrakis_core::session::conversation::{BlockKey, Message};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Integer, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::row::{
    BlockColumns, BlockPlace, BlockRow, MessageRow, block_key, delete_blocks, find_blocks,
    put_blocks, update_messages,
};
use crate::schema::message_rows;
use crate::statement::Statement;

/// The rows of a message.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) row: MessageRow,
    blocks: Vec<BlockRow>,
}

impl Found {
    /// The message that was written, with those of its blocks that were read; nothing where it is being deleted.
    pub(crate) fn into_value(self) -> QueryResult<Option<Message>> {
        let stored = self.row.into_stored()?;
        let blocks = self.blocks.into_iter().map(BlockRow::into_stored);
        Ok(stored.whole(blocks.collect::<QueryResult<_>>()?))
    }

    /// Puts blocks to their messages.
    fn all(rows: Vec<MessageRow>, blocks: Vec<BlockRow>) -> Vec<Self> {
        let mut of: HashMap<Uuid, Vec<BlockRow>> = HashMap::new();
        for block in blocks {
            of.entry(block.message_id).or_default().push(block);
        }
        let found = |row: MessageRow| {
            let blocks = of.remove(&row.id).unwrap_or_default();
            Self { row, blocks }
        };
        rows.into_iter().map(found).collect()
    }
}

/// The messages of a conversation, whole and in no order.
pub(crate) async fn of_conversation(
    conn: &mut AsyncPgConnection,
    conversation_id: Uuid,
) -> QueryResult<Vec<Message>> {
    const SQL: &str = "SELECT message_id, at, block_index, line, n, kind, value, raw_value \
        FROM message_blocks WHERE message_id = ANY(?)";
    let rows: Vec<MessageRow> = message_rows::table
        .filter(message_rows::conversation_id.eq(conversation_id))
        .select(MessageRow::as_select())
        .load(conn)
        .await?;
    let ids = with_blocks(&rows);
    let mut blocks: Vec<BlockRow> = Vec::new();
    if !ids.is_empty() {
        blocks = Statement::<BlockColumns>::new(SQL)
            .bind::<Array<diesel::sql_types::Uuid>>(ids)
            .load(conn)
            .await?;
    }
    let found = Found::all(rows, blocks).into_iter();
    found.filter_map(|one| one.into_value().transpose()).collect()
}

/// These messages, each with what is searched of it: its first texts and its first thinking, and its last text, which
/// may be what an event says too.
pub(crate) async fn searched(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
) -> QueryResult<Vec<Found>> {
    const SQL: &str = "SELECT b.message_id, b.at, b.block_index, b.line, b.n, b.kind, \
        left(b.value, m.bytes), b.raw_value FROM (SELECT ?::integer AS bytes) AS m, (\
            SELECT message_id, at, block_index, line, n, kind, \
            sum(octet_length(value)) OVER w - octet_length(value) AS before, \
            lead(n) OVER w IS NULL AS is_last \
            FROM message_blocks WHERE message_id = ANY(?) AND kind IN ('words', 'text', 'thinking') \
            WINDOW w AS (PARTITION BY message_id, kind ORDER BY at, block_index, line, n)\
        ) AS s JOIN message_blocks AS b USING (message_id, at, block_index, line, n) \
        WHERE s.before < m.bytes OR (s.is_last AND s.kind = 'text') ORDER BY 1, 2, 3, 4, 5";
    let rows: Vec<MessageRow> = message_rows::table
        .filter(message_rows::id.eq_any(ids))
        .select(MessageRow::as_select())
        .load(conn)
        .await?;
    let ids = with_blocks(&rows);
    let mut blocks: Vec<BlockRow> = Vec::new();
    if !ids.is_empty() {
        blocks = Statement::<BlockColumns>::new(SQL)
            .bind::<Integer>(i32::try_from(SEARCHED_TEXT_MAX_BYTES).unwrap_or(i32::MAX))
            .bind::<Array<diesel::sql_types::Uuid>>(ids)
            .load(conn)
            .await?;
    }
    Ok(Found::all(rows, blocks))
}

/// Those of these messages whose blocks are rows.
fn with_blocks(rows: &[MessageRow]) -> Vec<Uuid> {
    rows.iter().filter(|row| row.has_block_rows()).map(|row| row.id).collect()
}

/// Locks and reads the rows of messages.
pub(crate) async fn lock(
    conn: &AsyncPgConnection,
    ids: Vec<Uuid>,
) -> QueryResult<Vec<StoredMessage>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<MessageRow> = message_rows::table
        .filter(message_rows::id.eq_any(ids))
        .order(message_rows::id.asc())
        .for_update()
        .select(MessageRow::as_select())
        .load(&mut &*conn)
        .await?;
    rows.into_iter().map(MessageRow::into_stored).collect()
}

/// The blocks that are needed to merge something into messages: those with the keys, and the last keys.
pub(crate) async fn load_needed(
    conn: &AsyncPgConnection,
    needed: &[(Uuid, NeededBlocks)],
) -> QueryResult<(HashMap<Uuid, Vec<StoredBlock>>, HashMap<Uuid, Vec<BlockKey>>)> {
    const LAST: &str = "SELECT v.id, b.at, b.block_index, b.line, b.n \
        FROM unnest(?, ?) AS v (id, wanted) CROSS JOIN LATERAL (\
            SELECT at, block_index, line, n FROM message_blocks WHERE message_id = v.id \
            ORDER BY at DESC, block_index DESC, line DESC, n DESC LIMIT v.wanted) AS b";
    type Place = (diesel::sql_types::Uuid, Timestamptz, BigInt, Text, BigInt);
    let (mut found, mut last) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
    let keys = needed.iter().flat_map(|(id, one)| one.keys.iter().map(|key| (*id, key)));
    let keys: Vec<_> = keys.collect();
    if !keys.is_empty() {
        let rows: Vec<BlockRow> = find_blocks(&keys).load(&mut &*conn).await?;
        for row in rows {
            found.entry(row.message_id).or_default().push(row.into_stored()?);
        }
    }
    let ends: Vec<_> = needed.iter().filter(|(_, one)| one.last > 0).collect();
    if !ends.is_empty() {
        let wanted = |one: &NeededBlocks| i64::try_from(one.last).unwrap_or(i64::MAX);
        let rows: Vec<BlockPlace> = Statement::<Place>::new(LAST)
            .bind::<Array<diesel::sql_types::Uuid>>(
                ends.iter().map(|one| one.0).collect::<Vec<_>>(),
            )
            .bind::<Array<BigInt>>(ends.iter().map(|one| wanted(&one.1)).collect::<Vec<_>>())
            .load(&mut &*conn)
            .await?;
        for row in rows {
            last.entry(row.0).or_default().push(block_key(&row)?);
        }
    }
    Ok((found, last))
}

/// Writes what messages that are there have become.
pub(crate) async fn update(
    conn: &AsyncPgConnection,
    writes: &[(&str, MessageWrite<'_>)],
) -> QueryResult<()> {
    if !writes.is_empty() {
        let all: Vec<_> = writes.iter().map(|(workspace, one)| (*workspace, one)).collect();
        update_messages(&all)?.execute(&mut &*conn).await?;
    }
    let deleted: Vec<_> = writes
        .iter()
        .flat_map(|(_, one)| one.delete.iter().map(|key| (one.message.id, key)))
        .collect();
    if !deleted.is_empty() {
        delete_blocks(&deleted).execute(&mut &*conn).await?;
    }
    Ok(())
}

/// Writes the rows of the blocks of messages.
pub(crate) async fn put<'a>(
    conn: &AsyncPgConnection,
    writes: impl Iterator<Item = &'a MessageWrite<'a>>,
) -> QueryResult<()> {
    let blocks = writes.flat_map(|one| one.put.iter().map(|block| (one.message.id, block)));
    let blocks: Vec<_> = blocks.collect();
    if !blocks.is_empty() {
        put_blocks(&blocks).execute(&mut &*conn).await?;
    }
    Ok(())
}
