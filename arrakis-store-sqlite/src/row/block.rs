//! Rows of `message_blocks`.

use std::borrow::Cow;

use arrakis_core::record::store::adapter::StoredBlock;
use arrakis_core::session::conversation::BlockKey;
use diesel::prelude::*;
use diesel::result::QueryResult;

use super::{parse, time, word};
use crate::error::unreadable;
use crate::schema::message_blocks;

/// A row of `message_blocks`.
#[derive(Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = message_blocks, treat_none_as_default_value = false)]
pub(crate) struct BlockRow<'a> {
    conversation_id: Cow<'a, str>,
    pub(crate) message_id: Cow<'a, str>,
    at: String,
    block_index: i64,
    line: Cow<'a, str>,
    n: i64,
    kind: Cow<'a, str>,
    pub(crate) value: Option<Cow<'a, str>>,
}

impl<'a> BlockRow<'a> {
    /// The row of a block of the message at this place: its conversation's id and its own.
    pub(crate) fn new(place: (&'a str, &'a str), block: &'a StoredBlock) -> Self {
        let (at, block_index, line, n) = block_place(&block.key);
        Self {
            conversation_id: place.0.into(),
            message_id: place.1.into(),
            at,
            block_index,
            line: line.into(),
            n,
            kind: block.kind.as_str().into(),
            value: block.value.as_deref().map(Cow::Borrowed),
        }
    }

    /// The block that was written.
    pub(crate) fn into_stored(self) -> QueryResult<StoredBlock> {
        let key = block_key(&(self.at, self.block_index, self.line.into_owned(), self.n))?;
        let value = self.value.map(Cow::into_owned);
        Ok(StoredBlock { key, kind: word("kind", &self.kind)?, value })
    }
}

/// The key that these columns hold.
pub(crate) fn block_key(
    (at, block_index, line, n): &(String, i64, String, i64),
) -> QueryResult<BlockKey> {
    let number = |column, n: i64| {
        u32::try_from(n).map_err(|_| unreadable(column, "this is no number of a block"))
    };
    Ok(BlockKey {
        at: time("at", at)?,
        index: number("block_index", *block_index)?,
        line: parse("line", line)?,
        n: number("n", *n)?,
    })
}

/// A key as the columns `at`, `block_index`, `line` and `n` hold it.
pub(crate) fn block_place(key: &BlockKey) -> (String, i64, &str, i64) {
    (key.at.to_string(), key.index.into(), key.line.as_str(), key.n.into())
}
