//! Rows of `message_blocks`.

use arrakis_core::record::store::adapter::StoredBlock;
use arrakis_core::session::conversation::BlockKey;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Binary, Nullable, Text, Timestamptz};
use uuid::Uuid;

use super::value::{At, hidden, shown};
use super::{parse, word};
use crate::error::unreadable;
use crate::statement::Statement;

/// A row of `message_blocks`.
#[derive(Debug, Queryable)]
pub(crate) struct BlockRow {
    pub(crate) message_id: Uuid,
    at: At,
    block_index: i64,
    line: String,
    n: i64,
    kind: String,
    value: Option<String>,
    raw_value: Option<Vec<u8>>,
}

/// The types of the columns of [`BlockRow`].
pub(crate) type BlockColumns = (
    diesel::sql_types::Uuid,
    Timestamptz,
    BigInt,
    Text,
    BigInt,
    Text,
    Nullable<Text>,
    Nullable<Binary>,
);

/// The columns of a key: a message's id, `at`, `block_index`, `line` and `n`.
pub(crate) type BlockPlace = (Uuid, At, i64, String, i64);

impl BlockRow {
    /// The block that was written.
    pub(crate) fn into_stored(self) -> QueryResult<StoredBlock> {
        let key = block_key(&(self.message_id, self.at, self.block_index, self.line, self.n))?;
        let value = match self.raw_value {
            None => self.value,
            Some(raw) => {
                Some(String::from_utf8(raw).map_err(|error| unreadable("raw_value", error))?)
            }
        };
        Ok(StoredBlock { key, kind: word("kind", &self.kind)?, value })
    }
}

/// The key that these columns hold.
pub(crate) fn block_key((_, at, block_index, line, n): &BlockPlace) -> QueryResult<BlockKey> {
    let number = |column, n: i64| {
        u32::try_from(n).map_err(|_| unreadable(column, "this is no number of a block"))
    };
    Ok(BlockKey {
        at: at.0,
        index: number("block_index", *block_index)?,
        line: parse("line", line)?,
        n: number("n", *n)?,
    })
}

/// Writes blocks, each of its message, in the place of those with their keys.
pub(crate) fn put_blocks<'a>(values: &[(Uuid, &'a StoredBlock)]) -> Statement<'a> {
    const SQL: &str = "INSERT INTO message_blocks (message_id, at, block_index, line, n, kind, value, \
        raw_value) SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?) ORDER BY 1, 2, 3, 4, 5 \
        ON CONFLICT (message_id, at, block_index, line, n) DO UPDATE \
        SET kind = excluded.kind, value = excluded.value, raw_value = excluded.raw_value";
    let all = || values.iter().map(|(_, block)| *block);
    let keys: Vec<_> = values.iter().map(|(id, block)| (*id, &block.key)).collect();
    let value = |one: &'a StoredBlock| one.value.as_deref();
    let raw = |one: &'a StoredBlock| hidden(value(one)?).map(|text| text.into_owned().into_bytes());
    block_places(Statement::new(SQL), &keys)
        .bind::<Array<Text>>(all().map(|one| one.kind.as_str()).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>>(all().map(|one| value(one).map(shown)).collect::<Vec<_>>())
        .bind::<Array<Nullable<Binary>>>(all().map(raw).collect::<Vec<_>>())
}

/// Deletes blocks, each of its message.
pub(crate) fn delete_blocks<'a>(values: &[(Uuid, &'a BlockKey)]) -> Statement<'a> {
    const SQL: &str = "DELETE FROM message_blocks AS b \
        USING unnest(?, ?, ?, ?, ?) AS v (message_id, at, block_index, line, n) \
        WHERE b.message_id = v.message_id AND b.at = v.at AND b.block_index = v.block_index \
        AND b.line = v.line AND b.n = v.n";
    block_places(Statement::new(SQL), values)
}

/// Reads those of these blocks that are there, each of its message.
pub(crate) fn find_blocks<'a>(values: &[(Uuid, &'a BlockKey)]) -> Statement<'a, BlockColumns> {
    // One look by the key for each, whatever the planner believes of the table.
    const SQL: &str = "SELECT b.* FROM unnest(?, ?, ?, ?, ?) AS v (message_id, at, block_index, line, n) \
        CROSS JOIN LATERAL (SELECT b.message_id, b.at, b.block_index, b.line, b.n, b.kind, b.value, \
        b.raw_value FROM message_blocks AS b WHERE b.message_id = v.message_id AND b.at = v.at \
        AND b.block_index = v.block_index AND b.line = v.line AND b.n = v.n LIMIT 1) AS b";
    block_places(Statement::new(SQL), values)
}

fn block_places<'a, ST>(
    statement: Statement<'a, ST>,
    values: &[(Uuid, &'a BlockKey)],
) -> Statement<'a, ST> {
    let all = || values.iter().map(|(_, key)| *key);
    statement
        .bind::<Array<diesel::sql_types::Uuid>>(
            values.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        )
        .bind::<Array<Timestamptz>>(all().map(|key| At(key.at)).collect::<Vec<_>>())
        .bind::<Array<BigInt>>(all().map(|key| i64::from(key.index)).collect::<Vec<_>>())
        .bind::<Array<Text>>(all().map(|key| key.line.as_str()).collect::<Vec<_>>())
        .bind::<Array<BigInt>>(all().map(|key| i64::from(key.n)).collect::<Vec<_>>())
}
